"""`cellwall policy`: read, check and test documents from files alone; have the controller plan, apply and propose."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli import approvals, imports, minimise
from cellwall.cli.compare import EXAMPLES, diff
from cellwall.cli.documents import STDIN, Replace, fleet_of, policy_of, read_documents, read_fleet, write_documents
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.fleet import Yes
from cellwall.cli.flows import Since, moment
from cellwall.cli.ground import or_files
from cellwall.cli.help import POLICY, examples
from cellwall.cli.output import Format, Output, hint, show, table, working
from cellwall.cli.plan_view import draw_plan
from cellwall.cli.where import Socket, controller

Paths = Annotated[list[Path], typer.Argument(help="documents, or folders of them", metavar="PATH...")]
FleetFile = Annotated[
    Path | None, typer.Option(help="the fleet, as `workloads -o json` writes it; else the controller's", metavar="FILE")
]


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    policy = typer.Typer(help="The policy: documents, tests, plans, revisions.", no_args_is_help=True)
    for name, command, lines in (
        ("lint", lint, ("cellwall policy lint policy/", "cellwall policy lint policy/ --fleet fleet.json -o json")),
        (
            "test",
            check_tests,
            ("cellwall policy test", "cellwall policy test policy/", "cellwall policy test policy/ --fleet fleet.json"),
        ),
        ("plan", plan, ("cellwall policy plan policy/", "cellwall policy plan policy/ -o json")),
        (
            "apply",
            apply,
            (
                "cellwall policy apply policy/",
                "cellwall policy apply policy/ --note 'open the blog' --yes",
                "cellwall policy apply policy/ --wave canary --tolerate 1% --yes",
            ),
        ),
        ("suggest", suggest, ("cellwall policy suggest", "cellwall policy suggest --level ringfence --to policy/")),
        ("show", show_policy, ("cellwall policy show", "cellwall policy show --revision 3 --to old/")),
        ("revisions", revisions, ("cellwall policy revisions", "cellwall policy revisions -o json")),
        ("diff", diff, EXAMPLES),
    ):
        policy.command(name, epilog=examples(*lines))(command)
    approvals.add(policy)
    minimise.add(policy)
    imports.add(policy)
    app.add_typer(policy, name="policy", rich_help_panel=POLICY)


def lint(
    paths: Paths,
    fleet: FleetFile = None,
    flows: Annotated[
        Path | None, typer.Option(help="flows, as `flows -o json` writes them; else the controller's", metavar="FILE")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="hold rules against the flows of so long, such as `30d`", metavar="TIME")
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option("--check", help="only what this check finds; may be repeated", metavar="NAME")
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="show the edits that change no verdict, as a diff")] = False,
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Read documents strictly, and say what is questionable in them; exit code 3 when one is wrong, 1 on an error.

    Works without a controller; with --fleet it also finds rules that match nobody, with --flows or --since rules that
    nothing used. --fix --yes writes the edits that change no verdict, and those of checks that are named by --check."""
    import msgspec

    from cellwall.analysis import Severity, difference_of
    from cellwall.analysis import lint as look_over
    from cellwall.cli.linting import draw_findings, mended, surroundings, unchosen, wanted_checks, write_changed

    if fix and yes and STDIN in paths:
        raise Stop(Exit.USAGE, "standard input cannot be written to; leave --yes away for the diff")
    documents, now, wanted = read_documents(paths), time.time(), wanted_checks(check or ())
    read = policy_of(documents)
    with working("looking over rules"):
        known, observed = surroundings(fleet, flows, since, socket, now)
        findings = [one for one in look_over(read, known, now, observed) if one.check in wanted]
    counts = {
        "documents": len(documents),
        "rules": len(read.rules),
        "modes": len(read.modes),
        "tests": len(read.tests),
        "findings": len(findings),
    }
    answer: dict[str, Any] = {"counts": counts, "findings": msgspec.to_builtins(findings)}
    if not fix:
        show(answer, output, lambda: draw_findings(answer, bool(check)))
    else:
        changed = mended(documents, read, findings, wanted if check else frozenset(), now)
        answer["diff"] = difference_of(documents, changed)
        show(answer, output, lambda: Text(answer["diff"].rstrip() or "there is nothing to mend"))
        if yes:
            hint(f"wrote {write_changed(documents, changed)} of {len(documents)} documents")
            findings = [one for one in look_over(policy_of(changed), known, now, observed) if one.check in wanted]
        elif answer["diff"]:
            hint("nothing was changed; repeat with --yes to do it")
        if left := unchosen(findings, wanted if check else frozenset()):
            told = ", ".join(f"`{one}`" for one in left)
            hint(f"not edited: {told}; that may change what passes, or what was meant: name them with --check")
    if any(one.severity is Severity.ERROR for one in findings):
        raise Stop(Exit.NO)


def check_tests(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="documents; else what is in force", metavar="[PATH...]")
    ] = None,
    fleet: FleetFile = None,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Check the tests of documents, over every workload and every port; exit code 1 when one fails.

    Without documents: how those of the policy in force stand, which the controller checks after every change of
    policy, labels and addresses. With documents and --fleet no controller is needed."""
    from cellwall.analysis import run_tests
    from cellwall.cli.tests_view import draw_tests, tested

    if not paths:
        from cellwall.cli.standing import show_standing

        show_standing(socket, output)
        return

    read = policy_of(read_documents(paths))
    known = read_fleet(fleet) if fleet else fleet_of({"items": list(or_files(socket, "--fleet").items("workloads"))})
    with working("checking all pairs"):
        results = run_tests(read, known, time.time())
    items = [tested(one, read) for one in results]
    show({"items": items}, output, lambda: draw_tests(items))
    if not all(one["passed"] for one in items):
        raise Stop(Exit.NO)


def plan(
    paths: Paths,
    since: Since = None,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Say what documents would change: at every point, and for the connections that were seen."""
    documents = read_documents(paths)
    with working("compiling, and replaying what was seen"):
        answer = controller(socket).post("policy", "plan", body={"documents": documents, "since": since})
    show(answer, output, lambda: draw_plan(answer))


def apply(
    paths: Paths,
    note: Annotated[str, typer.Option(help="why, for those who come after", metavar="TEXT")] = "",
    confirm: Annotated[
        float, typer.Option(help="seconds to confirm in, or it reverts; 0: at once", metavar="S")
    ] = 30.0,
    accept_refused: Annotated[
        bool, typer.Option("--accept-refused", help="even if points cannot express rules, or have no memory for them")
    ] = False,
    accept_failed: Annotated[bool, typer.Option("--accept-failed", help="even if some of its own tests fail")] = False,
    wave: Annotated[
        list[str] | None,
        typer.Option(
            "--wave",
            help="open this wave first: `canary`, `tenth`, `25%`, a selector; may be repeated; else as documents say",
            metavar="WAVE",
        ),
    ] = None,
    settle_s: Annotated[
        float | None, typer.Option("--settle", help="seconds for which each wave has to be well", metavar="S")
    ] = None,
    tolerate: Annotated[
        str,
        typer.Option(
            help="so many points of each wave may stay behind, such as `3` or `5%`; canaries and guarded ones never",
            metavar="N",
        ),
    ] = "",
    tolerate_also: Annotated[
        str,
        typer.Option(
            help="canaries, and points that approvals name, may too where this selector matches", metavar="SELECTOR"
        ),
    ] = "",
    wait: Annotated[float, typer.Option(help="seconds to wait until all points have it", metavar="S")] = 60.0,
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Put documents in force as a new revision; without --yes only show the plan.

    Where a second person has to agree, it is proposed, and waits for `policy approve`. Exit code 4 when a point
    refuses, or the revision is taken back or halted."""
    from cellwall.cli.rollout import draw_rollout, draw_waves, settle

    api = controller(socket)
    body = {
        "documents": read_documents(paths),
        "note": note,
        "confirm_s": confirm,
        "accept_refused": accept_refused,
        "accept_failed": accept_failed,
        "waves": wave or None,
        "settle_s": settle_s,
        "tolerate": tolerate,
        "tolerate_also": tolerate_also,
    }
    with working("compiling, and replaying what was seen"):
        answer = api.post("policy", "apply", body={**body, "dry_run": not yes})
    if not yes:
        show(
            {**answer["plan"], "waves": answer["waves"], "approvals": answer["approvals"]},
            output,
            lambda: Group(draw_plan(answer["plan"]), *draw_waves(answer)),
        )
        hint("nothing was changed; repeat with --yes to do it")
        return
    if answer["state"] == "proposed":
        show(answer, output, lambda: Group(*draw_waves(answer)))
        hint(f"revision {answer['revision']} waits for others: `cellwall policy approve {answer['revision']}`")
        return
    with working(f"waiting for revision {answer['revision']} at all points"):
        state = settle(api, answer["revision"], wait)
    show(state, output, lambda: draw_rollout(state))
    if state["state"] in ("failed", "halted"):
        became = "was taken back" if state["state"] == "failed" else "is halted"
        raise Stop(Exit.REFUSED, f"revision {answer['revision']} {became}: {state['reason']}")
    if state["state"] != "good":
        raise Stop(Exit.NO, f"revision {answer['revision']} is not in force everywhere after {wait:g} s")
    if state["reason"]:
        hint(f"revision {answer['revision']} is in force {state['reason']}; `cellwall rollout status` says why")


def suggest(
    level: Annotated[str, typer.Option(help="how tight: `exact`, `tier` or `ringfence`", metavar="LEVEL")] = "tier",
    since: Since = None,
    to: Annotated[Path | None, typer.Option(help="write the documents to this folder", metavar="DIR")] = None,
    yes: Replace = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Propose a policy from what was seen: each rule with the flows that justify it, and what it allows beyond them."""
    with working("mining flows"):
        answer = controller(socket).post("policy", "suggest", body={"level": level, "since": since})
    show(answer, output, lambda: _suggested(answer))
    if to is not None:
        write_documents(answer["documents"], to, replace=yes)


def _suggested(answer: dict[str, Any]) -> RenderableType:
    coverage = answer["coverage"]
    told = (
        f"# {len(answer['rules'])} rules for {coverage['covered']} of {coverage['flows']} flows that were seen "
        f"({coverage['share']:.0%}); they allow {answer['over_permission']:.1f} ways for each that was seen"
    )
    return Group(*(Text(text.rstrip() + "\n") for text in answer["documents"].values()), Text(told))


def show_policy(
    revision: Annotated[int | None, typer.Option(help="of this revision; else what is in force", metavar="N")] = None,
    to: Annotated[Path | None, typer.Option(help="write the documents to this folder", metavar="DIR")] = None,
    yes: Replace = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the documents of a revision."""
    api = controller(socket)
    answer = api.get("policy") if revision is None else api.get("policy", "revisions", str(revision))
    show(answer, output, lambda: _documents(answer))
    if to is not None:
        write_documents(answer["documents"], to, replace=yes)


def _documents(answer: dict[str, Any]) -> RenderableType:
    head = f"# revision {answer['revision']}, {answer['state']}: {answer['note'] or 'no note'}"
    return Text("\n".join([head, *(f"# {name}\n{text}" for name, text in answer["documents"].items())]).rstrip())


def revisions(socket: Socket = None, output: Output = Format.TABLE) -> None:
    """List the revisions that there were, the newest first."""
    items = list(controller(socket).items("policy", "revisions"))
    rows = [
        [one["revision"], one["state"], one["author"], moment(one["created"]), one["note"], one["reason"]]
        for one in items
    ]
    heads = ["revision", "state", "author", "created", "note", "reason"]
    show({"items": items}, output, lambda: table(heads, rows, "no policy has been applied yet"))
