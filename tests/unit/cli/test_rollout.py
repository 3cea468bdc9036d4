"""How `rollout status` ends, asked of a real server on a real socket."""

import json
import socketserver
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from cellwall.cli import main


@contextmanager
def controller(socket: Path, *answers: dict[str, Any]) -> Generator[None]:
    """Serve `answers` one after the other, and the last for ever."""
    left = list(answers)

    class Controller(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(answer.get("status", 200))
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def address_string(self) -> str:
            return "local"

        def log_message(self, format: str, *args: object) -> None:
            pass

    with socketserver.ThreadingUnixStreamServer(str(socket), Controller) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


def rollout(state: str, *points: str) -> dict[str, Any]:
    items: list[dict[str, Any]] = [
        {"workload": f"web-{n}", "state": one, "revision_held": 1, "connected": True, "reason": "", "misfits": []}
        for n, one in enumerate(points)
    ]
    wave = {"wave": "all", "open": True, "points": len(points), "have_it": 0}
    told = {"waves": [wave], "unexpected_denials": [], "failing_checks": [], "settle_s": 0.0, "well_since": None}
    made = {"author": "alice", "note": "first", "reverts_to": None}
    return {"revision": 1, "state": state, "reason": "", "items": items, **made, **told}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (rollout("good", "enforced", "relaxed"), 0),
        (rollout("good"), 0),
        (rollout("good", "enforced", "failed"), 1),
        (rollout("good", "reverted"), 1),
        (rollout("good", "silent"), 1),
        (rollout("rolling", "pending"), 1),
        (rollout("failed", "enforced"), 4),
    ],
)
def test_a_point_that_does_not_have_the_revision_shows_in_the_exit_code(
    answer: dict[str, Any], code: int, tmp_path: Path
) -> None:
    with controller(tmp_path / "s", answer):
        assert main(["rollout", "status", "--socket", str(tmp_path / "s")]) == code


def test_a_point_that_came_back_is_waited_for(tmp_path: Path) -> None:
    with controller(tmp_path / "s", rollout("good", "pending"), rollout("good", "enforced")):
        assert main(["rollout", "status", "--wait", "10", "--socket", str(tmp_path / "s")]) == 0


def test_what_was_watched_and_taken_back_is_told_and_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    back = {**rollout("good", "enforced"), "revision": 2, "reverts_to": 0, "note": "revision 1 failed: it was slow"}
    became = {**rollout("failed"), "reason": "it was slow"}
    with controller(tmp_path / "s", rollout("rolling", "pending"), back, became):
        assert main(["rollout", "status", "--wait", "10", "--socket", str(tmp_path / "s")]) == 4
    said = capsys.readouterr()
    assert "by alice, back to revision 0: revision 1 failed: it was slow" in said.out
    assert said.err == "cellwall: revision 1 failed, and was taken back: it was slow\n"


def test_a_controller_that_cannot_answer_for_a_moment_does_not_end_the_waiting(tmp_path: Path) -> None:
    away = {"status": 503, "detail": "the database is away"}
    with controller(tmp_path / "s", rollout("rolling", "pending"), away, rollout("good", "enforced")):
        assert main(["rollout", "status", "--wait", "10", "--socket", str(tmp_path / "s")]) == 0
    with controller(tmp_path / "t", away):
        assert main(["rollout", "status", "--socket", str(tmp_path / "t")]) == 5


def test_a_wave_that_is_well_says_when_the_next_one_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_one, closed = (
        {"wave": name, "open": name == "canary", "points": 1, "have_it": 1} for name in ("canary", "all")
    )
    moving = {**rollout("rolling", "enforced"), "waves": [open_one, closed], "settle_s": 60.0, "well_since": 1000.0}
    with controller(tmp_path / "s", moving):
        assert main(["rollout", "status", "--socket", str(tmp_path / "s")]) == 1
    assert (
        "well since 1970-01-01 00:16:40; the next wave begins at 1970-01-01 00:17:40 at the earliest"
        in capsys.readouterr().out
    )


def test_who_stays_behind_is_named_and_a_wave_of_nobody_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, full = ({"wave": name, "open": True, "points": n, "have_it": 1} for name, n in (("env=x", 0), ("all", 2)))
    answer = rollout("good", "enforced", "refused")
    answer["items"][1]["reason"] = "it stays behind, which is tolerated: refused it: no"
    behind = [{"workload": "web-1", "state": "refused", "reason": "refused it: no"}]
    told = {"tolerate": {"points": "5%", "also": "env=lab"}, "behind": behind, "waves": [empty, full]}
    with controller(tmp_path / "s", {**answer, **told, "reason": "without `web-1`, as is tolerated"}):
        assert main(["rollout", "status", "--socket", str(tmp_path / "s")]) == 1
    said = capsys.readouterr()
    assert "revision 1 is good: without `web-1`, as is tolerated" in said.out
    assert "up to 5% points of each wave may stay behind" not in said.out
    assert (
        "up to 5% of each wave may stay behind, also canaries and guarded points that match `env=lab`; 1 do" in said.out
    )
    assert "no points" in said.out and "1 of 2" in said.out
    assert "offered it again with the next revision" in said.err
