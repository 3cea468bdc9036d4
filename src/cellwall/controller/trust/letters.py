"""What goes to agents, written and signed."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwall.compile import OrderCard
from cellwall.controller.core import Change, Wanted, Whole
from cellwall.wire import Bundle, FromController, MemberChange, Scribe, encode_members, encode_orders, sign


class Letters:
    """Signs with one key; what many points share is written once."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._packed: dict[int, tuple[object, bytes]] = {}
        self._scribe = Scribe()

    def write(self, name: str, send: Whole | Change, now: float, confirm_s: float) -> FromController:
        """Write to the agent of a workload; `confirm_s` is how long a whole bundle waits to be confirmed."""
        if isinstance(send, Whole):
            bundle = Bundle(
                workload=name,
                generation=send.generation,
                revision=send.wanted.revision,
                ruleset=self._scribe.ruleset(send.wanted.ruleset),
                members=self._pack(send.wanted),
                issued_at=now,
                confirm_s=confirm_s,
            )
            return sign(bundle, self._key)
        change = MemberChange(
            workload=name,
            base=send.base,
            generation=send.generation,
            revision=send.wanted.revision,
            added=encode_members(send.added) if send.added else b"",
            removed=send.removed,
            digest=send.wanted.digest,
            issued_at=now,
            orders=None if send.orders is None else self._written(send.orders),
        )
        return sign(change, self._key)

    def forget(self) -> None:
        """Forget what was shared: something else is wanted."""
        self._packed.clear()
        self._scribe = Scribe()

    def _written(self, orders: tuple[OrderCard, ...]) -> bytes:
        if id(orders) not in self._packed:
            self._packed[id(orders)] = orders, encode_orders(orders)
        return self._packed[id(orders)][1]

    def _pack(self, wanted: Wanted) -> bytes:
        # The members are kept beside what was written of them: so no others can have their identity.
        shared = id(wanted.members)
        if shared not in self._packed:
            self._packed[shared] = wanted.members, encode_members(wanted.members)
        return self._packed[shared][1]
