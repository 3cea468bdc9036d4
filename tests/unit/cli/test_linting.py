"""`policy lint` and `policy minimise` on files: what they print, what they write, how they end."""

import json
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.test_rollout import controller

from cellwall.cli import main, minimise
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.linting import MOST_ALIKE
from cellwall.cli.output import Format

TEXT = """\
labels: {env: {}, role: {}}
rules:
  # the broad one
  - {id: a, allow: tcp, from: any, to: role=db, owner: me}
  # the narrow one
  - {id: b, allow: tcp/80, from: env=prod, to: role=db, owner: me}
  - {id: c, allow: udp/53, from: role=web, to: role=dns, owner: me}
  - {id: d, allow: udp/53, from: role=api, to: role=dns, owner: me}
"""
WORKLOADS: list[dict[str, Any]] = [
    {"name": "web-1", "addresses": ["10.0.0.1"], "labels": {"env": "prod", "role": "web"}},
    {"name": "api-1", "addresses": ["10.0.0.2"], "labels": {"env": "prod", "role": "api"}},
    {"name": "db-1", "addresses": ["10.0.0.3"], "labels": {"env": "prod", "role": "db"}},
    {"name": "dns-1", "addresses": ["10.0.0.4"], "labels": {"env": "prod", "role": "dns"}},
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(TEXT)
    Path("fleet.json").write_text(json.dumps({"items": WORKLOADS}))
    return tmp_path


def seen(source: str, target: str, port: int, last: float = 2e9) -> dict[str, Any]:
    process = {"name": "", "user": "", "unit": "", "exe": ""}
    end: dict[str, Any] = {
        "reporter": "r",
        "outcome": "allowed",
        "would": "allowed",
        "rules": [],
        "revision": 1,
        "connections": 1,
    }
    end |= {"first_seen": last, "last_seen": last, "process": process}
    ends = {"source": source, "destination": target, "protocol": 6, "port": port}
    return {**ends, "egress": end, "ingress": None}


def answer(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> Any:
    assert main(["policy", "lint", "p.yaml", *argv, "-o", "json"]) == code
    return json.loads(capsys.readouterr().out)


def test_findings_have_place_proof_and_edit(capsys: pytest.CaptureFixture[str]) -> None:
    told = answer(capsys)
    (one,) = told["findings"]
    assert (one["check"], one["subject"], one["proof"]) == ("shadowed", "b", ["a"])
    assert one["place"] == {"file": "p.yaml", "line": 6, "column": 5}
    assert one["edits"] == [{"kind": "remove", "place": one["place"], "field": "", "text": ""}]
    assert told["counts"]["findings"] == 1


def test_a_finding_is_a_line_that_begins_with_its_place_at_any_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["policy", "lint", "p.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "p.yaml:6:5: warning: `b`: allow `a` (p.yaml:4:5) allows all that it allows [shadowed]",
        "    remove it",
        "1 document, 4 rules, 0 modes, 0 tests, 1 finding",
    ]


def test_what_is_mended_keeps_the_ends_of_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text(TEXT, newline="\r\n")
    assert main(["policy", "lint", "p.yaml", "--fix", "--yes"]) == 0
    left = Path("p.yaml").read_bytes()
    assert b"id: b" not in left and left.count(b"\r\n") == left.count(b"\n") == len(TEXT.splitlines()) - 2
    assert "wrote 1 of 1 documents" in capsys.readouterr().err


def test_edits_that_may_change_a_verdict_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text("rules: [{id: a, allow: tcp/1, from: role!=web, to: role=db, owner: me}]\n")
    assert main(["policy", "lint", "p.yaml", "--fix"]) == 0
    told = capsys.readouterr()
    assert "there is nothing to mend" in told.out
    assert "not edited: `caught-by-absence`; that may change what passes" in told.err


def test_documents_come_from_standard_input_and_are_not_written_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(TEXT.encode())))
    assert main(["policy", "lint", "-"]) == 0
    assert capsys.readouterr().out.startswith("stdin:6:5: warning: `b`")
    assert main(["policy", "lint", "-", "--fix", "--yes"]) == 2


def test_an_error_ends_with_1_and_checks_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text(TEXT + "  - {id: e, deny: udp, from: any, to: role=dns, owner: me}\n")
    assert {one["check"] for one in answer(capsys, code=1)["findings"]} == {"shadowed", "contradicted"}
    assert [one["subject"] for one in answer(capsys, "--check", "shadowed")["findings"]] == ["b"]
    assert main(["policy", "lint", "p.yaml", "--check", "shadow"]) == 2
    assert "there is no check `shadow`; known are `matches-nothing`" in capsys.readouterr().err


def test_a_fix_is_shown_first_and_written_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "lint", "p.yaml", "--fix"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("--- a/p.yaml\n+++ b/p.yaml\n")
    assert "-  # the narrow one\n-  - {id: b," in shown.out
    assert "nothing was changed" in shown.err
    assert Path("p.yaml").read_text() == TEXT
    assert main(["policy", "lint", "p.yaml", "--fix", "--yes"]) == 0
    assert "wrote 1 of 1 documents" in capsys.readouterr().err
    assert Path("p.yaml").read_text() == TEXT[: TEXT.index("  # the narrow")] + TEXT[TEXT.index("  - {id: c") :]
    assert main(["policy", "lint", "p.yaml", "--fix", "--yes"]) == 0
    assert capsys.readouterr().out == "there is nothing to mend\n"


def test_what_is_wrong_rather_than_too_much_is_only_mended_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    text = TEXT + "  - {id: e, deny: udp, from: any, to: role=dns, owner: me}\n"
    Path("p.yaml").write_text(text)
    assert main(["policy", "lint", "p.yaml", "--fix", "--check", "shadowed", "--check", "contradicted", "--yes"]) == 0
    assert "id: c" not in Path("p.yaml").read_text()
    Path("p.yaml").write_text(text)
    assert main(["policy", "lint", "p.yaml", "--fix", "--yes"]) == 1
    assert "id: c" in Path("p.yaml").read_text()


def test_a_slip_in_a_selector_is_mended_by_name_with_the_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text("rules: [{id: a, allow: tcp/1, from: role=wbe, to: role=db, owner: me}]\n")
    args = ("--fleet", "fleet.json", "--check", "matches-nothing")
    assert main(["policy", "lint", "p.yaml", *args, "--fix", "--yes"]) == 0
    assert "from: role=web," in Path("p.yaml").read_text()


def test_rules_are_held_against_flows(capsys: pytest.CaptureFixture[str]) -> None:
    flows = [seen("10.0.0.1", "10.0.0.3", 5432), {**seen("10.0.0.1", "10.0.0.3", 80), "ingress": None}]
    Path("flows.json").write_text(json.dumps({"items": flows}))
    told = answer(capsys, "--fleet", "fleet.json", "--flows", "flows.json")
    assert {(one["check"], one["subject"]) for one in told["findings"]} == {
        ("shadowed", "b"),
        ("broader", "a"),
        ("broader", "b"),
        ("unused-rule", "c"),
        ("unused-rule", "d"),
    }
    old = [seen("10.0.0.1", "10.0.0.3", 5432, last=1000.0)]
    Path("flows.json").write_text(json.dumps(old))
    told = answer(capsys, "--fleet", "fleet.json", "--flows", "flows.json", "--since", "30d", "--check", "unused-rule")
    assert [one["subject"] for one in told["findings"]] == ["a", "b", "c", "d"]
    assert "no flow of the last 30 days used it" in told["findings"][0]["message"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "flows.json: not JSON"),
        ('{"x": 1}', "flows.json: wanted `items`, a list"),
        ('[{"source": "10.0.0.1"}]', "flows.json: not flows: 'destination'"),
        ('[{"source": "x", "destination": "y"}]', "flows.json: not flows: `x` is not an IPv4 or IPv6 address"),
    ],
)
def test_what_are_not_flows_is_said(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("flows.json").write_text(text)
    assert main(["policy", "lint", "p.yaml", "--fleet", "fleet.json", "--flows", "flows.json"]) == 3
    assert message in capsys.readouterr().err


def test_what_cannot_be_read_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "lint", "p.yaml", "--fleet", "fleet.json", "--flows", "nowhere.json"]) == 3
    assert "nowhere.json: no such file or directory" in capsys.readouterr().err
    assert main(["policy", "lint", "p.yaml", "--fleet", "fleet.json", "--since", "yesterday"]) == 2
    assert "`yesterday` is not a span of time; wanted such as `12h` or `30d`" in capsys.readouterr().err


def test_many_findings_that_are_good_to_know_are_folded(capsys: pytest.CaptureFixture[str]) -> None:
    rules = "".join(f"  - {{id: r{n}, allow: tcp/{n}, from: role=web, to: role=db}}\n" for n in range(1, 31))
    Path("p.yaml").write_text(f"rules:\n{rules}")
    assert main(["policy", "lint", "p.yaml"]) == 0
    out = capsys.readouterr().out
    assert out.count("[ownerless]") == MOST_ALIKE
    assert f"and {30 - MOST_ALIKE} more `ownerless`; see them with --check ownerless" in out
    assert main(["policy", "lint", "p.yaml", "--check", "ownerless"]) == 0
    assert capsys.readouterr().out.count("[ownerless]") == 30


def test_fewer_rules_are_shown_as_a_diff_and_written_to_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    minimise.minimise([Path("p.yaml")])
    shown = capsys.readouterr()
    assert '+  - {id: c, allow: udp/53, from: "role in (api,web)", to: role=dns, owner: me}' in shown.out
    assert "4 rules become 2 (50%): 1 never decide, 1 are joined to others; proven to mean the same" in shown.err
    assert "p.yaml:8:5: `d` goes into `c` at p.yaml:7:5" in shown.err
    gone = next(line for line in shown.err.splitlines() if line.startswith("p.yaml:6:5: `b` goes: "))
    assert gone.count("p.yaml:4:5") == 1
    minimise.minimise([Path("p.yaml")], to=Path("smaller"), output=Format.JSON)
    told = json.loads(capsys.readouterr().out)
    assert (told["before"], told["after"], told["ratio"]) == (4, 2, 0.5)
    places = ["p.yaml:7:5", "p.yaml:8:5"]
    assert told["merges"] == [{"kept": "c", "place": places[0], "rules": ["c", "d"], "places": places}]
    assert [(one["rule"], one["place"], one["proof_places"]) for one in told["removals"]] == [
        ("b", "p.yaml:6:5", ["p.yaml:4:5"])
    ]
    assert Path("smaller/p.yaml").read_text() == told["documents"]["p.yaml"]
    assert Path("p.yaml").read_text() == TEXT
    with pytest.raises(Stop) as ended:
        minimise.minimise([Path("smaller/p.yaml")])
    assert ended.value.code == Exit.NO
    assert capsys.readouterr().out == "no rule can be saved\n"


def test_rules_of_two_files_become_one_only_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "two").mkdir()
    for name, role in (("a", "web"), ("b", "api")):
        text = f"rules: [{{id: {name}, allow: udp/53, from: role={role}, to: role=dns, owner: me}}]\n"
        (folder / "two" / f"{name}.yaml").write_text(text, "utf-8")
    with pytest.raises(Stop):
        minimise.minimise([Path("two")])
    assert capsys.readouterr().out == "no rule can be saved\n"
    minimise.minimise([Path("two")], across_files=True, output=Format.JSON)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["merges"][0]["places"] == ["two/a.yaml:1:9", "two/b.yaml:1:9"]
    assert "two/b.yaml:1:9: `b` goes into `a` at two/a.yaml:1:9" in shown.err


def test_the_fleet_and_the_flows_may_be_the_controllers(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    socket = folder / "api.sock"
    with controller(socket, {"items": WORKLOADS}, {"items": [seen("10.0.0.1", "10.0.0.3", 80)], "next": None}):
        told = answer(capsys, "--since", "30d", "--socket", str(socket), "--check", "unused-rule")
    assert [one["subject"] for one in told["findings"]] == ["c", "d"]
