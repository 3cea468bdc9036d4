"""Start processes that carry their lab's mark, find them by it, and end them.

The mark is an environment variable, there from the first moment of a process and inherited by its children. So what
belongs to a lab is read from the kernel, never remembered: a lab that was killed halfway can still be swept. Only
which process is a unit's own, and which its child, is written down.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellwall.lab import state
from cellwall.lab.state import LabError

MARK = "CELLWALL_LAB"
"""The variable; its value is the lab's state folder, a `|`, and the key of the process."""


@dataclass(frozen=True, slots=True)
class Process:
    """A running process. `started` (clock ticks since boot) tells it from a later one with the same `pid`."""

    pid: int
    started: int
    key: str


def environment(folder: Path, key: str) -> dict[str, str]:
    """Give our own environment with the mark of the lab in `folder` added."""
    return {**os.environ, MARK: f"{folder}|{key}"}


def inside(namespace: str, argv: Sequence[str]) -> list[str]:
    """Give the command that runs `argv` in a network namespace, and leaves the cgroup tree visible."""
    return ["nsenter", f"--net=/run/netns/{namespace}", "--", *argv]


def spawn(argv: Sequence[str], folder: Path, key: str, log: Path, *, stays: bool = True) -> int:
    """Start a program in a session of its own, its output appended to `log`; give its pid at once.

    If it `stays`, it is the one that `leaders` finds under `key` from here on."""
    program = shutil.which(argv[0])
    if program is None:
        raise LabError(f"cannot find the program `{argv[0]}`")
    output = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), output, (os.POSIX_SPAWN_DUP2, 1, 2)]
    pid = os.posix_spawn(program, list(argv), environment(folder, key), file_actions=actions, setsid=True)
    if stays:
        state.write(_record(folder, key), f"{pid} {_started(pid)}")
    return pid


def run(argv: Sequence[str], folder: Path, text: str = "") -> str:
    """Run a program to its end with `text` as its input and give what it printed. Raises `LabError`."""
    try:
        done = subprocess.run(
            argv, input=text, env=environment(folder, "tool"), capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise LabError(f"cannot run `{argv[0]}`: {(error.strerror or str(error)).lower()}") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise LabError(f"`{' '.join(argv[:6])}` failed: {said or f'exit code {done.returncode}'}")
    return done.stdout


def find(folder: Path) -> tuple[Process, ...]:
    """Give all living processes that carry the mark of the lab in `folder`."""
    wanted = f"{MARK}={folder}|".encode()
    found: list[Process] = []
    for pid in _pids():
        key = next((v[len(wanted) :].decode() for v in _variables(pid) if v.startswith(wanted)), None)
        if key is not None and (started := _started(pid)) is not None:
            found.append(Process(pid, started, key))
    return tuple(found)


def _variables(pid: int) -> list[bytes]:
    """Give the environment of a process as `NAME=value`; none where it is gone, a zombie or the kernel's."""
    with contextlib.suppress(OSError):
        for _ in range(20):
            variables = Path(f"/proc/{pid}/environ").read_bytes()
            # In the middle of execve(2) a process shows no environment; a thread of the kernel never does, and has
            # no executable either.
            if variables or not os.path.exists(f"/proc/{pid}/exe"):
                return variables.split(b"\0")
            time.sleep(0.001)
    return []


def find_inside(namespaces: Collection[str]) -> tuple[Process, ...]:
    """Give all living processes in the named network namespaces, but for ourselves and our ancestors."""
    inodes: set[int] = set()
    for name in namespaces:
        with contextlib.suppress(OSError):
            inodes.add(os.stat(f"/run/netns/{name}").st_ino)
    spared = _ancestry()
    found: list[Process] = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if pid not in spared and os.stat(f"/proc/{pid}/ns/net").st_ino in inodes:
                started = _started(pid)
                if started is not None:
                    found.append(Process(pid, started, ""))
    return tuple(found)


def leaders(folder: Path) -> Mapping[str, Process]:
    """Give the living processes that were started to stay, by key."""
    return leading(find(folder), folder)


def leading(processes: Iterable[Process], folder: Path) -> Mapping[str, Process]:
    """Give those of the lab's `processes` that were started to stay, by key; the others are their children."""
    found: dict[str, Process] = {}
    for process in processes:
        with contextlib.suppress(OSError):
            if _record(folder, process.key).read_text("ascii") == f"{process.pid} {process.started}":
                found[process.key] = process
    return found


def kill(processes: Iterable[Process]) -> None:
    """End processes at once; one that is gone, or another that took its number, is left alone."""
    for process in processes:
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(process.pid)
            try:
                # The handle holds the number fast, so that what is checked is what is ended.
                if _started(process.pid) == process.started:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def runs(pid: int) -> bool:
    """Say whether there is a process of that number that has not ended."""
    return _started(pid) is not None


def await_end(processes: Collection[Process], patience_s: float = 5.0) -> bool:
    """Wait until `processes` have ended, and bury those that were our children; say whether all are gone."""
    deadline = time.monotonic() + patience_s
    left = list(processes)
    while left and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
        left = [process for process in left if _started(process.pid) == process.started]
        if left:
            time.sleep(0.01)
    return not left


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _record(folder: Path, key: str) -> Path:
    return folder / "run" / key.replace("/", ".")


def _started(pid: int) -> int | None:
    """Give the start time (proc(5), /proc/pid/stat, field 22) of a process, None when it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _ancestry() -> set[int]:
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0:
        found.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
        except OSError:
            break
    return found
