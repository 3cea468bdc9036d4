"""What may stand between client and server: nothing, conntrack alone, ours, and rules in a line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cellwall.enforce import NftPoint
from tests.bench.worlds import CLIENT, CLIENT_ADDRESS, FIRST_PORT, KINDS, PORTS, pair_of_ends, peer, point_at
from tests.kernel.namespaces import Namespace


class Kind(StrEnum):
    """How a firewall is made."""

    NONE = "no firewall"
    CONNTRACK = "conntrack, accept all"
    OURS = "ours"
    LINEAR = "a rule per address"
    SETS = "a set per rule"


@dataclass(frozen=True, slots=True)
class Firewall:
    """A firewall of so many peers and rules at the server, and where `both` says so at the client too.

    `repeat` tells a second one of the same apart."""

    kind: Kind
    peers: int = 0
    rules: int = 0
    both: bool = False
    repeat: bool = False

    @property
    def name(self) -> str:
        """What it is called in a table."""
        size = f", {self.peers:,} peers" if self.peers else ""
        size += f", {self.rules:,} rules" if self.rules else ""
        return f"{self.kind}{size}{', both ends' if self.both else ''}{', again' if self.repeat else ''}"

    def install(self, client: Namespace, server: Namespace) -> None:
        """Put it up."""
        ends = (server, client) if self.both else (server,)
        match self.kind:
            case Kind.NONE:
                return
            case Kind.CONNTRACK:
                for end in ends:
                    end.nft(_CONNTRACK)
            case Kind.OURS:
                # In a child: what compiling needs of memory is gone before anything is measured.
                server.call(_install_ours, self, client if self.both else None)
            case Kind.LINEAR:
                server.nft(_table(*_by_address(self.peers)))
            case Kind.SETS:
                server.nft(_table(*_by_set(self.peers, self.rules)))


def _install_ours(one: Firewall, client: Namespace | None) -> None:
    policy, fleet = pair_of_ends(one.peers, one.rules)
    server = point_at(policy, fleet)
    NftPoint().apply(server.ruleset, server.members)
    if client is not None:
        with client.inside():
            point = point_at(policy, fleet, CLIENT)
            NftPoint().apply(point.ruleset, point.members)


_CONNTRACK = "".join(
    f"""table inet bench {{
  chain {hook} {{
    type filter hook {hook} priority filter; policy accept;
    ct state established,related accept
    ct state invalid drop
    accept
  }}
}}
"""
    for hook in ("input", "output")
)


def _table(sets: str, rules: list[str]) -> str:
    """A firewall as it is usually written: what is established passes, then rules one by one; egress is free."""
    return f"""table inet bench {{
  {sets}
  chain input {{
    type filter hook input priority filter; policy drop;
    iif lo accept
    ct state established,related accept
    meta l4proto ipv6-icmp accept
    {chr(10).join(rules)}
  }}
}}
"""


def _by_address(peers: int) -> tuple[str, list[str]]:
    """A rule for each address; the client's is in the middle."""
    addresses = [str(peer(number)) for number in range(peers - 1)]
    addresses.insert(len(addresses) // 2, str(CLIENT_ADDRESS))
    return "", [f"ip saddr {address} accept" for address in addresses]


def _by_set(peers: int, rules: int) -> tuple[str, list[str]]:
    """A rule for each service, with the set of those who may; the client's is in the middle."""
    kinds = min(peers, KINDS, rules)
    own = rules // 2 % kinds
    members: list[list[str]] = [[] for _ in range(kinds)]
    members[own].append(str(CLIENT_ADDRESS))
    for number in range(peers - 1):
        members[number % kinds].append(str(peer(number)))
    sets = "\n".join(
        f"set s{number} {{ type ipv4_addr; elements = {{ {', '.join(held)} }}\n}}"
        for number, held in enumerate(members)
    )
    served = "meta l4proto { tcp, udp } th dport { " + ", ".join(map(str, PORTS)) + " }"
    lines = [
        f"ip saddr @s{number % kinds} {served if number == rules // 2 else f'tcp dport {FIRST_PORT + number}'} accept"
        for number in range(rules)
    ]
    return sets, lines
