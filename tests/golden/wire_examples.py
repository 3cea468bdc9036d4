"""One message of every kind, as a protocol number has it: what the golden files of the wire are made of."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.fleet.agent_world import ALLOW_80, NAME, fleet, point, policy

from cellwall.flows import FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.policy import Mode, Tier
from cellwall.wire import (
    DIGESTS,
    ORDERS,
    Answer,
    Ask,
    Bundle,
    Confirmed,
    Container,
    Counters,
    Denial,
    Denials,
    Enrol,
    Enrolled,
    Facts,
    HeldVerdict,
    Hello,
    Holding,
    Holds,
    Listening,
    MemberChange,
    MisfitNote,
    Owner,
    PointState,
    Receipt,
    Rejected,
    Renew,
    Renewed,
    ShowCounters,
    ShowTable,
    TableText,
    Taken,
    Trouble,
    Welcome,
    change_between,
    digest,
    digested,
    encode_members,
    encode_orders,
    encode_ruleset,
    pack_flows,
    sign,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
"""What signs the examples; a key of tests and of nothing else."""
AT = 1_800_000_000.0
CLIENT, WEB = ip_address("10.77.0.1"), ip_address("10.77.0.2")


def examples(number: int) -> dict[str, Any]:
    """Give messages of protocol `number` by name, those with a signature signed by `KEY`."""
    small, large = point(policy(ALLOW_80), 7), point(policy(ALLOW_80), 7, fleet(more=3))
    added, removed = change_between(small.members, large.members)
    holding = Holding(generation=3, revision=7, digest=digest(small.ruleset, small.members))
    held = HeldVerdict(
        side=Side.INGRESS, outcome=Outcome.ALLOWED, would=Outcome.ALLOWED, tier=Tier.ALLOW, rules=("in-80",),
        mode=Mode.ENFORCE, revision=7,
    )  # fmt: skip
    record = FlowRecord(
        FlowKey(CLIENT, WEB, 6, 80), NAME, Side.INGRESS, Outcome.ALLOWED, Outcome.ALLOWED, ("in-80",), 7, 3, AT, AT + 2,
        12, 3456, Process("nginx", "www-data", "nginx.service", "/usr/sbin/nginx"),
    )  # fmt: skip
    denial = Denial(
        at=AT, source=CLIENT.packed, destination=WEB.packed, protocol=6, port=22, side=Side.INGRESS, revision=7,
        owner=Owner(user="root"),
    )  # fmt: skip
    ordered = MemberChange(
        workload=NAME, base=4, generation=5, revision=7, digest=digest(small.ruleset, large.members), issued_at=AT,
        orders=encode_orders(()),
    )  # fmt: skip
    bundle = Bundle(
        workload=NAME, generation=3, revision=7, ruleset=encode_ruleset(small.ruleset),
        members=encode_members(small.members), issued_at=AT, confirm_s=0.0,
    )  # fmt: skip
    return {
        **({"change orders": sign(ordered, KEY)} if number >= ORDERS else {}),
        "enrol": Enrol(secret="s3cret", request="-----BEGIN CERTIFICATE REQUEST-----", name=NAME, version="0.1.0"),
        "enrolled": Enrolled(
            name=NAME, certificate="-----BEGIN CERTIFICATE-----", authority="-----BEGIN CERTIFICATE-----",
            bundle_key=KEY.public_key().public_bytes_raw(), labels={"role": "web"},
        ),
        "rejected": Rejected(reason="it is revoked", again=False),
        "hello": Hello(
            name=NAME, version="0.1.0", oldest=1, newest=number, boot="b00t", capabilities=("units",), holding=holding,
            highest=3,
        ),
        "renew": Renew(request="-----BEGIN CERTIFICATE REQUEST-----"),
        "facts": Facts(
            addresses=(WEB.packed,), listening=(Listening(protocol=6, port=80, process="nginx", user="root"),),
            hostname="web-1", os="debian 12", kernel="6.1.0", nft="1.0.6", foreign=("ip filter",),
            containers=(Container(id="c1", name="db", image="postgres", published=(5432,)),), blind=("owners",),
        ),
        "flows": pack_flows([record], batch="b-1", start=AT, end=AT + 2, lost=1, dropped=2),
        "denials": Denials(samples=(denial,), skipped=4),
        **{
            f"receipt {state}": Receipt(
                generation=3, state=state, reason="why", misfits=(MisfitNote(rule="in-80", reason="no units"),),
                holding=holding, at=AT,
            )
            for state in PointState
        },
        "answer holds": Answer(id=1, answer=held),
        "answer table": Answer(id=2, answer=TableText(text="table inet cellwall {}", cut=True)),
        "answer counters": Answer(id=3, answer=Counters(rules={"in-80": (3, 180), "": (1, 60)})),
        "answer trouble": Answer(id=4, answer=Trouble(reason="it is gone")),
        "welcome": Welcome(protocol=number, controller="one", interval_s=2.0, most_rows=1000, now=AT),
        "bundle": sign(bundle, KEY),
        **({"bundle digested": digested(bundle, KEY)} if number >= DIGESTS else {}),
        "change": sign(
            MemberChange(
                workload=NAME, base=3, generation=4, revision=7, added=encode_members(added), removed=removed,
                digest=digest(small.ruleset, large.members), issued_at=AT,
            ),
            KEY,
        ),
        "confirmed": Confirmed(generation=3),
        "taken": Taken(batch="b-1"),
        "ask holds": Ask(
            id=1, question=Holds(source=CLIENT.packed, destination=WEB.packed, protocol=6, port=80, side=Side.INGRESS)
        ),
        "ask table": Ask(id=2, question=ShowTable()),
        "ask counters": Ask(id=3, question=ShowCounters()),
        "renewed": Renewed(certificate="-----BEGIN CERTIFICATE-----"),
    }  # fmt: skip


def plain(message: Any) -> Any:
    """Give a message as names and plain values; bytes as hex."""
    import msgspec

    return _readable(msgspec.to_builtins(message, builtin_types=(bytes,)))


def _readable(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case dict():
            return {str(key): _readable(one) for key, one in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            return [_readable(one) for one in cast("list[Any]", value)]
        case _:
            return value
