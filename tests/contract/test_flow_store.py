"""What every flow store does: the real one, chDB in a process of its own, and its fake in memory."""

import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cellwall.analysis import Keys, distinct
from cellwall.controller.store.flows import (
    DAY_S,
    HOUR_S,
    FlowAsker,
    FlowProcess,
    FlowStore,
    FlowStoreError,
    MemoryFlows,
    OwnFlows,
    Parted,
    Query,
    TogetherFlows,
    cursor,
    open_flows,
)
from cellwall.flows import Flow, FlowKey, FlowRecord, Outcome, Process, Side, merge
from cellwall.traffic import parse_ports

T0 = 1_790_000_000.0 // DAY_S * DAY_S
WEB, DB, OUT = ip_address("10.0.0.1"), ip_address("10.0.0.2"), ip_address("2001:db8::9")
NGINX, POSTGRES = Process("nginx", "www-data", "nginx.service"), Process("postgres", "postgres", exe="/usr/bin/pg")
BATCH = iter(range(10**9))


def record(
    source: object = WEB,
    destination: object = DB,
    port: int = 5432,
    *,
    protocol: int = 6,
    side: Side = Side.EGRESS,
    outcome: Outcome = Outcome.ALLOWED,
    would: Outcome = Outcome.ALLOWED,
    at: float = 0.0,
    connections: int = 1,
    revision: int = 1,
    rules: tuple[str, ...] = (),
    process: Process = Process(),  # noqa: B008
    reporter: str = "",
    standing: bool = False,
) -> FlowRecord:
    key = FlowKey(ip_address(str(source)), ip_address(str(destination)), protocol, port)
    reporter = reporter or str(key.source if side is Side.EGRESS else key.destination)
    return FlowRecord(
        key,
        reporter,
        side,
        outcome,
        would,
        rules,
        revision,
        connections,
        T0 + at,
        T0 + at + 1,
        packets=connections * 2,
        bytes=connections * 100,
        process=process,
        standing=standing,
    )


def batch() -> str:
    return f"agent-1/{next(BATCH)}"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowProcess]:
    opened = open_flows(tmp_path_factory.mktemp("flows"))
    yield opened
    opened.close()


class Near(FlowAsker):
    """A store as another controller asks it."""

    def __init__(self, store: OwnFlows) -> None:
        self._store = store

    def _ask(self, call: str, *arguments: Any) -> Any:
        fault, answer = msgspec.msgpack.decode(self._store.forward(msgspec.msgpack.encode((call, arguments))))
        if fault is not None:
            raise FlowStoreError(fault)
        return answer


class Stores:
    """Other controllers that always answer."""

    def __init__(self, stores: Mapping[str, OwnFlows]) -> None:
        self.stores = stores

    def some(self, since: float) -> bool:
        return True

    def ask(self, question: Callable[[str, Parted], Any], own: Parted, since: float) -> Mapping[str, Any]:
        return {"": question("", own), **{name: question(name, Near(one)) for name, one in self.stores.items()}}


class Spread(TogetherFlows):
    """Three controllers' stores, of which each has those records that fall to it: mostly one end of a flow."""

    def __init__(self, *stores: OwnFlows) -> None:
        self.stores = stores
        super().__init__(stores[0], Stores({str(number): one for number, one in enumerate(stores[1:])}))

    def insert(self, records: Sequence[FlowRecord], batch: str) -> None:
        self.insert_many([(records, batch)])

    def insert_many(self, batches: Sequence[tuple[Sequence[FlowRecord], str]]) -> Mapping[str, str]:
        for number, one in enumerate(self.stores):
            one.insert_many(
                [([each for each in records if self._of(each) == number], name) for records, name in batches]
            )
        return {}

    def _of(self, record: FlowRecord) -> int:
        return zlib.crc32(repr((record.reporter, record.side, record.last_seen // 7200)).encode()) % len(self.stores)

    def count(self) -> int:
        return sum(one.count() for one in self.stores)

    def prune(self, before: float) -> int:
        return sum(one.prune(before) for one in self.stores)


@pytest.fixture(params=["memory", "process", "together"])
def store(request: pytest.FixtureRequest) -> FlowStore:
    if request.param == "memory":
        return MemoryFlows()
    opened: FlowProcess = request.getfixturevalue("process")
    opened.prune(T0 + 1000 * DAY_S)
    return opened if request.param == "process" else Spread(opened, MemoryFlows(), MemoryFlows())


def test_a_new_store_is_empty(store: FlowStore) -> None:
    assert store.count() == 0
    assert store.flows(Query()) == ()
    assert store.edges(0) == store.tuples(0) == ()
    assert store.series(T0, T0 + HOUR_S, 60.0) == ()
    assert store.prune(T0) == 0


def test_what_is_inserted_comes_back_whole(store: FlowStore) -> None:
    one = record(
        OUT, "fd00::1", 443, at=5, process=NGINX, rules=("a", "b"), revision=2**40, would=Outcome.DENIED, standing=True
    )
    store.insert([one], batch())
    assert store.flows(Query()) == merge([one])
    assert store.edges(T0) == store.tuples(T0) == (one,)


def test_an_ipv4_address_comes_back_as_one(store: FlowStore) -> None:
    store.insert([record()], batch())
    (flow,) = store.flows(Query())
    assert (flow.key.source, flow.key.destination) == (WEB, DB)


def test_a_batch_given_twice_counts_once(store: FlowStore) -> None:
    name, other = batch(), batch()
    records = [record(at=hour * HOUR_S) for hour in range(0, 72, 7)]
    for _ in range(3):
        store.insert(records, name)
    store.insert(records, other)
    assert store.count() == 2 * len(records)
    assert sum(one.connections for one in store.edges(0)) == 2 * len(records)


def test_an_empty_batch_changes_nothing(store: FlowStore) -> None:
    name = batch()
    store.insert([], name)
    store.insert([record()], name)
    assert store.count() == 1


def test_many_batches_go_in_at_once_and_each_is_known_again(store: FlowStore) -> None:
    one, other, third = batch(), batch(), batch()
    store.insert([record()], one)
    refused = store.insert_many([([record()], one), ([record(), record(port=80)], other), ([], third)])
    assert refused == {}
    assert store.insert_many([([record()], other), ([record(port=81)], third)]) == {}
    assert store.count() == 4
    assert store.insert_many([]) == {}


def test_both_ends_are_merged_and_a_missing_one_is_none(store: FlowStore) -> None:
    records = [
        record(connections=3, process=NGINX),
        record(side=Side.INGRESS, connections=2, process=POSTGRES),
        record(OUT, WEB, 443, side=Side.INGRESS, at=9),
    ]
    store.insert(records, batch())
    outside, inside = store.flows(Query())
    assert outside.egress is None and outside.one_sided
    assert inside.egress == records[0] and inside.ingress == records[1]
    assert inside.connections == 3


def test_the_latest_record_of_an_end_names_the_verdict_and_the_process_that_is_known(store: FlowStore) -> None:
    records = [
        record(at=10, process=NGINX, revision=1),
        record(at=30, outcome=Outcome.DENIED, would=Outcome.DENIED, revision=3, rules=("no",), connections=4),
        record(at=20, process=POSTGRES, revision=2, standing=True),
    ]
    store.insert(records[:2], batch())
    store.insert(records[2:], batch())
    (flow,) = store.flows(Query())
    assert (flow,) == merge(records)
    assert flow.egress is not None
    assert (flow.egress.outcome, flow.egress.rules, flow.egress.revision) == (Outcome.DENIED, ("no",), 3)
    assert (flow.egress.connections, flow.egress.process, flow.egress.standing) == (6, POSTGRES, False)
    assert flow.egress.first_seen == T0 + 10


def test_a_query_asks_for_time_ends_ports_and_verdicts(store: FlowStore) -> None:
    records = [
        record(at=0),
        record(at=100, port=443, would=Outcome.DENIED),
        record(at=200, port=53, protocol=17, outcome=Outcome.DENIED, would=Outcome.DENIED),
        record(OUT, WEB, 443, at=300, side=Side.INGRESS),
    ]
    store.insert(records, batch())

    def ports(**asked: object) -> list[int]:
        return [flow.key.port for flow in store.flows(Query(**asked))]  # type: ignore[arg-type]

    assert ports() == [443, 53, 443, 5432]
    assert ports(since=T0 + 101, until=T0 + 201) == [443]
    assert ports(source=(ip_network("10.0.0.0/24"),)) == [53, 443, 5432]
    assert ports(source=(ip_network("10.0.0.1"), ip_network("2001:db8::/32"))) == [443, 53, 443, 5432]
    assert ports(source=(ip_network("::/0"),), destination=(ip_network("10.0.0.2"),)) == []
    assert ports(destination=(ip_network("10.0.0.1/32"),)) == [443]
    assert ports(ports=parse_ports("tcp/443") | parse_ports("udp")) == [443, 53, 443]
    assert ports(ports=parse_ports("tcp/1") - parse_ports("tcp/1")) == []
    assert ports(outcome=Outcome.DENIED) == [53]
    assert ports(would=Outcome.DENIED) == [53, 443]
    assert ports(outcome=Outcome.ALLOWED, would=Outcome.DENIED) == [443]


def test_pages_follow_each_other_without_gap_or_overlap(store: FlowStore) -> None:
    records = [record(port=1000 + number, at=number // 3) for number in range(20)]
    records += [record(OUT, WEB, number, at=number // 2, side=Side.INGRESS) for number in range(5)]
    store.insert(records, batch())
    whole = store.flows(Query())
    paged: list[Flow] = []
    after: tuple[float, FlowKey] | None = None
    while page := store.flows(Query(limit=4, after=after)):
        paged += page
        after = cursor(page[-1])
    assert tuple(paged) == whole
    assert len(whole) == 25


def test_edges_add_up_and_keep_verdicts_processes_and_rules_apart(store: FlowStore) -> None:
    records = [
        record(at=0, process=NGINX, revision=1),
        record(at=2 * HOUR_S, process=NGINX, revision=2, connections=5),
        record(at=HOUR_S, process=POSTGRES),
        record(at=HOUR_S, process=NGINX, outcome=Outcome.DENIED, would=Outcome.DENIED),
        record(at=HOUR_S, process=NGINX, rules=("a",)),
        record(at=HOUR_S, process=NGINX, side=Side.INGRESS),
    ]
    store.insert(records, batch())
    edges = store.edges(T0)
    assert len(edges) == 5
    assert edges[0].rules == () and edges[0].connections == 6 and edges[0].revision == 2
    assert [one.side for one in edges] == [Side.EGRESS] * 4 + [Side.INGRESS]
    assert edges == tuple(sorted(edges, key=lambda one: (one.side, one.outcome, one.rules, one.process.name)))


def test_the_times_of_edges_are_rounded_outwards_to_hours(store: FlowStore) -> None:
    store.insert([record(at=hour * HOUR_S + 1800, port=hour) for hour in range(6)], batch())
    found = store.edges(T0 + 2 * HOUR_S + 3000, T0 + 3 * HOUR_S + 1)
    assert [one.key.port for one in found] == [2, 3]
    assert [one.key.port for one in store.edges(T0 + 4.9 * HOUR_S, math.inf)] == [4, 5]


def test_tuples_are_distinct_by_key_side_and_process(store: FlowStore) -> None:
    records = [
        record(at=0, process=NGINX, rules=("a",)),
        record(at=9000, process=NGINX, outcome=Outcome.DENIED, would=Outcome.DENIED, revision=2, reporter="web-2"),
        record(at=0, process=POSTGRES),
        record(at=0, side=Side.INGRESS),
    ]
    store.insert(records, batch())
    first, second, third = store.tuples(T0)
    assert (first.process, first.outcome, first.revision, first.rules) == (NGINX, Outcome.DENIED, 2, ())
    assert (first.connections, first.reporter) == (2, "web-2")
    assert (second.process, third.side) == (POSTGRES, Side.INGRESS)


def test_a_series_counts_each_connection_once(store: FlowStore) -> None:
    records = [
        record(connections=7, outcome=Outcome.DENIED, would=Outcome.DENIED),
        record(connections=5, at=2),
        record(connections=5, at=3, side=Side.INGRESS, outcome=Outcome.DENIED, would=Outcome.DENIED),
        record(port=80, connections=4, at=70, would=Outcome.DENIED),
        record(port=80, connections=4, at=71, side=Side.INGRESS),
        record(port=81, connections=1, at=190, side=Side.INGRESS),
    ]
    store.insert(records, batch())
    ticks = store.series(T0, T0 + HOUR_S, 60.0)
    assert [(t.start - T0, t.allowed, t.denied, t.would_deny) for t in ticks] == [
        (0, 0, 12, 0),
        (60, 4, 0, 4),
        (180, 1, 0, 0),
    ]
    assert store.series(T0, T0 + 60, 60.0) == ticks[:1]


def test_pruning_drops_whole_days_only(store: FlowStore) -> None:
    store.insert([record(at=day * DAY_S + 3600) for day in range(4)], batch())
    assert store.prune(T0 + 2 * DAY_S + 7200) == 2
    assert store.count() == 2
    assert sum(one.connections for one in store.edges(0)) == 2
    assert store.prune(T0 + 2 * DAY_S + 7200) == 0


def test_texts_with_quotes_and_other_scripts_are_kept(store: FlowStore) -> None:
    odd = record(reporter="o'brien\\", process=Process("ünïx", "a\tb", 'say "hi"', "/tmp/\n"), rules=("it's",))
    store.insert([odd], "batch 'quoted' \\" + batch())
    assert store.edges(0) == (odd,)


def test_many_threads_may_call_at_once(store: FlowStore) -> None:
    def turn(number: int) -> None:
        for step in range(5):
            store.insert([record(port=number * 10 + step)], batch())
            assert store.count() >= 1

    threads = [threading.Thread(target=turn, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count() == 30
    assert len(store.edges(0)) == 30


def test_both_stores_agree_on_a_thousand_random_records(process: FlowProcess) -> None:
    chance = random.Random(7)
    ends = [WEB, DB, OUT, ip_address("10.1.0.9")]
    records = [
        record(
            chance.choice(ends),
            chance.choice(ends),
            chance.choice([53, 80, 443]),
            side=chance.choice(list(Side)),
            outcome=chance.choice(list(Outcome)),
            would=chance.choice(list(Outcome)),
            at=chance.randrange(0, 200_000, 500),
            connections=chance.randrange(1, 9),
            revision=chance.randrange(3),
            rules=chance.choice([(), ("a",), ("a", "b")]),
            process=chance.choice([Process(), NGINX, POSTGRES]),
            reporter=chance.choice(["x", "y"]),
            standing=chance.random() < 0.5,
        )
        for _ in range(1000)
    ]
    fake = MemoryFlows()
    process.prune(T0 + 1000 * DAY_S)
    for start in range(0, 1000, 250):
        fake.insert(records[start : start + 250], "same" + str(start))
        process.insert(records[start : start + 250], "same" + str(start))
    for since in (T0, T0 + 50_000):
        assert process.edges(since, T0 + 150_000) == fake.edges(since, T0 + 150_000)
        assert process.tuples(since) == fake.tuples(since)
        assert process.series(since, T0 + 200_000, 900.0) == fake.series(since, T0 + 200_000, 900.0)
        for asked in (Query(since), Query(since, outcome=Outcome.ALLOWED), Query(since, would=Outcome.DENIED, limit=7)):
            assert process.flows(asked) == fake.flows(asked)
    assert process.prune(T0 + 90_000) == fake.prune(T0 + 90_000)
    assert process.edges(0) == fake.edges(0)


def test_stores_of_several_controllers_say_together_what_one_would_say(process: FlowProcess) -> None:
    chance = random.Random(11)
    ends = [WEB, DB, OUT, ip_address("10.1.0.9"), ip_address("fd00::7")]
    times = [chance.randrange(0, 200_000, 50) for _ in range(1500)]
    records = [
        record(
            chance.choice(ends),
            chance.choice(ends),
            chance.choice([53, 80, 443, *range(1000, 1030)]),
            side=chance.choice(list(Side)),
            outcome=chance.choice(list(Outcome)),
            would=chance.choice(list(Outcome)),
            at=at,
            connections=chance.randrange(1, 9),
            # Revisions only grow.
            revision=at // 20_000,
            rules=chance.choice([(), ("a",), ("a", "b")]),
            process=chance.choice([NGINX, POSTGRES]),
            reporter=chance.choice(["x", "y", "z"]),
        )
        for at in times
    ]
    process.prune(T0 + 1000 * DAY_S)
    one, several = MemoryFlows(), Spread(process, MemoryFlows(), MemoryFlows())
    for store in (one, several):
        store.insert(records, "together/1")
    assert min(each.count() for each in several.stores) > 300
    for since in (T0, T0 + 50_000):
        assert several.edges(since, T0 + 150_000) == one.edges(since, T0 + 150_000)
        assert several.tuples(since) == one.tuples(since)
        assert several.series(since, T0 + 200_000, 900.0) == one.series(since, T0 + 200_000, 900.0)
        keys = [seen.key for seen in one.flows(Query(since))[::7]]
        assert several.tuples_of(since, keys) == one.tuples_of(since, keys)
        assert counted(several.keys(since)) == counted(one.keys(since))
        for asked in (
            Query(since),
            Query(since, limit=7),
            Query(since, outcome=Outcome.ALLOWED, limit=11),
            Query(since, outcome=Outcome.DENIED, limit=30),
            Query(since, outcome=Outcome.ALLOWED, would=Outcome.DENIED),
            Query(since, source=(ip_network("10.0.0.0/24"), ip_network("fd00::/8")), ports=parse_ports("tcp/80")),
        ):
            assert paged(several, asked) == paged(one, asked)


def counted(keys: Keys) -> dict[FlowKey, tuple[int, int]]:
    return {keys.key(at): (int(keys.flows[at]), int(keys.connections[at])) for at in range(len(keys))}


def paged(store: FlowStore, query: Query) -> list[Flow]:
    """Give all pages."""
    found: list[Flow] = []
    while page := store.flows(query):
        found += page
        query = replace(query, after=cursor(page[-1]))
    return found


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    for store in (MemoryFlows(), open_flows(tmp_path / "flows")):
        store.close()
        store.close()
        with pytest.raises(FlowStoreError, match="closed"):
            store.count()


def test_a_store_lies_in_its_folder_whatever_that_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("some data/50% flöws")
    for count in (1, 2):
        store = open_flows(folder)
        store.insert([record()], f"b{count}")
        assert store.count() == count
        store.close()
    assert [one.name for one in tmp_path.iterdir()] == ["some data"]
    assert any((tmp_path / folder).iterdir())


def test_a_killed_worker_is_started_again_with_all_it_had(tmp_path: Path) -> None:
    store = open_flows(tmp_path / "flows")
    try:
        name = batch()
        store.insert([record()], name)
        for _ in range(2):
            os.kill(store.pid, signal.SIGKILL)
            store.insert([record()], name)
            store.insert([record(port=7)], name + "b")
        assert store.count() == 2
        assert sum(one.connections for one in store.edges(0)) == 2
    finally:
        store.close()


def test_an_insert_that_was_cut_short_is_completed_by_repeating_it(tmp_path: Path) -> None:
    store = open_flows(tmp_path / "flows")
    try:
        for attempt in range(3):
            records = [record(port=port, at=port * 100) for port in range(3000)]
            killer = threading.Timer(0.02 * (attempt + 1), os.kill, (store.pid, signal.SIGKILL))
            killer.start()
            store.insert(records, f"cut-{attempt}")
            killer.join()
            store.insert(records, f"cut-{attempt}")
            assert store.count() == 3000 * (attempt + 1)
            assert sum(one.connections for one in store.edges(0)) == 3000 * (attempt + 1)
    finally:
        store.close()


def test_a_worker_that_dies_while_it_fills_the_tables_loses_and_doubles_nothing(tmp_path: Path) -> None:
    store = open_flows(tmp_path / "flows")
    try:
        for attempt in range(6):
            records = [record(port=port, at=port * 100) for port in range(1000)]
            store.insert_many([(records, f"a/{attempt}"), (records, f"b/{attempt}")])
            killer = threading.Timer(0.004 * 2**attempt, os.kill, (store.pid, signal.SIGKILL))
            killer.start()
            assert store.count() == 2000 * (attempt + 1)
            killer.join()
            store.insert(records, f"a/{attempt}")
            assert store.count() == 2000 * (attempt + 1)
            assert sum(one.connections for one in store.edges(0)) == 2000 * (attempt + 1)
    finally:
        store.close()


def test_what_was_inserted_is_there_after_a_stop_at_once(tmp_path: Path) -> None:
    store = open_flows(tmp_path / "flows")
    store.insert([record()], "a/1")
    store.close()
    again = open_flows(tmp_path / "flows")
    assert again.count() == 1
    again.close()


def test_the_worker_ends_when_its_parent_is_killed_and_the_next_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys, time; from pathlib import Path; from cellwall.controller.store.flows import open_flows\n"
        "store = open_flows(Path(sys.argv[1])); print(store.pid, flush=True); time.sleep(60)"
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "flows")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    until = time.monotonic() + 15
    while Path(f"/proc/{worker}").exists() and Path(f"/proc/{worker}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < until, "the worker is still there"
        time.sleep(0.1)
    # The socket's name is left beside the folder, and nothing elsewhere; the next store takes it over.
    assert sorted(one.name for one in tmp_path.iterdir()) == ["flows", "flows.socket"]
    again = open_flows(tmp_path / "flows")
    assert again.count() == 0
    again.close()
    assert [one.name for one in tmp_path.iterdir()] == ["flows"]


def test_a_worker_that_still_holds_the_folder_is_waited_for_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = (
        "import sys, time; from pathlib import Path; from cellwall.controller.store.flows import open_flows\n"
        "store = open_flows(Path(sys.argv[1])); print(store.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "flows")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, signal.SIGSTOP)
        parent.kill()
    late = threading.Timer(3.0, os.kill, (worker, signal.SIGCONT))
    late.start()
    again = open_flows(tmp_path / "flows")
    late.join()
    assert again.count() == 0
    again.close()
    assert capfd.readouterr().err == ""


def test_without_a_cgroup_the_engine_starts_in_silence_and_reads_no_configuration_of_strangers(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys; from pathlib import Path; from cellwall.controller.store.flows import open_flows\n"
        "subprocess.run(['mount', '-t', 'tmpfs', 'none', '/sys/fs/cgroup'], check=True)\n"
        "store = open_flows(Path('flows')); print(store.count()); store.close()"
    )
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("namespaces of mounts need root")
    (tmp_path / "config.xml").write_text("no configuration at all", "utf-8")
    ran = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.stderr) == ("0\n", "")


def test_a_request_that_the_engine_refuses_leaves_the_store_working(process: FlowProcess) -> None:
    with pytest.raises(FlowStoreError, match="refused `insert`"):
        process.insert([replace(record(), connections=-1)], batch())
    bad, good, before = batch(), batch(), process.count()
    refused = process.insert_many([([replace(record(), connections=-1)], bad), ([record()], good)])
    assert list(refused) == [bad]
    assert process.count() == before + 1


def test_keys_are_the_tuples_as_columns(store: FlowStore) -> None:
    records = [
        record(at=0, process=NGINX, connections=3),
        record(at=1, process=POSTGRES, connections=4),
        record(at=2, side=Side.INGRESS, connections=9),
        record(port=80, at=3, connections=2, outcome=Outcome.DENIED, would=Outcome.DENIED),
        record(port=80, at=4, side=Side.INGRESS, connections=5),
        record(OUT, "fd00::1", 443, at=5),
    ]
    store.insert(records, batch())
    keys = store.keys(T0)
    found = {keys.key(at): (int(keys.flows[at]), int(keys.connections[at])) for at in range(len(keys))}
    wanted: dict[FlowKey, tuple[int, int]] = {}
    for seen in distinct(store.tuples(T0)):
        flows, connections = wanted.get(seen.key, (0, 0))
        wanted[seen.key] = flows + 1, connections + seen.connections
    assert found == wanted
    some = [key for key in found if key.port != 80]
    assert store.tuples_of(T0, some) == tuple(one for one in store.tuples(T0) if one.key.port != 80)
    assert store.tuples_of(T0, []) == () and len(store.keys(T0 + 10 * HOUR_S)) == 0
