"""An application's check is of an application: not of what only the controller's own machine may ask."""

from __future__ import annotations

import socket
import threading

import pytest

from cellwall.controller.health import try_check
from cellwall.policy import Check, parse_policy


def check(text: str) -> Check:
    (found,) = parse_policy([("p.yaml", f"rollout: {{checks: [{text}]}}")]).rollout.checks
    return found


@pytest.mark.parametrize(
    "text",
    [
        "{id: c, http: 'http://169.254.169.254/latest/meta-data/'}",
        "{id: c, http: 'http://[fd00:ec2::254]/'}",
        "{id: c, http: 'http://[::ffff:169.254.169.254]/'}",
        "{id: c, tcp: '169.254.169.254:80'}",
        "{id: c, tcp: '[fe80::1]:80'}",
    ],
)
def test_the_metadata_of_a_cloud_is_not_asked(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def connect(*place: object) -> None:
        asked.append(place)

    monkeypatch.setattr(socket, "create_connection", connect)
    assert "is no place of an application" in try_check(check(text))
    assert asked == []


def test_a_name_that_leads_there_is_not_asked_either(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]

    def look_up(*_: object, **__: object) -> object:
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert "is no place" in try_check(check("{id: c, http: 'http://metadata.example/'}"))


def test_an_application_is_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            for _ in range(2):
                line, _ = server.accept()
                with line:
                    if line.recv(1000):
                        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        assert try_check(check(f"{{id: c, http: 'http://127.0.0.1:{port}/well'}}")) == ""
        assert try_check(check(f"{{id: c, tcp: '127.0.0.1:{port}'}}")) == ""
        thread.join()
