"""Which controller a command speaks to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellwall.cli.exits import Exit, Stop
from cellwall.clients import Api

SYSTEM_SOCKET = Path("/run/cellwall/controller.sock")
Socket = Annotated[
    Path | None,
    typer.Option(
        "--socket",
        envvar="CELLWALL_SOCKET",
        metavar="PATH",
        help="the controller's socket; by default the only running lab's, else this machine's",
    ),
]


def controller(socket: Path | None) -> Api:
    """Give the controller at `socket`, else that of the only running lab, else this machine's."""
    return Api(socket or _found())


def lab_sockets() -> dict[str, Path]:
    """Give the controller's socket of every running lab, by the lab's name."""
    from cellwall.lab import LabError, names, status

    found: dict[str, Path] = {}
    for name in names():
        try:
            socket = status(name).socket
        except LabError:
            continue
        if socket is not None and socket.exists():
            found[name] = socket
    return found


def _found() -> Path:
    labs = lab_sockets()
    if len(labs) == 1:
        return next(iter(labs.values()))
    if SYSTEM_SOCKET.exists():
        return SYSTEM_SOCKET
    if labs:
        known = "`, `".join(str(path) for path in labs.values())
        raise Stop(Exit.USAGE, f"several labs are up; name one controller with --socket: `{known}`")
    raise Stop(
        Exit.UNREACHABLE,
        f"no controller: no lab is up and there is no `{SYSTEM_SOCKET}`; start one, or name its socket with --socket",
    )
