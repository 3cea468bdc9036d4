"""Policy documents and fleets as files: reading them for the commands that work without a controller."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.files import keep_others, rewrite
from cellwall.cli.output import counted, hint
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels
from cellwall.policy import Policy
from cellwall.traffic import CellwallError, parse_address

SUFFIXES = (".yaml", ".yml")
STDIN = Path("-")
Replace = Annotated[
    bool, typer.Option("--yes", "-y", "--force", help="replace files that are there and say something else")
]


def read_documents(paths: Iterable[Path]) -> dict[str, str]:
    """Read policy documents: files, all YAML files below folders, and standard input where `-` is given. Names are as
    an editor would open them."""
    found: dict[str, str] = {}
    for path in paths:
        for file in _files(path):
            found[_name(file)] = _text(file)
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise Stop(Exit.DOCUMENT, f"{path}: there is no `.yaml` file in this folder")
    return files


def _name(file: Path) -> str:
    """Name a document as seen from here, however it was given: the same document has the same name each time."""
    if file == STDIN:
        return "stdin"
    whole, here = file.absolute(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(file)


def policy_of(documents: Mapping[str, str]) -> Policy:
    """Read documents into a policy. Raises `PolicyError`."""
    from cellwall.policy import parse_policy

    return parse_policy(documents.items())


def read_fleet(path: Path) -> Fleet:
    """Read a fleet as `cellwall workloads -o json` or `-o yaml` writes it."""
    import yaml

    try:
        # JSON is tried first: it is what programs write, and the YAML reader is slow on large files.
        answer = json.loads(text) if (text := _text(path)).lstrip().startswith("{") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        raise Stop(
            Exit.DOCUMENT, f"{path}: neither JSON nor YAML; write it with `cellwall workloads -o json`"
        ) from None
    if not isinstance(answer, dict) or not isinstance(cast("dict[str, Any]", answer).get("items"), list):
        raise Stop(Exit.DOCUMENT, f"{path}: wanted `items`, a list, as `cellwall workloads -o json` writes it")
    try:
        return fleet_of(cast("dict[str, Any]", answer))
    except (CellwallError, KeyError, TypeError, AttributeError) as error:
        raise Stop(Exit.DOCUMENT, f"{path}: not a fleet: {error}") from None


def fleet_of(answer: Mapping[str, Any]) -> Fleet:
    """Make a fleet of the controller's list of workloads, its `controllers` included where they are there."""
    workloads = tuple(
        Workload(
            one["name"],
            Labels(one.get("labels") or {}),
            tuple(parse_address(address) for address in one.get("addresses") or ()),
            bool(one.get("agent", True)),
            float(one.get("epoch") or 0.0),
        )
        for one in answer["items"]
    )
    listeners = tuple(Listener(parse_address(one["address"]), one["port"]) for one in answer.get("controllers") or ())
    return Fleet(workloads, listeners)


def _text(path: Path) -> str:
    try:
        if path == STDIN:
            # With line ends as a file's are read.
            return sys.stdin.buffer.read().decode("utf-8").replace("\r\n", "\n")
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise Stop(Exit.DOCUMENT, f"{path}: it is not UTF-8 text") from None
    except OSError as error:
        raise Stop(Exit.DOCUMENT, f"{path}: {(error.strerror or 'unreadable').lower()}") from None


def write_documents(
    documents: Mapping[str, str], folder: Path, like: Mapping[str, Path] | None = None, *, replace: bool = False
) -> None:
    """Write documents to files of a folder; a name that leads out of it is refused, and so is any file that is there
    and says something else, unless `replace`. Those of `like` end their lines as these files do."""
    for name in documents:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise Stop(Exit.DOCUMENT, f"document `{name}` leads out of `{folder}`")
    keep_others({folder / name: text for name, text in documents.items()}, replace=replace)
    for name, text in documents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rewrite(path, text, like=(like or {}).get(name))
    hint(f"wrote {counted(len(documents), 'document')} to {folder}")


def write_all(
    documents: Mapping[str, str], to: Path | None, fleet: Mapping[str, Any], fleet_to: Path | None, *, replace: bool
) -> None:
    """Write documents to a folder and a fleet to a file, where each is asked for; where anything would be replaced and
    `replace` is not given, nothing is written. Raises `Stop`."""
    text = json.dumps(fleet, indent=2) + "\n"
    files = {to / name: document for name, document in documents.items()} if to is not None else {}
    keep_others(files | ({fleet_to: text} if fleet_to is not None else {}), replace=replace)
    if to is not None:
        write_documents(documents, to, replace=True)
    if fleet_to is not None:
        rewrite(fleet_to, text)
        hint(f"wrote {counted(len(fleet['items']), 'workload')} to {fleet_to}")


def names_within(paths: Iterable[Path]) -> dict[str, str]:
    """Give documents the names that they have within what was asked for: a folder's files are named from there on.

    Where two would have one name, all keep those that they are read by."""
    found: dict[str, str] = {}
    for path in paths:
        for file in _files(path):
            found[_name(file)] = str(file.relative_to(path)) if path.is_dir() else file.name
    return found if len(set(found.values())) == len(found) else {name: name for name in found}
