"""A file that a command writes is whole or as it was, and none that is there is replaced unasked."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from cellwall.cli.app import run
from cellwall.cli.bundle import Bundle
from cellwall.cli.demo.stage import keep_out
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.files import PRIVATE, keep, keep_others, replaced
from cellwall.cli.host import run as run_on_host


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_a_file_is_as_it_was_where_writing_fails_half_way(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_text("old", "utf-8")
    with pytest.raises(OSError, match="disk full"), replaced(file) as out:  # noqa: PT012
        out.write(b"half of the n")
        raise OSError("disk full")
    assert file.read_text("utf-8") == "old" and names(tmp_path) == ["state"]


def test_till_the_last_byte_the_old_file_is_there(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_text("old", "utf-8")
    with replaced(file) as out:
        out.write(b"new")
        out.flush()
        assert file.read_text("utf-8") == "old"
    assert file.read_text("utf-8") == "new" and names(tmp_path) == ["state"]


def test_what_is_secret_is_for_its_owner_alone_whatever_was_there(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_text("old", "utf-8")
    file.chmod(0o644)
    with replaced(file, PRIVATE) as out:
        out.write(b"new")
    assert file.stat().st_mode & 0o777 == PRIVATE


def test_a_new_file_has_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    held = os.umask(0o027)
    try:
        with replaced(tmp_path / "map.svg") as out:
            out.write(b"<svg/>")
    finally:
        os.umask(held)
    assert (tmp_path / "map.svg").stat().st_mode & 0o777 == 0o640


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replaced(tmp_path / "absent" / "map.svg"):
        pass
    assert caught.value.filename == str(tmp_path / "absent" / "map.svg")


def test_what_is_there_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a"
    keep([file])
    file.write_text("x", "utf-8")
    with pytest.raises(Stop, match="would be replaced; repeat with --yes") as caught:
        keep([file])
    assert caught.value.code is Exit.USAGE
    keep([file], replace=True)
    keep_others({file: "x"})
    with pytest.raises(Stop, match="would be replaced"):
        keep_others({file: "y"})


@pytest.mark.parametrize("path", ["/dev/null", "/tmp"])
def test_what_is_no_file_is_never_replaced(path: str) -> None:
    with pytest.raises(Stop, match="wanted a file to write"):
        keep([Path(path)], replace=True)
    with pytest.raises(Stop, match="wanted a file to write"):
        keep_others({Path(path): "x"}, replace=True)


def test_a_bundle_takes_the_place_of_another_only_once_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    file.write_bytes(b"old")
    broken = Bundle({"a.txt": "x"})
    broken.files["b.txt"] = None  # pyright: ignore[reportArgumentType]
    with pytest.raises(AttributeError):
        broken.write(file)
    assert file.read_bytes() == b"old" and names(tmp_path) == ["bundle.tar.gz"]
    Bundle({"a.txt": "x"}).write(file)
    with tarfile.open(file) as tar:
        assert tar.getnames() == ["bundle/a.txt"]
    assert file.stat().st_mode & 0o777 == PRIVATE


@pytest.mark.parametrize(
    "line",
    [
        ["controller", "backup", "FILE", "--data", ".", "--without-keys"],
        ["support-bundle", "--out", "FILE"],
        ["agent", "support-bundle", "--out", "FILE"],
    ],
)
def test_a_command_replaces_no_file_unasked(line: list[str], tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("mine", "utf-8")
    argv = [str(file) if word == "FILE" else word for word in line]
    with pytest.raises(Stop, match="would be replaced; repeat with --yes"):
        run_on_host(argv) if argv[0] == "agent" else run(argv)
    assert file.read_text("utf-8") == "mine"


@pytest.mark.parametrize("form", ["table", "json", "yaml"])
def test_files_are_written_and_the_exit_code_stands_where_nobody_reads_on(form: str, tmp_path: Path) -> None:
    rules = "".join(
        f"- {{id: r{at}, allow: tcp/{at}, from: role=a, to: role=b, reason: {'why ' * 40}}}\n" for at in range(1, 900)
    )
    (tmp_path / "p.yaml").write_text(f"rules:\n{rules}", "utf-8")
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, "-m", "cellwall", "policy", "minimise", "p.yaml", "--to", "smaller", "-o", form]
    try:
        ran = subprocess.run(argv, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert ran.returncode == 0 and "wrote 1 document to smaller" in ran.stderr
    assert (tmp_path / "smaller" / "p.yaml").is_file()


def test_a_demonstration_writes_only_where_one_has_or_nothing_is(tmp_path: Path) -> None:
    keep_out(tmp_path / "absent")
    keep_out(tmp_path)
    (tmp_path / "logs").mkdir()
    with pytest.raises(Stop, match="holds something else"):
        keep_out(tmp_path)
    (tmp_path / "summary.md").write_text("# Mine\n", "utf-8")
    with pytest.raises(Stop, match="holds something else"):
        keep_out(tmp_path)
    (tmp_path / "summary.md").write_text("# Cellwall demonstration\n", "utf-8")
    keep_out(tmp_path)
