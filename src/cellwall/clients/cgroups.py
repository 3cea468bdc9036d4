"""Control groups: where they are mounted, and which unit of systemd one belongs to (cgroups(7))."""

from __future__ import annotations

import ctypes
import os
import re
from functools import cache, lru_cache
from pathlib import Path

_UNIT = re.compile(r"[^/]+\.(?:service|scope|slice)")
_FILEID_KERNFS = 0xFE
_libc = ctypes.CDLL(None, use_errno=True)


class _Handle(ctypes.Structure):
    """A `file_handle` of kernfs (open_by_handle_at(2)): eight bytes of id."""

    _fields_ = (("size", ctypes.c_uint), ("kind", ctypes.c_int), ("id", ctypes.c_uint64))


@cache
def cgroup_mount() -> Path | None:
    """Say where the cgroup v2 tree is mounted: `/sys/fs/cgroup`, or `…/unified` beside v1; None when it is not."""
    for line in _text("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            # mountinfo writes blanks as octal escapes (proc(5)).
            return Path(re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), before.split(" ")[4]))
    return None


@lru_cache(maxsize=4096)
def cgroup_path(cgroup: int) -> str:
    """Give the path of the cgroup v2 with this id, below the mount, such as `/system.slice/nginx.service`.

    "" when it is gone, or cannot be seen. Ids are not used twice, so the answer stays true.
    """
    mount = cgroup_mount()
    if mount is None or not cgroup:
        return ""
    try:
        root = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        handle = _Handle(8, _FILEID_KERNFS, cgroup)
        found = _libc.open_by_handle_at(root, ctypes.byref(handle), os.O_PATH | os.O_CLOEXEC)
    finally:
        os.close(root)
    if found < 0:
        return ""
    try:
        path = os.readlink(f"/proc/self/fd/{found}")
    except OSError:
        return ""
    finally:
        os.close(found)
    below = path.removeprefix(str(mount))
    return "" if below.endswith(" (deleted)") else below or "/"


def cgroup_members(path: str) -> list[int]:
    """List the processes in the cgroup at `path` below the mount, not those in the cgroups under it."""
    mount = cgroup_mount()
    listed = _text(f"{mount}{path}/cgroup.procs") if mount and path else ""
    return [int(line) for line in listed.split() if line.isdigit()]


def unit_of_path(path: str) -> str:
    """Name the innermost unit of systemd in the path of a cgroup; "" when there is none."""
    found = _UNIT.findall(path)
    return found[-1] if found else ""


def unit_of_process(listing: str) -> str:
    """Name the unit in the text of `/proc/PID/cgroup`: that of the v2 tree, else that of systemd's own v1 tree."""
    paths: dict[str, str] = {}
    for line in listing.splitlines():
        _, _, rest = line.partition(":")
        tree, _, path = rest.partition(":")
        paths[tree] = path
    return unit_of_path(paths.get("", "")) or unit_of_path(paths.get("name=systemd", ""))


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
