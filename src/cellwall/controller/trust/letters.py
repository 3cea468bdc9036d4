"""What goes to agents, written and signed."""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwall.compile import Members, OrderCard
from cellwall.controller.core import Change, Wanted, Whole
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


class Letters:
    """Signs with one key; what many points share is written once."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._packed: dict[int, tuple[Members, bytes, bytes]] = {}
        self._written: dict[int, tuple[object, bytes]] = {}
        self._scribe = Scribe()

    def write(self, name: str, send: Whole | Change, now: float, confirm_s: float, protocol: int) -> FromController:
        """Write to the agent of a workload, of a newest protocol; `confirm_s` is how long a whole bundle waits to be
        confirmed."""
        if isinstance(send, Whole):
            members, digest = self._pack(send.wanted)
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
            orders=None if send.orders is None else self._write_orders(send.orders),
        )
        return sign(change, self._key)

    def forget(self) -> None:
        """Forget what was shared: something else is wanted."""
        self._packed.clear()
        self._written.clear()
        self._scribe = Scribe()

    def _write_orders(self, orders: tuple[OrderCard, ...]) -> bytes:
        # What was written is kept beside it: so nothing else can have its identity.
        if id(orders) not in self._written:
            self._written[id(orders)] = orders, encode_orders(orders)
        return self._written[id(orders)][1]

    def _pack(self, wanted: Wanted) -> tuple[bytes, bytes]:
        """Give members as they are written, and the SHA-256 of that."""
        shared = id(wanted.members)
        if shared not in self._packed:
            packed = encode_members(wanted.members)
            self._packed[shared] = wanted.members, packed, sha256(packed).digest()
        return self._packed[shared][1:]
