"""What agent and controller say to each other.

                     agent                                     controller
      enrolment        Enrol ──────────────────────────────▶
                             ◀────────────────────────────── Enrolled | Rejected
      the channel      Hello ──────────────────────────────▶
                             ◀────────────────────────────── Welcome | Rejected
      policy                 ◀────────────────────────────── Bundle | MemberChange
             Receipt(provisional) ─────────────────────────▶
                             ◀────────────────────────────── Confirmed
             Receipt(enforced | …) ────────────────────────▶
      the world        Facts, Flows, Denials ──────────────▶
                             ◀────────────────────────────── Taken
      live questions         ◀────────────────────────────── Ask
                       Answer ─────────────────────────────▶
      renewal          Renew ──────────────────────────────▶
                             ◀────────────────────────────── Renewed

Enrolment: `GET /v1/ca` gives the CA, to be checked against the token; then, with TLS verified by that CA, a
`POST /v1/enroll` takes one `Enrol` as its body and answers with the reply. The channel: a WebSocket to `/v1/agent`
with the client certificate so got; one per agent, the newer one wins. On it the agent speaks first.

Each message is one binary WebSocket message, or one body: a msgpack map whose `type` names it. Times are seconds
since the epoch, UTC. Addresses are bytes, 4 or 16, in network order. Who speaks is known from the certificate, never
from a message.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from cellwall.flows import Outcome, Side
from cellwall.policy import Mode, Tier

U8 = Annotated[int, Meta(ge=0, le=0xFF)]
U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
U63 = Annotated[int, Meta(ge=0, le=0x7FFF_FFFF_FFFF_FFFF)]
Generation = Annotated[int, Meta(ge=0, le=1 << 53)]
"""A generation as an agent tells it: whatever it says, there are higher ones."""
Number = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
"""The number of a revision."""
Moment = Annotated[float, Meta(ge=0, le=1e11)]
Name = Annotated[str, Meta(max_length=253)]
Text = Annotated[str, Meta(max_length=1024)]
LongText = Annotated[str, Meta(max_length=16 * 1024 * 1024)]
MOST_RULES, MOST_OWNERS, MOST_ENDS, MOST_BECAUSE = 100_000, 50_000, 100_000, 1024
"""So long are lists at most: an empty element is one byte on the way and a hundred in memory."""
Because = Annotated[tuple[Text, ...], Meta(max_length=MOST_BECAUSE)]
"""Ids of the rules that decide."""
Packed = Annotated[bytes, Meta(min_length=4, max_length=16)]


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=str.lower):
    """What every message is made as: a map, tagged with the lower-case name of its class."""


class Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every part of a message is made as: a map with named fields."""


class PointState(StrEnum):
    """How a point stands to what it was sent.

    `PROVISIONAL`: in the kernel, and to be undone unless confirmed. `ENFORCED`: in force, exactly. `RELAXED`: in
    force, but for the rules named as misfits. `REFUSED`: the point said no; do not send the same again. `FAILED`: it
    did not work; may be tried again. `DRIFTED`: somebody changed our table; it is being repaired. `REVERTED`: it was
    in force, was not confirmed in time, and the previous state is back.
    """

    PROVISIONAL = "provisional"
    ENFORCED = "enforced"
    RELAXED = "relaxed"
    REFUSED = "refused"
    FAILED = "failed"
    DRIFTED = "drifted"
    REVERTED = "reverted"


# --- enrolment ---


class Enrol(Message, frozen=True):
    """A new agent asks for a certificate: the secret of its token, a PEM certificate request, and a wished name.

    Posted to `/v1/enroll`, after the server's CA has been checked against the fingerprint in the token."""

    secret: Text
    request: Annotated[str, Meta(max_length=16384)]
    name: Name = ""
    version: Text = ""


class Enrolled(Message, frozen=True):
    """The answer to `Enrol`: the certificate of the agent, what it is called, and whom it shall believe.

    `certificate` and `authority` are PEM; `bundle_key` is the raw Ed25519 key (32 bytes) that signs bundles.
    """

    name: Name
    certificate: Annotated[str, Meta(max_length=65536)]
    authority: Annotated[str, Meta(max_length=65536)]
    bundle_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    labels: dict[str, str] = {}


class Rejected(Message, frozen=True):
    """Why the controller closes: in the user's words, and whether trying again later can help."""

    reason: Text
    again: bool = False


# --- from the agent ---


class Holding(Part, frozen=True):
    """What a point holds. `digest` is `wire.digest` of ruleset and members, as hex; generation 0 is nothing."""

    generation: Generation = 0
    revision: Number = 0
    digest: Text = ""


class Hello(Message, frozen=True):
    """The first message of an agent: the protocols it speaks, what it can do, and what it holds.

    `highest` is the highest generation that it ever accepted, reverted ones too: it accepts only higher ones.
    `boot` is the kernel's boot id (`/proc/sys/kernel/random/boot_id`).
    """

    name: Name
    version: Text
    oldest: U16 = 1
    newest: U16 = 1
    boot: Text = ""
    capabilities: Annotated[tuple[Text, ...], Meta(max_length=256)] = ()
    holding: Holding = Holding()
    highest: Generation = 0


class Renew(Message, frozen=True):
    """An agent asks for a fresh certificate before its own expires: a PEM certificate request."""

    request: Annotated[str, Meta(max_length=16384)]


class Listening(Part, frozen=True):
    """A socket that waits for traffic, and whose it is; an empty `address` is every address."""

    protocol: U8
    port: U16
    address: Annotated[bytes, Meta(max_length=16)] = b""
    process: Text = ""
    exe: Text = ""
    user: Text = ""
    unit: Text = ""


class Container(Part, frozen=True):
    """A container on the host, and the ports that it publishes past a host firewall's input."""

    id: Text
    name: Text = ""
    image: Text = ""
    published: tuple[U16, ...] = ()


class Facts(Message, frozen=True):
    """What the host is; sent after `Welcome`, and again when something of it changes.

    `addresses` are those of the host that peers may use: no loopback, no link-local. `foreign` names the nft tables
    that are not ours, as `family name`. `capabilities` are those of `Hello`, where they change later. `blind` says
    in words what the agent cannot see or do on this host, `troubles` what somebody should look at: a table of
    connections that fills, or a firewall of others that drops what we let pass. `tracked` connections of at most
    `most_tracked`, `memory` bytes that can be had and `table_memory` bytes that our table takes are about so many: they
    are told in steps, 0 where they are not known.
    """

    addresses: Annotated[tuple[Packed, ...], Meta(max_length=4096)] = ()
    listening: Annotated[tuple[Listening, ...], Meta(max_length=16384)] = ()
    hostname: Text = ""
    os: Text = ""
    kernel: Text = ""
    nft: Text = ""
    foreign: Annotated[tuple[Text, ...], Meta(max_length=1024)] = ()
    containers: Annotated[tuple[Container, ...], Meta(max_length=4096)] = ()
    blind: Annotated[tuple[Text, ...], Meta(max_length=256)] = ()
    troubles: Annotated[tuple[Text, ...], Meta(max_length=256)] = ()
    tracked: U63 = 0
    most_tracked: U63 = 0
    memory: U63 = 0
    table_memory: U63 = 0


class Owner(Part, frozen=True):
    """A local process as flow records name it."""

    name: Text = ""
    user: Text = ""
    unit: Text = ""
    exe: Text = ""


class Flows(Message, frozen=True):
    """Flow records of one window in columns: see `cellwall.wire.columns`, which packs and unpacks them.

    `batch` is unique for its agent and makes delivery idempotent: a batch sent twice counts once. `lost` is how many
    flows the agent knows to have missed in the window, `dropped` how many records it threw away unsent.
    """

    batch: Annotated[str, Meta(min_length=1, max_length=128)]
    start: Moment
    end: Moment
    rows: U32
    addresses: Annotated[tuple[Packed, ...], Meta(max_length=MOST_ENDS)] = ()
    rules: Annotated[tuple[Because, ...], Meta(max_length=MOST_ENDS)] = ()
    owners: Annotated[tuple[Owner, ...], Meta(max_length=MOST_OWNERS)] = ()
    source: bytes = b""
    destination: bytes = b""
    protocol: bytes = b""
    port: bytes = b""
    flags: bytes = b""
    rule: bytes = b""
    owner: bytes = b""
    revision: bytes = b""
    connections: bytes = b""
    packets: bytes = b""
    octets: bytes = b""
    first: bytes = b""
    last: bytes = b""
    lost: U63 = 0
    dropped: U63 = 0


class Denial(Part, frozen=True):
    """One refused packet: a sample, while the flow records are the count. An empty `rule` is the default."""

    at: Moment
    source: Packed
    destination: Packed
    protocol: U8
    port: U16
    side: Side
    outcome: Outcome = Outcome.DENIED
    rule: Text = ""
    revision: U63 = 0
    owner: Owner = Owner()


class Denials(Message, frozen=True):
    """Samples of denied packets, rate-limited and de-duplicated; `skipped` are those not sent."""

    samples: Annotated[tuple[Denial, ...], Meta(max_length=10_000)] = ()
    skipped: U63 = 0


class MisfitNote(Part, frozen=True):
    """A rule that the point cannot express, and why."""

    rule: Text
    reason: Text


class Receipt(Message, frozen=True):
    """How the point stands to `generation`, why, and what is in force after it.

    Sent after every bundle and change of members, after every revert, and when drift is found or repaired.
    """

    generation: Generation
    state: PointState
    reason: Text = ""
    misfits: Annotated[tuple[MisfitNote, ...], Meta(max_length=MOST_RULES)] = ()
    holding: Holding = Holding()
    at: Moment = 0.0


class HeldVerdict(Part, frozen=True, tag="holds"):
    """What the state that a point holds says of a tuple, at one side of it. `foreign` names where another firewall of
    the host was seen to drop such packets, in the last hour, that the point lets pass."""

    side: Side
    outcome: Outcome
    would: Outcome
    tier: Tier
    rules: Because = ()
    mode: Mode = Mode.OBSERVE
    revision: U63 = 0
    foreign: Text = ""


class TableText(Part, frozen=True, tag="table"):
    """The point's own table as its own tool writes it; `cut` where it was too long to send whole."""

    text: LongText
    cut: bool = False


class Counters(Part, frozen=True, tag="counters"):
    """Packets and bytes per rule id, since the ruleset was applied; the default's id is empty."""

    rules: Annotated[dict[Text, tuple[U63, U63]], Meta(max_length=MOST_RULES)]


class Trouble(Part, frozen=True, tag="trouble"):
    """Why a question has no answer."""

    reason: Text


class Answer(Message, frozen=True):
    """The answer to the `Ask` with the same `id`."""

    id: U63
    answer: HeldVerdict | TableText | Counters | Trouble


# --- from the controller ---


class Welcome(Message, frozen=True):
    """The answer to `Hello`: the protocol that both speak, and how the agent shall behave.

    `interval_s` is how often flows are collected and sent, `now` the controller's clock, `renew_before_s` how long
    before its certificate expires the agent asks for a new one, `most_rows` the most rows of one `Flows`. `controllers`
    are the addresses (`https://host:port`) of all controllers: any of them will do when this one cannot be reached.
    """

    protocol: U16
    controller: Name = ""
    interval_s: Annotated[float, Meta(gt=0, le=3600)] = 2.0
    most_rows: Annotated[int, Meta(ge=1, le=1_000_000)] = 50_000
    renew_before_s: Annotated[float, Meta(ge=0)] = 864_000.0
    now: Moment = 0.0
    controllers: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()


class Bundle(Message, frozen=True):
    """All that a point is to hold, signed: `ruleset` and `members` are as `cellwall.wire.rulesets` writes them.

    `generation` counts up per workload; an agent accepts only one higher than any before. `confirm_s` 0 means that
    the change needs no confirmation, else the agent puts the previous state back unless it has confirmed within that
    many seconds. `signature` is Ed25519 over `cellwall.wire.signing.signed_part`, in which `workload` and
    `generation` stand, so that a bundle is no use to another workload and cannot be played again. `form` says over
    which of its parts: 1, all that is here; 2, digests of `ruleset` and `members` in their place.
    """

    workload: Name
    generation: U63
    revision: U63
    ruleset: bytes
    members: bytes
    issued_at: Moment
    confirm_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    signature: Annotated[bytes, Meta(max_length=64)] = b""
    form: Annotated[int, Meta(ge=1, le=2)] = 1


class MemberChange(Message, frozen=True):
    """Addresses that join, leave or change their class, and orders that come and go, from `base` to `generation`; the
    ruleset stays.

    `added` is as `cellwall.wire.rulesets` writes members and also holds those that change class; `removed` are packed
    addresses. `digest` is that of the whole state after it, so that an agent notices that it has gone astray (it then
    answers `failed`, and gets the whole bundle). `orders` are all that the point is to have, as `cellwall.wire.orders`
    writes them; None leaves those that it has. Signed as a `Bundle` is.
    """

    workload: Name
    base: U63
    generation: U63
    revision: U63
    added: bytes = b""
    removed: tuple[Packed, ...] = ()
    digest: Text = ""
    issued_at: Moment = 0.0
    orders: bytes | None = None
    signature: Annotated[bytes, Meta(max_length=64)] = b""


class Confirmed(Message, frozen=True):
    """The controller heard of the provisional `generation` through the new rules, and nothing speaks against it."""

    generation: U63


class Taken(Message, frozen=True):
    """The batch of flows is stored; the agent may forget it.

    `controllers` are the addresses of all controllers, as in `Welcome`, where they are others by now."""

    batch: Annotated[str, Meta(min_length=1, max_length=128)]
    controllers: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()


class Holds(Part, frozen=True, tag="holds"):
    """What does the point hold for this tuple? `user`, `unit`, `exe`: of the local process, empty if not known."""

    source: Packed
    destination: Packed
    protocol: U8
    port: U16
    side: Side
    user: Text = ""
    unit: Text = ""
    exe: Text = ""


class ShowTable(Part, frozen=True, tag="table"):
    """What does the point's own tool show of our table?"""


class ShowCounters(Part, frozen=True, tag="counters"):
    """How often did each rule decide?"""


class Ask(Message, frozen=True):
    """A question about the point as it is at this moment; the `Answer` carries the same `id`."""

    id: U63
    question: Holds | ShowTable | ShowCounters


class Renewed(Message, frozen=True):
    """The answer to `Renew`: the fresh certificate, PEM."""

    certificate: Annotated[str, Meta(max_length=65536)]


FromAgent = Hello | Facts | Flows | Denials | Receipt | Answer | Renew
"""What an agent may say on the channel."""

FromController = Welcome | Rejected | Bundle | MemberChange | Confirmed | Taken | Ask | Renewed
"""What the controller may say on the channel."""

EnrolmentReply = Enrolled | Rejected
"""What the controller may answer to `Enrol`."""
