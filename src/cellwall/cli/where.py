"""Which controller a command speaks to, and as whom."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.output import missing
from cellwall.clients import Api, Server

SYSTEM_SOCKET = Path("/run/cellwall/controller.sock")
Socket = Annotated[
    Path | None,
    typer.Option(
        "--socket",
        envvar="CELLWALL_SOCKET",
        metavar="PATH",
        help="the controller's socket; by default where `cellwall login` signed in, the only running lab's, or this "
        "machine's",
    ),
]


def controller(socket: Path | None) -> Api:
    """Give the controller at `socket`, else the one of `CELLWALL_SERVER` or `cellwall login`, else one found here."""
    if socket is not None:
        return Api(socket, told=missing)
    server = named_server() or signed_in()
    return Api(server if server is not None else _found(), told=missing)


def named_server() -> Server | None:
    """Give the server that the environment names, for programs: `CELLWALL_SERVER`, `_TOKEN` and `_AUTHORITY`."""
    url = os.environ.get("CELLWALL_SERVER")
    if not url:
        return None
    file = os.environ.get("CELLWALL_AUTHORITY")
    authority = Path(file).read_text("utf-8") if file else ""
    return Server(url, os.environ.get("CELLWALL_TOKEN", ""), authority)


def sessions_file() -> Path:
    """Where sessions are kept between commands: a file for its owner alone."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "cellwall" / "session.json"


def signed_in() -> Server | None:
    """Give the server that `cellwall login` signed in to; None where nobody is signed in."""
    try:
        kept = json.loads(sessions_file().read_text("utf-8"))
        return Server(kept["url"], kept["secret"], kept["authority"])
    except (OSError, RuntimeError):
        return None
    except (ValueError, KeyError, TypeError):
        raise Stop(Exit.UNABLE, f"`{sessions_file()}` cannot be read; sign in again with `cellwall login`") from None


def keep_session(server: Server, name: str) -> None:
    """Keep a session for the commands to come. The file is whole or as it was, and for its owner alone."""
    file = sessions_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = file.with_suffix(f".{os.getpid()}")
    kept = {"url": server.url, "name": name, "secret": server.secret, "authority": server.authority}
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        json.dump(kept, out)
    beside.replace(file)


def known_authority(url: str) -> str:
    """Give the CA that was trusted for a server before; empty where there is none."""
    try:
        return str(json.loads(_pins().read_text("utf-8")).get(url, ""))
    except (OSError, ValueError):
        return ""


def keep_authority(url: str, pem: str) -> None:
    """Keep which CA is trusted for a server, from its first use on."""
    try:
        pins = json.loads(_pins().read_text("utf-8"))
    except (OSError, ValueError):
        pins = {}
    _pins().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = _pins().with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({**pins, url: pem}), "utf-8")
    beside.replace(_pins())


def _pins() -> Path:
    return sessions_file().with_name("authorities.json")


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
