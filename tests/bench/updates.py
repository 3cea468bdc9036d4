"""How long a change takes: in the kernel, against `nft` as a program, and from the controller's word to the receipt."""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cellwall.agent.bundle import open_bundle
from cellwall.agent.core import Agent, step
from cellwall.agent.events import (
    Apply,
    ApplyMembers,
    Desired,
    Event,
    MembersChanged,
    Report,
    SaveChange,
    SaveJournal,
)
from cellwall.agent.journal import Journal
from cellwall.agent.keeper import Keeper
from cellwall.compile import Point
from cellwall.enforce import TABLE, Leave, NftPoint
from cellwall.enforce.nft.render import render
from cellwall.enforce.nft.script import scripts
from cellwall.enforce.nft.steps import plan_steps
from cellwall.wire import (
    Bundle,
    MemberChange,
    PointState,
    decode_from_controller,
    digest,
    encode,
    encode_members,
    encode_ruleset,
    sign,
    verify,
)
from tests.bench.hosted import hosted
from tests.bench.measure import Progress, Scale, Section, Spread, Table, Target, quantile, ratios, timed
from tests.bench.worlds import NOW, SERVER, pair_of_ends, peer, point_at, point_of, revised
from tests.kernel.namespaces import Namespace, namespace

PEERS, RULES, MANY = 100_000, 1_000, 1_000
KERNEL_S, PATH_S = 0.001, 0.010
STAGES = ("decode and verify", "step", "kernel", "journal", "receipt")
Times = dict[str, list[float]]


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    with namespace() as held, namespace() as by_hand:
        progress.say("updates: the kernel, against nft as a program")
        kernel: Times = held.call(_kernel, by_hand, scale)
    with namespace() as held:
        progress.say("updates: an agent's steps, one by one")
        stages: Times = held.call(_stages, scale)
    progress.say("updates: an agent, as its controller sees it")
    seen = _seen(scale)
    return _section(kernel, stages, seen, scale)


def _points() -> tuple[Point, Point]:
    policy, fleet = pair_of_ends(PEERS, RULES)
    return point_at(policy, fleet), point_at(revised(policy), fleet, revision=2)


# ---- the kernel


def _kernel(by_hand: Namespace, scale: Scale) -> Times:
    """Make each change by our point here and by `nft` in `by_hand`, in turns."""
    one, other = _points()
    tables = [_table_text(point) for point in (one, other)]
    found: Times = defaultdict(list)
    kernel = NftPoint()
    for _ in range(scale.count(5, 1)):
        kernel.remove(Leave.OPEN)
        found["ours, load"].append(timed(kernel.apply, one.ruleset, one.members))
        with by_hand.inside():
            subprocess.run(["nft", "destroy", "table", "inet", TABLE], check=False, capture_output=True)
            _nft(f"add table inet {TABLE}\ndelete table inet {TABLE}\n")
            found["nft, load"].append(timed(_nft, tables[0]))
    for turn in range(scale.count(6, 2)):
        point = (other, one)[turn % 2]
        found["ours, policy"].append(timed(kernel.apply, point.ruleset, point.members))
        found["ours, same again"].append(timed(kernel.apply, point.ruleset, point.members))
        with by_hand.inside():
            text = f"delete table inet {TABLE}\n" + tables[(turn + 1) % 2]
            found["nft, policy"].append(timed(_nft, text))
    for count, turns in ((1, scale.count(100, 10)), (MANY, scale.count(10, 3))):
        addresses = [peer(PEERS + number) for number in range(count)]
        number = one.members[peer(0).packed]
        added = {address.packed: number for address in addresses}
        commands = [
            f"{verb} element inet {TABLE} peer4 {{ {', '.join(f'{address}{data}' for address in addresses)} }}\n"
            for verb, data in (("add", f" : {number:#x}"), ("delete", ""))
        ]
        for _ in range(turns):
            found[f"ours, add {count}"].append(timed(kernel.apply_members, added, ()))
            found[f"ours, remove {count}"].append(timed(kernel.apply_members, {}, added))
            with by_hand.inside():
                found[f"nft, add {count}"].append(timed(_nft, commands[0]))
                found[f"nft, remove {count}"].append(timed(_nft, commands[1]))
    kernel.close()
    return dict(found)


def _table_text(point: Point) -> str:
    """What a person would have in a file: the whole table."""
    build, switch, _ = scripts(plan_steps(None, render(point.ruleset, point.members)))
    return build + switch


def _nft(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True, capture_output=True)


# ---- the agent


@dataclass
class _Steps:
    """The agent's turn without its sockets, timed stage by stage: as `agent.loop` has it, but for other commands."""

    keeper: Keeper
    journal: Journal
    key: bytes
    agent: Agent = field(default_factory=lambda: Agent(SERVER))
    times: Times = field(default_factory=lambda: defaultdict(list))

    def take(self, data: bytes) -> None:
        """Take a message of the controller, to the receipt."""
        spent = dict.fromkeys(STAGES, 0.0)
        began = time.perf_counter()
        message = decode_from_controller(data)
        event: Event
        match message:
            case Bundle():
                event = Desired(open_bundle(verify(message, self.key, SERVER), data))
            case MemberChange():
                event = MembersChanged(verify(message, self.key, SERVER), data)
            case _:
                raise AssertionError(message)
        spent["decode and verify"] = time.perf_counter() - began
        events: deque[Event] = deque([event])
        while events:
            began = time.perf_counter()
            self.agent, commands = step(self.agent, events.popleft(), time.time())
            spent["step"] += time.perf_counter() - began
            for command in commands:
                began = time.perf_counter()
                match command:
                    case Apply() | ApplyMembers():
                        events.extend(self.keeper.write(command))
                        spent["kernel"] += time.perf_counter() - began
                    case SaveJournal():
                        self.journal.save(command)
                        spent["journal"] += time.perf_counter() - began
                    case SaveChange(signed):
                        self.journal.append(signed)
                        spent["journal"] += time.perf_counter() - began
                    case Report(receipt):
                        assert receipt.state is PointState.ENFORCED, receipt
                        encode(receipt)
                        spent["receipt"] += time.perf_counter() - began
                    case _:
                        raise AssertionError(command)
        for stage, seconds in spent.items():
            self.times[stage].append(seconds)
        self.times["all"].append(sum(spent.values()))


def _stages(scale: Scale) -> Times:
    point = point_of(PEERS, RULES)
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    with TemporaryDirectory() as folder:
        keeper = Keeper()
        steps = _Steps(keeper, Journal(Path(folder), SERVER, public), public)
        messages = _messages(point, key, scale.count(200, 20))
        steps.take(next(messages))
        steps.times.clear()
        for message in messages:
            steps.take(message)
        keeper.close()
    return dict(steps.times)


def _messages(point: Point, key: Ed25519PrivateKey, changes: int) -> Iterator[bytes]:
    """A signed bundle, then so many signed changes that add one peer or remove it again."""
    packed, number = peer(PEERS).packed, point.members[peer(0).packed]
    digests = [digest(point.ruleset, members) for members in ({**point.members, packed: number}, point.members)]
    bundle = Bundle(
        workload=SERVER, generation=1, revision=1, ruleset=encode_ruleset(point.ruleset),
        members=encode_members(point.members), issued_at=NOW,
    )  # fmt: skip
    yield encode(sign(bundle, key))
    for turn in range(changes):
        change = MemberChange(
            workload=SERVER, base=turn + 1, generation=turn + 2, revision=1,
            added=b"" if turn % 2 else encode_members({packed: number}), removed=(packed,) if turn % 2 else (),
            digest=digests[turn % 2], issued_at=NOW,
        )  # fmt: skip
        yield encode(sign(change, key))


def _seen(scale: Scale) -> Times:
    """Time a real agent from the controller's `send` to the receipt: TLS, WebSocket and event loops included."""
    point = point_of(PEERS, RULES)
    more = Point(point.ruleset, {**point.members, peer(PEERS).packed: point.members[peer(0).packed]})
    with hosted() as host:
        found: Times = {"bundle": [host.hold(point)], "change": []}
        for turn in range(scale.count(60, 8)):
            message = host.control.change((more, point)[turn % 2])
            found["change"].append(host.send(message))
    return found


# ---- the report


def _section(kernel: Times, stages: Times, seen: Times, scale: Scale) -> Section:
    note = (
        f"{PEERS:,} peers, {RULES:,} rules at one point. Milliseconds: median (least–most). `nft` is the program, fed "
        "with what a person would have in a file; ours writes elements over netlink, and whole rules with `nft`."
    )
    rows = tuple(_row(kernel, what, name) for what, name in _CHANGES)
    count = len(stages["all"])
    path = tuple(
        (stage, _ms(stages[stage]), f"{quantile(stages[stage], 0.99) * 1e3:.2f}") for stage in (*STAGES, "all")
    )
    outside = (
        ("the agent's process, one peer, as its controller sees it", _ms(seen["change"]),
         f"{quantile(seen['change'], 0.99) * 1e3:.2f}"),
        ("the same, everything from nothing", _ms(seen["bundle"]), ""),
    )  # fmt: skip
    one = [*kernel["ours, add 1"], *kernel["ours, remove 1"]]
    return Section(
        "updates",
        "Updates: how long a change takes",
        (
            Table("In the kernel", ("change", "ours", "nft", "nft ÷ ours"), rows, note),
            Table(
                "From the controller's word to the receipt",
                ("what", "ms", "p99"),
                (*path, *outside),
                f"One peer joins or leaves: a signed change is read and verified, the kernel written, the journal "
                f"synced to disk, the receipt made. In process, {count} changes; then with a real agent and TLS.",
            ),
        ),
        (
            Target("one peer of 100,000, in the kernel, p50", f"< {KERNEL_S * 1e3:.0f} ms", _ms(one),
                   None if scale.quick else quantile(one, 0.5) < KERNEL_S),
            Target("one peer of 100,000, the agent's whole path, p50", f"< {PATH_S * 1e3:.0f} ms", _ms(seen["change"]),
                   None if scale.quick else quantile(seen["change"], 0.5) < PATH_S),
        ),
        {"kernel": kernel, "stages": stages, "seen": seen},
    )  # fmt: skip


_CHANGES = (
    ("one peer joins", "add 1"),
    ("one peer leaves", "remove 1"),
    ("1,000 peers join", f"add {MANY}"),
    ("1,000 peers leave", f"remove {MANY}"),
    ("one rule of the policy changes", "policy"),
    ("the same policy again", "same again"),
    ("everything, from nothing", "load"),
)


def _row(kernel: Times, what: str, name: str) -> tuple[str, ...]:
    ours, theirs = kernel[f"ours, {name}"], kernel.get(f"nft, {name}")
    if theirs is None:
        return what, _ms(ours), "–", "–"
    return what, _ms(ours), _ms(theirs), ratios(theirs, ours).text(".1f")


def _ms(seconds: list[float]) -> str:
    return Spread.of([one * 1e3 for one in seconds]).text()
