"""`cellwall policy minimise`: the same policy in fewer rules, proven to mean the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from cellwall.cli.documents import Replace, names_within, policy_of, read_documents, write_documents
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.help import examples
from cellwall.cli.linting import prove_same
from cellwall.cli.output import Format, Output, hint, show, working
from cellwall.policy import Policy


def add(policy: typer.Typer) -> None:
    """Add the command of this file to `cellwall policy`."""
    lines = (
        "cellwall policy minimise policy/",
        "cellwall policy minimise policy/ --to smaller/",
        "cellwall policy minimise policy/ --across-files",
    )
    policy.command("minimise", epilog=examples(*lines))(minimise)


def minimise(
    paths: Annotated[list[Path], typer.Argument(help="documents, or folders of them", metavar="PATH...")],
    to: Annotated[Path | None, typer.Option(help="write the documents to this folder", metavar="DIR")] = None,
    across_files: Annotated[bool, typer.Option("--across-files", help="join rules of several files, too")] = False,
    yes: Replace = False,
    output: Output = Format.TABLE,
) -> None:
    """Rewrite documents with fewer rules that mean the same, as a diff; exit code 1 when there are none.

    Rules that never decide are left out, and rules become one where that is exact, and they have one owner and stand in
    one file (with --across-files also in several). Comments stay with the rules that stay. What is staged, expired or
    logged is left alone. The diff is on standard output; which rule goes where, by file and line, on standard error."""
    from cellwall.analysis import apply_edits, difference_of, told_apart
    from cellwall.analysis import minimise as shorten

    documents, now = read_documents(paths), time.time()
    policy = policy_of(documents)
    with working("looking for fewer rules, and proving that they mean the same"):
        told = shorten(policy, now, across_files=across_files)
        changed = apply_edits(documents, told.edits)
        fewer = policy_of(changed)
        prove_same(policy, fewer, now, told_apart(policy, fewer, now))
    answer: dict[str, Any] = {
        "before": told.before,
        "after": told.after,
        "ratio": round(told.after / told.before, 4) if told.before else 1.0,
        "proven": True,
        "removals": [
            {
                "rule": one.rule,
                "place": _place(policy, one.rule),
                "proof": list(one.proof),
                "proof_places": [_place(policy, name) for name in one.proof],
                "message": one.message,
            }
            for one in told.removals
        ],
        "merges": [
            {
                "kept": one.kept,
                "place": _place(policy, one.kept),
                "rules": list(one.rules),
                "places": [_place(policy, name) for name in one.rules],
            }
            for one in told.merges
        ],
        "documents": changed,
        "diff": difference_of(documents, changed),
    }
    show(answer, output, lambda: Text(answer["diff"].rstrip() or "no rule can be saved"))
    for line in _goings(answer):
        hint(line)
    if told.before > told.after:
        joined = sum(len(one.rules) - 1 for one in told.merges)
        hint(
            f"{told.before} rules become {told.after} ({answer['ratio']:.0%}): {len(told.removals)} never decide, "
            f"{joined} are joined to others; proven to mean the same for any fleet"
        )
    if to is not None:
        names = names_within(paths)
        likes = {names[name]: Path(name) for name in changed}
        write_documents({names[name]: text for name, text in changed.items()}, to, likes, replace=yes)
    if not told.edits:
        raise Stop(Exit.NO)


def _place(policy: Policy, name: str) -> str:
    rule = policy.by_id.get(name)
    return str(rule.place) if rule is not None else "built in"


def _goings(answer: dict[str, Any]) -> Iterator[str]:
    """Say of each rule that goes where it stands, and why, or into which it goes."""
    for one in answer["removals"]:
        proof = zip(one["proof"], one["proof_places"], strict=True)
        by = ", ".join(f"`{name}` at {at}" for name, at in proof if at not in one["message"])
        yield f"{one['place']}: `{one['rule']}` goes: {one['message']}" + (f" (see {by})" if by else "")
    for one in answer["merges"]:
        for name, at in zip(one["rules"], one["places"], strict=True):
            if name != one["kept"]:
                yield f"{at}: `{name}` goes into `{one['kept']}` at {one['place']}"
