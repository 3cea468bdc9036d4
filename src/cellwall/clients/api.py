"""The controller's REST API, spoken over its unix socket or over TLS, with the standard library alone."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from cellwall.traffic import CellwallError

ROOT = "/api/v1"
Query = str | int | float | bool | None
"""What a question can be narrowed with; None is left out."""


class Unreachable(CellwallError):
    """The controller cannot be reached, or went away in the middle: try later."""


class Untrusted(Unreachable):
    """Who answers does not prove that it is the controller."""


class ApiRefused(CellwallError):
    """The controller answered no. `status` is HTTP's; `problem` is its explanation (RFC 9457), perhaps empty."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        said = problem.get("detail") or problem.get("title") or f"the controller answered {status}"
        super().__init__(said if isinstance(said, str) else json.dumps(said))
        self.status = status
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Server:
    """A controller's face for people, over TLS: `url` such as `https://10.0.0.1:7444`.

    `secret` is of a session or a token, empty for whoever has none yet. `authority` is the certificate, as PEM, of the
    CA that has signed the server's; where it is empty, the CAs that this machine trusts are taken."""

    url: str
    secret: str = ""
    authority: str = ""

    def __str__(self) -> str:
        return self.url


class Api:
    """Requests to one controller. Each opens a connection of its own, so that nothing has to be closed."""

    def __init__(
        self, path: Path | Server, timeout_s: float = 60.0, told: Callable[[str, str], None] | None = None
    ) -> None:
        """`told` is called with the name of each controller that did not contribute to an answer, and why."""
        self.path = path
        self._timeout_s, self._told = timeout_s, told

    def get(self, *parts: str, **query: Query) -> Any:
        """Ask for the resource that `parts` name below `/api/v1`. Raises `Unreachable` or `ApiRefused`."""
        return self._ask("GET", parts, query, None)

    def post(self, *parts: str, body: Mapping[str, Any] | None = None, **query: Query) -> Any:
        """Have something done or worked out. Raises `Unreachable` or `ApiRefused`."""
        return self._ask("POST", parts, query, body or {})

    def put(self, *parts: str, body: Mapping[str, Any], **query: Query) -> Any:
        """Replace something. Raises `Unreachable` or `ApiRefused`."""
        return self._ask("PUT", parts, query, body)

    def delete(self, *parts: str, **query: Query) -> Any:
        """Take something away. Raises `Unreachable` or `ApiRefused`."""
        return self._ask("DELETE", parts, query, None)

    def items(self, *parts: str, **query: Query) -> Iterator[dict[str, Any]]:
        """Give all items of a list, page after page. Raises `Unreachable` or `ApiRefused`."""
        cursor: str | None = None
        while True:
            asked = query if cursor is None else {**query, "cursor": cursor}
            page = self._ask("GET", parts, asked, None)
            yield from page["items"]
            cursor = page.get("next")
            if not cursor:
                return

    def _ask(
        self, method: str, parts: tuple[str, ...], query: Mapping[str, Query], body: Mapping[str, Any] | None
    ) -> Any:
        # A parameter named like a Python keyword, such as `from`, is passed with a trailing underscore.
        given = {key.rstrip("_"): _text(value) for key, value in query.items() if value is not None}
        url = "/".join((ROOT, *(quote(part, safe="") for part in parts))) + (f"?{urlencode(given)}" if given else "")
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if body is not None else {})}
        if isinstance(self.path, Server) and self.path.secret:
            headers["Authorization"] = f"Bearer {self.path.secret}"
        connection = _connection(self.path, self._timeout_s)
        try:
            connection.request(method, url, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            status, content = response.status, response.read()
        except TimeoutError:
            raise Unreachable(
                f"the controller at `{self.path}` did not answer within {self._timeout_s:.0f} s"
            ) from None
        except ssl.SSLCertVerificationError as error:
            raise Untrusted(f"`{self.path}` is not to be trusted: {error.verify_message.lower()}") from None
        except (OSError, HTTPException) as error:
            why = error.strerror if isinstance(error, OSError) else "it does not speak HTTP"
            raise Unreachable(f"cannot reach the controller at `{self.path}`: {(why or str(error)).lower()}") from None
        finally:
            connection.close()
        answer: Any = _read(content)
        if status >= 400:
            raise ApiRefused(status, cast("dict[str, Any]", answer) if isinstance(answer, dict) else {})
        if status >= 300 or (content and answer is None):
            raise Unreachable(f"what listens at `{self.path}` is not a controller: it answered {status}")
        if self._told is not None:
            for one in _missing(answer):
                self._told(one["name"], one["why"])
        return answer


def _missing(answer: Any) -> list[dict[str, str]]:
    return cast("dict[str, Any]", answer).get("missing_controllers", []) if isinstance(answer, dict) else []


def _connection(where: Path | Server, timeout_s: float) -> HTTPConnection:
    if isinstance(where, Path):
        return _UnixConnection(where, timeout_s)
    url = urlsplit(where.url)
    context = ssl.create_default_context(cadata=where.authority or None)
    return HTTPSConnection(url.hostname or "", url.port, timeout=timeout_s, context=context)


def authority_of(url: str, timeout_s: float = 10.0) -> str:
    """Fetch the certificate of a controller's CA, as PEM, from whoever answers at `url`.

    Nothing is proved by it: compare its fingerprint with one that comes another way. Raises `Unreachable`."""
    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout_s, context=context)
    try:
        connection.request("GET", f"{ROOT}/authority")
        answer = _read(connection.getresponse().read(1 << 20))
    except (OSError, HTTPException) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise Unreachable(f"cannot reach the controller at `{url}`: {why.lower()}") from None
    finally:
        connection.close()
    found: Any = cast("dict[str, Any]", answer).get("pem") if isinstance(answer, dict) else None
    if not isinstance(found, str):
        raise Unreachable(f"what listens at `{url}` is not a controller's face for people")
    return found


def _text(value: Query) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return None


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
