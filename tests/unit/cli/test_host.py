import os
import subprocess
import sys
from pathlib import Path

import pytest

from cellwall.cli import main

HEAVY = ("typer", "rich", "yaml", "pydantic", "fastapi", "numpy", "sqlalchemy", "chdb")


@pytest.mark.parametrize(
    "argv",
    [
        ["enroll", "--controller", "https://127.0.0.1:1", "--token-file", "none", "--name", "x"],
        ["agent", "run", "--state", "none"],
        ["agent", "boot", "--state", "none"],
        ["agent", "remove", "--state", "none", "--leave", "open", "--yes"],
        ["agent", "run", "--help"],
    ],
)
def test_a_hosts_commands_need_no_more_than_the_agents_install(argv: list[str], tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv[1:] = " + repr(argv) + "\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {HEAVY!r}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from cellwall.cli import main\n"
        "sys.exit(main())\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in ran.stderr and "mistake" not in ran.stderr, ran.stderr
    assert ran.returncode in (0, 2, 6), ran.stderr


def test_another_command_says_which_extra_it_needs(tmp_path: Path) -> None:
    program = "import sys; sys.modules['typer'] = None; from cellwall.cli import main; sys.exit(main(['map']))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 6
    assert ran.stderr.startswith(
        "cellwall: this needs `typer`, which is not installed: a host with the agent alone has"
    )
    assert "cellwall-controller" in ran.stderr and "pip install 'cellwall[cli]'" in ran.stderr


@pytest.mark.parametrize(
    ("argv", "code", "said"), [(["--help"], 0, "  enroll "), ([], 2, "  doctor "), (["--version"], 0, "cellwall 0")]
)
def test_a_host_with_the_agent_alone_says_what_it_can_do(argv: list[str], code: int, said: str) -> None:
    program = f"import sys; sys.modules['typer'] = None; from cellwall.cli import main; sys.exit(main({argv!r}))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (code, "")
    assert said in ran.stdout


@pytest.mark.parametrize(
    "argv", [["agent"], ["agent", "fly"], ["enroll"], ["agent", "run", "--interval", "soon"], ["agent", "remove"]]
)
def test_a_wrong_command_line_is_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.startswith("cellwall: ")


def test_removing_is_a_dry_run_unless_confirmed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agent", "remove", "--leave", "open"]) == 0
    assert (
        capsys.readouterr().out == "would take Cellwall off this host: everything passes; repeat with --yes to do it\n"
    )


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("cellwall ")


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        ran = subprocess.run(
            [sys.executable, "-m", "cellwall", "enroll", "--help"],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "99999999999", "٣"])
def test_a_limit_of_memory_is_a_whole_number_of_mebibytes(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agent", "run", f"--most-memory={text}"]) == 2
    assert f"`{text}` is no number of MiB; wanted a whole one, such as `64`" in capsys.readouterr().err
