"""Signed bundles and changes for the agent's tests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from ipaddress import ip_address

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwall.agent.bundle import Bundle, amend, open_bundle
from cellwall.compile import Canary, Entry, Face, RuleCard, Ruleset
from cellwall.policy import Action, Mode
from cellwall.traffic import TCP, point
from cellwall.wire import Bundle as Message
from cellwall.wire import MemberChange, encode, encode_members, encode_ruleset, sign

WORKLOAD = "web"


@cache
def controller_key() -> Ed25519PrivateKey:
    """The key that signs, the same for all tests of a run."""
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def public_key() -> bytes:
    """What the agent knows of it."""
    return controller_key().public_key().public_bytes_raw()


def ruleset(port: int = 80, canaries: int = 0, workload: str = WORKLOAD, mode: Mode = Mode.ENFORCE) -> Ruleset:
    """A ruleset that lets class 7 in to TCP `port`."""
    at = point(TCP, port)
    entry = Entry(7, at, at, Action.ALLOW, (1,))
    return Ruleset(
        workload,
        port,
        mode,
        rules=(RuleCard(1, "in", Action.ALLOW),),
        faces=(Face((), ingress=(entry,)),),
        canaries=tuple(Canary(f"c{n}", (ip_address("192.0.2.1"),), 1000 + n) for n in range(canaries)),
    )


def message(
    generation: int, confirm_s: float = 0.0, members: Mapping[bytes, int] | None = None, **kind: object
) -> Message:
    """A signed bundle of `generation`; every generation has rules of its own."""
    workload = str(kind.pop("workload", WORKLOAD))
    port = 1000 + generation
    content = ruleset(port, workload=workload, **kind)  # type: ignore[arg-type]
    made = Message(
        workload=workload,
        generation=generation,
        revision=generation,
        ruleset=encode_ruleset(content),
        members=encode_members({b"\x0a\0\0\x01": 7} if members is None else members),
        issued_at=1.0,
        confirm_s=confirm_s,
    )
    return sign(made, controller_key())


def bundle(generation: int, confirm_s: float = 0.0, **kind: object) -> Bundle:
    """The same as the agent's value."""
    made = message(generation, confirm_s, **kind)  # type: ignore[arg-type]
    return open_bundle(made, encode(made))


def change(before: Bundle, added: Mapping[bytes, int], removed: tuple[bytes, ...] = ()) -> MemberChange:
    """A signed change that follows `before`."""
    blank = MemberChange(
        workload=WORKLOAD,
        base=before.generation,
        generation=before.generation + 1,
        revision=before.revision,
        added=encode_members(added),
        removed=removed,
    )
    after = amend(before, (blank,))
    return sign(
        MemberChange(
            workload=blank.workload,
            base=blank.base,
            generation=blank.generation,
            revision=blank.revision,
            added=blank.added,
            removed=removed,
            digest=after.holding.digest,
        ),
        controller_key(),
    )
