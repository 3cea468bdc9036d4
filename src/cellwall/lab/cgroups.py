"""A branch of the cgroup2 tree per lab: a folder per workload, in it one per unit, named as systemd would."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

_BRANCH = "cellwall-lab"
_MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


def mount() -> Path | None:
    """Give where the cgroup2 tree is mounted and can be written, or None: then units have no cgroup."""
    for place in _MOUNTS:
        if (place / "cgroup.procs").exists() and os.access(place, os.W_OK):
            return place
    return None


def branch(lab: str) -> Path | None:
    """Give the folder of a lab's cgroups, there or not; None where no cgroup2 tree can be written."""
    place = mount()
    return place / _BRANCH / lab if place else None


def grow(lab: str, paths: Iterable[str]) -> Path | None:
    """Make the folders `paths` (`workload/unit`) below the lab's branch, and give the branch; None: not possible."""
    top = branch(lab)
    if top is None:
        return None
    try:
        for path in paths:
            (top / path).mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return top


def cut(lab: str, patience_s: float = 5.0) -> bool:
    """Kill whatever is in the lab's cgroups and remove them; say whether nothing is left."""
    top = branch(lab)
    if top is None or not top.is_dir():
        return True
    deadline = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(OSError):
            (top / "cgroup.kill").write_text("1", "ascii")  # cgroup-v2: all processes of the subtree
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if not top.exists():
            # The last lab also takes the branch itself away.
            with contextlib.suppress(OSError):
                top.parent.rmdir()
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
