"""What goes to agents, written and signed."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwall.compile import Members
from cellwall.controller.core import Change, Whole
from cellwall.wire import (
    DIGESTS,
    Bundle,
    FromController,
    MemberChange,
    Scribe,
    digested,
    encode_members,
    encode_orders,
    sign,
)

Shared = TypeVar("Shared")
Written = TypeVar("Written")


class Letters:
    """Signs with one key; what many points share is written once."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._written: dict[int, tuple[object, Any]] = {}
        self._scribe = Scribe()

    def write(self, name: str, send: Whole | Change, now: float, confirm_s: float, protocol: int) -> FromController:
        """Write to the agent of a workload, of a newest protocol; `confirm_s` is how long a whole bundle waits to be
        confirmed."""
        if isinstance(send, Whole):
            members, digest = self._once(_with_digest, send.wanted.members)
            bundle = Bundle(
                workload=name,
                generation=send.generation,
                revision=send.wanted.revision,
                ruleset=self._scribe.ruleset(send.wanted.ruleset),
                members=members,
                issued_at=now,
                confirm_s=confirm_s,
            )
            return digested(bundle, self._key, digest) if protocol >= DIGESTS else sign(bundle, self._key)
        change = MemberChange(
            workload=name,
            base=send.base,
            generation=send.generation,
            revision=send.wanted.revision,
            added=encode_members(send.added) if send.added else b"",
            removed=send.removed,
            digest=send.wanted.digest,
            issued_at=now,
            orders=None if send.orders is None else self._once(encode_orders, send.orders),
        )
        return sign(change, self._key)

    def forget(self) -> None:
        """Forget what was shared: something else is wanted."""
        self._written.clear()
        self._scribe = Scribe()

    def _once(self, write: Callable[[Shared], Written], shared: Shared) -> Written:
        # It is kept beside what was written of it: so nothing else can have its identity.
        if id(shared) not in self._written:
            self._written[id(shared)] = shared, write(shared)
        return self._written[id(shared)][1]


def _with_digest(members: Members) -> tuple[bytes, bytes]:
    """Write members, and give the SHA-256 of that too."""
    written = encode_members(members)
    return written, sha256(written).digest()
