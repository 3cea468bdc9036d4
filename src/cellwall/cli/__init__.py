"""The command line: it asks the controller, works on files alone, and starts the programs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from io import TextIOWrapper

__all__ = ["collect_seldom", "main"]

_NEW_OBJECTS, _ROUNDS = 50_000, 20
"""After how many new objects the collector of cycles looks at the youngest, and after how many such looks at others."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; see `cellwall.cli.exits` for what the codes mean.

    `agent run` and `enroll` are looked at first: a host has no more installed than they need."""
    from cellwall.cli import exits, host

    given = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    return exits.guarded(lambda: host.run(given) if host.concerns(given) else _people(given))


def collect_seldom() -> None:
    """Have Python look for cycles seldom, in this process.

    Policies and fleets are millions of small values without cycles. At Python's own thresholds, to look at them again
    and again takes up to 40 % of the time of compiling and comparing; what is freed by counting references is freed
    at once either way."""
    gc.set_threshold(_NEW_OBJECTS, _ROUNDS, _ROUNDS)


def _people(argv: list[str]) -> int:
    collect_seldom()

    if argv[:1] == ["doctor"]:
        from cellwall.cli.doctor import plain

        if plain.is_needed():
            return plain.run(argv[1:])
    try:
        from cellwall.cli.app import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "cellwall":
            raise
        return _agents_host(argv, error.name)
    return run(argv)


def _agents_host(argv: list[str], lacking: str) -> int:
    """Say what works on a host that has the agent alone."""
    from cellwall import __version__
    from cellwall.cli import exits

    if argv[:1] == ["--version"]:
        print(f"cellwall {__version__}")
        return exits.Exit.OK
    if not argv or argv[0] in ("-h", "--help"):
        print(_HOST_HELP, end="")
        return exits.Exit.OK if argv else exits.Exit.USAGE
    raise exits.Stop(
        exits.Exit.UNABLE,
        f"this needs `{lacking}`, which is not installed: a host with the agent alone has `cellwall agent`, `enroll` "
        "and `doctor`; the rest is in the package cellwall-controller, or in `pip install 'cellwall[cli]'`",
    )


_HOST_HELP = """usage: cellwall COMMAND …

Microsegmentation: what a host with the agent alone can do. All else is asked where the whole command line is.

commands:
  agent     run, boot, suspend, resume, remove, support-bundle: see `cellwall agent --help`
  enroll    make this host a workload of a controller
  doctor    check this host, before it is enrolled or after

options:
  -h, --help, --version
"""
