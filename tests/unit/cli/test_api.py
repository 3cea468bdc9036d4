"""The client speaks to a real server on a real socket."""

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cellwall.clients import Api, ApiRefused, Unreachable


class Controller(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/api/v1/pages"):
            page = (
                {"items": [{"n": 2}], "next": None}
                if "cursor=two" in self.path
                else {"items": [{"n": 1}], "next": "two"}
            )
            self.answer(200, page)
        elif self.path.startswith("/api/v1/echo"):
            self.answer(200, {"path": self.path})
        elif self.path.startswith("/api/v1/flows"):
            self.answer(200, {"items": [], "missing_controllers": [{"name": "three", "why": "gone"}]})
        elif self.path == "/api/v1/page":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")
        elif self.path == "/api/v1/silence":
            self.close_connection = True
        else:
            self.answer(404, {"title": "not found", "detail": "no workload is called `web-9`", "status": 404})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(422 if body == {"bad": True} else 200, body)

    def answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def address_string(self) -> str:
        return "local"

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "s"), Controller) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Api(tmp_path / "s", timeout_s=5)
        server.shutdown()
        thread.join()


def test_names_and_questions_are_quoted(api: Api) -> None:
    answer = api.get("echo", "a/b c", from_="role=web", limit=3, deep=True, to=None)
    assert answer == {"path": "/api/v1/echo/a%2Fb%20c?from=role%3Dweb&limit=3&deep=true"}


def test_a_list_is_read_to_its_last_page(api: Api) -> None:
    assert list(api.items("pages", limit=1)) == [{"n": 1}, {"n": 2}]


def test_a_body_goes_and_comes_as_json(api: Api) -> None:
    assert api.post("x", body={"labels": {"app": "shop"}}) == {"labels": {"app": "shop"}}


def test_a_problem_is_told_in_the_controllers_words(api: Api) -> None:
    with pytest.raises(ApiRefused, match="no workload is called `web-9`") as caught:
        api.get("workloads", "web-9")
    assert caught.value.status == 404


def test_a_problem_without_words_still_has_a_status(api: Api) -> None:
    with pytest.raises(ApiRefused, match="answered 422"):
        api.post("x", body={"bad": True})


@pytest.mark.parametrize("path", ["page", "silence"])
def test_what_is_no_controller_is_unreachable(api: Api, path: str) -> None:
    with pytest.raises(Unreachable):
        api.get(path)


def test_a_socket_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no such file"):
        Api(tmp_path / "none").get("status")


def test_who_did_not_contribute_to_an_answer_is_told(api: Api) -> None:
    told: list[tuple[str, str]] = []

    def tell(who: str, why: str) -> None:
        told.append((who, why))

    Api(api.path, told=tell).get("flows")
    assert told == [("three", "gone")]
    assert api.get("flows")["items"] == []
