"""An agent loads what it uses, and gives back what only its start needed."""

from __future__ import annotations

import subprocess
import sys

from cellwall.agent.lean import give_back, put_off

NEVER = ("numpy", "yaml", "typer", "rich", "sqlalchemy", "fastapi", "chdb")
SELDOM = (
    "cryptography",
    "email",
    "http.client",
    "zipfile",
    "encodings.idna",
    "cellwall.policy.parse",
    "cellwall.compile.compiler",
    "cellwall.clients.api",
)


def run(program: str) -> str:
    """Run a program in a Python of its own."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_an_agent_that_starts_loads_nothing_that_it_seldom_needs() -> None:
    told = run(
        "import sys; import cellwall.cli.host; from cellwall.agent import put_off; put_off()\n"
        "import cellwall.agent.loop\n"
        "from cellwall.wire.ed25519 import signed_by; signed_by(bytes(32), bytes(64), b'')\n"
        "print(*(name for name, one in sys.modules.items() if type(one).__name__ != '_Later'))"
    )
    assert not set(told.split()) & {*NEVER, *SELDOM}


def test_what_was_put_off_is_loaded_when_it_is_used() -> None:
    told = run(
        "import sys; from cellwall.agent import put_off; put_off(('wave', 'urllib.robotparser'))\n"
        "import wave; import urllib.robotparser\n"
        "print(type(wave).__name__, wave.open.__name__, type(sys.modules['wave']).__name__)\n"
        "print(urllib.robotparser.RobotFileParser.__name__, hasattr(wave, 'nonsense'))\n"
    )
    assert told.split() == ["_Later", "open", "module", "RobotFileParser", "False"]


def test_what_is_loaded_already_stays() -> None:
    put_off(("sys",))
    assert sys.version


def test_giving_back_pages_loses_nothing() -> None:
    assert give_back() > 1 << 20
    assert sorted([3, 1, 2]) == [1, 2, 3] and sum(range(1000)) == 499_500
