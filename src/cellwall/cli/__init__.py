"""The command line: it asks the controller, works on files alone, and starts the programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; see `cellwall.cli.exits` for what the codes mean.

    `agent run` and `enroll` are looked at first: a host has no more installed than they need."""
    from cellwall.cli import exits, host

    given = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    return exits.guarded(lambda: host.run(given) if host.concerns(given) else _people(given))


def _people(argv: list[str]) -> int:
    from cellwall.cli import exits

    if argv[:1] == ["doctor"]:
        from cellwall.cli.doctor import plain

        if plain.is_needed():
            return plain.run(argv[1:])
    try:
        from cellwall.cli.app import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "cellwall":
            raise
        raise exits.Stop(
            exits.Exit.UNABLE,
            f"this needs `{error.name}`, which is not installed; install the extra: `pip install 'cellwall[cli]'`",
        ) from None
    return run(argv)
