"""`cellwall doctor` on a host that has the agent's packages alone: the same findings, in plain lines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cellwall.cli.doctor.all import as_json, code_of, every_check, summary
from cellwall.cli.host import STATE


def is_needed() -> bool:
    """Say whether what draws tables is not installed."""
    return find_spec("typer") is None or find_spec("rich") is None


def run(argv: Sequence[str]) -> int:
    """Run the command; `argv` is what follows `doctor`."""
    about = "Check this host; exit code 6 when it cannot enforce, 1 when it should not yet."
    parser = argparse.ArgumentParser(prog="cellwall doctor", description=about)
    parser.add_argument("--state", type=Path, default=STATE, metavar="DIR")
    parser.add_argument("--controller", default="", metavar="URL")
    parser.add_argument("--token-file", type=Path, metavar="FILE")
    parser.add_argument("--output", "-o", choices=("table", "json"), default="table")
    try:
        given = parser.parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)
    checks = every_check(given.state, given.controller, given.token_file)
    if given.output == "json":
        print(json.dumps(as_json(checks), indent=2, ensure_ascii=False))
    else:
        for check in checks:
            print(f"{check.state:5} {check.name}: {check.says}" + (f"\n      → {check.advice}" if check.advice else ""))
        print(summary(checks))
    return code_of(checks)
