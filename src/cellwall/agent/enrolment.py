"""What enrolment leaves on disk: who this agent is, whom it believes, and its credentials."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from cellwall.inventory import check_name
from cellwall.traffic import CellwallError
from cellwall.wire import AGENT_PATH


class AgentError(CellwallError):
    """The agent cannot do what it was started for."""


class NotEnrolled(AgentError):
    """The folder holds no enrolment; `cellwall enroll` makes one."""


class _File(msgspec.Struct, frozen=True):
    name: str
    controller: str
    bundle_key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


@dataclass(frozen=True, slots=True)
class Enrolment:
    """An agent's name, its controller's address (`https://host:port`), and the key that signs its bundles (Ed25519)."""

    folder: Path
    name: str
    controller: str
    bundle_key: bytes

    @property
    def credentials(self) -> Path:
        """The agent's certificate and key, in one file so that both change at once."""
        return self.folder / "credentials.pem"

    @property
    def authority(self) -> Path:
        """The certificate of the authority that the controller's certificate must be from."""
        return self.folder / "authority.pem"

    @property
    def controllers(self) -> tuple[str, ...]:
        """Where controllers are: the one of the enrolment, and those that it named when it was last spoken to."""
        try:
            told = msgspec.json.decode((self.folder / "controllers.json").read_bytes(), type=tuple[str, ...])
            return tuple(dict.fromkeys((self.controller, *map(check_controller, told))))
        except (OSError, msgspec.MsgspecError, AgentError):
            return (self.controller,)

    def remember(self, controllers: tuple[str, ...]) -> None:
        """Keep where controllers are for later starts. Raises `AgentError` when one is no address, or `OSError`."""
        named = tuple(map(check_controller, controllers))
        if named and set(named) != set(self.controllers):
            write_file(self.folder / "controllers.json", msgspec.json.encode(named))

    def context(self) -> ssl.SSLContext:
        """Make what mutual TLS with the controller needs. Raises `AgentError` when the files cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(self.authority)
            context.load_cert_chain(self.credentials)
        except (OSError, ssl.SSLError) as error:
            raise AgentError(f"the credentials in `{self.folder}` cannot be used: {error.strerror or error}") from None
        return context

    def save(self, certificate: str, key: bytes, authority: str) -> None:
        """Write it all; what makes it an enrolment comes last. Raises `AgentError`."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.renew(certificate, key)
            write_file(self.authority, authority.encode())
            about = _File(self.name, self.controller, self.bundle_key)
            write_file(self.folder / "enrolment.json", msgspec.json.encode(about) + b"\n")
        except OSError as error:
            raise AgentError(f"`{self.folder}`: {(error.strerror or str(error)).lower()}") from None

    def renew(self, certificate: str, key: bytes) -> None:
        """Put a fresh certificate, with its key, in the place of the old one. Raises `OSError` or `AgentError`."""
        # Here, and not above: an agent that runs needs it once a month. So it also notes down when that will be.
        from cryptography import x509

        try:
            ends = x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc.timestamp()
        except ValueError:
            raise AgentError("the controller's answer holds no certificate") from None
        write_file(self.credentials, f"# ends {ends:.0f}\n{certificate}\n".encode() + key)

    def ends(self) -> float:
        """Say when the certificate ends, in seconds since the epoch; 0 where that is not noted."""
        try:
            with open(self.credentials, encoding="ascii") as file:
                mark, word, at = file.readline().split()
            return float(at) if (mark, word) == ("#", "ends") else 0.0
        except (OSError, ValueError):
            return 0.0


def load_enrolment(folder: Path) -> Enrolment:
    """Read what `enroll` wrote. Raises `NotEnrolled`, or `AgentError` when it cannot be read."""
    path = folder / "enrolment.json"
    try:
        told = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        raise NotEnrolled(f"`{folder}` holds no enrolment; run `cellwall enroll` first") from None
    except OSError as error:
        raise AgentError(f"`{path}`: {(error.strerror or str(error)).lower()}") from None
    except msgspec.MsgspecError as error:
        raise AgentError(f"`{path}` is damaged: {error}") from None
    return Enrolment(folder, check_name(told.name), check_controller(told.controller), told.bundle_key)


def channel_of(controller: str) -> str:
    """Give the address of a controller's WebSocket."""
    return "wss" + controller.removeprefix("https") + AGENT_PATH


def check_controller(url: str) -> str:
    """Return the address of a controller without a closing slash, if it is one; else raise `AgentError`."""
    parts = urlsplit(url)
    try:
        good = parts.scheme == "https" and parts.hostname and parts.path in ("", "/") and not parts.query
        good = good and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise AgentError(f"`{url}` is not a controller's address; wanted `https://10.0.0.5:7443`")
    return f"https://{parts.netloc}"


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, readable by us alone: all of it or none, whatever the moment of a crash."""
    beside = path.with_name(path.name + ".new")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path)
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
