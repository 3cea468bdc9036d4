"""A moment's web server on loopback, to which a browser is sent back when somebody has signed in (RFC 8252)."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

from cellwall.cli.exits import Exit, Stop

PATIENCE_S = 300.0
_PAGE = b"<!doctype html><title>Cellwall</title><p>Done: go back to the terminal. This page can be closed."


class Loopback:
    """Listens on a free port of 127.0.0.1 until the block ends."""

    def __init__(self) -> None:
        self._came: dict[str, str] = {}
        came = self._came

        class Handler(BaseHTTPRequestHandler):
            """Takes what the browser brings, once."""

            timeout = 10

            def do_GET(self) -> None:
                """Answer a browser."""
                url = urlsplit(self.path)
                if url.path != "/callback":
                    self.send_error(404)
                    return
                came.update({key: values[0] for key, values in parse_qs(url.query).items()})
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(_PAGE)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: the address holds the code."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._server.timeout = 1.0
        self.url = f"http://127.0.0.1:{self._server.server_port}/callback"

    def __enter__(self) -> Loopback:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def wait(self) -> dict[str, str]:
        """Give what the browser brings: `state` and `code`, or `error`. Raises `Stop` when nobody comes."""
        until = time.monotonic() + PATIENCE_S
        while not self._came:
            if time.monotonic() > until:
                raise Stop(Exit.UNREACHABLE, f"nobody signed in within {PATIENCE_S:.0f} s")
            self._server.handle_request()
        return dict(self._came)
