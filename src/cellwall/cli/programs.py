"""The programs: the controller, and the agent's commands as they stand in the tree of commands."""

from __future__ import annotations

from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwall.cli import backup
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.flows import moment
from cellwall.cli.help import PROGRAMS, examples
from cellwall.cli.host import AGENT_EXAMPLES, ENROLL_EXAMPLES, concerns
from cellwall.cli.output import Format, Output, show, table
from cellwall.cli.where import Socket
from cellwall.cli.where import controller as connect

if TYPE_CHECKING:
    from rich.console import RenderableType

_PLAIN: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    control = typer.Typer(help="The central program.", no_args_is_help=True)
    control.command(
        "run",
        epilog=examples(
            "cellwall controller run --data /var/lib/cellwall/controller --advertise https://10.0.0.5:7443",
            "cellwall controller run --data ./data --listen 127.0.0.1:7443 --advertise https://127.0.0.1:7443",
        ),
    )(run)
    control.command("status", epilog=examples("cellwall controller status", "cellwall controller status -o json"))(
        status
    )
    backup.add(control)
    app.add_typer(control, name="controller", rich_help_panel=PROGRAMS)
    agent = typer.Typer(help="The program of a host.", no_args_is_help=True)
    agent.command("run", context_settings=_PLAIN, epilog=_epilogue(AGENT_EXAMPLES))(agent_run)
    agent.command("boot", context_settings=_PLAIN, epilog=examples("cellwall agent boot"))(agent_boot)
    agent.command(
        "remove",
        context_settings=_PLAIN,
        epilog=examples("cellwall agent remove --leave open", "cellwall agent remove --leave keep --yes"),
    )(agent_remove)
    agent.command("support-bundle", context_settings=_PLAIN, epilog=examples("cellwall agent support-bundle"))(
        agent_bundle
    )
    app.add_typer(agent, name="agent", rich_help_panel=PROGRAMS)
    app.command("enroll", rich_help_panel=PROGRAMS, context_settings=_PLAIN, epilog=_epilogue(ENROLL_EXAMPLES))(enroll)


def _epilogue(text: str) -> str:
    return examples(*(line.strip() for line in text.splitlines()[1:]))


def run(
    data: Annotated[Path, typer.Option(help="where the controller keeps what it knows", metavar="DIR")],
    advertise: Annotated[
        list[str], typer.Option(help="how agents reach it; may be given several times", metavar="URL")
    ],
    listen: Annotated[str, typer.Option(help="where it listens for agents", metavar="ADDRESS:PORT")] = "[::]:7443",
    socket: Annotated[Path | None, typer.Option(help="where people's commands reach it", metavar="PATH")] = None,
    name: Annotated[
        str, typer.Option(help="the controller's name; by default this host's where several share a database")
    ] = "",
    database: Annotated[
        str,
        typer.Option(
            envvar="CELLWALL_DATABASE",
            help="a PostgreSQL database for its state, which several may share; by default a file in --data",
            metavar="URL",
        ),
    ] = "",
    people: Annotated[
        str,
        typer.Option(help="where people and programs are served over TLS; by default nowhere", metavar="ADDRESS:PORT"),
    ] = "",
    people_cert: Annotated[
        Path | None, typer.Option(help="its certificate chain; by default one of the controller's CA", metavar="FILE")
    ] = None,
    people_key: Annotated[Path | None, typer.Option(help="the key of that certificate", metavar="FILE")] = None,
    oidc: Annotated[Path | None, typer.Option(help="the file that names an identity provider", metavar="FILE")] = None,
    log_format: Annotated[str, typer.Option(help="how the log is written: json or text", metavar="FORM")] = "json",
    log_level: Annotated[
        str, typer.Option(help="the least that is logged: debug, info, warning or error", metavar="LEVEL")
    ] = "info",
) -> None:
    """Run the controller until it is stopped."""
    try:
        from cellwall.controller import ControllerOptions, run_controller
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "cellwall":
            raise
        raise Stop(Exit.UNABLE, f"the controller needs `{error.name}`: `pip install 'cellwall[controller]'`") from None
    run_controller(
        ControllerOptions(
            data.absolute(),
            listen,
            tuple(advertise),
            socket,
            name or (gethostname() if database else "controller"),
            database=database,
            people=people,
            people_cert=people_cert,
            people_key=people_key,
            oidc=oidc,
            log_format=log_format,
            log_level=log_level,
        )
    )


def status(socket: Socket = None, output: Output = Format.TABLE) -> None:
    """Say how the controller is: version, fleet, policy in force, flows seen."""
    answer = connect(socket).get("status")
    show(answer, output, lambda: _status(answer))


def _status(answer: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from cellwall.cli.standing import told_of_tests

    agents, several = answer["agents"], len(answer["controllers"]) > 1
    rows: list[list[Any]] = [
        ["controller", answer["controller"]],
        ["reached by agents at", answer["advertise"]],
        ["its clock", moment(answer["now"])],
        ["workloads", answer["workloads"]],
        ["agents", f"{agents['connected']} of {agents['known']} connected"],
        ["revision in force", answer["revision"]],
        ["revision is", answer["revision_state"]],
        *([["nothing is sent, as", answer["held"]["why"]]] if answer["held"] else []),
        *([["controllers", [f"{one['name']} {one['state']}" for one in answer["controllers"]]]] if several else []),
        ["tests of the policy", told_of_tests(answer["tests"])],
        ["points", answer["points"]],
        ["modes", answer["modes"]],
        ["next rule starts or expires", moment(answer["next_change"])],
        ["addresses claimed twice", [one["address"] for one in answer["conflicts"]]],
        ["audit log", "whole" if answer["audit_broken_at"] is None else f"broken at {answer['audit_broken_at']}"],
    ]
    # On a line of its own: whoever signs in compares it, and copies it.
    return Group(table(["what", "is"], rows), Text(f"its authority  {answer['authority']}"))


def agent_run() -> None:
    """Enforce and report for this host until stopped; stopping the agent leaves its rules in force."""
    _elsewhere("agent", "run")


def agent_boot() -> None:
    """Enforce the last policy that was in force, from disk alone: run it before the network comes up."""
    _elsewhere("agent", "boot")


def agent_remove() -> None:
    """Take Cellwall off this host, while no agent runs; what it enforced is forgotten."""
    _elsewhere("agent", "remove")


def agent_bundle() -> None:
    """Collect what helps others to find a fault of this host, without secrets."""
    _elsewhere("agent", "support-bundle")


def enroll() -> None:
    """Make this host a workload of a controller: trade a token for a certificate of its own."""
    _elsewhere("enroll")


def _elsewhere(*argv: str) -> None:
    # INVARIANT: `cellwall.cli.main` takes these to `host` before typer is even loaded; here they have only their help.
    assert concerns(argv)
    raise Stop(Exit.USAGE, f"call it as `cellwall {' '.join(argv)}`")
