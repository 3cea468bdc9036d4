"""Checks of what a host does at its start: that the policy is in force before the network is, and stays so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cellwall.cli.doctor.checks import Check, good, warned

UNITS = ("cellwall-load.service", "cellwall-agent.service")
_ROOT = Path("/")
_PLACES = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system",
           "lib/systemd/system")  # fmt: skip
_FLUSHING = {"nftables.service": "etc/nftables.conf", "netfilter-persistent.service": "", "firewalld.service": ""}


def boot_checks(root: Path = _ROOT) -> list[Check]:
    """Check the host whose files are below `root`."""
    if not (root / "run/systemd/system").is_dir():
        advice = "have what starts this host run `cellwall agent boot` before the network, `cellwall agent run` after"
        return [warned("boot", "systemd does not run here: nothing loads the policy before the network", advice)]
    places = [root / place for place in _PLACES]
    missing = [unit for unit in UNITS if not any((place / unit).exists() for place in places)]
    if missing:
        return [warned("boot", f"{_listed(missing)} not installed", "install the package `cellwall-agent`")]
    off = [unit for unit in UNITS if not _enabled(places, unit)]
    if off:
        advice = f"`systemctl enable {' '.join(off)}`"
        return [warned("boot", f"{_listed(off)} not enabled: after a reboot nothing is enforced", advice)]
    return [good("boot", "the policy is loaded before the network comes up"), *_flushed(root, places)]


def _flushed(root: Path, places: list[Path]) -> Iterable[Check]:
    for unit, file in _FLUSHING.items():
        if not _enabled(places, unit):
            continue
        if file and "flush ruleset" not in _read(root / file):
            continue
        yield warned(
            "boot order",
            f"{unit} empties the tables of everybody when it is started or reloaded, ours too",
            "we are loaded after it, and the agent puts it back within a second; better have it flush its own only",
        )


def _enabled(places: list[Path], unit: str) -> bool:
    return any(next(place.glob(f"*.wants/{unit}"), None) is not None for place in places if place.is_dir())


def _listed(units: list[str]) -> str:
    return " and ".join(units) + (" is" if len(units) == 1 else " are")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
