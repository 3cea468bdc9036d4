"""What a packet, a connection and a byte cost with each firewall between a client and a server.

Each firewall has a pair of namespaces of its own and is put up once; then rounds go A B C A B C …, so that whatever
else the machine does hits all alike, and each figure is compared with those of its own round. Two pairs without a
firewall show how far apart two of the same are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TypeVar

from cellwall.clients import KernelError, Netlink, Protocol
from tests.bench.firewalls import Firewall, Kind
from tests.bench.measure import Progress, Scale, Section, Spread, Table, Target, differences, ratios
from tests.bench.picture import Line, chart
from tests.bench.traffic import (
    connections,
    packets,
    requests,
    round_trips,
    throughput,
)
from tests.bench.worlds import PORTS
from tests.kernel.namespaces import Namespace, pair

R = TypeVar("R")
TOLERANCE = 0.05
SIZES = (10, 1_000, 10_000, 100_000)
NONE, AGAIN = Firewall(Kind.NONE), Firewall(Kind.NONE, repeat=True)
CONNTRACK = Firewall(Kind.CONNTRACK)
AT_SERVER = (
    NONE,
    AGAIN,
    CONNTRACK,
    *(Firewall(Kind.OURS, peers, rules) for rules in (10, 1_000) for peers in SIZES),
    *(Firewall(Kind.LINEAR, peers) for peers in SIZES[:-1]),
    *(Firewall(Kind.SETS, 100_000, rules) for rules in (10, 1_000)),
)
AT_BOTH = (
    Firewall(Kind.CONNTRACK, both=True),
    Firewall(Kind.OURS, 10, 10, both=True),
    Firewall(Kind.OURS, 100_000, 1_000, both=True),
)
MEASURES = {
    "rate": "connections a second",
    "request50": "connect and request, p50",
    "request99": "the same, p99",
    "trip50": "round trip, p50",
    "trip99": "the same, p99",
    "bits": "throughput",
    "packet": "a packet more, µs",
}
_FLUSH = 1 << 8 | 2
Series = dict[Firewall, list[float]]


@dataclass
class Stage:
    """Client and server with their firewall."""

    firewall: Firewall
    client: Namespace
    server: Namespace

    def call(self, run: Callable[[Namespace, int, float], R], number: int, seconds: float) -> R:
        """Run a measurement."""
        return self.client.call(run, self.server, PORTS[number], seconds)

    def forget_connections(self) -> None:
        """Empty conntrack at both ends: the kernel keeps one table for all namespaces, and it is to stay small."""
        for end in (self.client, self.server):
            with end.inside(), Netlink(Protocol.NETFILTER) as link, suppress(KernelError):
                link.ask(_FLUSH, bytes(4))


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    firewalls = (*AT_SERVER, *AT_BOTH)
    with ExitStack() as stack:
        stages: list[Stage] = []
        for number in progress.over("datapath: putting up firewall", len(firewalls)):
            client, server = stack.enter_context(pair())
            stages.append(Stage(firewalls[number], client, server))
            firewalls[number].install(client, server)
        found = _measure(stages, scale, progress)
    return _section(found, scale)


def _measure(stages: Sequence[Stage], scale: Scale, progress: Progress) -> dict[str, Series]:
    found: dict[str, Series] = {name: {stage.firewall: [] for stage in stages} for name in MEASURES}
    rounds, seconds = scale.count(9, 3), scale.of(0.35, 0.15)
    for turn in progress.over("datapath: round", rounds):
        # Nobody is always first.
        order = [*stages[turn % len(stages) :], *stages[: turn % len(stages)]]
        for measure in (_rate, _request, _trip, _bits, _packet):
            for stage in order:
                progress.show(f"datapath: round {turn + 1}/{rounds}, {measure.__name__[1:]}, {stage.firewall.name}")
                for name, value in measure(stage, seconds).items():
                    found[name][stage.firewall].append(value)
                stage.forget_connections()
    return found


def _rate(stage: Stage, seconds: float) -> Mapping[str, float]:
    return {"rate": stage.call(connections, 0, seconds)}


def _request(stage: Stage, seconds: float) -> Mapping[str, float]:
    value = stage.call(requests, 1, seconds)
    return {"request50": value.p50, "request99": value.p99}


def _trip(stage: Stage, seconds: float) -> Mapping[str, float]:
    value = stage.call(round_trips, 1, seconds)
    return {"trip50": value.p50, "trip99": value.p99}


def _bits(stage: Stage, seconds: float) -> Mapping[str, float]:
    return {"bits": stage.call(throughput, 2, seconds)}


def _packet(stage: Stage, seconds: float) -> Mapping[str, float]:
    return {"packet": stage.call(packets, 3, seconds)}


# ---- the report


def _section(found: dict[str, Series], scale: Scale) -> Section:
    rounds = len(found["rate"][NONE])
    base = {name: Spread.of(series[NONE]) for name, series in found.items()}
    note = (
        f"Without a firewall: {base['rate'].middle:,.0f} connections a second, connection with a request "
        f"{base['request50'].middle:.1f} µs (p99 {base['request99'].middle:.0f}), round trip on an open connection "
        f"{base['trip50'].middle:.2f} µs (p99 {base['trip99'].middle:.0f}), {base['bits'].middle / 1e9:.1f} Gbit/s, "
        f"{base['packet'].middle:.2f} µs a packet. Ratios are to no firewall in the same round, median (least–most) of "
        f"{rounds} rounds; of rates and throughput more is better, of times less. The last column is what a packet of "
        "an open UDP flow costs more than without. Client and server are one process with a socket at either end, so "
        "no wire, no sleep and no scheduler dilute what the firewall costs: with a real application its share is less. "
        "The rules in a line let established connections pass first; ours looks at every packet of the side that "
        "opened, so that a change reaches open connections."
    )
    columns = ("firewall", *MEASURES.values())
    return Section(
        "datapath",
        "The datapath: speed by number of peers and rules",
        (
            Table("At the server", columns, _rows(found, AT_SERVER), note),
            Table(
                "At both ends", columns, _rows(found, (NONE, *AT_BOTH)), "The same, with a firewall at the client too."
            ),
        ),
        _targets(found, scale),
        {name: {one.name: values for one, values in series.items()} for name, series in found.items()},
        {"bench-peers.svg": _picture(found)},
    )


def _rows(found: dict[str, Series], firewalls: Sequence[Firewall]) -> tuple[tuple[str, ...], ...]:
    return tuple((one.name, *(_cell(found[name], one, name) for name in MEASURES)) for one in firewalls)


def _cell(series: Series, one: Firewall, name: str) -> str:
    if one == NONE:
        return "0" if name == "packet" else "1"
    compare = differences if name == "packet" else ratios
    return compare(series[one], series[NONE]).text()


def _targets(found: dict[str, Series], scale: Scale) -> tuple[Target, ...]:
    targets: list[Target] = []
    small, large = Firewall(Kind.OURS, 10, 10), Firewall(Kind.OURS, 100_000, 1_000)
    for many, few, what in (
        (large, small, "ours, 100,000 peers and 1,000 rules, against ours, 10 and 10"),
        (Firewall(Kind.OURS, 100_000, 1_000), CONNTRACK, "ours, 100,000 and 1,000, against conntrack alone"),
    ):
        for name, faster in (("rate", True), ("request50", False), ("trip50", False), ("bits", True)):
            got = ratios(found[name][many], found[name][few])
            noise = ratios(found[name][AGAIN], found[name][NONE])
            limit = 1 - TOLERANCE if faster else 1 + TOLERANCE
            good = got.middle >= limit if faster else got.middle <= limit
            # Where two of the same are further apart than the tolerance, nothing can be told.
            told = not scale.quick and abs(noise.middle - 1) <= TOLERANCE
            targets.append(
                Target(
                    f"{what}: {MEASURES[name]}",
                    f"{'≥' if faster else '≤'} {limit:.2f}",
                    got.text(),
                    good if told else None,
                )
            )
    return tuple(targets)


def _picture(found: dict[str, Series]) -> str:
    series = found["rate"]

    def line(name: str, firewalls: Sequence[Firewall]) -> Line:
        points = ((float(one.peers), ratios(series[one], series[NONE])) for one in firewalls)
        return Line(name, tuple((x, y.middle, y.low, y.high) for x, y in points))

    lines = (
        line("ours, 10 rules", [Firewall(Kind.OURS, peers, 10) for peers in SIZES]),
        line("ours, 1,000 rules", [Firewall(Kind.OURS, peers, 1_000) for peers in SIZES]),
        line("a rule per address", [Firewall(Kind.LINEAR, peers) for peers in SIZES[:-1]]),
    )
    return chart("Connections a second, against no firewall", "peers", lines)
