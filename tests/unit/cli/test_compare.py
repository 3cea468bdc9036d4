import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.analysis.village import POLICY
from tests.unit.cli.questions import ask, write

from cellwall.cli.compare import Shape, diff, turned
from cellwall.cli.compare_view import draw, markdown
from cellwall.cli.ground import Modes
from cellwall.cli.output import Format

WIDER = POLICY.replace("from: role=api, to: role=db", "from: 'role in (api,web)', to: role=db")


def both(folder: Path, text: str = WIDER) -> tuple[str, str, Path]:
    fleet: Path = write(folder)["fleet"]
    write(folder, text, "b")
    return str(folder / "a"), str(folder / "b"), fleet


def test_a_difference_is_a_rule_with_the_rules_that_make_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, fleet = both(tmp_path, WIDER.replace("modes: [", "modes: [{where: env=dev, mode: guard}, "))
    code, told = ask(capsys, diff, old, new, fleet=fleet)
    lines = told.splitlines()
    assert code == 1
    assert lines[0].endswith("2 pairs newly pass, 0 no longer (rules +0 -0 ~1); 3 workloads change mode")
    assert lines[1].startswith(
        "+ allow postgres from role=web to role=db (same app, env): 2 → 2 workloads  changed allow"
    )
    assert lines[2] == "~ mode of env=dev: enforce → guard (3 workloads)"


def test_the_same_meaning_is_exit_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, fleet = both(tmp_path, POLICY.replace("id: ssh", "id: way-in"))
    code, told = ask(capsys, diff, old, new, fleet=fleet)
    assert code == 0 and told.endswith("the same meaning for this fleet\n")


def test_what_differs_only_where_points_guard_is_found_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guarded = POLICY.replace("mode: enforce", "mode: guard")
    fleet: Path = write(tmp_path, guarded)["fleet"]
    write(tmp_path, guarded.replace("modes:", "  - {id: wall, wall: tcp/445, from: any, to: any}\nmodes:"), "b")
    code, told = ask(capsys, diff, str(tmp_path / "a"), str(tmp_path / "b"), fleet=fleet)
    assert code == 1 and "with modes as they are" in told
    # Those that are at both ends, the printer and the outside, are not enforced.
    assert "- allow tcp/445 from any to " in told or "- allow tcp/445 from " in told
    assert ask(capsys, diff, str(tmp_path / "a"), str(tmp_path / "b"), fleet=fleet, assume=Modes.AS_IS)[0] == 1


def test_markdown_is_for_a_pull_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, fleet = both(tmp_path)
    code, told = ask(capsys, diff, old, new, fleet=fleet, form=Shape.MARKDOWN)
    assert code == 1 and told.startswith("### Policy: 2 pairs newly pass")
    assert "| ➕ | `postgres` | `role=web` | `role=db`<br>same app, env | 2 → 2 workloads |" in told
    assert "`blog-web`, `shop-web` → `blog-db`, `shop-db`" in told


def test_markdown_names_so_few_that_a_pull_request_takes_them() -> None:
    names = [f"workload-{n}" for n in range(5_000)]
    line: dict[str, Any] = {"services": "web", "from": "a=b", "to": "c=d", "same": [], "as": [], "served_as": []}
    line |= {"ip": None, "sources": names, "destinations": names, "workloads": [5_000, 5_000], "rules": []}
    answer: dict[str, Any] = {
        "same": False,
        "assume": "enforce",
        "pairs": {"opened": 1, "closed": 0},
        "modes": [],
        "observed": None,
    }
    answer |= {"rules": {"added": [], "removed": [], "changed": []}, "opened": [line] * 500, "closed": []}
    told = markdown(answer)
    assert len(told) < 65_536 and "and 4988 more" in told and "… and 460 more." in told


def test_both_versions_of_ip_are_one_line_where_they_say_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wider = POLICY.replace("from: role=monitor, to: any", "from: any, to: role=db")
    old, new, fleet = both(tmp_path, wider)
    told = ask(capsys, diff, old, new, fleet=fleet)[1]
    assert "network:office" in told and "over IPv" not in told.partition("- allow")[0]
    narrow = wider.replace("from: any, to: role=db", "from: network:office, to: role=db")
    write(tmp_path, narrow, "b")
    (line,) = json.loads(ask(capsys, diff, old, new, fleet=fleet, form=Shape.JSON)[1])["opened"]
    assert line["from"] == "network:office"


def test_json_has_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, fleet = both(tmp_path)
    for options in ({"form": Shape.JSON}, {"output": Format.JSON}):
        answer = json.loads(ask(capsys, diff, old, new, fleet=fleet, **options)[1])
        assert answer["opened"][0]["ports"] == "tcp/5432" and answer["closed"] == []
        assert answer["pairs"] == {"opened": 2, "closed": 0} and not answer["same"]


def test_the_text_of_documents_can_be_compared_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, _ = both(tmp_path)
    code, told = ask(capsys, diff, old, new, text=True)
    assert code == 1 and "--- " in told and "role in (api,web)" in told
    assert ask(capsys, diff, old, old, text=True) == (0, "no difference\n")
    assert ask(capsys, diff, f"{old}/p.yaml", f"{old}/p.yaml", text=True)[0] == 0


def flow(source: str, becomes: str) -> dict[str, Any]:
    return {
        "source": source,
        "destination": "b",
        "service": "tcp/1",
        "becomes": becomes,
        "connections": 2,
        "process": "",
    }


def replayed(cut: list[dict[str, Any]], opened: list[dict[str, Any]]) -> dict[str, Any]:
    return {"checked": 9, "cut": cut, "opened": opened, "cut_count": len(cut), "opened_count": len(opened)}


def test_connections_that_were_seen_are_those_that_both_sides_treat_otherwise() -> None:
    first = replayed([flow("x", "denied"), flow("same", "denied")], [flow("y", "allowed")])
    second = replayed([flow("same", "denied"), flow("z", "denied")], [])
    told = turned(first, second)
    assert sorted(one["source"] for one in told["cut"]) == ["y", "z"]
    assert [one["source"] for one in told["opened"]] == ["x"]
    assert told["complete"] and told["checked"] == 9


def test_seen_connections_are_shown_in_both_forms() -> None:
    observed = {"checked": 9, "cut": [flow(f"x{n % 30}", "denied") for n in range(60)], "opened": [], "complete": False}
    empty: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
    answer: dict[str, Any] = {
        "a": "1",
        "b": "2",
        "same": False,
        "assume": "enforce",
        "pairs": {"opened": 0, "closed": 1},
    }
    answer |= {"rules": empty, "opened": [], "closed": [], "modes": [], "observed": observed}
    assert "of 9 distinct flows that were seen, 60 would be cut" in markdown(answer)
    assert "cut  x7 → b tcp/1 (4 connections)" in markdown(answer)
    assert len(getattr(draw(answer), "renderables", ())) == 23
