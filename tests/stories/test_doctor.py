"""The doctor looks at real hosts: each is a namespace that ends with the look."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

LOOK = (
    "import subprocess, sys\n"
    "from cellwall.cli import main\n"
    "if sys.argv[1]:\n"
    "    subprocess.run(['nft', '-f', '-'], input=sys.argv[1], text=True, check=True)\n"
    "sys.exit(main(['doctor', '-o', 'json', '--state', '/nonexistent/agent']))\n"
)
FOREIGN = """table ip foreign {
chain input {
type filter hook input priority 0; policy drop;
}
}
"""


def look(ruleset: str = "", *before: str) -> tuple[int, dict[str, Any]]:
    command = ["unshare", "--net", "--", *before, sys.executable, "-c", LOOK, ruleset]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ran.stderr and ran.stdout, ran.stderr
    answer = json.loads(ran.stdout)
    return ran.returncode, {**answer, **{one["name"]: one for one in answer["items"]}}


def test_a_host_with_root_and_nftables_can_enforce() -> None:
    code, found = look()
    assert code == 0 and found["can_enforce"]
    assert found["features"]["state"] == "ok" and found["nft"]["state"] == "ok"
    assert found["other firewalls"]["says"] == "none"
    assert found["enrolment"]["says"].startswith("not enrolled yet")


def test_a_firewall_of_others_that_drops_is_named() -> None:
    code, found = look(FOREIGN)
    assert code == 0 and found["other firewalls"]["state"] == "warn"
    assert "table ip foreign" in found["other firewalls"]["says"]


def test_without_rights_nothing_can_be_enforced() -> None:
    code, found = look("", "setpriv", "--reuid", "65534", "--clear-groups", "--")
    assert code == 6 and not found["can_enforce"]
    assert found["rights"]["blocks"] and found["rights"]["advice"]


def test_looking_leaves_no_rule_behind() -> None:
    program = (
        "import subprocess; from cellwall.cli import main; main(['doctor', '-o', 'json'])\n"
        "print('left:' + subprocess.run(['nft', 'list', 'ruleset'], capture_output=True, text=True).stdout)\n"
    )
    ran = subprocess.run(
        ["unshare", "--net", "--", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout.rstrip().endswith("left:"), ran.stdout[-300:]
