"""What a check of a host is, and the checks of the host itself: rights, kernel, clock, disk, and who else is there."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

NET_ADMIN, SYS_PTRACE = 12, 19
_NEEDED_KERNEL, _WANTED_KERNEL, _BEST_KERNEL = (5, 6), (5, 13), (6, 9)
_NEEDED_BYTES, _WANTED_BYTES = 20 << 20, 200 << 20
_NEEDED_MEMORY, _WANTED_MEMORY = 64 << 20, 256 << 20
_TIME_ERROR = 5
_OLDEST_SANE_CLOCK = 1735689600.0  # 2025-01-01: a host that thinks it is earlier has lost its clock


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `advice` says what to do about it; `blocks` marks what makes enforcement impossible here."""

    name: str
    state: State
    says: str
    advice: str = ""
    blocks: bool = False


def good(name: str, says: str) -> Check:
    """A check that came out well."""
    return Check(name, State.OK, says)


def warned(name: str, says: str, advice: str) -> Check:
    """A check that found something to know before enforcing."""
    return Check(name, State.WARN, says, advice)


def failed(name: str, says: str, advice: str, *, blocks: bool = True) -> Check:
    """A check that found what makes enforcement impossible, or, without `blocks`, dangerous."""
    return Check(name, State.FAIL, says, advice, blocks)


def host_checks(state: Path) -> list[Check]:
    """Check the host. `state` is where the agent keeps, or will keep, what must survive a restart."""
    return [_rights(), _kernel(), _conntrack(), _cgroups(), _containers(), _clock(), _disk(state), _memory()]


def capabilities() -> int:
    """Give the effective capabilities of this process (proc(5), /proc/pid/status, CapEff)."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", _read("/proc/self/status"), re.MULTILINE)
    return int(found[1], 16) if found else 0


def _rights() -> Check:
    held = capabilities()
    if not held >> NET_ADMIN & 1:
        return failed("rights", "no right to change packet filters (CAP_NET_ADMIN)", "run as root, or with sudo")
    if not held >> SYS_PTRACE & 1:
        return warned(
            "rights",
            "may change packet filters, but not look at other users' processes (CAP_SYS_PTRACE)",
            "flows will be shown without their programs; run as root to see them",
        )
    return good("rights", "may change packet filters and see processes")


def _kernel() -> Check:
    release = os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < _NEEDED_KERNEL:
        return failed("kernel", f"Linux {release} cannot match ranges in maps", "use Linux 5.6 or later")
    if version < _WANTED_KERNEL:
        return warned("kernel", f"Linux {release}", "rules for systemd units are refused before Linux 5.13")
    if version < _BEST_KERNEL:
        return warned(
            "kernel",
            f"Linux {release}: other root processes may remove our table; it is put back within a second",
            "Linux 6.9 or later lets a table have an owner and survive it",
        )
    return good("kernel", f"Linux {release}")


def _conntrack() -> Check:
    count, most = (_number(f"/proc/sys/net/netfilter/nf_conntrack_{name}") for name in ("count", "max"))
    if count is None or not most:
        return good("conntrack", "connection tracking is not in use yet; the first ruleset starts it")
    says = f"{count} of {most} connections tracked ({100 * count // most} %)"
    advice = "raise net.netfilter.nf_conntrack_max; when the table is full, new connections fail"
    if count * 100 >= most * 95:
        return failed("conntrack", says, advice, blocks=False)
    return warned("conntrack", says, advice) if count * 100 >= most * 70 else good("conntrack", says)


def _cgroups() -> Check:
    mounts = [line.split() for line in _read("/proc/self/mounts").splitlines()]
    place = next((mount[1] for mount in mounts if len(mount) > 2 and mount[2] == "cgroup2"), None)
    if place is None:
        return warned(
            "cgroups",
            "no cgroup v2 tree is mounted",
            "flows are shown without systemd units, and rules for units are refused; boot with the unified hierarchy",
        )
    return good("cgroups", f"cgroup v2 is at {place}")


def _containers() -> Check:
    sockets = ("/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock")
    links = {path.name for path in Path("/sys/class/net").glob("*")}
    bridges = sorted(name for name in links if name in {"docker0", "podman0", "cni0"} or name.startswith("br-"))
    found = [path for path in sockets if Path(path).exists()]
    if not found and not bridges:
        return good("containers", "no container engine is running")
    named = ", ".join(bridges or found)
    return warned(
        "containers",
        f"containers may run here ({named}); traffic that is forwarded to them does not pass this host's own filter",
        "see who is exposed with `cellwall flows`; give containers with host networking a policy as part of the host",
    )


def _clock() -> Check:
    now = time.time()
    if now < _OLDEST_SANE_CLOCK:
        told = time.strftime("%Y-%m-%d", time.gmtime(now))
        return failed("clock", f"the clock says {told}", "set the clock: certificates will not verify", blocks=False)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        # adjtimex(2) with no modes only reads; the structure is 208 bytes on 64-bit Linux.
        state = libc.adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return warned("clock", "cannot ask whether the clock is synchronised", "make sure that NTP runs")
    if state in (-1, _TIME_ERROR):
        return warned(
            "clock",
            "the kernel does not know its clock to be synchronised",
            "run an NTP client: certificates and the expiry of rules depend on the time",
        )
    return good("clock", "synchronised")


def _disk(state: Path) -> Check:
    place = state
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    says = f"{free >> 20} MiB free for {state}"
    advice = "make room: the agent keeps its last policy there, to enforce it at the next start"
    if free < _NEEDED_BYTES:
        return failed("disk", says, advice, blocks=False)
    return warned("disk", says, advice) if free < _WANTED_BYTES else good("disk", says)


def _memory() -> Check:
    from cellwall.observe import free_memory

    free = free_memory()
    if free is None:
        return warned("memory", "cannot see how much memory is free", "see that 128 MiB are")
    says = f"{free >> 20} MiB of memory can be had"
    advice = "make room: the agent takes 30 MiB, and writing a policy for 100,000 addresses 200 MiB for a moment"
    if free < _NEEDED_MEMORY:
        return failed("memory", says, advice, blocks=False)
    return warned("memory", says, advice) if free < _WANTED_MEMORY else good("memory", says)


def _number(path: str) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
