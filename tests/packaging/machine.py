"""A Debian machine with systemd as its first process, in a container of its own on a wire of its own.

    with pair() as (client, place):
        with machine(place, tmp_path) as host:
            host.run(["apt-get", "install", "-y", "/packages/cellwall-agent_0.1.0_amd64.deb"])
            host.reboot()

The system is a copy-on-write layer over `build/debian-12`, which debootstrap makes once; nothing of it is left after.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from tests.kernel.namespaces import Namespace
from tests.kernel.namespaces import missing as without_namespaces

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "build" / "debian-12"
RELEASE = "bookworm"
# What a minimal server has; the packages under test bring nothing that is not in their file.
INCLUDED = (
    "systemd,systemd-sysv,dbus,nftables,python3,python3-apt,iproute2,procps,debconf,init-system-helpers,ifupdown,"
    "ca-certificates"
)


@cache
def missing() -> str:
    """Say what keeps this machine from running the tests of packages; "" when nothing does."""
    if os.environ.get("CELLWALL_PACKAGES") != "1":
        return "these take minutes and a Debian mirror; they run with CELLWALL_PACKAGES=1"
    for program in ("debootstrap", "systemd-nspawn", "dpkg-deb"):
        if shutil.which(program) is None:
            return f"`{program}` is not installed"
    return without_namespaces()


needs_machines = pytest.mark.skipif(bool(missing()), reason=missing() or "machines can be made")
"""Put `pytestmark = needs_machines` into a test module that boots one."""


def base() -> Path:
    """Give the folder of the plain system; made at the first call of all, in about a minute."""
    if not BASE.exists():
        beside = BASE.with_name(BASE.name + ".new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.parent.mkdir(exist_ok=True)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", RELEASE, str(beside)],
            check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        )  # fmt: skip
        beside.rename(BASE)
    return BASE


def snapshot(to: Path) -> Path:
    """Copy what packages are built from, so that two builds are of one state of it."""
    for name in ("src", "packaging", "requirements"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, to / name)
    (to / ".venv").symlink_to(ROOT / ".venv")
    return to


def build(tree: Path, to: Path, *arguments: str) -> Path:
    """Build one package of `tree` into `to` and give its file."""
    to.mkdir(parents=True, exist_ok=True)
    before = set(to.glob("*.deb"))
    done = subprocess.run(
        ["packaging/deb/build.sh", "--to", str(to), *arguments],
        cwd=tree, capture_output=True, text=True, check=False, env={**os.environ, "SOURCE_DATE_EPOCH": "1780000000"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (made,) = set(to.glob("*.deb")) - before
    return made


@dataclass
class Machine:
    """A machine that runs; `run` is as root in it."""

    where: Namespace
    root: Path
    folders: dict[Path, str]
    _nspawn: subprocess.Popen[bytes] | None = None
    _leader: int = 0
    _log: list[str] = field(default_factory=list[str])

    def boot(self, timeout_s: float = 60) -> None:
        """Start it, and wait until systemd has started all that it starts."""
        log = self.root.with_name("console")
        with log.open("ab") as console:
            self._nspawn = subprocess.Popen(
                [
                    "systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine={self.where.name}",
                    "--register=no", "--keep-unit", f"--network-namespace-path={self.where.path}",
                    "--capability=CAP_NET_ADMIN", "--system-call-filter=open_by_handle_at", "--boot",
                    "--console=pipe", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
                    *(f"--bind-ro={folder}:{inside}" for folder, inside in self.folders.items()),
                ],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + timeout_s
        while True:
            assert self._nspawn.poll() is None, f"it does not boot: {log.read_text('utf-8', 'replace')[-2000:]}"
            self._leader = self._find_leader()
            if self._leader:
                state = self.run(["systemctl", "is-system-running"], check=False).stdout.strip()
                if state in ("running", "degraded"):
                    return
            assert time.monotonic() < until, f"it does not boot: {log.read_text('utf-8', 'replace')[-2000:]}"
            time.sleep(0.2)

    def run(
        self, command: list[str], *, stdin: str = "", check: bool = True, timeout_s: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it, with its standard input; a failure raises with what it said."""
        named = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", **environment}
        done = subprocess.run(
            ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root",
             "--wd", "--", "env", "-i", *(f"{key}={value}" for key, value in named.items()), *command],
            input=stdin, capture_output=True, text=True, check=False, timeout=timeout_s,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} gave {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def install(self, package: Path, *options: str) -> str:
        """Install, upgrade or downgrade to a package, from its file and nothing else; give what apt said."""
        inside = next(f"{there}/{package.name}" for here, there in self.folders.items() if package.parent == here)
        # No source of packages: what is not inside is not to be had.
        command = ["apt-get", "-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts=/dev/null"]
        done = self.run(
            [*command, "install", "-y", "--no-install-recommends", "--allow-downgrades", *options, inside],
            DEBIAN_FRONTEND="noninteractive",
        )
        return done.stdout + done.stderr

    def property(self, unit: str, name: str) -> str:
        """A property of a unit, as systemctl shows it."""
        return self.run(["systemctl", "show", "--value", f"--property={name}", unit]).stdout.strip()

    def journal(self, unit: str) -> str:
        """What a unit wrote since the machine was made."""
        return self.run(["journalctl", "--no-pager", "-q", "-o", "cat", "-u", unit], check=False).stdout

    def wait_until(self, command: list[str], timeout_s: float = 30) -> None:
        """Wait until a program succeeds in it."""
        until = time.monotonic() + timeout_s
        while (done := self.run(command, check=False)).returncode:
            assert time.monotonic() < until, f"{' '.join(command)} never succeeded: {done.stdout}{done.stderr}"
            time.sleep(0.1)

    def reboot(self) -> None:
        """Stop it and start it again; the kernel forgets all tables of its network, as a machine's would."""
        self.halt()
        self.where.run(["nft", "flush", "ruleset"])
        self.boot()

    def halt(self) -> None:
        """End it."""
        if self._nspawn is None:
            return
        if self._leader:
            self.run(["systemctl", "poweroff", "--no-block"], check=False)
        try:
            self._nspawn.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._nspawn.pid, signal.SIGKILL)
            if self._leader:
                os.kill(self._leader, signal.SIGKILL)
            self._nspawn.wait(10)
        self._nspawn, self._leader = None, 0

    def _find_leader(self) -> int:
        assert self._nspawn
        # The container's first process is a child of nspawn's child, or of nspawn itself.
        waiting = [self._nspawn.pid]
        while waiting:
            try:
                children = Path(f"/proc/{(pid := waiting.pop())}/task/{pid}/children").read_text().split()
            except FileNotFoundError:
                continue
            for child in map(int, children):
                try:
                    if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                        return child
                except FileNotFoundError:
                    continue
                waiting.append(child)
        return 0


@contextmanager
def machine(where: Namespace, work: Path, folders: dict[Path, str]) -> Generator[Machine]:
    """Boot a machine on the network of `where`; `folders` of this machine are seen in it, read only."""
    layers = work / f"machine-{where.name}"
    upper, scratch, root = layers / "upper", layers / "work", layers / "root"
    for folder in (upper, scratch, root):
        folder.mkdir(parents=True)
    options = f"lowerdir={base()},upperdir={upper},workdir={scratch}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(root)], check=True)
    made = Machine(where, root, folders)
    try:
        (root / "etc/hostname").write_text(f"{where.name}\n")
        # The test gives the network; ifupdown must not take it away.
        (root / "etc/network/interfaces").write_text("auto lo\niface lo inet loopback\n")
        made.boot()
        yield made
    finally:
        try:
            made.halt()
        finally:
            subprocess.run(["umount", "--lazy", str(root)], check=False)
