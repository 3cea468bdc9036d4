"""Signatures of what the controller sends: made there, and checked by the agent before anything else is read."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec.structs import replace

from cellwall.wire.errors import WireError
from cellwall.wire.messages import Bundle, MemberChange

Signed = TypeVar("Signed", bound=Bundle | MemberChange)


class Forged(WireError):
    """A signature that is not by the key that it should be by: nothing of the message may be used."""


def signed_part(message: Bundle | MemberChange) -> bytes:
    """Give the exact bytes that are signed: what kind of message it is, and all of its fields but the signature.

    A field more changes them, so it needs a new protocol number and a new kind here."""
    kind = "cellwall bundle 1" if isinstance(message, Bundle) else "cellwall member change 1"
    fields = [getattr(message, name) for name in message.__struct_fields__ if name != "signature"]
    return msgspec.msgpack.encode([kind, *fields])


def sign(message: Signed, key: Ed25519PrivateKey) -> Signed:
    """Give the message with its signature by `key`, in the form in which it is read: 10 s is then 10.0."""
    message = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message))
    return replace(message, signature=key.sign(signed_part(message)))


def verify(message: Signed, key: bytes, workload: str) -> Signed:
    """Give the message back if `key` (raw Ed25519, 32 bytes) signed it for `workload`; else raise `Forged`.

    That its generation is higher than any before is for the caller to check.
    """
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(message.signature, signed_part(message))
    except (InvalidSignature, ValueError):
        raise Forged(f"generation {message.generation} is not signed by our controller") from None
    if message.workload != workload:
        raise Forged(f"generation {message.generation} is for `{message.workload}`, not for `{workload}`")
    return message
