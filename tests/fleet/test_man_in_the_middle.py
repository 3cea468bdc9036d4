"""Somebody on the way, who shows the true authority's certificate with one of their own behind it."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cellwall.agent.enroll import Refused, enroll
from cellwall.agent.options import EnrollOptions
from cellwall.cli.exits import Stop
from cellwall.cli.login import fingerprint_of
from cellwall.controller.trust.ca import Authority, open_authority
from cellwall.wire import AUTHORITY_PATH, WireError, der_of, parse_token

SECRET = "a" * 43


def padded(folder: Path) -> Authority:
    """Make an authority whose certificate ends in padding, as two of three do: there some readers stop."""
    for number in range(100):
        made = open_authority(folder / str(number), time.time())
        if made.pem.split("-----END")[0].strip().endswith("="):
            return made
    raise AssertionError("no certificate ends in padding")


@contextmanager
def in_the_middle(good: Authority, evil: Authority) -> Generator[tuple[str, list[bytes]]]:
    """Listen with a certificate of `evil`, and show both authorities to whoever asks; where, and what was posted."""
    both = good.pem.strip() + "\n" + evil.pem.strip() + "\n"
    posted: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = both.encode() if self.path == AUTHORITY_PATH else json.dumps({"pem": both}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_error(500)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = evil.server_context(("127.0.0.1",), time.time())
    context.verify_mode = ssl.CERT_NONE
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_secret_of_a_token_goes_to_nobody_who_only_shows_the_true_authority(tmp_path: Path) -> None:
    good, evil = padded(tmp_path / "good"), open_authority(tmp_path / "evil", time.time())
    token = f"cw1.{good.fingerprint}.{SECRET}"
    assert parse_token(token).authority == good.fingerprint
    with in_the_middle(good, evil) as (url, posted):
        with pytest.raises(Refused, match="no certificate"):
            enroll(EnrollOptions(url, token, tmp_path / "state", "web"))
        assert posted == []
    assert not (tmp_path / "state").exists()


def test_a_fingerprint_is_of_one_certificate_and_of_all_that_is_shown(tmp_path: Path) -> None:
    good, evil = padded(tmp_path / "good"), open_authority(tmp_path / "evil", time.time())
    both = good.pem.strip() + "\n" + evil.pem.strip()
    assert fingerprint_of(good.pem) == good.fingerprint
    for text in (both, good.pem + "x", f"x{good.pem}", "", good.pem.replace("=", "=\n=", 1) + "AAAA"):
        with pytest.raises(Stop):
            fingerprint_of(text)
        with suppress(WireError):
            raise AssertionError(der_of(text))
