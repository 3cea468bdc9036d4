"""Policy documents and fleets as files: reading them for the commands that work without a controller."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.output import hint
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels
from cellwall.policy import Policy
from cellwall.traffic import CellwallError, parse_address

SUFFIXES = (".yaml", ".yml")


def read_documents(paths: Iterable[Path]) -> dict[str, str]:
    """Read policy documents: files, and all YAML files below folders. Names are as an editor would open them."""
    found: dict[str, str] = {}
    for path in paths:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
            if not files:
                raise Stop(Exit.DOCUMENT, f"{path}: there is no `.yaml` file in this folder")
        else:
            files = [path]
        for file in files:
            found[_name(file)] = _text(file)
    return found


def _name(file: Path) -> str:
    """Name a document as seen from here, however it was given: the same document has the same name each time."""
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
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise Stop(Exit.DOCUMENT, f"{path}: it is not UTF-8 text") from None
    except OSError as error:
        raise Stop(Exit.DOCUMENT, f"{path}: {(error.strerror or 'unreadable').lower()}") from None


def write_documents(documents: dict[str, str], folder: Path) -> None:
    """Write documents to files of a folder; a name that leads out of it is refused."""
    for name, text in documents.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise Stop(Exit.DOCUMENT, f"document `{name}` leads out of `{folder}`")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    hint(f"wrote {len(documents)} documents to {folder}")
