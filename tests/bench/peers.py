"""One host's rules written and loaded: ours against Aerleon's nftables output for the same policy."""

from __future__ import annotations

import time
from collections import defaultdict
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

from cellwall.enforce import Leave, NftPoint
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import Action, Policy, Rule
from cellwall.traffic import parse_ports
from tests.bench.fleets import ENFORCED, who
from tests.bench.measure import Progress, Scale, Section, Spread, Table, Target, ratios
from tests.bench.worlds import FIRST_PORT, SERVER, SERVER_ADDRESS, peer, point_at
from tests.kernel.namespaces import Namespace, namespace

PEERS, RULES = 100_000, 1_000
SHAPES = {"each peer in one rule": 1_000, "each peer in ten rules": 100}
"""How many groups the peers are in; each rule names one group."""
LIMIT_S, AT_LEAST = 1.0, 10.0
STAGES = ("from policy to text or elements", "into the kernel", "both")
Times = dict[str, list[float]]


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    theirs_too = find_spec("aerleon") is not None
    rows: list[tuple[str, ...]] = []
    targets: list[Target] = []
    figures: dict[str, object] = {}
    peers, rules = scale.count(PEERS, 10_000), scale.count(RULES, 100)
    if not theirs_too:
        progress.say("peers: Aerleon is not installed (`scripts/setup.sh --bench` does it); ours alone")
    for shape, most in SHAPES.items():
        groups = most if not scale.quick else most // 10
        found: Times = defaultdict(list)
        refused = ""
        for turn in range(scale.count(3, 1)):
            progress.say(f"peers: {shape}, round {turn + 1}")
            _ours(peers, rules, groups, found)
            if theirs_too and not refused:
                refused = _theirs(peers, rules, groups, found)
        figures[shape] = {**found, "refused": refused}
        rows += _rows(shape, found, refused)
        targets += _targets(shape, found, peers, rules, scale)
    named = f"Aerleon {version('aerleon')}, nftables target" if theirs_too else "Aerleon is not installed"
    note = (
        f"One host with {rules:,} rules for {peers:,} peers, all by address; each rule lets a group of peers to one "
        f"TCP port. {named}. Both begin with policy and peers as values: ours is compiled for the host, made into "
        "steps and written over netlink and by `nft`; theirs is generated as text, addresses in line, and loaded by "
        "`nft -f`. Seconds: median (least–most), the rounds in turns."
    )
    table = Table("Rendered and loaded", ("what", "ours", "Aerleon", "Aerleon ÷ ours"), tuple(rows), note)
    return Section("peers", "One host's rules: rendered and loaded", (table,), tuple(targets), figures)


def _rows(shape: str, found: Times, refused: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for stage in STAGES:
        ours, theirs = found[f"ours, {stage}"], found.get(f"theirs, {stage}")
        told = Spread.of(theirs).text() if theirs else f"refused: {refused}" if refused else "–"
        ratio = ratios(theirs, ours).text(".1f") if theirs else "–"
        rows.append((f"{shape}: {stage}", Spread.of(ours).text(), told, ratio))
    return rows


def _targets(shape: str, found: Times, peers: int, rules: int, scale: Scale) -> list[Target]:
    ours, theirs = found["ours, both"], found.get("theirs, both")
    size = f"{rules:,} rules, {peers:,} peers, {shape}"
    took, times = Spread.of(ours), ratios(theirs, ours) if theirs else None
    return [
        Target(f"{size}: rendered and loaded", f"≤ {LIMIT_S:.0f} s", f"{took.text()} s",
               None if scale.quick else took.middle <= LIMIT_S),
        Target(f"{size}: Aerleon's time against ours", f"≥ {AT_LEAST:.0f}", times.text(".1f") if times else "–",
               None if scale.quick or times is None else times.middle >= AT_LEAST),
    ]  # fmt: skip


# ---- ours


def _ours(peers: int, rules: int, groups: int, found: Times) -> None:
    policy, fleet = _world(peers, rules, groups)
    with namespace() as space:
        made, loaded = space.call(_compile_and_load, policy, fleet)
    _note(found, "ours", made, loaded)


def _compile_and_load(policy: Policy, fleet: Fleet) -> tuple[float, float]:
    began = time.perf_counter()
    point = point_at(policy, fleet)
    compiled = time.perf_counter()
    kernel = NftPoint()
    kernel.apply(point.ruleset, point.members)
    ended = time.perf_counter()
    kernel.remove(Leave.OPEN)
    kernel.close()
    return compiled - began, ended - compiled


def _world(peers: int, rules: int, groups: int) -> tuple[Policy, Fleet]:
    labels = [Labels({"role": f"r{number}"}) for number in range(groups)]
    others = (Workload(f"p{number}", labels[number % groups], (peer(number),), agent=False) for number in range(peers))
    fleet = Fleet((Workload(SERVER, Labels({"end": SERVER}), (SERVER_ADDRESS,)), *others))
    return Policy(
        rules=tuple(
            Rule(f"in-{number}", Action.ALLOW, parse_ports(f"tcp/{FIRST_PORT + number}"),
                 who(f"role=r{number % groups}"), who(f"end={SERVER}"))
            for number in range(rules)
        ),
        modes=ENFORCED,
    ), fleet  # fmt: skip


# ---- theirs


def _theirs(peers: int, rules: int, groups: int, found: Times) -> str:
    """Generate and load; give the first line of the refusal, where nft refuses the text."""
    policy, definitions = _their_world(peers, rules, groups)
    began = time.perf_counter()
    (text,) = import_module("aerleon.api").Generate([policy], definitions).values()
    made = time.perf_counter() - began
    assert text.count("/32") == peers * rules // groups, "not every peer of every rule is in the text"
    with namespace() as space:
        return _load(space, text, made, found)


def _load(space: Namespace, text: str, made: float, found: Times) -> str:
    began = time.perf_counter()
    told = space.run(["nft", "-f", "-"], stdin=text, check=False)
    loaded = time.perf_counter() - began
    if told.returncode:
        found[f"theirs, {STAGES[0]}"].append(made)
        return told.stderr.strip().splitlines()[0]
    _note(found, "theirs", made, loaded)
    return ""


def _their_world(peers: int, rules: int, groups: int) -> tuple[object, object]:
    """The same policy in Aerleon's own form: a term per rule, a network per group."""
    networks = {
        f"R{group}": {"values": [{"address": f"{peer(number)}/32"} for number in range(group, peers, groups)]}
        for group in range(groups)
    }
    services = {f"S{number}": [{"protocol": "tcp", "port": FIRST_PORT + number}] for number in range(rules)}
    definitions = import_module("aerleon.lib.naming").Naming()
    definitions.ParseDefinitionsObject({"networks": networks, "services": services}, "")
    terms = [
        {
            "name": f"in-{number}",
            "source-address": f"R{number % groups}",
            "destination-port": f"S{number}",
            "protocol": "tcp",
            "action": "accept",
        }
        for number in range(rules)
    ]
    header = {"targets": {"nftables": "inet input drop"}}
    return {"filename": "host", "filters": [{"header": header, "terms": terms}]}, definitions


def _note(found: Times, whose: str, made: float, loaded: float) -> None:
    for stage, seconds in zip(STAGES, (made, loaded, made + loaded), strict=True):
        found[f"{whose}, {stage}"].append(seconds)
