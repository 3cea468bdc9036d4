from pathlib import Path
from typing import Any

import pytest

from cellwall.cli.documents import fleet_of, names_within, read_documents, read_fleet
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.files import rewrite

FLEET: dict[str, Any] = {
    "items": [
        {"name": "web-1", "addresses": ["10.0.0.1", "fd00::1"], "labels": {"role": "web"}, "agent": True, "epoch": 5.0},
        {"name": "nas", "addresses": ["10.0.0.2"], "labels": {}, "agent": False},
    ],
    "controllers": [{"address": "10.0.0.9", "port": 7443}],
}


def test_folders_are_read_to_the_bottom_and_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "policy" / "team").mkdir(parents=True)
    (tmp_path / "policy" / "a.yaml").write_text("a", "utf-8")
    (tmp_path / "policy" / "team" / "b.yml").write_text("b", "utf-8")
    (tmp_path / "policy" / "notes.txt").write_text("c", "utf-8")
    monkeypatch.chdir(tmp_path)
    wanted = {"policy/a.yaml": "a", "policy/team/b.yml": "b"}
    assert read_documents([Path("policy")]) == wanted
    assert read_documents([tmp_path / "policy"]) == wanted
    assert read_documents([Path("./policy/a.yaml")]) == {"policy/a.yaml": "a"}


def test_documents_are_named_within_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    for name in ("policy/a.yaml", "policy/team/b.yml", "other/a.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}", "utf-8")
    policy, other = tmp_path / "policy", tmp_path / "other"
    assert set(names_within([policy]).values()) == {"a.yaml", "team/b.yml"}
    assert set(names_within([policy / "a.yaml"]).values()) == {"a.yaml"}
    assert set(names_within([policy, other])) == set(names_within([policy, other]).values())


def test_a_file_is_rewritten_whole_with_its_rights_and_behind_its_link(tmp_path: Path) -> None:
    file, link = tmp_path / "a.yaml", tmp_path / "link.yaml"
    file.write_bytes(b"x: 1\r\n")
    file.chmod(0o640)
    link.symlink_to(file)
    rewrite(link, "x: 2\n", like=link)
    assert file.read_bytes() == b"x: 2\r\n" and file.stat().st_mode & 0o777 == 0o640 and link.is_symlink()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.yaml", "link.yaml"]


@pytest.mark.parametrize("path", ["absent.yaml", "empty", "bytes.yaml"])
def test_what_cannot_be_read_is_a_bad_document(path: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bytes.yaml").write_bytes(b"\xff")
    with pytest.raises(Stop) as caught:
        read_documents([tmp_path / path])
    assert caught.value.code is Exit.DOCUMENT


def test_a_fleet_is_what_the_controller_lists() -> None:
    fleet = fleet_of(FLEET)
    assert [(one.name, str(one.labels), one.agent, one.epoch) for one in fleet.workloads] == [
        ("nas", "", False, 0.0),
        ("web-1", "role=web", True, 5.0),
    ]
    assert [str(one.address) for one in fleet.controllers] == ["10.0.0.9"]


@pytest.mark.parametrize("text", ['{"items": [{"name": "a"}]}', "items:\n- {name: a, labels: {x: y}}\n"])
def test_a_fleet_is_read_from_json_and_from_yaml(text: str, tmp_path: Path) -> None:
    (tmp_path / "fleet").write_text(text, "utf-8")
    assert [one.name for one in read_fleet(tmp_path / "fleet").workloads] == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        "{}",
        '{"items": {}}',
        '{"items": [{}]}',
        '{"items": [{"name": "a", "addresses": ["x"]}]}',
        "a: [",
        '{"items": [1]}',
    ],
)
def test_what_is_no_fleet_is_a_bad_document(text: str, tmp_path: Path) -> None:
    (tmp_path / "fleet").write_text(text, "utf-8")
    with pytest.raises(Stop) as caught:
        read_fleet(tmp_path / "fleet")
    assert caught.value.code is Exit.DOCUMENT
