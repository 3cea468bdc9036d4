"""What a host says of itself, as the controller wants to hear it."""

from __future__ import annotations

from collections.abc import Iterable

from cellwall.agent.bundle import Bundle
from cellwall.enforce import TABLE, TRACE_TABLE, Weight, weigh
from cellwall.observe import FirewallTable, HostFacts, ListeningService, Room
from cellwall.wire import Facts, Listening

MOST_LISTENING = 4096


def weight_of(bundle: Bundle) -> Weight:
    """Estimate what the table of `bundle` takes, as the controller's plans do."""
    return weigh(bundle.ruleset, len(bundle.members))


def others(tables: Iterable[FirewallTable]) -> list[str]:
    """Name the tables that are not ours, as `family name`."""
    ours = {("inet", TABLE), ("inet", TRACE_TABLE)}
    return [f"{one.family} {one.name}" for one in tables if (one.family, one.name) not in ours]


def stepped(number: int) -> int:
    """Round down to an eighth of a power of two: what changes all the time is not to be news each time."""
    step = 1 << max(0, number.bit_length() - 4)
    return number // step * step


def tell(
    facts: HostFacts, blind: Iterable[str], room: Room, held: Bundle | None = None, troubles: Iterable[str] = ()
) -> Facts:
    """Write the facts of a host; `blind` is what the agent cannot see, `held` what its kernel holds, `troubles` what
    is wrong besides the `room` there is."""
    version = ".".join(str(part) for part in facts.nft_version or ())
    foreign = others(facts.tables)
    unseen = [*blind, *([] if version else ["nft is not installed: nothing can be enforced"])]
    unseen += [f"containers of `{one}`: what is published passes by" for one in facts.runtimes if one != "libvirt"]
    return Facts(
        addresses=tuple(one.address.packed for one in facts.addresses.reachable)[:4096],
        listening=tuple(_listening(one) for one in facts.services[:MOST_LISTENING]),
        hostname=facts.identity.hostname,
        os=f"{facts.identity.os} {facts.identity.os_version}".strip(),
        kernel=facts.identity.kernel,
        nft=version,
        foreign=tuple(foreign)[:1024],
        blind=tuple(unseen)[:256],
        troubles=(*room.troubles, *troubles)[:256],
        tracked=stepped(room.tracked),
        most_tracked=room.most_tracked,
        memory=stepped(room.memory or 0),
        table_memory=stepped(weight_of(held).held) if held else 0,
    )


def _listening(one: ListeningService) -> Listening:
    holder = one.process
    return Listening(
        protocol=one.protocol,
        port=one.port,
        address=b"" if one.address.is_unspecified else one.address.packed,
        process=holder.comm if holder else "",
        exe=holder.exe if holder else "",
        user=one.user,
        unit=holder.unit if holder else "",
    )
