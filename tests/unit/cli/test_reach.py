import json
from pathlib import Path

import pytest
from tests.unit.analysis.village import POLICY
from tests.unit.cli.questions import ask, write

from cellwall.cli.ground import Modes
from cellwall.cli.output import Format
from cellwall.cli.reach import reach


def test_what_is_reached_is_a_tree_by_hops_with_the_rule_and_the_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = ask(capsys, reach, "shop-web", **write(tmp_path))
    assert code == 0
    lines = told.splitlines()
    assert lines[0] == "from shop-web"
    assert "at once: 1" in lines[1] and "in 2 hops: 1" in lines[3]
    assert "shop-api  ← shop-web tcp/8080: allow `web-to-api`" in lines[2] and "p.yaml:4:5" in lines[2]
    assert "shop-db  ← shop-api postgres: allow `api-to-db`" in lines[4]
    assert "blast radius: 2 of 9 workloads are reached, 33.3% taken with the start" in lines
    assert lines[-2].startswith("  shop-web → shop-api tcp/8080: allow `web-to-api`")


def test_who_reaches_is_asked_with_a_goal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = ask(capsys, reach, "any", "shop-db", hops="1", port=["postgres"], **write(tmp_path))
    assert code == 0 and told.splitlines()[0] == "any → shop-db on postgres"
    assert "shop-api  → shop-db postgres: allow `api-to-db`" in told and "gate" not in told


def test_nothing_reached_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, reach, "shop-db", **write(tmp_path))[0] == 1
    code, told = ask(capsys, reach, "shop-db", "shop-web", cut=1, **write(tmp_path))
    assert code == 1 and "no one reaches it" in told and "nothing to cut" in told


def test_rules_are_left_out_and_the_ones_that_cut_the_most_are_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = write(tmp_path)
    _, told = ask(capsys, reach, "shop-web", without=["api-to-db"], **given)
    assert "without `api-to-db`: 2 → 1 workload (33.3% → 22.2% taken); no longer shop-db" in told
    assert "blast radius: 1 of 9 workloads" in told and "allow `api-to-db`" not in told
    _, told = ask(capsys, reach, "shop-web", cut=2, **given)
    assert "web-to-api" in told and "shop-api, shop-db" in told
    _, told = ask(capsys, reach, "network:office", "shop-db", cut=1, **given)
    assert "the fewest rules without which nothing gets there: allow `" in told
    _, told = ask(capsys, reach, "network:office", "printer", cut=1, **given)
    assert "no rules keep them apart" in told


def test_the_exit_code_is_of_the_policy_without_the_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = write(tmp_path)
    assert ask(capsys, reach, "shop-web", "shop-db", **given)[0] == 0
    code, told = ask(capsys, reach, "shop-web", "shop-db", without=["api-to-db"], **given)
    assert code == 1 and "no one reaches it" in told and "no longer shop-web" in told


def test_a_question_about_no_one_or_about_everyone_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = write(tmp_path, POLICY.replace("[192.0.2.0/24]", "[0.0.0.0/0, '::/0']"))
    code, told = ask(capsys, reach, "role=ghost", **given)
    assert code == 1 and "`role=ghost` is no one here: no workload and no address is meant" in told
    code, told = ask(capsys, reach, "network:office", **given)
    assert code == 1 and "network:office holds all 9 workloads already" in told and "blast radius" not in told


def test_a_hop_is_on_the_ports_of_its_own_rule_and_the_others_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = POLICY.replace("modes:", "  - {id: dump, allow: tcp/5433, from: role=web, to: role=db, same: [app]}\nmodes:")
    _, told = ask(capsys, reach, "role in (web,api),app=shop", **write(tmp_path, both))
    (line,) = (line for line in told.splitlines() if "shop-db  " in line)
    assert "shop-api postgres: allow `api-to-db`" in line and line.endswith("; in all tcp/5432-5433")


def test_what_nobody_enforces_passes_on_all_services(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lax = POLICY.replace('{where: "", mode: enforce}', "{where: any, mode: observe}, {where: role=web, mode: enforce}")
    _, told = ask(capsys, reach, "shop-web", "blog-db", **write(tmp_path, lax))
    assert "  shop-api → blog-db all services: nothing is enforced here" in told.splitlines()


def test_the_whole_answer_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = write(tmp_path, POLICY.replace("mode: enforce", "mode: observe"))
    code, told = ask(capsys, reach, "shop-web", hops="1", output=Format.JSON, **given)
    answer = json.loads(told)
    assert code == 0 and answer["unenforced"] == 8 and answer["assume"] == "modes"
    assert len(answer["reached"]) == 8 and answer["blast_radius"] == 1.0
    _, told = ask(capsys, reach, "shop-web", assume=Modes.ENFORCE, output=Format.JSON, **given)
    answer = json.loads(told)
    assert answer["reached"] == ["shop-api", "shop-db"] and answer["unenforced"] == 0
    assert [hop["service"] for hop in answer["landings"][1]["path"]] == ["tcp/8080", "tcp/5432"]


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        ("shop-wep", {}, "did you mean `shop-web`?"),
        ("shop-web", {"hops": "0"}, "`0` is no number of hops; wanted 1 or more, or `all`"),
        ("shop-web", {"without": ["web-to-apy"]}, "there is no rule `web-to-apy`; did you mean `web-to-api`?"),
        ("shop-web", {"port": ["tcp/99999"]}, "is over 65535"),
    ],
)
def test_a_question_that_cannot_be_read_is_an_error_of_the_command_line(
    source: str, options: dict[str, object], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = ask(capsys, reach, source, **options, **write(tmp_path))
    assert code == 2 and told in said


def test_without_a_fleet_the_declared_workloads_are_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "workloads: {a: {addresses: [10.0.0.1]}, b: {addresses: [10.0.0.2]}}\n"
    text += "rules: [{id: r, allow: tcp/1, from: any, to: any}]\nmodes: [{where: '', mode: enforce}]\n"
    given = write(tmp_path, text)
    code, told = ask(capsys, reach, "a", policy=given["policy"])
    assert code == 0 and "blast radius: 1 of 2 workloads" in told
    code, told = ask(capsys, reach, "a", policy=write(tmp_path)["policy"])
    assert code == 2 and "name the fleet with --fleet" in told


def test_without_a_controller_the_options_that_do_without_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cellwall.cli.where.SYSTEM_SOCKET", tmp_path / "none")
    monkeypatch.setattr("cellwall.cli.where.lab_sockets", dict[str, Path])
    code, told = ask(capsys, reach, "web-1")
    assert code == 5 and told.endswith("; or answer from files with --policy and --fleet")
