"""What the doctor says of how a host starts."""

from __future__ import annotations

from pathlib import Path

from cellwall.cli.doctor.boot import UNITS, boot_checks


def host(root: Path, *enabled: str, installed: tuple[str, ...] = UNITS) -> Path:
    (root / "run/systemd/system").mkdir(parents=True)
    units = root / "usr/lib/systemd/system"
    wants = root / "etc/systemd/system/multi-user.target.wants"
    for folder in (units, wants):
        folder.mkdir(parents=True)
    for unit in installed:
        (units / unit).touch()
    for unit in enabled:
        (wants / unit).symlink_to(units / unit)
    return root


def test_without_systemd_it_says_what_has_to_be_started(tmp_path: Path) -> None:
    (found,) = boot_checks(tmp_path)
    assert found.state == "warn" and "`cellwall agent boot` before the network" in found.advice


def test_units_that_are_not_installed_or_not_enabled_are_named(tmp_path: Path) -> None:
    (found,) = boot_checks(host(tmp_path / "a", installed=UNITS[:1]))
    assert found.says == "cellwall-agent.service is not installed"
    (found,) = boot_checks(host(tmp_path / "b", UNITS[1]))
    assert found.says.startswith("cellwall-load.service is not enabled")
    (found,) = boot_checks(host(tmp_path / "c"))
    assert found.advice == "`systemctl enable cellwall-load.service cellwall-agent.service`"


def test_a_host_that_loads_the_policy_before_the_network_is_well(tmp_path: Path) -> None:
    (found,) = boot_checks(host(tmp_path, *UNITS))
    assert found.state == "ok"


def test_a_service_that_empties_all_tables_is_named(tmp_path: Path) -> None:
    root = host(tmp_path, *UNITS, "nftables.service", installed=(*UNITS, "nftables.service"))
    assert [one.state for one in boot_checks(root)] == ["ok"]
    (root / "etc/nftables.conf").write_text("#!/usr/sbin/nft -f\nflush ruleset\n")
    found = boot_checks(root)
    assert [one.state for one in found] == ["ok", "warn"] and "nftables.service" in found[1].says
