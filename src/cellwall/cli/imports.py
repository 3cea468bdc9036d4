"""`cellwall policy import` and `policy export`: other systems' policies from files to files, without a controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli import imports_firewall
from cellwall.cli.documents import Replace, policy_of, read_documents, read_fleet, write_all
from cellwall.cli.exits import Exit, Stop, complain
from cellwall.cli.help import examples
from cellwall.cli.output import Format, Output, hint, show
from cellwall.inventory import Fleet

Manifests = Annotated[
    list[Path],
    typer.Argument(help="Kubernetes manifests in YAML, or folders of them; `-` is standard input", metavar="DIR..."),
]
Policies = Annotated[list[Path], typer.Argument(help="policy documents, or folders of them", metavar="POLICY...")]
To = Annotated[Path | None, typer.Option(help="write them to this folder, in place of printing", metavar="DIR")]


def add(policy: typer.Typer) -> None:
    """Add `import` and `export` to `policy`."""
    reading = typer.Typer(help="Make documents of other systems' policies.", no_args_is_help=True)
    reading.command(
        "k8s",
        epilog=examples(
            "cellwall policy import k8s manifests/",
            "kubectl get networkpolicies,namespaces,pods -A -o yaml | cellwall policy import k8s - --to policy/",
            "cellwall policy import k8s manifests/ --to policy/ --fleet-to fleet.json",
        ),
    )(import_k8s)
    imports_firewall.add(reading)
    policy.add_typer(reading, name="import")
    writing = typer.Typer(help="Make other systems' policies of documents.", no_args_is_help=True)
    writing.command(
        "k8s",
        epilog=examples(
            "cellwall policy export k8s policy/",
            "cellwall policy export k8s policy/ --fleet fleet.json --to manifests/",
        ),
    )(export_k8s)
    policy.add_typer(writing, name="export")


def import_k8s(
    paths: Manifests,
    to: To = None,
    fleet_to: Annotated[
        Path | None, typer.Option(help="write the pods as a fleet to this file", metavar="FILE")
    ] = None,
    yes: Replace = False,
    output: Output = Format.TABLE,
) -> None:
    """Make documents of Kubernetes NetworkPolicies that mean the same, one for each namespace.

    Pods and their templates are read for named ports; namespaces for their labels. What cannot be said is refused with
    its place, exit code 3, and then nothing is written."""
    from cellwall.translate import import_kubernetes, inventory

    found = import_kubernetes(read_documents(paths).items())
    if not found.documents and not found.refusals:
        raise Stop(Exit.DOCUMENT, "there is no NetworkPolicy, no pod and no namespace in these files")
    answer = {
        "documents": found.documents,
        "notes": [str(note) for note in found.notes],
        "refusals": [str(error) for error in found.refusals],
    }
    _tell(answer, "documents", to, output)
    write_all(found.documents, to, inventory(found.workloads), fleet_to, replace=yes)


def export_k8s(
    paths: Policies,
    fleet: Annotated[
        Path | None,
        typer.Option(help="the pods, as `import --fleet-to` or `workloads -o json` writes them", metavar="FILE"),
    ] = None,
    to: To = None,
    yes: Replace = False,
    output: Output = Format.TABLE,
) -> None:
    """Make Kubernetes NetworkPolicies that mean the same as documents.

    A pod's namespace is its label `namespace`. Denies, walls, `same`, identities and whatever else a NetworkPolicy
    cannot say are refused with their place, exit code 3, and then nothing is written."""
    from cellwall.translate import export_kubernetes

    read = policy_of(read_documents(paths))
    made = export_kubernetes(read, read_fleet(fleet) if fleet else Fleet())
    answer = {
        "manifests": made.manifests,
        "notes": [str(note) for note in made.notes],
        "refusals": [str(error) for error in made.refusals],
    }
    _tell(answer, "manifests", to, output)
    write_all(made.manifests, to, {}, None, replace=yes)


def _tell(answer: Mapping[str, Any], what: str, to: Path | None, output: Format) -> None:
    """Print what was made if it is not written, tell the notes, and end where something was refused."""
    refusals: Sequence[str] = answer["refusals"]
    if output is not Format.TABLE or (to is None and not refusals):
        show(answer, output, lambda: _files(answer[what]))
    if output is Format.TABLE:
        for note in answer["notes"]:
            hint(f"note: {note}")
        for refusal in refusals:
            complain(refusal)
    if refusals:
        raise Stop(Exit.DOCUMENT, f"{len(refusals)} refused, so nothing was written")


def _files(files: Mapping[str, str]) -> RenderableType:
    return Group(*(Text(f"# {name}\n{text.rstrip()}\n") for name, text in files.items()))
