"""How a controller is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from cellwall.controller.errors import ControllerError

PORT = 7443


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (address or DNS name) and a TCP port."""

    host: str
    port: int = PORT


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """What `cellwall controller run` is told.

    `data` is the folder of everything the controller keeps, made at first start. `listen` is an address and port
    (`[::]:7443` is both families). `advertise` are the URLs by which agents reach it: their addresses become
    lifelines, and stand in the server's certificate. `socket` is the Unix socket of the people's API. `flows` is
    `chdb`, or `memory` for tests. `certificate_days` is how long an agent's certificate lasts, `keep_days` how long
    flows and denials are kept.

    `database` is the URL of a PostgreSQL database that holds the state, for several controllers at once, each with a
    `name` of its own; without it the state is an SQLite file in `data`.

    `people` is where people and programs are served over TLS (nowhere, where it is empty), with the certificate chain
    and key of `people_cert` and `people_key`, or one of our own CA. `oidc` is the file that names an identity provider.
    `log_format` is `json` or `text`, `log_level` the least that is logged.
    """

    data: Path
    listen: str = f"[::]:{PORT}"
    advertise: tuple[str, ...] = ()
    socket: Path | None = None
    name: str = "controller"
    flows: str = "chdb"
    interval_s: float = 2.0
    certificate_days: int = 30
    keep_days: int = 30
    silent_after_s: float = 15.0
    database: str = ""
    people: str = ""
    people_cert: Path | None = None
    people_key: Path | None = None
    oidc: Path | None = None
    log_format: str = "json"
    log_level: str = "info"
    advertised: tuple[Endpoint, ...] = field(init=False, default=())
    bound: Endpoint = field(init=False, default=Endpoint("::"))

    def __post_init__(self) -> None:
        advertise = (self.advertise,) if isinstance(self.advertise, str) else tuple(self.advertise)
        bound = parse_endpoint(self.listen)
        if self.people:
            parse_endpoint(self.people)
        if (self.people_cert is None) != (self.people_key is None):
            raise ControllerError("of a certificate for people and its key one is missing; wanted both, or neither")
        named = tuple(parse_url(url) for url in advertise) or (Endpoint("127.0.0.1", bound.port),)
        object.__setattr__(self, "advertise", advertise)
        object.__setattr__(self, "bound", bound)
        object.__setattr__(self, "advertised", named)

    @property
    def socket_path(self) -> Path:
        """Where the people's API listens."""
        return self.socket or self.data / "api.sock"


def parse_endpoint(text: str) -> Endpoint:
    """Read `[::]:7443` or `10.0.0.1:7443`; raises `ControllerError`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ip_address(host)
        if colon and 0 <= int(port) <= 65535:
            return Endpoint(host, int(port))
    except ValueError:
        pass
    raise ControllerError(f"`{text}` is not where one can listen; wanted an address and a port such as `[::]:{PORT}`")


def parse_url(text: str) -> Endpoint:
    """Read `https://10.0.0.1:7443`; raises `ControllerError`."""
    try:
        url = urlsplit(text)
        if url.scheme == "https" and url.hostname and url.path in ("", "/"):
            return Endpoint(url.hostname, url.port or PORT)
    except ValueError:
        pass
    raise ControllerError(f"`{text}` is not where agents reach us; wanted a URL such as `https://10.0.0.1:{PORT}`")
