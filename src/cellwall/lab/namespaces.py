"""The lab's network: a namespace per workload, on cables to a bridge in a namespace of its own.

Nothing outside of these namespaces is touched: cables are made from inside to inside, the host's interfaces and
rules never see them. All are known by their prefix. A namespace is finished when its mark, written last, holds its
inode number; what is not finished is thrown away and made anew.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from cellwall.lab.plan import (
    FABRIC,
    FORWARDING,
    SYSCTLS,
    Site,
    cable_lines,
    fabric_lines,
    plug_lines,
    prefix,
    site_lines,
    sites,
)
from cellwall.lab.processes import await_end, find_inside, inside, kill, run
from cellwall.lab.scenario import Scenario
from cellwall.lab.state import LabError

_NETNS = Path("/run/netns")


def present(lab: str) -> list[str]:
    """Give the names of all namespaces of a lab, finished or not."""
    if not _NETNS.is_dir():
        return []
    return sorted(name for name in os.listdir(_NETNS) if name.startswith(prefix(lab)))


def finished(folder: Path, namespace: str) -> bool:
    """Say whether a namespace was set up to the end, and is still that one."""
    try:
        inode = os.stat(_NETNS / namespace).st_ino
        return (folder / "net" / namespace).read_text("ascii") == str(inode)
    except OSError:
        return False


def build(scenario: Scenario, folder: Path) -> int:
    """Make every namespace that is missing or half made, and give how many that were. Raises `LabError`."""
    fabric = prefix(scenario.lab) + FABRIC
    every = sites(scenario)
    (folder / "net").mkdir(exist_ok=True)
    if not finished(folder, fabric):
        # Every cable ends there, so nothing of the old network can be kept.
        remove(present(scenario.lab), folder)
    missing = [site for site in every if not finished(folder, site.namespace)]
    remove({site.namespace for site in missing} & set(present(scenario.lab)), folder)
    fresh = [site.namespace for site in missing]
    if not finished(folder, fabric):
        fresh.append(fabric)
    _batch(folder, [f"netns add {name}" for name in fresh])
    for name in fresh:
        settings = SYSCTLS + (FORWARDING if name == fabric else ())
        run(inside(name, ["sysctl", "-q", "-w", *settings]), folder)
    if fabric in fresh:
        _batch(folder, fabric_lines(scenario), fabric)
    _batch(folder, cable_lines(scenario, missing))
    for site in missing:
        _batch(folder, site_lines(scenario, site), site.namespace)
    _batch(folder, plug_lines(scenario, missing), fabric)
    for name in fresh:
        (folder / "net" / name).write_text(str(os.stat(_NETNS / name).st_ino), "ascii")
    return len(fresh)


def remove(namespaces: Collection[str], folder: Path) -> None:
    """Take namespaces away, and before them whatever still runs inside, which would keep them alive unseen."""
    if not namespaces:
        return
    for _ in range(3):
        doomed = find_inside(namespaces)
        kill(doomed)
        if await_end(doomed) and not doomed:
            break
    for name in namespaces:
        with contextlib.suppress(OSError):
            os.unlink(folder / "net" / name)
        # Where `up` died between making the file and mounting on it, ip(8) finds nothing to unmount.
        with contextlib.suppress(LabError):
            run(["ip", "netns", "del", name], folder)
        with contextlib.suppress(OSError):
            os.unlink(_NETNS / name)


def unplugged(scenario: Scenario, folder: Path) -> list[Site]:
    """Give the places of the network that are missing or half made; without the fabric that is all."""
    fabric = finished(folder, prefix(scenario.lab) + FABRIC)
    return [site for site in sites(scenario) if not fabric or not finished(folder, site.namespace)]


def _batch(folder: Path, lines: Sequence[str], namespace: str | None = None) -> None:
    if not lines:
        return
    command = ["ip", "-batch", "-"]
    run(inside(namespace, command) if namespace else command, folder, "".join(f"{line}\n" for line in lines))
