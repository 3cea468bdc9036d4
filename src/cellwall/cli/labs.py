"""`cellwall lab`: a fleet of network namespaces to try things on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.help import LAB, examples
from cellwall.cli.output import Format, Output, Steps, hint, say, show, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cellwall.lab import AttackReport, LabState, TrafficReport, WorkloadState

Name = Annotated[str | None, typer.Argument(help="the lab's name; not needed when one is up", metavar="[LAB]")]


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    lab = typer.Typer(help="A fleet of network namespaces with real traffic, to try things on.", no_args_is_help=True)
    lab.command("up", epilog=examples("cellwall lab up scenarios/shop.yaml", "cellwall lab up shop --no-control"))(up)
    lab.command("down", epilog=examples("cellwall lab down", "cellwall lab down shop"))(down)
    lab.command("status", epilog=examples("cellwall lab status", "cellwall lab status shop -o json"))(status)
    lab.command("traffic", epilog=examples("cellwall lab traffic", "cellwall lab traffic shop -o json"))(traffic)
    lab.command(
        "attack", epilog=examples("cellwall lab attack --from web-1", "cellwall lab attack --from web-1 -o json")
    )(attack)
    app.add_typer(lab, name="lab", rich_help_panel=LAB)


def up(
    scenario: Annotated[str, typer.Argument(help="a scenario file, or the name of one that comes with Cellwall")],
    control: Annotated[bool, typer.Option(help="with a controller and agents")] = True,
    output: Output = Format.TABLE,
) -> None:
    """Bring a lab up, or what is missing of it; this takes some seconds."""
    from cellwall.lab import load_scenario
    from cellwall.lab import up as bring_up

    path = scenario_file(scenario)
    with lab_errors():
        state = bring_up(load_scenario(path), Steps(), control=control)
    show(_state(state), output, lambda: draw_states([state]))
    hint("next: `cellwall map`, `cellwall workloads`, `cellwall lab attack --from NAME`, `cellwall lab down`")


def down(name: Name = None) -> None:
    """Take a lab away, to the last process, namespace and file."""
    from cellwall.lab import down as take_down
    from cellwall.lab import names

    if name is None and not names():
        say("no lab is up")
        return
    chosen = name or the_lab()
    with lab_errors():
        there = take_down(chosen)
    say(f"lab `{chosen}` is down" if there else f"no lab is called `{chosen}`")


def status(name: Name = None, output: Output = Format.TABLE) -> None:
    """Say how the labs are; exit code 1 when something of them is not running."""
    from cellwall.lab import names
    from cellwall.lab import status as state_of

    with lab_errors():
        states = [state_of(one) for one in ([name] if name else names())]
    show({"items": [_state(one) for one in states]}, output, lambda: draw_states(states))
    if not all(state.complete for state in states):
        raise Stop(Exit.NO)


def traffic(name: Name = None, output: Output = Format.TABLE) -> None:
    """Say what became of a lab's legitimate requests; exit code 1 when any failed."""
    from cellwall.lab import traffic_report

    with lab_errors():
        report = traffic_report(name or the_lab())
    show(traffic_json(report), output, lambda: _traffic(report))
    if report.failed:
        raise Stop(Exit.NO)


def attack(
    name: Name = None,
    foothold: Annotated[str, typer.Option("--from", help="the workload that was broken into")] = "web-1",
    unit: Annotated[str | None, typer.Option(help="which of its units; by default the first")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Try every service and the usual ports of all other workloads, from a foothold; exit code 1 if any opened."""
    from cellwall.lab import attack as scan

    with lab_errors():
        report = scan(name or the_lab(), foothold, unit)
    show(_attack_json(report), output, lambda: _attack(report))
    if report.reached():
        raise Stop(Exit.NO)


@contextmanager
def lab_errors() -> Generator[None]:
    """Give the lab's errors their exit codes."""
    from cellwall.lab import LabError, ScenarioError

    try:
        yield
    except ScenarioError as error:
        raise Stop(Exit.DOCUMENT, str(error)) from None
    except LabError as error:
        raise Stop(Exit.NO if "no lab is called" in str(error) else Exit.UNABLE, str(error)) from None


def the_lab() -> str:
    """Give the name of the only lab that is up."""
    from cellwall.lab import names

    known = names()
    if len(known) == 1:
        return known[0]
    if known:
        raise Stop(Exit.USAGE, f"several labs are up; name one: `{'`, `'.join(known)}`")
    raise Stop(Exit.NO, "no lab is up; try `cellwall lab up scenarios/shop.yaml`")


def scenario_file(given: str) -> Path:
    """Give the file of a scenario: `given` itself, or `scenarios/GIVEN.yaml` here or where Cellwall was checked out."""
    path = Path(given)
    places = [path]
    if path.suffix == "" and path.name == given:
        roots = (Path.cwd(), *Path(__file__).resolve().parents[3:4])
        places += [root / "scenarios" / f"{given}.yaml" for root in roots]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise Stop(Exit.DOCUMENT, f"there is no scenario `{given}`; wanted a file such as `scenarios/shop.yaml`")
    return found


def _state(state: LabState) -> dict[str, Any]:
    return {
        "lab": state.name,
        "complete": state.complete,
        "controller": state.controller,
        "socket": str(state.socket) if state.socket else None,
        "controller_url": state.controller_url,
        "workloads": [
            {
                "name": one.name,
                "namespace": one.namespace,
                "addresses": [str(address) for address in one.addresses],
                "agent": one.agent,
                "running": list(one.running),
                "missing": list(one.missing),
            }
            for one in state.workloads
        ],
    }


def draw_states(states: list[LabState]) -> RenderableType:
    """Draw the workloads of labs, and what is missing of each."""
    return table(
        ["lab", "workload", "addresses", "agent", "running#", "missing"],
        [
            *(
                [state.name, one.name, [str(a) for a in one.addresses], one.agent, len(one.running), _missing(one)]
                for state in states
                for one in state.workloads
            ),
            *([state.name, "", "", "", 0, "controller"] for state in states if state.socket and not state.controller),
        ],
        "no lab is up",
    )


def _missing(one: WorkloadState) -> list[str]:
    return [*(() if one.network else ("network",)), *one.missing]


def traffic_json(report: TrafficReport) -> dict[str, Any]:
    """Give a traffic report as JSON."""
    return {
        "lab": report.lab,
        "attempts": report.attempts,
        "failed": report.failed,
        "calls": [
            {
                "caller": call.caller,
                "unit": call.unit,
                "to": call.to,
                "service": call.service,
                "family": call.family,
                "lifetime": call.lifetime,
                "attempts": call.attempts,
                "failed": call.failed,
                "failures": [{"at": at, "why": why} for at, why in call.failures],
            }
            for call in report.calls
        ],
    }


def _traffic(report: TrafficReport) -> RenderableType:
    from rich.console import Group

    troubled = table(
        ["caller", "unit", "to", "service", "ip", "attempts#", "failed#", "last failure"],
        [
            [c.caller, c.unit, c.to, c.service, c.family, c.attempts, c.failed, c.failures[-1][1] if c.failures else ""]
            for c in report.troubled()
        ],
        "no call failed",
    )
    return Group(f"{report.attempts} requests in {len(report.calls)} calls, {report.failed} failed", troubled)


def _attack_json(report: AttackReport) -> dict[str, Any]:
    return {
        "lab": report.lab,
        "foothold": report.foothold,
        "user": report.user,
        "tried": len(report.attempts),
        "reached": [
            {"target": a.target, "service": a.service, "address": a.address, "protocol": a.protocol, "port": a.port}
            for a in report.reached()
        ],
    }


def _attack(report: AttackReport) -> RenderableType:
    from rich.console import Group

    head = (
        f"from `{report.foothold}` as user `{report.user}`: {len(report.attempts)} doors tried, "
        f"{len(report.reached())} opened"
    )
    return Group(head, report.table())
