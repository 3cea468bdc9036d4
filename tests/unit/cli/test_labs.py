from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cellwall.cli.labs import draw_states
from cellwall.lab import LabState, WorkloadState
from cellwall.traffic import parse_address


@pytest.mark.parametrize(
    ("network", "controller", "socket", "missing"),
    [
        (True, True, Path("s"), set[str]()),
        (True, False, None, set[str]()),
        (True, False, Path("s"), {"controller"}),
        (False, True, Path("s"), {"network"}),
    ],
)
def test_whatever_makes_a_lab_incomplete_is_named(
    network: bool, controller: bool, socket: Path | None, missing: set[str]
) -> None:
    web = WorkloadState("web", "cw-x-web", (parse_address("10.0.0.1"),), network, True, ("nginx.service",), ())
    state = LabState("x", Path("x"), (web,), controller, socket, None, None)
    console = Console(width=120, color_system=None, record=True, file=StringIO())
    console.print(draw_states([state]))
    text = console.export_text()
    assert {word for word in ("controller", "network") if word in text} == missing
    assert state.complete == (not missing)
