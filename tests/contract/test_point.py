"""What every enforcement point promises, kept by the kernel's table and by the one in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.kernel.namespaces import missing
from tests.kernel.wire import bridge, hear, listen, send

from cellwall.compile import Compiled, OrderBook, OrderCard, Point, compile_fleet
from cellwall.enforce import FakePoint, Interim, Leave, NftPoint, Refused, Spell, digest_of
from cellwall.enforce import Point as EnforcementPoint
from cellwall.enforce.nft.fake import Packet
from cellwall.flows import Outcome
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import Mode, Order, OrderKind, parse_policy
from cellwall.traffic import parse_ports

WEB, DB = ip_address("10.0.0.1"), ip_address("10.0.0.2")
POLICY = """
rules:
  - {id: web-to-db, allow: tcp/5432, from: role=web, to: role=db}
  - {id: wall, wall: tcp/445, from: any, to: any}
  - {id: never, deny: tcp/23, from: any, to: any}
modes: [{where: "", mode: %s}]
"""


def compiled(mode: str = "enforce", extra: str = "") -> Compiled:
    """The policy above in a mode, with more rules, over a web server and a database."""
    text = POLICY % mode
    policy = parse_policy([("p.yaml", text.replace("modes:", f"{extra}modes:"))])
    workloads = (
        Workload("web", Labels({"role": "web"}), (WEB,)),
        Workload("db", Labels({"role": "db"}), (DB,)),
    )
    return compile_fleet(policy, Fleet(workloads), 7, 0.0)


def database(mode: str = "enforce", extra: str = "") -> Point:
    """What the database's point is to hold."""
    return compiled(mode, extra).points["db"]


def ordered(order: Order) -> tuple[OrderCard, ...]:
    """What the database's point is told of an order."""
    db = Workload("db", Labels({"role": "db"}), (DB,))
    return OrderBook([order], Fleet((Workload("web", Labels(), (WEB,)), db)), time.time()).at(db)


class Stand:
    """A point, and a way to send a packet from the web server to the database past it."""

    def __init__(self, point: EnforcementPoint, arrive: Callable[[int], bool]) -> None:
        self.point = point
        self.arrive = arrive

    def wait(self, until: float) -> None:
        """Let time pass."""
        if isinstance(self.point, FakePoint):
            self.point.now = until + 0.1
        else:
            time.sleep(max(0.0, until + 0.1 - time.time()))


@pytest.fixture(params=["kernel", "memory"])
def stand(request: pytest.FixtureRequest) -> Generator[Stand]:
    if request.param == "memory":
        fake = FakePoint()
        yield Stand(fake, lambda port: fake.pass_packet("input", Packet(WEB, DB, 6, port)))
        return
    if missing():
        pytest.skip(missing())
    with bridge([(WEB,), (DB,)]) as (web, db):
        listen(db, {6})
        numbers = iter(range(1, 10_000))

        def arrive(port: int) -> bool:
            number = next(numbers)
            assert send(web, WEB, DB, 6, port, number)
            return number in hear(db)

        with db.space.inside():
            point = NftPoint()
            yield Stand(point, arrive)
            point.close()


def test_an_applied_ruleset_is_in_force_and_is_read_back(stand: Stand) -> None:
    assert stand.point.read_back() is None
    assert stand.arrive(80)
    wanted = database()
    assert stand.point.apply(wanted.ruleset, wanted.members).change == "refill"
    assert [stand.arrive(port) for port in (5432, 80, 445, 23)] == [True, False, False, False]
    held = stand.point.read_back()
    assert held is not None
    assert (held.revision, held.mode, held.workload) == (7, Mode.ENFORCE, "db")
    assert stand.point.verify() == ()


@pytest.mark.parametrize(
    ("mode", "passes"), [("observe", [True, True, True, True]), ("guard", [True, True, False, False])]
)
def test_a_mode_denies_no_more_than_it_says(stand: Stand, mode: str, passes: list[bool]) -> None:
    wanted = database(mode)
    stand.point.apply(wanted.ruleset, wanted.members)
    assert [stand.arrive(port) for port in (5432, 80, 445, 23)] == passes


def test_a_second_apply_changes_nothing(stand: Stand) -> None:
    wanted = database()
    stand.point.apply(wanted.ruleset, wanted.members)
    stand.arrive(5432)
    before = stand.point.counters()
    assert stand.point.apply(wanted.ruleset, wanted.members).change == "none"
    assert stand.point.counters() == before


def test_apply_then_revert_restores_the_verdicts(stand: Stand) -> None:
    first, second = database(), database(extra="  - {id: more, allow: tcp/80, from: any, to: role=db}\n")
    stand.point.apply(first.ruleset, first.members)
    stand.point.apply(second.ruleset, second.members)
    assert stand.arrive(80)
    stand.point.apply(first.ruleset, first.members)
    assert not stand.arrive(80)
    assert stand.arrive(5432)
    assert stand.point.verify() == ()


def test_members_come_and_go_by_element(stand: Stand) -> None:
    wanted = database()
    number = wanted.members[WEB.packed]
    stand.point.apply(wanted.ruleset, {})
    assert not stand.arrive(5432)
    stand.point.apply_members({WEB.packed: number}, [])
    assert stand.arrive(5432)
    stand.point.apply_members({}, [WEB.packed])
    assert not stand.arrive(5432)
    assert stand.point.verify() == ()


def test_orders_come_and_go_without_anything_else_written_anew(stand: Stand) -> None:
    wanted = database("observe")
    stand.point.apply(wanted.ruleset, wanted.members)
    assert stand.arrive(5432)
    before = stand.point.counters()["web-to-db"]
    shut = ordered(Order("shut-1", OrderKind.CONTAIN, ports=parse_ports("tcp/5432")))
    stand.point.apply_orders(shut)
    assert [stand.arrive(port) for port in (5432, 80)] == [False, True]
    assert stand.point.counters()["shut-1"][0] == 1
    assert stand.point.counters()["web-to-db"] == before
    assert {one.rule for one in stand.point.collect() if one.outcome is Outcome.DENIED} == {shut[0].number}
    assert stand.point.verify() == ()
    stand.point.apply_orders(())
    assert stand.arrive(5432)
    assert stand.point.verify() == ()


def test_an_order_opens_what_the_policy_denies(stand: Stand) -> None:
    wanted = database()
    stand.point.apply(wanted.ruleset, wanted.members)
    end = time.time() + 60
    stand.point.apply_orders(ordered(Order("open-1", OrderKind.OPEN, ports=parse_ports("tcp/23"), expires=end)))
    assert [stand.arrive(port) for port in (5432, 23, 80)] == [True, True, False]
    assert stand.point.verify() == ()


MORE = "  - {id: more, allow: tcp/80, from: any, to: role=db}\n"


def test_what_holds_for_a_while_decides_and_then_what_lasts_does(stand: Stand) -> None:
    lasting, trial = database(), database("guard", MORE)
    stand.point.apply(lasting.ruleset, lasting.members)
    stand.arrive(5432)
    before = stand.point.counters()["web-to-db"]
    until = time.time() + 1.0
    interim = Interim(Spell.TRIAL, trial.ruleset, trial.members, until)
    receipt = stand.point.apply(lasting.ruleset, lasting.members, (interim,))
    assert (receipt.digest, receipt.change) == (digest_of(trial.ruleset), "refill")
    assert stand.point.apply(lasting.ruleset, lasting.members, (interim,)).change == "none"
    assert [stand.arrive(port) for port in (5432, 80, 23)] == [True, True, False]
    held = stand.point.read_back()
    assert held and held.mode is Mode.GUARD and held.digest == receipt.digest
    assert stand.point.verify() == ()
    assert "more" in stand.point.counters()
    stand.wait(until)
    assert [stand.arrive(port) for port in (5432, 80, 23)] == [True, False, False]
    held = stand.point.read_back()
    assert held and held.mode is Mode.ENFORCE
    assert stand.point.verify() == ()
    assert stand.point.apply(lasting.ruleset, lasting.members).change == "refill"
    assert stand.point.counters()["web-to-db"] > before, "what lasted was there all the while"
    assert stand.point.verify() == () and "more" not in stand.point.counters()


def test_what_becomes_lasting_is_not_written_anew(stand: Stand) -> None:
    lasting, trial = database(), database(extra=MORE)
    stand.point.apply(lasting.ruleset, lasting.members)
    interim = Interim(Spell.TRIAL, trial.ruleset, trial.members, time.time() + 60)
    stand.point.apply(lasting.ruleset, lasting.members, (interim,))
    assert stand.arrive(80)
    before = stand.point.counters()["more"]
    stand.point.apply(trial.ruleset, trial.members)
    assert stand.point.counters()["more"] == before
    stand.wait(interim.until if isinstance(stand.point, FakePoint) else 0.0)
    assert stand.arrive(80) and stand.point.verify() == ()


def test_members_and_orders_of_what_holds_for_a_while(stand: Stand) -> None:
    lasting, trial = database(), database(extra=MORE)
    until = time.time() + 1.5
    interim = Interim(Spell.TRIAL, trial.ruleset, trial.members, until)
    stand.point.apply(lasting.ruleset, lasting.members, (interim,))
    stand.point.apply_members({}, [WEB.packed])
    assert [stand.arrive(port) for port in (5432, 80)] == [False, True]
    stand.point.apply_orders(ordered(Order("shut-1", OrderKind.CONTAIN, ports=parse_ports("tcp/80"))))
    assert [stand.arrive(port) for port in (5432, 80)] == [False, False]
    assert stand.point.verify() == ()
    stand.wait(until)
    # Its members were the trial's own, orders are everybody's.
    assert [stand.arrive(port) for port in (5432, 80)] == [True, False]
    stand.point.apply_orders(ordered(Order("shut-2", OrderKind.CONTAIN, ports=parse_ports("tcp/5432"))))
    assert not stand.arrive(5432)


def test_what_is_for_a_while_is_above_nothing_at_all_or_above_another(stand: Stand) -> None:
    trial, watching = database(), database("observe")
    now = time.time()
    first = Interim(Spell.TRIAL, trial.ruleset, trial.members, now + 2.4)
    second = Interim(Spell.SUSPENSION, watching.ruleset, watching.members, now + 1.2)
    stand.point.apply(None, {}, (first, second))
    stand.point.apply_orders(ordered(Order("shut-1", OrderKind.CONTAIN, ports=parse_ports("tcp/5432"))))
    assert [stand.arrive(port) for port in (5432, 80)] == [True, True], "no order reaches a suspended host"
    stand.wait(second.until)
    assert [stand.arrive(port) for port in (5432, 80)] == [False, False]
    stand.wait(first.until)
    assert [stand.arrive(port) for port in (5432, 80)] == [True, True]


def test_orders_before_any_ruleset_are_refused(stand: Stand) -> None:
    with pytest.raises(Refused, match="before anything was applied"):
        stand.point.apply_orders(())


def test_members_before_any_ruleset_are_refused(stand: Stand) -> None:
    with pytest.raises(Refused, match="before anything was applied"):
        stand.point.apply_members({WEB.packed: 1}, [])


def test_a_mover_changes_class(stand: Stand) -> None:
    wanted = database()
    stand.point.apply(wanted.ruleset, {**wanted.members, WEB.packed: 12345})
    assert not stand.arrive(5432)
    stand.point.apply_members({WEB.packed: wanted.members[WEB.packed]}, [])
    assert stand.arrive(5432)


def test_what_passes_and_what_does_not_is_counted_once(stand: Stand) -> None:
    wanted = database()
    stand.point.apply(wanted.ruleset, wanted.members)
    stand.point.collect()
    for port in (5432, 5432, 80):
        stand.arrive(port)
    numbers = {card.id: card.number for card in wanted.ruleset.rules}
    seen = {(one.port, one.outcome, one.rule): one.count for one in stand.point.collect()}
    assert seen == {(5432, Outcome.ALLOWED, numbers["web-to-db"]): 2, (80, Outcome.DENIED, 0): 1}
    assert stand.point.collect() == ()


def test_every_rule_and_the_default_have_a_counter(stand: Stand) -> None:
    wanted = database()
    stand.point.apply(wanted.ruleset, wanted.members)
    stand.arrive(5432)
    stand.arrive(80)
    packets = {rule: count for rule, (count, _) in stand.point.counters().items()}
    assert packets == {"web-to-db": 1, "wall": 0, "never": 0, "default": 1}


def test_a_dry_run_changes_nothing(stand: Stand) -> None:
    wanted = database()
    stand.point.prepare(wanted.ruleset, wanted.members)
    assert stand.point.read_back() is None
    assert stand.arrive(80)


@pytest.mark.parametrize(
    ("leave", "passes"), [(Leave.KEEP, [True, False]), (Leave.OPEN, [True, True]), (Leave.CLOSE, [False, False])]
)
def test_leaving_keeps_opens_or_closes(stand: Stand, leave: Leave, passes: list[bool]) -> None:
    wanted = database()
    stand.point.apply(wanted.ruleset, wanted.members)
    stand.point.remove(leave)
    assert [stand.arrive(port) for port in (5432, 80)] == passes


def test_a_refused_apply_leaves_the_point_as_it_was(stand: Stand) -> None:
    if isinstance(stand.point, FakePoint):
        pytest.skip("nothing in memory refuses")
    wanted = database()
    stand.point.apply(wanted.ruleset, wanted.members)
    cards = tuple(replace(card, id=card.id + "{") for card in wanted.ruleset.rules)
    with pytest.raises(Refused):
        stand.point.apply(replace(wanted.ruleset, rules=cards), wanted.members)
    assert [stand.arrive(port) for port in (5432, 80)] == [True, False]
    stand.point.apply(wanted.ruleset, wanted.members)
    assert stand.point.verify() == ()


def test_a_point_without_memory_converges() -> None:
    if missing():
        pytest.skip(missing())
    with bridge([(DB,)]) as (db,), db.space.inside():
        first, second = database(), database("guard")
        NftPoint().apply(first.ruleset, first.members)
        again = NftPoint()
        again.apply(second.ruleset, second.members)
        fresh = again.listing()
        again.apply(first.ruleset, first.members)
        again.apply(second.ruleset, second.members)
        assert again.verify() == ()
        # Nothing piles up: as many chains and maps as after the first change.
        assert again.listing().count("chain ") == fresh.count("chain ")
        assert again.listing().count("map ") == fresh.count("map ")
