"""The tree of commands, and how one of them is run."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer

from cellwall.cli.exits import Exit, Stop

ABOUT = "Microsegmentation with one exact meaning: found, mapped, proposed, replayed, enforced, explained, reverted."


FILES = {
    "map": "maps.command",
    "flows": "flows",
    "denials": "flows",
    "why": "why",
    "doctor": "doctor.command",
    "support-bundle": "support",
    "workloads": "fleet",
    "tokens": "fleet",
    "labels": "fleet",
    "classify": "fleet",
    "policy": "policies",
    "reach": "reach",
    "prove": "prove",
    "replay": "replays",
    "rollout": "rollout",
    "revert": "rollout",
    "contain": "orders",
    "quarantine": "orders",
    "open": "orders",
    "orders": "orders",
    "lift": "orders",
    "controller": "programs",
    "agent": "programs",
    "enroll": "programs",
    "people": "people",
    "audit": "audit",
    "login": "login",
    "logout": "login",
    "whoami": "login",
    "passwd": "login",
    "lab": "labs",
    "demo": "demo.command",
}
"""Which file of this room has which command; only what is asked for is loaded."""


def build(command: str = "") -> typer.Typer:
    """Put the commands together: those of the file that has `command`, or all where there is no such command."""
    app = typer.Typer(
        name="cellwall",
        help=ABOUT,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_top)
    for file in [FILES[command]] if command in FILES else dict.fromkeys(FILES.values()):
        import_module(f"cellwall.cli.{file}").add(app)
    return app


def _top(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", help="print the version and end"),
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"cellwall {installed('cellwall')}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        raise Stop(Exit.USAGE, "which command? try `cellwall --help`")


def run(argv: list[str]) -> int:
    """Run one command and give its exit code. Raises errors of Cellwall for the caller to print."""
    try:
        ended: Any = build(argv[0] if argv else "")(args=argv, prog_name="cellwall", standalone_mode=False)
    except typer.Abort:
        raise Stop(Exit.NO, "not done") from None
    except Exception as error:
        # Typer's own errors carry their exit code and have no public name in common.
        say = getattr(error, "format_message", None)
        if say is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            return Exit.USAGE  # the help has been printed
        context = getattr(error, "ctx", None)
        path = getattr(context, "command_path", "cellwall")
        raise Stop(Exit.USAGE, f"{_plain(str(say()))}; try `{path} --help`") from None
    return ended if isinstance(ended, int) else Exit.OK


def _plain(message: str) -> str:
    message = message.strip().rstrip(".")
    return message[:1].lower() + message[1:]
