"""Documents and a fleet in files, and a way to ask a command about them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.analysis.village import FLEET, POLICY

from cellwall.cli.exits import Stop


def write(folder: Path, text: str = POLICY, name: str = "a") -> dict[str, Any]:
    """Write documents and the fleet; gives the options that name them."""
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "p.yaml").write_text(text, "utf-8")
    items = [
        {
            "name": one.name,
            "labels": dict(one.labels),
            "addresses": [str(address) for address in one.addresses],
            "agent": one.agent,
        }
        for one in FLEET.workloads
    ]
    (folder / "fleet.json").write_text(json.dumps({"items": items}), "utf-8")
    return {"policy": [folder / name], "fleet": folder / "fleet.json"}


def ask(
    capsys: pytest.CaptureFixture[str], command: Callable[..., None], *arguments: Any, **options: Any
) -> tuple[int, str]:
    """Run a command; gives its exit code and what it printed."""
    code = 0
    try:
        # As wide as paths in a folder of tests are.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", "300")
            command(*arguments, **options)
    except Stop as stop:
        code = int(stop.code)
        if str(stop):
            return code, str(stop)
    return code, capsys.readouterr().out
