from pathlib import Path

import pytest

from cellwall.cli.doctor.checks import State, failed, good, host_checks, warned
from cellwall.cli.doctor.command import as_json, drawn
from cellwall.cli.doctor.nft import FEATURES, ForeignTable, foreign_tables
from cellwall.cli.output import say

BASE = {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "accept"}


def test_every_check_says_something_and_trouble_says_what_to_do(tmp_path: Path) -> None:
    checks = host_checks(tmp_path / "not" / "there" / "yet")
    assert [one.name for one in checks] == [
        "rights",
        "kernel",
        "conntrack",
        "cgroups",
        "containers",
        "clock",
        "disk",
        "memory",
    ]
    assert all(one.says and (one.advice or one.state is State.OK) for one in checks)


def test_only_what_blocks_makes_enforcement_impossible() -> None:
    fine = [good("a", "x"), warned("b", "y", "do"), failed("c", "z", "do", blocks=False)]
    assert as_json(fine)["can_enforce"] is True
    assert as_json([*fine, failed("d", "z", "do")])["can_enforce"] is False


def test_findings_are_drawn_with_what_to_do_about_them(capsys: pytest.CaptureFixture[str]) -> None:
    say(drawn([good("kernel", "Linux 6.9"), failed("nft", "too old", "use 1.0 or later")]))
    told = capsys.readouterr().out
    assert "✘ fail" in told and "→ use 1.0 or later" in told
    assert "this host cannot enforce: 1 ok, 1 fail" in told


def test_features_that_can_be_missed_say_what_is_lost() -> None:
    assert {one.name for one in FEATURES if not one.needed} == {
        "reject",
        "denial samples (NFLOG)",
        "users (skuid)",
        "systemd units (socket cgroupv2)",
    }


@pytest.mark.parametrize(
    ("entries", "drops"),
    [
        ([], False),
        ([{"chain": BASE}], False),
        ([{"chain": {**BASE, "policy": "drop"}}], True),
        ([{"chain": {**BASE, "hook": "postrouting", "policy": "drop"}}], False),
        (
            [{"rule": {"family": "ip", "table": "filter", "chain": "x", "expr": [{"drop": None}]}}],
            True,
        ),
        ([{"rule": {"family": "ip", "table": "filter", "chain": "x", "expr": [{"accept": None}]}}], False),
    ],
)
def test_a_foreign_firewall_is_known_by_what_it_drops(entries: list[dict[str, object]], drops: bool) -> None:
    table = {"table": {"family": "ip", "name": "filter"}}
    ours = {"table": {"family": "inet", "name": "cellwall"}}
    assert foreign_tables([{"metainfo": {}}, table, ours, *entries]) == [ForeignTable("ip", "filter", drops)]
