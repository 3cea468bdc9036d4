"""How much room the kernel has: tracked connections of this network namespace, and memory."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cellwall.clients import KernelError, cgroup_mount
from cellwall.observe.conntrack import conntrack_fill

NEARLY_FULL, FULL = 80, 95
"""Per cent of the connections that can be tracked: from here on it is said, and said louder."""


@dataclass(frozen=True, slots=True)
class Room:
    """What there is. `tracked` connections of at most `most_tracked` (0: conntrack is not in use); `memory` are the
    bytes that we can still have: the host, the control groups that we are in, and our own limit (None: not known)."""

    tracked: int = 0
    most_tracked: int = 0
    memory: int | None = None

    @property
    def percent(self) -> int:
        """How full conntrack is, in per cent."""
        return 100 * self.tracked // self.most_tracked if self.most_tracked else 0

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is wrong with it, in words; the same words for as long as it is as wrong."""
        if self.percent < NEARLY_FULL:
            return ()
        level = FULL if self.percent >= FULL else NEARLY_FULL
        end = "new connections fail" if level == FULL else "when it is full, new connections fail"
        return (f"conntrack is over {level} % full, of {self.most_tracked}: {end}; raise nf_conntrack_max",)


def kernel_room(most_memory: int | None = None) -> Room:
    """Look; what cannot be read is left out. `most_memory` is as `free_memory` takes it."""
    tracked, most = 0, 0
    with suppress(KernelError):
        tracked, most = conntrack_fill()
    return Room(tracked, most, free_memory(most_memory))


def free_memory(most: int | None = None) -> int | None:
    """Give the bytes that can be had: the least of what the host has (MemAvailable, proc_meminfo(5)), what each control
    group above us may, and `most`, where there is such a limit."""
    found: list[int] = [] if most is None else [most]
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        found += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    mount = cgroup_mount()
    if mount is not None:
        for group in _groups(mount):
            most, used = _number(group / "memory.max"), _number(group / "memory.current")
            if most is not None and used is not None:
                found.append(max(0, most - used))
    return min(found, default=None)


def _groups(mount: Path) -> list[Path]:
    """Our control group and those above it."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            if line.startswith("0::"):
                path = Path(line[3:].strip("/"))
                return [mount / part for part in (path, *path.parents)]
    return []


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):  # where there is no limit it says `max`
        return None
