"""What a host says of itself, as the controller wants to hear it."""

from __future__ import annotations

from collections.abc import Iterable

from cellwall.enforce import TABLE
from cellwall.observe import HostFacts, ListeningService
from cellwall.wire import Facts, Listening

MOST_LISTENING = 4096


def tell(facts: HostFacts, blind: Iterable[str]) -> Facts:
    """Write the facts of a host; `blind` is what the agent cannot see."""
    version = ".".join(str(part) for part in facts.nft_version or ())
    foreign = [f"{one.family} {one.name}" for one in facts.tables if (one.family, one.name) != ("inet", TABLE)]
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
