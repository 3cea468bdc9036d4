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
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(left.pop(0) if len(left) > 1 else left[0]).encode())

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
    told = {"waves": [wave], "unexpected_denials": [], "failing_checks": []}
    return {"revision": 1, "state": state, "reason": "", "items": items, **told}


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
