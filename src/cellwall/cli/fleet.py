"""The fleet: workloads, enrolment tokens, labels, and the labels that are proposed."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.flows import moment
from cellwall.cli.help import FLEET, examples
from cellwall.cli.output import Format, Output, hint, show, table, working
from cellwall.cli.where import Socket, controller
from cellwall.labels import Labels, parse_labels

Yes = Annotated[bool, typer.Option("--yes", "-y", help="do it; without, only show what would be done")]
Name = Annotated[str, typer.Argument(help="the workload's name", metavar="WORKLOAD")]


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    workloads = typer.Typer(invoke_without_command=True, help="The workloads of the fleet.")
    workloads.callback(epilog=examples("cellwall workloads", "cellwall workloads -o yaml > fleet.yaml"))(list_workloads)
    workloads.command("show", epilog=examples("cellwall workloads show web-1"))(show_workload)
    workloads.command(
        "add", epilog=examples("cellwall workloads add nas-1 --address 10.9.0.5 --labels app=infra,role=storage --yes")
    )(add_workload)
    workloads.command("remove", epilog=examples("cellwall workloads remove nas-1 --yes"))(remove_workload)
    app.add_typer(workloads, name="workloads", rich_help_panel=FLEET)

    tokens = typer.Typer(invoke_without_command=True, help="Tokens, by which hosts enrol.")
    tokens.callback(epilog=examples("cellwall tokens", "cellwall tokens --all -o json"))(list_tokens)
    tokens.command(
        "create",
        epilog=examples(
            "cellwall tokens create --workload web-1",
            "cellwall tokens create --labels env=prod --uses 50 --ttl 3600 > token",
        ),
    )(create_token)
    tokens.command("revoke", epilog=examples("cellwall tokens revoke 3fa1b2c4d5e6 --yes"))(revoke_token)
    app.add_typer(tokens, name="tokens", rich_help_panel=FLEET)

    labels = typer.Typer(invoke_without_command=True, help="The labels of the fleet.")
    labels.callback(epilog=examples("cellwall labels", "cellwall labels -o json"))(list_labels)
    labels.command(
        "set", epilog=examples("cellwall labels set web-1 app=shop,role=web", "cellwall labels set web-1 env=dev --yes")
    )(set_labels)
    labels.command("unset", epilog=examples("cellwall labels unset web-1 env --yes"))(unset_labels)
    app.add_typer(labels, name="labels", rich_help_panel=FLEET)
    app.command(
        "classify",
        rich_help_panel=FLEET,
        epilog=examples(
            "cellwall classify",
            "cellwall classify --min-confidence 0.8 --accept",
            "cellwall classify --min-confidence 0.8 --accept --yes",
            "cellwall classify web-1 api-1 --accept --yes",
        ),
    )(classify)


def list_workloads(ctx: typer.Context, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """List the workloads, with what each runs in and how its agent is."""
    if ctx.invoked_subcommand is not None:
        return
    api = controller(socket)
    items = list(api.items("workloads"))
    show({"items": items}, output, lambda: _workloads(items))


def _workloads(items: list[dict[str, Any]]) -> Any:
    return table(
        ["workload", "labels", "addresses", "agent", "state", "mode"],
        [
            [one["name"], one["labels"], one["addresses"], one["agent"], one.get("state"), one.get("mode")]
            for one in items
        ],
        "no workloads; let one enrol with a token: `cellwall tokens create`",
    )


def show_workload(name: Name, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """Show all that is known of one workload."""
    answer = controller(socket).get("workloads", name)
    show(answer, output, lambda: _workload(answer))


def _workload(answer: dict[str, Any]) -> Group:
    point, facts = answer["point"], answer["facts"]
    rows: list[list[Any]] = [
        ["workload", answer["name"]],
        ["addresses", answer["addresses"]],
        ["labels", [f"{one['key']}={one['value']} ({one['source']})" for one in answer["label_sources"]]],
        ["agent", f"version {answer['version']}, seen {moment(answer['seen'])}" if answer["agent"] else "none"],
    ]
    if point:
        rows += [["mode", answer["mode"]], ["state", point["state"]], ["reason", point["reason"]]]
        rows += [["revision", f"holds {point['revision_held']}, wanted {point['revision_wanted']}"]]
    if facts:
        rows += [["host", f"{facts['hostname']}, {facts['os']}, Linux {facts['kernel']}, nftables {facts['nft']}"]]
        rows += [["other firewalls", facts["foreign"]], ["blind spots", "; ".join(facts["blind"])]]
        rows += [["trouble", one] for one in facts["troubles"]]
    parts = [table(["what", "is"], rows)]
    if facts and facts["listening"]:
        listening = {tuple(one[key] for key in ("service", "process", "user", "unit")) for one in facts["listening"]}
        parts += [Text(), table(["listens on", "process", "user", "unit"], sorted(listening))]
    return Group(*parts)


def add_workload(
    name: Name,
    address: Annotated[list[str], typer.Option(help="an address of it; may be given several times", metavar="IP")],
    labels: Annotated[str, typer.Option(help="its labels, as key=value,…", metavar="LABELS")] = "",
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Declare a workload that has no agent."""
    read = _labels(labels)
    body = {"name": name, "addresses": address, "labels": dict(read)}
    if not yes:
        show(body, output, lambda: f"would declare `{name}` at {', '.join(address)} with {read or 'no labels'}")
        hint("nothing was changed; repeat with --yes to do it")
        return
    controller(socket).post("workloads", body=body)
    show(body, output, lambda: f"declared `{name}`")


def remove_workload(name: Name, yes: Yes = False, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """Forget a workload; its agent will not be let in again without a new token."""
    api = controller(socket)
    found = api.get("workloads", name)
    body = {key: found[key] for key in ("name", "addresses", "labels")}
    if not yes:
        where = ", ".join(found["addresses"]) or "no addresses"
        show(body, output, lambda: f"would remove `{name}` ({where})")
        hint("nothing was changed; repeat with --yes to do it")
        return
    api.delete("workloads", name)
    show(body, output, lambda: f"removed `{name}`")


def create_token(
    workload: Annotated[str | None, typer.Option(help="for this workload only", metavar="NAME")] = None,
    labels: Annotated[str, typer.Option(help="labels of who enrols with it, as key=value,…", metavar="LABELS")] = "",
    uses: Annotated[int, typer.Option(help="how many hosts may enrol with it", min=1, metavar="N")] = 1,
    ttl: Annotated[int, typer.Option(help="how many seconds it lasts", min=1, metavar="S")] = 3600,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a token and print it; give it to `cellwall enroll`. Who has it can enrol: keep it secret."""
    body = {"labels": dict(_labels(labels)), "uses": uses, "ttl_s": ttl, "workload": workload}
    answer = controller(socket).post("tokens", body=body)
    show(answer, output, lambda: answer["token"])


def list_tokens(
    ctx: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="those that let nobody in any more, too")] = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """List the tokens that still let hosts in, without their secrets."""
    if ctx.invoked_subcommand is not None:
        return
    items = [one for one in controller(socket).items("tokens") if every or one["usable"]]
    show({"items": items}, output, lambda: table(_TOKEN, [_token(one) for one in items], "no token lets anybody in"))


_TOKEN = ["token", "for", "labels", "used", "until", "by", "is"]


def _token(one: dict[str, Any]) -> list[Any]:
    ended = "used up" if one["used"] >= one["uses"] else "over"
    used = f"{one['used']} of {one['uses']}"
    until, state = moment(one["expires"]), "open" if one["usable"] else ended
    return [one["id"], one["workload"] or "any", one["labels"], used, until, one["author"], state]


def revoke_token(
    token: Annotated[str, typer.Argument(help="as `cellwall tokens` names it", metavar="TOKEN")],
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Let a token end at once; whoever enrolled with it stays, until `cellwall workloads remove`."""
    answer = controller(socket).delete("tokens", token, dry_run=not yes)
    told = f"`{answer['id']}`, {answer['used']} of {answer['uses']} used"
    show(answer, output, lambda: f"{'revoked' if yes else 'would revoke'} {told}")
    if not yes:
        hint("nothing was changed; repeat with --yes to do it")


def list_labels(ctx: typer.Context, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """List who has which labels, and where each label is from."""
    if ctx.invoked_subcommand is not None:
        return
    items = list(controller(socket).items("labels"))
    show(
        {"items": items},
        output,
        lambda: table(
            ["workload", "label", "value", "source", "by"],
            [[one["workload"], one["key"], one["value"], one["source"], one["author"]] for one in items],
            "no labels",
        ),
    )


def set_labels(
    name: Name,
    labels: Annotated[str, typer.Argument(help="what to set, as key=value,…", metavar="LABELS")],
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Set labels of a workload; shows what that changes for the policy."""
    _put_labels(name, dict(_labels(labels)), yes, socket, output)


def unset_labels(
    name: Name,
    keys: Annotated[list[str], typer.Argument(help="the keys to take away", metavar="KEY")],
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Take labels away from a workload."""
    _put_labels(name, dict.fromkeys(keys), yes, socket, output)


def _put_labels(name: str, labels: dict[str, str] | dict[str, Any], yes: bool, socket: Any, output: Format) -> None:
    answer = controller(socket).put("labels", name, body={"labels": labels, "dry_run": not yes})
    show(answer, output, lambda: _relabelled(answer))
    if not yes:
        hint("nothing was changed; repeat with --yes to do it")


def _relabelled(answer: dict[str, Any]) -> Any:
    rows = [["before", answer["before"]], ["after", answer["after"]]]
    changed = [one for one in answer["plan"]["points"] if one["change"] != "none"]
    return Group(
        table([f"{answer['workload']}", "labels"], rows),
        f"changes {len(changed)} points" + (": " + ", ".join(one["workload"] for one in changed) if changed else ""),
    )


def classify(
    names: Annotated[list[str] | None, typer.Argument(help="only these workloads", metavar="[WORKLOAD]...")] = None,
    min_confidence: Annotated[float, typer.Option(help="only proposals as sure as this, 0 to 1", min=0, max=1)] = 0.0,
    accept: Annotated[bool, typer.Option("--accept", help="accept them")] = False,
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the labels that are proposed, each with its reasons and how sure it is; accept them with --accept --yes."""
    api = controller(socket)
    with working("looking at facts and flows"):
        items = [
            one
            for one in api.items("label-proposals")
            if one["confidence"] >= min_confidence and (not names or one["workload"] in names)
        ]
    if not accept:
        show({"items": items}, output, lambda: _proposals(items))
        return
    if not items:
        raise Stop(Exit.NO, "there is no such proposal")
    body = {"ids": [one["id"] for one in items], "all": False, "min_confidence": min_confidence, "dry_run": not yes}
    answer = api.post("label-proposals", "accept", body=body)
    accepted = answer["accepted"]
    verb = "accepted" if yes else "would accept"
    show(answer, output, lambda: Group(f"{verb} {len(accepted)} labels", _proposals(accepted)))
    if not yes:
        hint("nothing was changed; repeat with --yes to do it")


def _proposals(items: list[dict[str, Any]]) -> Any:
    return table(
        ["workload", "label", "sure", "because"],
        [
            [one["workload"], f"{one['key']}={one['value']}", f"{one['confidence']:.0%}", "; ".join(one["reasons"])]
            for one in items
        ],
        "no label is proposed",
    )


def _labels(text: str) -> Labels:
    try:
        return parse_labels(text)
    except Exception as error:
        from cellwall.traffic import CellwallError

        if isinstance(error, CellwallError):
            raise Stop(Exit.USAGE, str(error)) from None
        raise
