"""Every message survives the wire, and garbage is refused in one way."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall import wire
from cellwall.flows import Outcome, Side
from cellwall.policy import Mode, Tier

HERE, THERE = ip_address("10.0.0.1").packed, ip_address("2001:db8::2").packed

FROM_AGENT: tuple[wire.FromAgent, ...] = (
    wire.Hello(
        name="web-1",
        version="0.1.0",
        boot="b",
        capabilities=("nft",),
        holding=wire.Holding(generation=3, revision=2, digest="ab"),
        highest=4,
    ),
    wire.Renew(request="-----BEGIN CERTIFICATE REQUEST-----"),
    wire.Facts(
        addresses=(HERE, THERE),
        listening=(wire.Listening(protocol=6, port=80, process="nginx", user="www-data", unit="nginx.service"),),
        hostname="web-1",
        foreign=("ip filter",),
        containers=(wire.Container(id="c1", published=(8080,)),),
    ),
    wire.Flows(batch="b/1", start=1.0, end=2.0, rows=0, lost=7),
    wire.Denials(
        samples=(wire.Denial(at=1.0, source=HERE, destination=THERE, protocol=6, port=22, side=Side.INGRESS),)
    ),
    wire.Receipt(
        generation=3,
        state=wire.PointState.RELAXED,
        reason="two rules do not fit",
        misfits=(wire.MisfitNote(rule="r", reason="no cgroups"),),
        holding=wire.Holding(generation=3, revision=2, digest="ab"),
        at=5.0,
    ),
    wire.Answer(
        id=1,
        answer=wire.HeldVerdict(
            side=Side.EGRESS,
            outcome=Outcome.DENIED,
            would=Outcome.DENIED,
            tier=Tier.DEFAULT,
            mode=Mode.ENFORCE,
            revision=3,
        ),
    ),
    wire.Answer(id=2, answer=wire.TableText(text="table inet cellwall {}", cut=True)),
    wire.Answer(id=3, answer=wire.Counters(rules={"app-to-db": (1, 60), "": (2, 120)})),
    wire.Answer(id=4, answer=wire.Trouble(reason="no table")),
)
FROM_CONTROLLER: tuple[wire.FromController, ...] = (
    wire.Welcome(protocol=1, controller="one", now=3.0),
    wire.Rejected(reason="another agent", again=True),
    wire.Bundle(
        workload="web-1",
        generation=1,
        revision=1,
        ruleset=b"r",
        members=b"m",
        issued_at=1.0,
        confirm_s=30,
        signature=b"s",
    ),
    wire.MemberChange(workload="web-1", base=1, generation=2, revision=1, added=b"a", removed=(HERE,), digest="d"),
    wire.Confirmed(generation=2),
    wire.Taken(batch="b/1"),
    wire.Ask(id=1, question=wire.Holds(source=HERE, destination=THERE, protocol=6, port=80, side=Side.EGRESS)),
    wire.Ask(id=2, question=wire.ShowTable()),
    wire.Ask(id=3, question=wire.ShowCounters()),
    wire.Renewed(certificate="-----BEGIN CERTIFICATE-----"),
)
ENROLMENT = wire.Enrol(secret="s" * 32, request="csr", name="web-1")
REPLIES: tuple[wire.EnrolmentReply, ...] = (
    wire.Enrolled(name="web-1", certificate="c", authority="a", bundle_key=bytes(32), labels={"app": "shop"}),
    wire.Rejected(reason="no such token"),
)


@pytest.mark.parametrize("message", FROM_AGENT, ids=lambda one: type(one).__name__)
def test_what_an_agent_says_arrives(message: wire.FromAgent) -> None:
    assert wire.decode_from_agent(wire.encode(message)) == message


@pytest.mark.parametrize("message", FROM_CONTROLLER, ids=lambda one: type(one).__name__)
def test_what_the_controller_says_arrives(message: wire.FromController) -> None:
    assert wire.decode_from_controller(wire.encode(message)) == message


def test_enrolment_arrives() -> None:
    assert wire.decode_enrol(wire.encode(ENROLMENT)) == ENROLMENT
    for reply in REPLIES:
        assert wire.decode_enrolment_reply(wire.encode(reply)) == reply


@given(st.binary(max_size=300))
def test_garbage_raises_wire_errors_only(data: bytes) -> None:
    for decode in (
        wire.decode_from_agent,
        wire.decode_from_controller,
        wire.decode_enrol,
        wire.decode_enrolment_reply,
    ):
        try:
            decode(data)
        except wire.WireError:
            continue


@given(st.sampled_from((*FROM_AGENT, *FROM_CONTROLLER)), st.integers(0, 1000), st.binary(min_size=1, max_size=4))
def test_a_damaged_message_is_a_message_or_refused(
    message: wire.FromAgent | wire.FromController, at: int, splice: bytes
) -> None:
    data = wire.encode(message)
    at %= len(data)
    damaged = data[:at] + splice + data[at + len(splice) :]
    for decode in (wire.decode_from_agent, wire.decode_from_controller):
        try:
            decode(damaged)
        except wire.WireError:
            continue


@pytest.mark.parametrize("data", [b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\x81\xa4type\xa3\xff\xff\xff"])
def test_nesting_huge_lengths_and_bad_text_are_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError, match="not a message"):
        wire.decode_from_agent(data)


def test_a_message_over_the_limit_is_not_read() -> None:
    with pytest.raises(wire.WireError, match="at most"):
        wire.decode_enrol(bytes(wire.MOST_ENROLMENT + 1))


def test_an_agent_cannot_say_what_only_the_controller_says() -> None:
    with pytest.raises(wire.WireError):
        wire.decode_from_agent(wire.encode(wire.Confirmed(generation=1)))


def test_fields_of_a_newer_protocol_are_passed_over() -> None:
    raw: dict[str, object] = msgspec.msgpack.decode(wire.encode(wire.Confirmed(generation=1)))
    newer = msgspec.msgpack.encode({**raw, "mood": "sunny"})
    assert wire.decode_from_controller(newer) == wire.Confirmed(generation=1)


def test_both_ends_agree_on_the_newest_protocol_that_they_share() -> None:
    assert wire.agree(1, 99) == wire.NEWEST
    assert wire.agree(wire.OLDEST, wire.OLDEST) == wire.OLDEST
    with pytest.raises(wire.WireError, match="upgrade this side"):
        wire.agree(98, 99)
    with pytest.raises(wire.WireError, match="upgrade the peer"):
        wire.agree(0, 0)
    with pytest.raises(wire.WireError, match="backwards"):
        wire.agree(2, 1)
