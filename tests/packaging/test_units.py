"""The units and the scripts of the packages, as systemd and shellcheck read them; nothing is started here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.packaging.machine import ROOT

PACKAGING = ROOT / "packaging"
UNITS = sorted((PACKAGING / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
# Tenths of systemd's measure of exposure, 0 to 100: what a unit needs beyond these numbers has to be argued for.
MOST_EXPOSED = {"cellwall-agent": 30, "cellwall-load": 32, "cellwall-controller": 15, "cellwall-controller-backup": 20}

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="`systemd-analyze` is not installed")


def _settings(unit: Path) -> list[tuple[str, str]]:
    lines = [line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] not in "#;"]
    return [(key, value) for key, value in lines]


def _all(unit: Path, key: str) -> str:
    return " ".join(value for name, value in _settings(unit) if name == key)


@needs_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("/usr/bin/cellwall", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "cellwall" in line]
    assert not ours, ours


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_a_service_is_no_more_exposed_than_it_needs(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED[unit.stem]}", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_last_policy_is_in_force_before_the_network_and_after_what_flushes() -> None:
    load = PACKAGING / "systemd" / "cellwall-load.service"
    assert "network-pre.target" in _all(load, "Before") and "network-pre.target" in _all(load, "Wants")
    assert "nftables.service" in _all(load, "After")
    assert ("DefaultDependencies", "no") in _settings(load)


@pytest.mark.parametrize("name", ["cellwall-agent", "cellwall-load"])
def test_no_unit_of_a_host_does_anything_when_it_stops(name: str) -> None:
    settings = _settings(PACKAGING / "systemd" / f"{name}.service")
    assert not [key for key, _ in settings if key.startswith("ExecStop")]


def test_the_controller_has_no_capability_and_is_not_root() -> None:
    for name in ("cellwall-controller", "cellwall-controller-backup"):
        settings = _settings(PACKAGING / "systemd" / f"{name}.service")
        assert ("CapabilityBoundingSet", "") in settings and ("User", "cellwall") in settings


def test_the_scripts_of_the_packages_name_the_kernels_table_only_to_look_at_it() -> None:
    for script in (PACKAGING / "deb").glob("*/p*"):
        for line in script.read_text().splitlines():
            told = line.lstrip().startswith(("#", "echo", "keep)", "close)", "*)"))
            assert told or "nft " not in line or "nft list table inet cellwall" in line, f"{script.name}: {line}"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="`shellcheck` is not installed")
def test_the_scripts_are_well_written() -> None:
    scripts = [PACKAGING / "deb" / "build.sh", *(PACKAGING / "deb").glob("*/p*")]
    done = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
