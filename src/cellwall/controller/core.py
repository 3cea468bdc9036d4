"""What each agent is sent, as a step function: how a point stands and what is wanted go in, a message comes out.

    policy × fleet ──compile──▶ Wanted ──┐
                                         ├─ advance ──▶ Whole | Change | nothing
    Hello, Receipt ──▶ Standing ─────────┘

INVARIANT: what is sent depends on what is wanted and on what the agent last said that it holds, never on the way
there. At most one message is under way per agent: whatever changes meanwhile is in the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cellwall.compile import Members, Misfit, OrderCard, Point, Ruleset
from cellwall.wire import (
    NEWEST,
    ORDERS,
    Hello,
    Holding,
    PointState,
    Receipt,
    Scribe,
    change_between,
    digest_of,
    encode_orders,
    sum_members,
)

NOTHING = Holding()
LARGEST_CHANGE = 4096
"""Over so many addresses, or half of all, a change is sent as the whole."""

AGAIN_FIRST_S, AGAIN_FACTOR, MOST_AGAIN = 10.0, 3.0, 4
"""What a point took back, while the revision is in force elsewhere, is offered to it so many times again: so long after
it took it back, and each time so many times longer."""

SETTLED = frozenset({PointState.ENFORCED, PointState.RELAXED})


@dataclass(frozen=True)
class Wanted:
    """What one point is to hold, with the digests by which it is recognised: `content` is without members and orders,
    `total` the sum of the members."""

    revision: int
    ruleset: Ruleset
    members: Members
    misfits: tuple[Misfit, ...]
    content: bytes
    digest: str
    total: int = 0


@dataclass(frozen=True, slots=True)
class Base:
    """What an agent is known to hold at `generation`: from here a change of members can be sent."""

    generation: int
    wanted: Wanted


@dataclass(frozen=True)
class Standing:
    """How one point stands, as the controller knows it.

    `issued` is what was last sent to it: its generation counts up and never back. `holding`, `state`, `reason`,
    `misfits` and `at` are as its last receipt said. `spurned` is a content that it refused or took back: not sent
    again within the same revision, but for `offer_again`. `seen` is when it was last connected. `again` is how often
    what was taken back last, at `taken_back`, has been offered again since the controller began.

    The rest is of this connection: `awaiting` a receipt; `whole` says whether what is under way is; `base`; and the
    newest `protocol` that it speaks.
    """

    workload: str
    issued: Holding = NOTHING
    holding: Holding = NOTHING
    state: PointState | None = None
    reason: str = ""
    misfits: tuple[Misfit, ...] = ()
    at: float = 0.0
    spurned: Holding = NOTHING
    seen: float = 0.0
    again: int = field(default=0, compare=False)
    again_of: tuple[str, int] = field(default=("", 0), compare=False)
    taken_back: float = field(default=0.0, compare=False)
    connected: bool = field(default=False, compare=False)
    awaiting: bool = field(default=False, compare=False)
    whole: bool = field(default=True, compare=False)
    base: Base | None = field(default=None, compare=False)
    under_way: Wanted | None = field(default=None, compare=False)
    protocol: int = field(default=NEWEST, compare=False)


@dataclass(frozen=True, slots=True)
class Whole:
    """Send all of `wanted`."""

    generation: int
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Change:
    """Send only how the members of `base` become those of `wanted`, and, where they are others, its orders."""

    base: int
    generation: int
    wanted: Wanted
    added: Mapping[bytes, int]
    removed: tuple[bytes, ...]
    orders: tuple[OrderCard, ...] | None = None


class Shown(StrEnum):
    """How a point is shown: as its own receipts say, and what only the controller can know."""

    ENFORCED = "enforced"
    RELAXED = "relaxed"
    REFUSED = "refused"
    FAILED = "failed"
    DRIFTED = "drifted"
    REVERTED = "reverted"
    PROVISIONAL = "provisional"
    PENDING = "pending"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a rollout: how a point stands to the revision that is wanted."""

    workload: str
    state: Shown
    reason: str
    revision_wanted: int
    revision_held: int
    generation_wanted: int
    generation_held: int
    misfits: tuple[Misfit, ...]
    at: float
    connected: bool


def want(points: Mapping[str, Point]) -> dict[str, Wanted]:
    """Give what each point is to hold. Members that several points share are summed up once."""
    sums: dict[int, int] = {}
    wanted: dict[str, Wanted] = {}
    scribe = Scribe()
    for name, point in points.items():
        shared = id(point.members)
        if shared not in sums:
            sums[shared] = sum_members(point.members)
        content = scribe.content_hash(point.ruleset)
        wanted[name] = Wanted(
            point.ruleset.revision,
            point.ruleset,
            point.members,
            point.misfits,
            content,
            digest_of(content, sums[shared], encode_orders(point.ruleset.orders)),
            sums[shared],
        )
    return wanted


def ordered(wanted: Wanted, orders: tuple[OrderCard, ...], written: bytes | None = None) -> Wanted:
    """Give what is wanted with these orders in place of those that it has; `written` is what is written of them."""
    if orders == wanted.ruleset.orders:
        return wanted
    digest = digest_of(wanted.content, wanted.total, encode_orders(orders) if written is None else written)
    return replace(wanted, ruleset=replace(wanted.ruleset, orders=orders), digest=digest)


def fitted(wanted: Wanted, protocol: int) -> Wanted:
    """Give what is wanted as an agent of this protocol understands it: too old a one gets no orders, and that shows."""
    orders = wanted.ruleset.orders
    if protocol >= ORDERS or not orders:
        return wanted
    misfits = tuple(Misfit(one.id, "its agent is too old for orders") for one in orders)
    return replace(ordered(wanted, ()), misfits=(*wanted.misfits, *misfits))


# --- what agents say ---


def greeted(standing: Standing, hello: Hello, now: float) -> Standing:
    """Take a `Hello`: a connection begins, and what was under way on an earlier one is done or lost."""
    highest = max(hello.highest, hello.holding.generation)
    issued = standing.issued
    if highest < issued.generation:
        # It never took what was sent last. The number stays used, the content has to be sent anew.
        issued = Holding(generation=issued.generation)
    elif highest > issued.generation:
        # It knows more than we do: our state is from a backup. Only a higher number will be taken.
        issued = Holding(generation=highest)
    known = standing.base
    base = known if known is not None and _is(hello.holding, known) else None
    state, reason = standing.state, standing.reason
    if hello.holding.generation == 0 and highest == 0:
        state, reason = None, ""
    return replace(
        standing,
        issued=issued,
        holding=hello.holding,
        state=state,
        reason=reason,
        seen=now,
        connected=True,
        awaiting=False,
        base=base,
        under_way=None,
        protocol=hello.newest,
    )


def parted(standing: Standing, now: float) -> Standing:
    """Take the end of a connection."""
    return replace(standing, connected=False, awaiting=False, seen=now, under_way=None)


def received(standing: Standing, receipt: Receipt, now: float) -> Standing:
    """Take a receipt."""
    issued, spurned, base = standing.issued, standing.spurned, standing.base
    again, again_of, taken_back = standing.again, standing.again_of, standing.taken_back
    answers = receipt.generation >= issued.generation
    if receipt.generation > issued.generation:
        issued = Holding(generation=receipt.generation)
    elif answers and receipt.state in (PointState.REFUSED, PointState.REVERTED):
        if spurned != issued:
            # The same receipt said again is not counted; another content, or another revision, is counted anew.
            taken_back, of = now, (issued.digest, issued.revision)
            again, again_of = again if of == again_of else 0, of
        spurned = issued
    elif answers and receipt.state is PointState.FAILED and not standing.whole:
        # It has gone astray by differences: it needs the whole.
        issued, base = Holding(generation=issued.generation), None
    if answers and standing.under_way is not None and receipt.holding.generation == issued.generation:
        reached = Base(issued.generation, standing.under_way)
        base = reached if _is(receipt.holding, reached) else None
    return replace(
        standing,
        issued=issued,
        holding=receipt.holding,
        state=receipt.state,
        reason=receipt.reason,
        misfits=tuple(Misfit(note.rule, note.reason) for note in receipt.misfits),
        at=receipt.at or now,
        spurned=spurned,
        again=again,
        again_of=again_of,
        taken_back=taken_back,
        seen=now,
        awaiting=standing.awaiting and not answers,
        under_way=None if answers else standing.under_way,
        base=base,
    )


def _is(holding: Holding, base: Base) -> bool:
    return (holding.generation, holding.digest) == (base.generation, base.wanted.digest)


# --- what they are sent ---


def advance(standing: Standing, wanted: Wanted) -> tuple[Standing, Whole | Change | None]:
    """Give what to send to bring a point from how it stands to what is wanted, and how it stands after sending."""
    if not standing.connected or standing.awaiting:
        return standing, None
    if holds(standing, wanted):
        if standing.base is None or standing.base.wanted is not wanted:
            standing = replace(standing, base=Base(standing.holding.generation, wanted))
        return standing, None
    offered = (wanted.digest, wanted.revision)
    if offered in ((one.digest, one.revision) for one in (standing.issued, standing.spurned)):
        return standing, None
    generation = standing.issued.generation + 1
    sent = _change(standing, wanted, generation) or Whole(generation, wanted)
    after = replace(
        standing,
        issued=Holding(generation=generation, revision=wanted.revision, digest=wanted.digest),
        awaiting=True,
        whole=isinstance(sent, Whole),
        under_way=wanted,
    )
    return after, sent


def offer_again(standing: Standing, wanted: Wanted, now: float) -> Standing:
    """Let what is wanted be sent again to a point that took it back, where it is time for that.

    For a revision that is in force elsewhere: the point may have been killed while the change was on trial, and have
    found nobody to confirm it. What a point refused it would refuse again."""
    due = standing.taken_back + AGAIN_FIRST_S * AGAIN_FACTOR**standing.again
    if (
        standing.state is not PointState.REVERTED
        or not standing.connected
        or standing.awaiting
        or (standing.spurned.digest, standing.spurned.revision) != (wanted.digest, wanted.revision)
        or standing.again >= MOST_AGAIN
        or now < due
        or holds(standing, wanted)
    ):
        return standing
    # The number stays used, the content may be sent once more.
    issued = Holding(generation=standing.issued.generation)
    return replace(standing, issued=issued, spurned=NOTHING, again=standing.again + 1)


def holds(standing: Standing, wanted: Wanted) -> bool:
    """Say whether a point holds exactly what is wanted, whichever revision brought it."""
    return standing.holding.generation > 0 and standing.holding.digest == wanted.digest


def travels_alone(moving: int, members: int) -> bool:
    """Say whether so many members that come or go, to end with `members`, are sent alone; else everything is."""
    return moving <= max(1, min(LARGEST_CHANGE, members // 2))


def _change(standing: Standing, wanted: Wanted, generation: int) -> Change | None:
    base = standing.base
    if base is None or not _is(standing.holding, base) or base.wanted.content != wanted.content:
        return None
    added, removed = change_between(base.wanted.members, wanted.members)
    if not travels_alone(len(added) + len(removed), len(wanted.members)):
        return None
    orders = wanted.ruleset.orders
    changed = None if orders == base.wanted.ruleset.orders else orders
    return Change(base.generation, generation, wanted, added, removed, changed)


# --- how it is shown ---


def show(standing: Standing, wanted: Wanted, now: float, silent_after_s: float) -> Row:
    """Give one line of a rollout."""
    held = holds(standing, wanted)
    state, reason = _shown(standing, wanted, held)
    if is_silent(standing, now, silent_after_s):
        was = f"; {state}{': ' + reason if reason else ''}" if standing.state is not None else ""
        state, reason = Shown.SILENT, ("its agent is not connected" + was)
    return Row(
        workload=standing.workload,
        state=state,
        reason=reason,
        revision_wanted=wanted.revision,
        # What is held is the same for the wanted revision as for the one that brought it.
        revision_held=wanted.revision if held else standing.holding.revision,
        generation_wanted=standing.holding.generation if held else standing.issued.generation,
        generation_held=standing.holding.generation,
        misfits=wanted.misfits + tuple(one for one in standing.misfits if one not in wanted.misfits),
        at=standing.at,
        connected=standing.connected,
    )


def is_silent(standing: Standing, now: float, silent_after_s: float) -> bool:
    """Say whether an agent has been away for longer than a reconnection takes."""
    return not standing.connected and now - standing.seen > silent_after_s


def _shown(standing: Standing, wanted: Wanted, held: bool) -> tuple[Shown, str]:
    if held:
        if standing.state is PointState.ENFORCED and wanted.misfits:
            return Shown.RELAXED, _misfits(wanted.misfits)
        if standing.state in (PointState.REFUSED, PointState.REVERTED, None):
            # Whatever was refused or taken back before: what it holds is what is wanted again.
            return (Shown.RELAXED, _misfits(wanted.misfits)) if wanted.misfits else (Shown.ENFORCED, standing.reason)
        return Shown(standing.state.value), standing.reason
    own = (standing.issued.digest, standing.issued.revision) == (wanted.digest, wanted.revision)
    troubled = standing.state in (
        PointState.REFUSED,
        PointState.FAILED,
        PointState.REVERTED,
        PointState.DRIFTED,
    )
    if own and troubled and standing.state is not None and not standing.awaiting:
        return Shown(standing.state.value), standing.reason
    if not standing.connected:
        return Shown.PENDING, "waits for its agent"
    return Shown.PENDING, "on its way" if standing.awaiting else "waits to be sent"


def _misfits(misfits: tuple[Misfit, ...]) -> str:
    return "; ".join(f"rule `{one.rule}`: {one.reason}" for one in misfits)


class Outlook(StrEnum):
    """What becomes of the revision that is on its way."""

    GOES_ON = "goes on"
    DONE = "done"
    PARTIAL = "partial"
    FAILED = "failed"


def undecided(standings: Iterable[Standing], revision: int) -> bool:
    """Say whether the outlook can only be that it goes on: something is under way, and nobody took `revision` back."""
    under_way = False
    for one in standings:
        if one.state is PointState.REVERTED and one.spurned.revision == revision:
            return False
        under_way = under_way or (one.awaiting and one.connected)
    return under_way


def outlook(rows: Mapping[str, Row], standings: Mapping[str, Standing], revision: int) -> tuple[Outlook, str]:
    """Say what becomes of `revision`, from how all points stand to it, and why.

    One point that took it back is enough to fail it; one that refused it keeps it from being done. Silent points are
    not waited for.
    """
    for name, standing in standings.items():
        if standing.state is PointState.REVERTED and standing.spurned.revision == revision and name in rows:
            return Outlook.FAILED, f"`{name}` took it back: {standing.reason}"
    open_rows = [row for row in rows.values() if row.state not in (Shown.ENFORCED, Shown.RELAXED, Shown.SILENT)]
    if not open_rows:
        return Outlook.DONE, ""
    if all(row.state is Shown.REFUSED for row in open_rows):
        more = f", and {len(open_rows) - 1} more" if len(open_rows) > 1 else ""
        return Outlook.PARTIAL, f"`{open_rows[0].workload}` refused it: {open_rows[0].reason}{more}"
    return Outlook.GOES_ON, ""
