"""What an agent is told to hold, as one value made from signed messages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from cellwall.compile import Members, OrderCard, Ruleset
from cellwall.wire import (
    Bundle as Message,
)
from cellwall.wire import (
    Holding,
    MemberChange,
    WireError,
    content_hash,
    decode_members,
    decode_orders,
    decode_ruleset,
    digest_of,
    encode_orders,
    sum_members,
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """All that a point is to hold, verified. `confirm_s` over 0 makes it provisional for so long.

    `content` and `members_sum` are what `cellwall.wire` makes the digest of, with the ruleset's orders. `signed` is the
    message as the controller sent it, from which the journal makes it again; `amended` says that members or orders have
    changed since. `issued_at` is when it, or the last change of it, was signed.
    """

    generation: int
    revision: int
    ruleset: Ruleset
    members: Members = field(repr=False)
    content: bytes = field(repr=False)
    members_sum: int = field(repr=False)
    confirm_s: float = 0.0
    signed: bytes = field(default=b"", repr=False)
    amended: bool = False
    issued_at: float = 0.0

    @property
    def holding(self) -> Holding:
        """What a point says that it holds when it holds this."""
        digest = digest_of(self.content, self.members_sum, encode_orders(self.ruleset.orders))
        return Holding(generation=self.generation, revision=self.revision, digest=digest)

    def with_orders(self, orders: tuple[OrderCard, ...]) -> Bundle:
        """Give this with other orders: they are never on trial, so whatever is gone back to has the newest."""
        if orders == self.ruleset.orders:
            return self
        return replace(self, ruleset=replace(self.ruleset, orders=orders), amended=True)


def open_bundle(message: Message, signed: bytes) -> Bundle:
    """Make a bundle of a message whose signature was checked; `signed` are its bytes. Raises `WireError`."""
    ruleset = decode_ruleset(message.ruleset)
    members = decode_members(message.members)
    return Bundle(
        message.generation,
        message.revision,
        ruleset,
        members,
        content_hash(ruleset),
        sum_members(members),
        message.confirm_s,
        signed,
        issued_at=message.issued_at,
    )


def amend(bundle: Bundle, changes: Iterable[MemberChange]) -> Bundle:
    """Give `bundle` after `changes`, which were checked, in their order. Raises `WireError` when one does not fit."""
    members = dict(bundle.members)
    total, generation, revision, digest = bundle.members_sum, bundle.generation, bundle.revision, ""
    orders, issued_at = bundle.ruleset.orders, bundle.issued_at
    for change in changes:
        if change.base != generation:
            raise WireError(f"a change of members from generation {change.base}, where {generation} is held")
        added = decode_members(change.added) if change.added else {}
        left = {key: members[key] for key in (*change.removed, *added) if key in members}
        for key in change.removed:
            if members.pop(key, None) is None:
                raise WireError("a change of members removes what is no member")
        members.update(added)
        total += sum_members(added) - sum_members(left)
        generation, revision, digest = change.generation, change.revision, change.digest
        issued_at = max(issued_at, change.issued_at)
        orders = orders if change.orders is None else decode_orders(change.orders)
    if generation == bundle.generation:
        return bundle
    after = replace(
        bundle.with_orders(orders),
        generation=generation,
        revision=revision,
        members=members,
        members_sum=total % (1 << 256),
        amended=True,
        issued_at=issued_at,
    )
    if digest and after.holding.digest != digest:
        raise WireError("the members after the change are not those that the controller has")
    return after
