"""Names as certificates carry them, and the token that a new agent brings."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from dataclasses import dataclass
from hashlib import sha256

from cellwall.inventory import InventoryError, check_name
from cellwall.wire.errors import WireError

_SPIFFE = "spiffe://cellwall/workload/"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_TOKEN = re.compile(r"cw1\.([0-9a-f]{64})\.([A-Za-z0-9_-]{20,128})")


def spiffe_id(workload: str) -> str:
    """Give the URI by which a certificate names a workload (SPIFFE-ID standard, §2)."""
    return _SPIFFE + check_name(workload)


def workload_of(uri: str) -> str:
    """Give the workload that a certificate's URI names; raises `WireError`."""
    if not uri.startswith(_SPIFFE):
        raise WireError(f"`{uri}` names no workload; wanted `{_SPIFFE}NAME`")
    try:
        return check_name(uri.removeprefix(_SPIFFE))
    except InventoryError as error:
        raise WireError(str(error)) from None


def fingerprint(certificate_der: bytes) -> str:
    """Give the SHA-256 of a certificate (DER), as 64 hexadecimal digits."""
    return sha256(certificate_der).hexdigest()


def der_of(pem: str) -> bytes:
    """Give the one certificate that a text in PEM holds (RFC 7468), as DER; raises `WireError`.

    A text with more in it is refused: a fingerprint of the first certificate says nothing of the others, and whoever
    trusts such a text trusts them all."""
    found = _PEM.fullmatch(pem.strip())
    try:
        if found is not None:
            return b64decode("".join(found[1].split()), validate=True)
    except binascii.Error:
        pass
    raise WireError("wanted one certificate in PEM, and nothing beside it")


@dataclass(frozen=True, slots=True)
class Token:
    """What a new agent is given: the fingerprint of the CA it shall believe, and the secret that lets it in."""

    authority: str
    secret: str

    def __str__(self) -> str:
        return f"cw1.{self.authority}.{self.secret}"

    def __repr__(self) -> str:
        return f"Token({self.authority!r}, '…')"


def parse_token(text: str) -> Token:
    """Read `cw1.<fingerprint of the CA>.<secret>`; raises `WireError`, which does not repeat the text."""
    found = _TOKEN.fullmatch(text.strip())
    if found is None:
        raise WireError("this is not an enrolment token; wanted `cw1.`, 64 hexadecimal digits, `.` and a secret")
    return Token(found[1], found[2])
