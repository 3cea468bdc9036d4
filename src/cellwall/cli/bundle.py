"""A support bundle: what helps others to find a fault, from the controller and from this host, without secrets.

controller ── status, rollout, versions, options, health, metrics, log, audit ──┐
this host ─── kernel, nft, our table, the agent, its metrics and log, doctor ───┴─▶ redacted ─▶ names away? ─▶ tar.gz

Nothing here needs more than the agent's packages. What cannot be had is named with its reason, and stops nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cellwall import __version__
from cellwall.cli.disguise import Disguise
from cellwall.cli.files import PRIVATE, replaced
from cellwall.clients import Api
from cellwall.traffic import CellwallError
from cellwall.wire import redact, redacted

MOST_LINES, MOST_TEXT = 5000, 8 << 20
DOCTOR = "host/doctor.json"
_SETTINGS = (
    "kernel/osrelease", "kernel/version", "net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_acct", "net/netfilter/nf_conntrack_buckets",
)  # fmt: skip


@dataclass
class Bundle:
    """Files on their way into a bundle: name to text; and what could not be had, with the reason."""

    files: dict[str, str] = field(default_factory=dict[str, str])
    missing: dict[str, str] = field(default_factory=dict[str, str])

    def take(self, name: str, have: Callable[[], object]) -> None:
        """Add what `have` gives: a text as it is, all else as JSON; or note why it cannot be had."""
        try:
            found = have()
        except (CellwallError, OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            self.missing[name] = str(error) or type(error).__name__
            return
        if isinstance(found, str):
            # The last lines of a log matter more than its first.
            self.files[name] = redact(found[-MOST_TEXT:])
        else:
            self.files[name] = json.dumps(redacted(found), indent=2, ensure_ascii=False, default=str) + "\n"

    def disguise(self) -> None:
        """Replace names and addresses, in contents alone, each by the same everywhere."""
        made = Disguise()
        # The names that doctor tells are those of its checks.
        told = [text for name, text in self.files.items() if name != DOCTOR]
        for text in (socket.gethostname(), *told, json.dumps(self.missing)):
            made.learn(text if text[:1] in "{[" else json.dumps({"name": text}) if "\n" not in text else text)
        self.files = {name: made.over(text) for name, text in self.files.items()}
        self.missing = {name: made.over(why) for name, why in self.missing.items()}

    def write(self, to: Path) -> None:
        """Write it, readable by its owner alone, whole or not at all. Raises `OSError`."""
        root = to.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
        with replaced(to, PRIVATE) as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            for name, text in sorted(self.files.items()):
                data = text.encode("utf-8", "backslashreplace")
                info = tarfile.TarInfo(f"{root}/{name}")
                info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
                tar.addfile(info, io.BytesIO(data))


def collect(api: Api | None, why_not: str, state: Path, *, names: bool) -> Bundle:
    """Collect all that can be had. `api` is the controller's, None where there is none, for the reason `why_not`.

    `state` is the agent's folder; without `names` names and addresses are replaced."""
    made = Bundle()
    if api is None:
        made.missing["controller"] = why_not
        made.take("controller/log.txt", lambda: _journal("cellwall-controller"))
    else:
        from_controller(made, api)
    from_host(made, state)
    if not names:
        made.disguise()
    about = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cellwall": __version__,
        "names": "as they are" if names else "replaced",
        "files": {name: len(text.encode("utf-8", "backslashreplace")) for name, text in sorted(made.files.items())},
        "missing": made.missing,
    }
    made.files["about.json"] = json.dumps(about, indent=2) + "\n"
    return made


def from_controller(made: Bundle, api: Api) -> None:
    """Take what a controller tells; where it does not answer, its log from this machine's journal."""
    made.take("controller/status.json", lambda: api.get("status"))
    made.take("controller/rollout.json", lambda: api.get("policy", "rollout"))
    made.take("controller/revisions.json", lambda: api.get("policy", "revisions"))
    try:
        told: dict[str, Any] = api.get("support")
    except CellwallError as error:
        made.missing["controller/support.json"] = str(error)
        made.take("controller/log.txt", lambda: _journal("cellwall-controller"))
        return
    made.take("controller/metrics.prom", lambda: str(told.pop("metrics")))
    made.take("controller/log.txt", lambda: "".join(f"{line}\n" for line in told.pop("log")))
    made.take("controller/support.json", lambda: told)


def from_host(made: Bundle, state: Path) -> None:
    """Take what this machine tells: its kernel, its packet filter, its agent."""
    made.take("host/system.json", _system)
    made.take(DOCTOR, lambda: _doctor(state))
    made.take("host/nft.json", _nft)
    if (state / "enrolment.json").exists():
        made.take("agent/enrolment.json", lambda: _enrolment(state))
        made.take("agent/metrics.prom", lambda: (state / "metrics.prom").read_text("utf-8"))
        made.take("agent/log.txt", lambda: _journal("cellwall-agent"))
    else:
        made.missing["agent"] = f"`{state}` holds no enrolment"


def _system() -> dict[str, Any]:
    settings: dict[str, str] = {}
    for name in _SETTINGS:
        try:
            settings[name.replace("/", ".")] = (Path("/proc/sys") / name).read_text("utf-8").strip()
        except OSError:
            continue
    known = platform.freedesktop_os_release()
    return {
        "hostname": socket.gethostname(),
        "os": known.get("PRETTY_NAME", ""),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "uptime_s": float(Path("/proc/uptime").read_text("ascii").split()[0]),
        "load": os.getloadavg(),
        "processors": os.cpu_count(),
        "memory_kib": _memory(),
        "settings": settings,
    }


def _memory() -> dict[str, int]:
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    wanted = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(wanted)}


def _doctor(state: Path) -> list[dict[str, Any]]:
    # Here and not above: it looks at all of a host, and loads what that takes.
    from cellwall.cli.doctor.agent import agent_checks
    from cellwall.cli.doctor.checks import host_checks
    from cellwall.cli.doctor.nft import nft_checks

    return [asdict(one) for one in (*host_checks(state), *nft_checks(), *agent_checks(state))]


def _nft() -> dict[str, Any]:
    """Describe our table without its content, which names the fleet: hash and size tell whether it changed."""
    version = _run(["nft", "--version"]).strip()
    tables = _run(["nft", "list", "tables"]).split("\n")
    try:
        listing = _run(["nft", "--stateless", "list", "table", "inet", "cellwall"])
    except ValueError as error:
        return {"version": version, "tables": tables, "table": str(error)}
    return {
        "version": version,
        "tables": [one for one in tables if one],
        "table": {"sha256": hashlib.sha256(listing.encode()).hexdigest(), "lines": listing.count("\n")},
    }


def _enrolment(state: Path) -> dict[str, Any]:
    from cellwall.agent import load_enrolment

    known = load_enrolment(state)
    sizes = {one.name: one.stat().st_size for one in sorted(state.iterdir()) if one.is_file()}
    return {"name": known.name, "controller": known.controller, "certificate_ends": known.ends(), "files": sizes}


def _journal(unit: str) -> str:
    lines = _run(["journalctl", "--unit", unit, "--lines", str(MOST_LINES), "--no-pager", "--output", "cat"])
    if not lines.strip():
        raise ValueError(f"the journal of this machine has nothing of `{unit}`")
    return lines


def _run(command: list[str]) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        ran = subprocess.run(
            command, capture_output=True, timeout=20, check=False, env={**os.environ, "LC_ALL": "C", "PATH": path}
        )
    except FileNotFoundError:
        raise ValueError(f"there is no `{command[0]}` here") from None
    if ran.returncode != 0:
        said = ran.stderr.decode("utf-8", "replace").strip().splitlines() or [f"it ended with {ran.returncode}"]
        raise ValueError(f"`{' '.join(command[:3])}`: {said[0].lower()}")
    return ran.stdout.decode("utf-8", "replace")
