"""What an agent keeps to whatever happens, in whatever order, and wherever it is killed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.agent.bundles import WORKLOAD, bundle, change

from cellwall.agent.bundle import Bundle, amend
from cellwall.agent.core import Agent, step
from cellwall.agent.events import (
    Applied,
    Apply,
    ApplyMembers,
    CanaryResult,
    Confirmed,
    Connected,
    Desired,
    Disconnected,
    Event,
    ForeignChange,
    Forgery,
    MembersChanged,
    Repair,
    Restore,
    Result,
    SaveChange,
    SaveJournal,
    Started,
    Tick,
)
from cellwall.wire import MemberChange, PointState, decode_from_controller, encode

BUNDLES = {
    (generation, confirm_s, canaries): bundle(generation, confirm_s, canaries=canaries)
    for generation in range(1, 7)
    for confirm_s in (0.0, 20.0)
    for canaries in (0, 1)
}


@dataclass
class World:
    """An agent, a kernel, a disk and a clock."""

    agent: Agent = field(default_factory=lambda: Agent(WORKLOAD))
    now: float = 100.0
    kernel: Bundle | None = None
    disk: SaveJournal = field(default_factory=lambda: SaveJournal(None, None, 0.0, 0))
    ever: set[int] = field(default_factory=set[int])
    """The generations that were ever good."""
    ends: float | None = None
    """When the kernel goes back to `back` by itself."""
    back: Bundle | None = None

    def tell(self, event: Event, answer: Result = Result.DONE, killed_after: int | None = None) -> bool:
        """Tell an event; killed after so many commands, the agent does no more. Says whether it lived."""
        events, done = [event], 0
        while events:
            highest = self.agent.highest
            self.agent, commands = step(self.agent, events.pop(0), self.now)
            assert self.agent.highest >= highest
            if self.agent.good:
                self.ever.add(self.agent.good.generation)
            for command in commands:
                if done == killed_after:
                    return False
                done += 1
                match command:
                    case Apply(wanted) | Repair(wanted) | Restore(wanted) | ApplyMembers(wanted):
                        if answer is Result.DONE:
                            self.kernel = wanted
                            self._hold(command)
                        events.append(Applied(wanted.generation if wanted else None, answer, "no"))
                    case SaveJournal():
                        self.disk = command
                    case SaveChange(signed):
                        self.disk = _appended(self.disk, signed)
                    case _:
                        pass
        return True

    def _hold(self, command: Apply | Repair | Restore | ApplyMembers) -> None:
        match command:
            case Apply(_, left_s, back) | Repair(_, left_s, back):
                self.ends = None if left_s is None else self.now + left_s
                self.back = back
            case Restore():
                self.ends = None
            case ApplyMembers():
                pass

    def restart(self) -> None:
        """Start a new agent from what is on disk."""
        self.agent = Agent(WORKLOAD)
        disk = self.disk
        self.tell(Started(disk.good, disk.trial, disk.until, disk.highest))


def _appended(disk: SaveJournal, signed: bytes) -> SaveJournal:
    told = decode_from_controller(signed)
    assert isinstance(told, MemberChange)
    if disk.trial:
        return replace(disk, trial=amend(disk.trial, (told,)), highest=told.generation)
    assert disk.good
    return replace(disk, good=amend(disk.good, (told,)), highest=told.generation)


generations = st.integers(1, 6)
desired = st.builds(lambda *key: Desired(BUNDLES[key]), generations, st.sampled_from((0.0, 20.0)), st.integers(0, 1))
plain: st.SearchStrategy[Event] = st.one_of(
    desired,
    st.just(Tick()),
    st.just(Disconnected()),
    st.builds(Confirmed, generations),
    st.builds(CanaryResult, generations, st.just("c0"), st.booleans()),
    st.just(ForeignChange("nft")),
    st.builds(Forgery, generations, st.just("forged")),
)


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[str, Event | None, Result, int | None, float]]:
    """What happens, what the kernel answers, after how many commands the agent is killed, and how long it takes."""
    rows: list[tuple[str, Event | None, Result, int | None, float]] = []
    for _ in range(draw(st.integers(1, 30))):
        kind = draw(st.sampled_from(("event", "event", "event", "members", "connect", "restart")))
        rows.append(
            (
                kind,
                draw(plain) if kind == "event" else None,
                draw(st.sampled_from((Result.DONE, Result.DONE, Result.DONE, Result.REFUSED, Result.FAILED))),
                draw(st.sampled_from((None, None, None, 0, 1, 2, 3))),
                draw(st.sampled_from((0.0, 0.1, 1.0, 5.0, 25.0))),
            )
        )
    return rows


def play(world: World, rows: list[tuple[str, Event | None, Result, int | None, float]], *, fresh: bool = True) -> None:
    if fresh:
        world.restart()
    for kind, event, answer, killed_after, pause_s in rows:
        world.now += pause_s
        target = world.agent.target
        if kind == "members":
            if target is None:
                continue
            told = change(target, {b"\x0a\0\1" + bytes((target.generation % 256,)): 7})
            event = MembersChanged(told, encode(told))
        elif kind == "connect":
            event = Connected(world.now)
        alive = kind != "restart" and event is not None and world.tell(event, answer, killed_after)
        check_end(world)
        if not alive:
            world.restart()
        check(world)


def check_end(world: World) -> None:
    """Were nobody to start the agent again, the kernel would go back from what nobody confirmed."""
    held = world.kernel
    if held is not None and held.confirm_s and held.generation not in world.ever:
        assert world.ends is not None and world.ends <= world.now + held.confirm_s
        assert world.back is None or world.back.generation in world.ever


def check(world: World) -> None:
    agent = world.agent
    assert agent.writing is None, "every write was answered"
    if agent.trial is not None and agent.trial.until is not None:
        assert world.now < agent.trial.until
    if agent.due is None and not agent.repairing and agent.in_kernel is not None:
        assert world.kernel is agent.target
    if agent.receipt.state is PointState.ENFORCED and agent.due is None:
        assert agent.trial is None and world.kernel is agent.good
        assert world.ends is None, "what is confirmed lasts, also in the kernel, before anybody is told"


@settings(max_examples=400, deadline=None)
@given(happenings())
def test_whatever_happens_it_settles_on_a_good_state_and_says_so(
    rows: list[tuple[str, Event | None, Result, int | None, float]],
) -> None:
    world = World()
    play(world, rows)
    for _ in range(80):
        world.now += 2
        world.tell(Tick())
    agent = world.agent
    assert agent.trial is None, "a provisional change always ends"
    assert agent.due is None
    assert world.kernel == agent.good
    on_disk = world.disk.good
    assert (on_disk and on_disk.holding) == (agent.good and agent.good.holding), "the disk has what is in force"
    assert world.disk.trial is None


@settings(max_examples=200, deadline=None)
@given(happenings(), st.sampled_from((Result.REFUSED, Result.FAILED)), st.integers(1, 6))
def test_an_apply_that_does_not_go_leaves_the_last_good_in_force(
    rows: list[tuple[str, Event | None, Result, int | None, float]], answer: Result, more: int
) -> None:
    world = World()
    play(world, rows)
    for _ in range(80):
        world.now += 2
        world.tell(Tick())
    before, held = world.agent.good, world.kernel
    world.tell(Desired(bundle(world.agent.highest + more)), answer)
    assert world.kernel is held and world.agent.good is before


@settings(max_examples=200, deadline=None)
@given(happenings())
def test_a_generation_never_goes_down_but_to_what_was_good(
    rows: list[tuple[str, Event | None, Result, int | None, float]],
) -> None:
    world = World()
    world.restart()
    for row in rows:
        before, highest = world.kernel, world.agent.highest
        play(world, [row], fresh=False)
        after = world.kernel
        if row[0] != "restart" and row[3] is None:
            assert world.agent.highest >= highest
        if before is not None and after is not None and after.generation < before.generation:
            assert after.generation in world.ever
