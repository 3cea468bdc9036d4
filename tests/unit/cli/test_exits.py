import os

import pytest

from cellwall.cli.exits import Exit, Stop, code_of, guarded
from cellwall.clients import ApiRefused, Unreachable
from cellwall.controller.errors import StateError
from cellwall.enforce import Refused
from cellwall.lab import LabError, ScenarioError
from cellwall.policy import Place, PolicyError, parse_policy
from cellwall.traffic import CellwallError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Stop(Exit.NO, "no"), Exit.NO),
        (PolicyError(Place("web.yaml", 1, 1), "wrong"), Exit.DOCUMENT),
        (ScenarioError("wrong"), Exit.DOCUMENT),
        (Unreachable("away"), Exit.UNREACHABLE),
        (StateError("its database is away"), Exit.UNREACHABLE),
        (Refused("no"), Exit.REFUSED),
        (ApiRefused(404, {"detail": "there is no such thing"}), Exit.USAGE),
        (ApiRefused(400, {"detail": "bad"}), Exit.USAGE),
        (ApiRefused(409, {"detail": "another came in between"}), Exit.REFUSED),
        (ApiRefused(503, {"detail": "the database is away"}), Exit.UNREACHABLE),
        (ApiRefused(422, {"detail": "web.yaml:1:1: wrong", "file": "web.yaml"}), Exit.DOCUMENT),
        (ApiRefused(422, {"detail": "`body.uses`: wrong"}), Exit.USAGE),
        (LabError("needs root"), Exit.UNABLE),
        (CellwallError("whatever"), Exit.UNABLE),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error: CellwallError, code: Exit) -> None:
    assert code_of(error) is code


def test_an_error_is_one_line_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise Stop(Exit.DOCUMENT, "web.yaml:12:9: unknown service `htps`;\n  did you mean `https`?")

    assert guarded(fail) == Exit.DOCUMENT
    assert capsys.readouterr().err == "cellwall: web.yaml:12:9: unknown service `htps`; did you mean `https`?\n"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (RecursionError(), Exit.DOCUMENT, "nested"),
        (FileNotFoundError(2, "No such file", "x.yaml"), Exit.UNABLE, "`x.yaml`: no such file"),
        (ZeroDivisionError("division by zero"), Exit.UNABLE, "a mistake in cellwall: ZeroDivisionError"),
    ],
)
def test_whatever_else_goes_wrong_is_one_line_too(
    error: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    assert guarded(fail) == code
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1


def test_a_mistake_of_ours_can_be_seen_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "CELLWALL_TRACEBACK", "1")

    def fail() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guarded(fail)


def test_every_exit_code_has_a_meaning() -> None:
    assert all(code.meaning for code in Exit)


def test_all_that_is_wrong_with_documents_is_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    def local() -> int:
        raise_wrong()
        return 0

    def far() -> int:
        raise ApiRefused(422, {"detail": "a.yaml:1:1: one", "file": "a.yaml", "others": ["b.yaml:2:2: two"]})

    assert guarded(local) == guarded(far) == Exit.DOCUMENT
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in told] == ["a.yaml", "a.yaml", "a.yaml", "b.yaml"]


def raise_wrong() -> None:
    parse_policy([("a.yaml", "rules: [{}, {}]")])
