"""The flows of the last while, on disk."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.unit.agent.test_tally import record

from cellwall.agent.ring import Ring, recent_flows
from cellwall.flows import Process


def test_what_was_added_is_read_oldest_first(tmp_path: Path) -> None:
    ring = Ring(tmp_path)
    ring.add([record(80), record(81, process=Process("nginx"), standing=True)])
    ring.add([])
    first, second = recent_flows(tmp_path)
    assert (first["port"], first["rules"], "process" in first) == ("tcp/80", ["in"], False)
    assert (second["port"], second["process"], second["standing"]) == ("tcp/81", {"name": "nginx"}, True)
    assert stat.S_IMODE((tmp_path / "flows.jsonl").stat().st_mode) == 0o600


def test_only_the_last_are_read(tmp_path: Path) -> None:
    Ring(tmp_path).add([record(port) for port in range(10)])
    assert [row["port"] for row in recent_flows(tmp_path, 3)] == ["tcp/7", "tcp/8", "tcp/9"]


def test_it_never_holds_more_than_twice_its_size(tmp_path: Path) -> None:
    ring = Ring(tmp_path, most_bytes=2000)
    for port in range(200):
        ring.add([record(port)])
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 5000
    assert recent_flows(tmp_path)[-1]["port"] == "tcp/199"


def test_a_half_written_line_is_passed_over(tmp_path: Path) -> None:
    Ring(tmp_path).add([record(1)])
    with (tmp_path / "flows.jsonl").open("a") as file:
        file.write('{"port": "tcp')
    assert len(recent_flows(tmp_path)) == 1


def test_no_flows_are_no_rows_and_no_folder_is_no_error(tmp_path: Path) -> None:
    assert recent_flows(tmp_path) == []
    Ring(tmp_path / "missing").add([record()])
    assert recent_flows(tmp_path / "missing") == []
