"""Which process holds which socket, from /proc (proc(5)); walked rarely, remembered well."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from cellwall.clients import cgroup_members, cgroup_path, unit_of_process
from cellwall.observe.sockets import Socket


@dataclass(frozen=True, slots=True)
class Process:
    """A process that holds a socket.

    `exe` is the path of its program as it sees it, "" when it cannot be read; `unit` the unit of systemd that it
    runs in, or ""; `user` the name of its effective user, or the number where /etc/passwd has none.
    """

    pid: int
    comm: str
    exe: str
    uid: int
    user: str
    unit: str


class Processes:
    """Knows the processes behind sockets, of the network namespace of the caller alone.

    A socket that is new is looked for among the processes of its cgroup first; all of /proc is walked only for
    those not found there, and at most every `walk_every_s` seconds.
    """

    def __init__(self, walk_every_s: float = 60.0) -> None:
        """Know nothing yet."""
        self._walk_every_s = walk_every_s
        self._walked_at = float("-inf")
        self._holders: dict[int, Process] = {}
        self._nobody: set[int] = set()
        self._seen: dict[tuple[int, str], Process] = {}
        self._users: dict[int, str] = {}
        self._users_stamp = -1

    def holders(self, sockets: Iterable[Socket], now: float) -> dict[int, Process]:
        """Say who holds these sockets: inode → process, without those whose holder is not known.

        `now` is in seconds and never goes back. Of several processes that share a socket, one is named.
        """
        wanted = {one.inode: one.cgroup for one in sockets if one.inode}
        new = {inode: group for inode, group in wanted.items() if inode not in self._holders}
        new = {inode: group for inode, group in new.items() if inode not in self._nobody}
        if new:
            pids = {pid for group in set(new.values()) for pid in cgroup_members(cgroup_path(group))}
            self._search(new.keys(), pids)
            self._nobody.update(new.keys() - self._holders.keys())
        # What no process of its cgroup holds was made by another, as systemd does for socket units.
        if self._nobody & wanted.keys() and now - self._walked_at >= self._walk_every_s:
            self._walked_at = now
            self._holders, self._nobody = {}, set()
            self._search(None, (int(entry) for entry in os.listdir("/proc") if entry.isdigit()))
            self._nobody.update(wanted.keys() - self._holders.keys())
            alive = set(self._holders.values())
            self._seen = {key: one for key, one in self._seen.items() if one in alive}
        return {inode: self._holders[inode] for inode in wanted if inode in self._holders}

    def _search(self, wanted: Collection[int] | None, pids: Iterable[int]) -> None:
        here = _namespace("thread-self")
        for pid in pids:
            if _namespace(str(pid)) != here:
                continue
            held = _socket_inodes(pid)
            found = held if wanted is None else held.intersection(wanted)
            if found and (process := self._process(pid)) is not None:
                for inode in found:
                    self._holders.setdefault(inode, process)

    def _process(self, pid: int) -> Process | None:
        # "pid (comm) state …": the name may hold blanks and brackets; the 22nd field is when it started.
        stat = _read(f"/proc/{pid}/stat")
        name, closing, rest = stat.partition("(")[2].rpartition(")")
        fields = rest.split()
        if not closing or len(fields) < 20:
            return None
        key = pid, fields[19] + name
        if key not in self._seen:
            uid = _effective_uid(_read(f"/proc/{pid}/status"))
            unit = unit_of_process(_read(f"/proc/{pid}/cgroup"))
            self._seen[key] = Process(pid, name, _exe(pid), uid, self.user(uid), unit)
        return self._seen[key]

    def user(self, uid: int) -> str:
        """Name a user, from /etc/passwd alone: other sources of names may block on the network."""
        try:
            stamp = os.stat("/etc/passwd").st_mtime_ns
        except OSError:
            return str(uid)
        if stamp != self._users_stamp:
            self._users = parse_users(_read("/etc/passwd"))
            self._users_stamp = stamp
        return self._users.get(uid, str(uid))


def parse_users(listing: str) -> dict[int, str]:
    """Read passwd(5): number → name; of several names for a number the first."""
    users: dict[int, str] = {}
    for line in listing.splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[2].isdecimal():
            users.setdefault(int(fields[2]), fields[0])
    return users


def _namespace(process: str) -> tuple[int, int] | None:
    try:
        told = os.stat(f"/proc/{process}/ns/net")
    except OSError:
        return None
    return told.st_dev, told.st_ino


def _socket_inodes(pid: int) -> set[int]:
    """The inodes of the sockets that a process holds; none when it is gone or not to be seen."""
    held: set[int] = set()
    folder = f"/proc/{pid}/fd/"
    try:
        entries = os.listdir(folder)
    except OSError:
        return held
    for entry in entries:
        try:
            target = os.readlink(folder + entry)
        except OSError:
            continue
        if target.startswith("socket:["):
            held.add(int(target[8:-1]))
    return held


def _effective_uid(status: str) -> int:
    for line in status.splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    return -1


def _exe(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
