"""Signatures of what the controller sends: made there, and checked by the agent before anything else is read."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from cellwall.wire.ed25519 import signed_by
from cellwall.wire.errors import WireError
from cellwall.wire.messages import Bundle, MemberChange

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Signed = TypeVar("Signed", bound=Bundle | MemberChange)
_DIGESTED = 2


class Forged(WireError):
    """A signature that is not by the key that it should be by: nothing of the message may be used."""


def signed_part(message: Bundle | MemberChange, members: bytes = b"") -> bytes:
    """Give the exact bytes that are signed: what kind of message it is, and all of its fields but the signature.

    In a bundle of form 2 the SHA-256 of its ruleset and of its members stand for them; `members` is that of its
    members, where it is known. A field more changes them, so it needs a new protocol number and a new kind here."""
    kind, unsigned = "cellwall bundle 1", {"signature", "form"}
    if isinstance(message, MemberChange):
        kind = "cellwall member change 1" if message.orders is None else "cellwall member change 2"
        # Without orders it is what protocol 1 knows, and signs.
        unsigned |= {"orders"} if message.orders is None else set()
    fields = {name: getattr(message, name) for name in message.__struct_fields__ if name not in unsigned}
    if isinstance(message, Bundle) and message.form == _DIGESTED:
        kind = "cellwall bundle 2"
        fields["ruleset"] = sha256(message.ruleset).digest()
        fields["members"] = members or sha256(message.members).digest()
    return msgspec.msgpack.encode([kind, *fields.values()])


def digested(bundle: Bundle, key: Ed25519PrivateKey, members: bytes = b"") -> Bundle:
    """Give a bundle signed by `key` over digests, for an agent of protocol `DIGESTS`; `members` is the SHA-256 of its
    members, where it is known: what many points share is hashed once for all of them."""
    # As it is read, like in `sign`, but without a copy of what is large.
    when = {"issued_at": float(bundle.issued_at), "confirm_s": float(bundle.confirm_s)}
    bundle = replace(bundle, form=_DIGESTED, **when)
    return replace(bundle, signature=key.sign(signed_part(bundle, members)))


def sign(message: Signed, key: Ed25519PrivateKey) -> Signed:
    """Give the message with its signature by `key`, in the form in which it is read: 10 s is then 10.0."""
    message = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message))
    return replace(message, signature=key.sign(signed_part(message)))


def verify(message: Signed, key: bytes, workload: str) -> Signed:
    """Give the message back if `key` (raw Ed25519, 32 bytes) signed it for `workload`; else raise `Forged`.

    That its generation is higher than any before is for the caller to check.
    """
    if not signed_by(key, message.signature, signed_part(message)):
        raise Forged(f"generation {message.generation} is not signed by our controller")
    if message.workload != workload:
        raise Forged(f"generation {message.generation} is for `{message.workload}`, not for `{workload}`")
    return message
