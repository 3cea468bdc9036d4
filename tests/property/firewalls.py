"""Random ordered firewalls, small enough to collide often; their texts, and the dumb twin that walks them.

The twin goes packet by packet: first match, jumps, returns, policies. It shares nothing with the importer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from random import Random

from hypothesis import strategies as st

from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.traffic import Address

OWN: tuple[Address, ...] = tuple(ip_address(text) for text in ("10.0.0.1", "10.0.0.2", "fd00::1"))
FAR: tuple[Address, ...] = tuple(
    ip_address(text) for text in ("10.0.0.9", "10.0.1.7", "192.0.2.1", "192.0.2.200", "fd00::9", "2001:db8::1")
)
NETWORKS = {
    4: ["10.0.0.0/24", "10.0.0.0/8", "192.0.2.0/25", "192.0.2.1", "10.0.0.1", "0.0.0.0/1", "10.0.0.8/30"],
    6: ["fd00::/64", "2001:db8::/32", "fd00::1", "::/1", "2001:db8::1", "fd00::8/125"],
}
PORTS = [(22, 22), (80, 80), (80, 90), (85, 100), (0, 65535), (443, 443)]
TRIED = [(6, 22), (6, 80), (6, 85), (6, 95), (6, 9), (17, 80), (132, 80), (47, 0)]
ECHOES = {4: [(1, 8 << 8), (1, 13 << 8)], 6: [(58, 128 << 8), (58, 139 << 8)]}
"""Requests alone: conntrack takes no answer for the first packet of a connection (nf_conntrack_proto_icmpv6.c)."""
NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
USERS = {"33": "www-data", "1": "daemon"}
BELOW = {"INPUT": ["a", "b", "c"], "OUTPUT": ["a", "b", "c"], "a": ["b", "c"], "b": ["c"], "c": []}


@dataclass(frozen=True)
class DumbRule:
    """A rule of an ordered firewall. `unknown` is a match that depends on what nobody can tell."""

    verdict: str
    family: int
    target: str = ""
    source: tuple[str, ...] = ()
    not_source: bool = False
    destination: tuple[str, ...] = ()
    not_destination: bool = False
    protocol: str = ""
    ports: tuple[tuple[int, int], ...] = ()
    not_ports: bool = False
    echo: bool = False
    state: str = ""
    user: str = ""
    loopback: bool = False
    unknown: bool = False


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection, and who sends it."""

    source: Address
    destination: Address
    protocol: int
    port: int
    user: str = "root"


@dataclass(frozen=True)
class DumbFirewall:
    """Chains of one family (None: both), and the policies of the base chains."""

    family: int | None
    chains: Mapping[str, tuple[DumbRule, ...]]
    policies: Mapping[str, str]
    host: str = field(default="web1")


# --- the twin ---


def verdicts(firewall: DumbFirewall, hook: str, packet: Packet) -> set[bool]:
    """Whether a packet is accepted: both answers where it depends on what nobody can tell."""
    found = set(_walk(firewall, hook, packet))
    return {(firewall.policies[hook] if one is None else one) == "ACCEPT" for one in found}


def _walk(firewall: DumbFirewall, chain: str, packet: Packet, at: int = 0) -> Iterator[str | None]:
    rules = firewall.chains[chain]
    for number in range(at, len(rules)):
        rule = rules[number]
        if not _matches(rule, packet):
            continue
        if rule.unknown:
            yield from _walk(firewall, chain, packet, number + 1)
        if rule.verdict == "LOG":
            if rule.unknown:
                return
        elif rule.verdict in ("ACCEPT", "DROP", "REJECT"):
            yield "ACCEPT" if rule.verdict == "ACCEPT" else "DROP"
            return
        elif rule.verdict == "RETURN":
            yield None
            return
        else:
            inner = set(_walk(firewall, rule.target, packet))
            yield from (one for one in inner if one is not None)
            if None in inner:
                if rule.verdict == "GOTO":
                    yield None
                else:
                    yield from _walk(firewall, chain, packet, number + 1)
            return
    yield None


def _matches(rule: DumbRule, packet: Packet) -> bool:
    if rule.loopback or rule.state == "ESTABLISHED":
        return False
    if rule.user and USERS[rule.user] != packet.user:
        return False
    for networks, wrong, address in (
        (rule.source, rule.not_source, packet.source),
        (rule.destination, rule.not_destination, packet.destination),
    ):
        if networks:
            if ip_network(networks[0]).version != address.version:
                return False
            if any(address in ip_network(one) for one in networks) is wrong:
                return False
    if rule.protocol and NUMBERS[rule.protocol] != packet.protocol:
        return False
    if rule.ports and any(low <= packet.port <= high for low, high in rule.ports) is rule.not_ports:
        return False
    return not rule.echo or (packet.protocol, packet.port >> 8) == ((1, 8) if rule.family == 4 else (58, 128))


# --- as text ---


def iptables_text(firewall: DumbFirewall) -> str:
    """Write it as iptables-save or ip6tables-save does."""
    six = firewall.family == 6
    lines = [f"# Generated by {'ip6tables' if six else 'iptables'}-save v1.8.9", "*filter"]
    lines += [f":{chain} {firewall.policies.get(chain, '-')} [0:0]" for chain in firewall.chains]
    for chain, rules in firewall.chains.items():
        for rule in rules:
            lines.append(f"-A {chain} {_iptables_rule(rule, six=six)}")
    return "\n".join([*lines, "COMMIT", ""])


def _iptables_rule(rule: DumbRule, *, six: bool) -> str:
    words: list[str] = []
    for flag, networks, wrong in (("-s", rule.source, rule.not_source), ("-d", rule.destination, rule.not_destination)):
        if networks:
            words.append(f"{'! ' if wrong else ''}{flag} {networks[0]}")
    if rule.loopback:
        words.append("-i lo")
    if rule.protocol:
        words.append(f"-p {rule.protocol}")
    if rule.ports:
        wrong = "! " if rule.not_ports else ""
        written = ",".join(f"{low}:{high}" if low != high else str(low) for low, high in rule.ports)
        one = len(rule.ports) == 1
        words.append(
            f"-m {rule.protocol} {wrong}--dport {written}" if one else f"-m multiport {wrong}--dports {written}"
        )
    if rule.echo:
        words.append("-p ipv6-icmp -m icmp6 --icmpv6-type 128" if six else "-p icmp -m icmp --icmp-type 8")
    if rule.state:
        words.append(f"-m conntrack --ctstate {rule.state}")
    if rule.user:
        words.append(f"-m owner --uid-owner {rule.user}")
    if rule.unknown:
        words.append("-m recent --rcheck --seconds 60 --name x --mask 255.255.255.255 --rsource")
    if rule.verdict in ("JUMP", "GOTO"):
        words.append(f"-{'j' if rule.verdict == 'JUMP' else 'g'} {rule.target}")
    else:
        words.append(f"-j {rule.verdict}")
    return " ".join(words)


def nft_text(firewalls: list[DumbFirewall]) -> str:
    """Write firewalls as tables of a ruleset, as `nft list ruleset` does."""
    lines: list[str] = []
    for number, firewall in enumerate(firewalls):
        family = {None: "inet", 4: "ip", 6: "ip6"}[firewall.family]
        lines.append(f"table {family} t{number} {{")
        for chain in reversed(list(firewall.chains)):
            lines.append(f"\tchain {chain} {{")
            if chain in firewall.policies:
                policy = firewall.policies[chain].lower()
                lines.append(f"\t\ttype filter hook {chain.lower()} priority {number}; policy {policy};")
            lines += [f"\t\t{_nft_rule(rule)}" for rule in firewall.chains[chain]]
            lines.append("\t}\n")
        lines.append("}")
    return "\n".join([*lines, ""])


def _nft_rule(rule: DumbRule) -> str:
    words: list[str] = []
    for name, networks, wrong in (
        ("saddr", rule.source, rule.not_source),
        ("daddr", rule.destination, rule.not_destination),
    ):
        family = "ip" if rule.family == 4 else "ip6"
        words.extend(f"{family} {name} {'!= ' if wrong else ''}{network}" for network in networks)
    if rule.loopback:
        words.append('iifname "lo"')
    if rule.ports:
        written = [f"{low}-{high}" if low != high else str(low) for low, high in rule.ports]
        some = f"{{ {', '.join(written)} }}" if len(written) > 1 else written[0]
        words.append(f"{rule.protocol} dport {'!= ' if rule.not_ports else ''}{some}")
    elif rule.protocol:
        words.append(f"meta l4proto {rule.protocol}")
    if rule.echo:
        words.append("icmp type echo-request" if rule.family == 4 else "icmpv6 type echo-request")
    if rule.state:
        words.append(f"ct state {rule.state.lower()}")
    if rule.user:
        words.append(f"meta skuid {rule.user}")
    if rule.unknown:
        words.append("meta mark 0x00000001")
    words.append("counter packets 0 bytes 0")
    words.append({"JUMP": f"jump {rule.target}", "GOTO": f"goto {rule.target}"}.get(rule.verdict, rule.verdict.lower()))
    return " ".join(words)


# --- made at random ---


def _networks(chance: Random, family: int) -> tuple[str, ...]:
    return (chance.choice(NETWORKS[family]),) if chance.random() < 0.35 else ()


def _rule(chance: Random, chain: str, family: int | None, *, unknown: bool, users: bool) -> DumbRule:
    of = family or chance.choice([4, 6])
    targets = BELOW[chain]
    choices: list[str] = ["ACCEPT", "ACCEPT", "ACCEPT", "DROP", "DROP", "REJECT", "RETURN", "LOG"]
    verdict = chance.choice(choices + (["JUMP", "JUMP", "GOTO"] if targets else []))
    protocol = chance.choice(["", "tcp", "tcp", "udp", "sctp"])
    ports = (
        chance.sample(PORTS, chance.choice([1, 1, 2]))
        if protocol and chance.random() < 0.6
        else list[tuple[int, int]]()
    )
    return DumbRule(
        verdict,
        of,
        chance.choice(targets) if verdict in ("JUMP", "GOTO") else "",
        source=_networks(chance, of),
        not_source=chance.random() < 0.2,
        destination=_networks(chance, of),
        not_destination=chance.random() < 0.2,
        protocol=protocol,
        ports=tuple(ports),
        # Of `! --dport 0:65535` iptables 1.8.9 over nftables makes a match of every port, and saves no `!`.
        not_ports=chance.random() < 0.2 and ports != [(0, 65535)],
        echo=not protocol and chance.random() < 0.2,
        state=chance.choice(["", "", "", "", "NEW", "ESTABLISHED"]),
        user=chance.choice(["", "", "33", "1"]) if users and chain == "OUTPUT" else "",
        loopback=chain == "INPUT" and chance.random() < 0.05,
        unknown=unknown and chance.random() < 0.2,
    )


def _again(chance: Random, rule: DumbRule) -> Iterator[DumbRule]:
    """A jump that nobody can tell about, and perhaps what firewalld writes after it: the same for more packets."""
    yield rule
    if rule.unknown and rule.target and chance.random() < 0.5:
        wider = DumbRule(rule.verdict, rule.family, rule.target)
        yield chance.choice(
            [wider, replace(rule, unknown=False), replace(wider, verdict=chance.choice(["JUMP", "GOTO"]))]
        )


def _firewall(seed: int, most: int, family: int | None, unknown: bool, users: bool) -> DumbFirewall:
    chance = Random(seed)
    chains = {
        chain: tuple(
            one
            for _ in range(chance.randint(0, most))
            for one in _again(chance, _rule(chance, chain, family, unknown=unknown, users=users))
        )
        for chain in ("INPUT", "OUTPUT", "a", "b", "c")
    }
    policies = {hook: chance.choice(["ACCEPT", "DROP"]) for hook in ("INPUT", "OUTPUT")}
    return DumbFirewall(family, chains, policies)


def firewalls(
    family: int | None, *, unknown: bool = False, users: bool = False, most: int = 6
) -> st.SearchStrategy[DumbFirewall]:
    """Firewalls with two base chains and three others; of a seed, since lists as such come out too short to collide."""
    return st.builds(
        _firewall, st.integers(0, 1 << 32), st.integers(1, most), st.just(family), st.just(unknown), st.just(users)
    )


def packets(hook: str, version: int, users: tuple[str, ...] = ("root",)) -> Iterator[Packet]:
    """All packets worth trying of one family at one hook."""
    for own in OWN:
        for far in FAR:
            if own.version == far.version == version:
                ends = (far, own) if hook == "INPUT" else (own, far)
                for protocol, port in [*TRIED, *ECHOES[version]]:
                    yield from (Packet(*ends, protocol, port, user) for user in users)


FLEET = Fleet((Workload("web1", Labels({"host": "web1"}), OWN),))
