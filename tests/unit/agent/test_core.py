"""The agent's step function, told what happens and asked what it wants done."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from tests.unit.agent.bundles import WORKLOAD, bundle, change

from cellwall.agent.bundle import Bundle, amend
from cellwall.agent.core import CANARY_TRIES, REPAIRS, Agent, step
from cellwall.agent.events import (
    AddressesChanged,
    Applied,
    Apply,
    ApplyMembers,
    CanaryResult,
    ClockSet,
    Collect,
    Command,
    Confirmed,
    Connected,
    Desired,
    Disconnected,
    Event,
    ForeignChange,
    Forgery,
    JournalFailed,
    MembersChanged,
    Reconnect,
    Repair,
    Report,
    Restore,
    Result,
    SaveChange,
    SaveJournal,
    SendFacts,
    Started,
    Stopping,
    Suspended,
    Tick,
    TryCanaries,
    Verified,
    Verify,
)
from cellwall.compile import OrderCard, Way
from cellwall.policy import OrderKind
from cellwall.wire import PointState, encode


@dataclass
class Driver:
    """Runs an agent against a kernel that does as told: `answer` is what it says to the next writes, `lacking` what of
    them is not in force."""

    agent: Agent = field(default_factory=lambda: Agent(WORKLOAD))
    now: float = 1000.0
    answer: Result = Result.DONE
    lacking: str = ""
    kernel: Bundle | None = None
    saved: SaveJournal | None = None
    done: list[Command] = field(default_factory=list[Command])

    def tell(self, event: Event, after_s: float = 0.0) -> list[Command]:
        """Tell one event, answer all writes, and give all that was commanded."""
        self.now += after_s
        events: list[Event] = [event]
        given: list[Command] = []
        while events:
            self.agent, commands = step(self.agent, events.pop(0), self.now)
            for command in commands:
                given.append(command)
                if isinstance(command, Apply | Repair | Restore | ApplyMembers):
                    if self.answer is Result.DONE:
                        self.kernel = command.bundle
                    generation = command.bundle.generation if command.bundle else None
                    reason = self.lacking if self.answer is Result.DONE else "no"
                    events.append(Applied(generation, self.answer, reason))
                elif isinstance(command, SaveJournal):
                    self.saved = command
        self.done += given
        return given

    @property
    def state(self) -> PointState:
        return self.agent.receipt.state


def kinds(commands: list[Command]) -> list[str]:
    return [type(command).__name__ for command in commands]


def driven(*events: Event) -> Driver:
    driver = Driver()
    driver.tell(Started())
    for event in events:
        driver.tell(event)
    return driver


def test_a_first_start_without_a_journal_writes_nothing() -> None:
    driver = driven(Connected(1001.0))
    assert kinds(driver.done) == ["SendFacts"]


def test_a_start_applies_what_the_journal_holds() -> None:
    driver = Driver()
    good = bundle(5)
    assert driver.tell(Started(good))[0] == Apply(good)
    assert driver.kernel is good and driver.agent.highest == 5 and driver.state is PointState.ENFORCED


def test_a_desired_bundle_is_saved_as_coming_then_applied_then_saved_as_good_then_reported() -> None:
    driver = driven()
    assert kinds(driver.tell(Desired(bundle(1)))) == ["SaveJournal", "Apply", "SaveJournal", "Report"]
    assert driver.saved and driver.saved.good and driver.saved.good.generation == 1
    assert driver.agent.receipt.holding.generation == 1


def test_an_older_generation_is_ignored() -> None:
    driver = driven(Desired(bundle(3)))
    for generation in (1, 2, 3):
        assert kinds(driver.tell(Desired(bundle(generation)))) == ["Report"]
    assert driver.kernel and driver.kernel.generation == 3


def test_a_bundle_for_another_workload_is_refused_and_the_last_good_stays() -> None:
    driver = driven(Desired(bundle(1)))
    (report,) = driver.tell(Desired(bundle(2, workload="db")))
    assert isinstance(report, Report) and report.receipt.state is PointState.REFUSED and report.alarm
    assert driver.state is PointState.ENFORCED and driver.agent.highest == 1


def test_a_forgery_is_reported_and_changes_nothing() -> None:
    driver = driven(Desired(bundle(1)))
    before = driver.agent
    (report,) = driver.tell(Forgery(9, "not signed"))
    assert isinstance(report, Report) and report.alarm and report.receipt.generation == 9
    assert driver.agent == before


def test_a_refused_bundle_leaves_the_last_good_in_force() -> None:
    driver = driven(Desired(bundle(1)))
    driver.answer = Result.REFUSED
    assert kinds(driver.tell(Desired(bundle(2)))) == ["SaveJournal", "Apply", "SaveJournal", "Report"]
    assert driver.state is PointState.REFUSED and driver.agent.receipt.generation == 2
    assert driver.saved and driver.saved.highest == 2
    assert driver.agent.target is driver.kernel and driver.kernel and driver.kernel.generation == 1


def test_a_failed_apply_is_tried_again_ever_more_slowly() -> None:
    driver = driven(Desired(bundle(1)))
    driver.answer = Result.FAILED
    driver.tell(Desired(bundle(2)))
    waits = [agent_due - driver.now for agent_due in [driver.agent.due or 0.0]]
    for _ in range(8):
        driver.tell(Tick(), after_s=(driver.agent.due or driver.now) - driver.now)
        waits.append((driver.agent.due or 0.0) - driver.now)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    driver.answer = Result.DONE
    driver.tell(Tick(), after_s=60)
    assert driver.kernel and driver.kernel.generation == 2 and driver.state is PointState.ENFORCED


def test_a_provisional_bundle_is_on_disk_before_it_is_in_the_kernel() -> None:
    driver = driven(Desired(bundle(1)))
    given = driver.tell(Desired(bundle(2, confirm_s=30)))
    assert kinds(given)[:2] == ["SaveJournal", "Apply"]
    assert driver.saved == SaveJournal(driver.agent.good, driver.agent.trial and driver.agent.trial.bundle, 1030.0, 2)


def test_a_provisional_bundle_becomes_good_by_the_controllers_word_on_a_new_connection() -> None:
    driver = driven(Desired(bundle(1)))
    assert "Reconnect" in kinds(driver.tell(Desired(bundle(2, confirm_s=30))))
    assert driver.state is PointState.PROVISIONAL
    driver.tell(Confirmed(2), after_s=1)
    assert driver.state is PointState.PROVISIONAL, "the old connection proves nothing"
    driver.tell(Connected(began=driver.now))
    assert driver.state is PointState.PROVISIONAL
    # What is started again goes on with it; the controller hears of it once the kernel holds it for good.
    assert kinds(driver.tell(Confirmed(2))) == ["SaveJournal", "Apply", "Report"]
    assert driver.state is PointState.ENFORCED and driver.saved and driver.saved.trial is None


def test_a_trial_is_written_with_its_end_and_with_what_the_kernel_then_goes_back_to() -> None:
    driver = driven(Desired(bundle(1)))
    good = driver.agent.good
    written = [one for one in driver.tell(Desired(bundle(2, confirm_s=30))) if isinstance(one, Apply)]
    assert [(one.bundle.generation, one.left_s, one.back) for one in written] == [(2, 30.0, good)]
    # Whatever has it written again later does not prolong it.
    again = driver.tell(ForeignChange("nft"), after_s=12)
    assert [(one.left_s, one.back) for one in again if isinstance(one, Repair)] == [(18.0, good)]
    again = driver.tell(Suspended("ticket 1"), after_s=3)
    assert [(one.left_s, one.back) for one in again if isinstance(one, Apply)] == [(15.0, good)]
    driver.tell(Connected(began=driver.now))
    written = [one for one in driver.tell(Confirmed(2)) if isinstance(one, Apply)]
    assert [(one.bundle.generation, one.left_s, one.back) for one in written] == [(2, None, None)]


def test_what_needs_no_confirmation_is_written_to_last() -> None:
    driver = driven(Desired(bundle(1)))
    assert Apply(bundle(2)) in driver.tell(Desired(bundle(2)))


def test_a_confirmed_change_that_the_kernel_does_not_take_for_good_is_not_reported_as_enforced() -> None:
    driver = driven(Desired(bundle(1)), Desired(bundle(2, confirm_s=30)))
    driver.tell(Connected(began=driver.now))
    driver.answer = Result.FAILED
    driver.tell(Confirmed(2))
    assert driver.state is PointState.FAILED and driver.saved and driver.saved.good == driver.agent.good
    driver.answer = Result.DONE
    driver.tell(Tick(), after_s=2)
    assert driver.state is PointState.ENFORCED and driver.kernel and driver.kernel.generation == 2


def test_a_connection_begun_before_the_change_does_not_count() -> None:
    driver = driven(Desired(bundle(2, confirm_s=30)))
    driver.tell(Connected(began=driver.now - 1))
    driver.tell(Confirmed(2))
    assert driver.state is PointState.PROVISIONAL


def test_canaries_must_pass_too() -> None:
    driver = driven(Desired(bundle(1)))
    assert "TryCanaries" in kinds(driver.tell(Desired(bundle(2, confirm_s=30, canaries=2))))
    driver.tell(Connected(began=driver.now))
    driver.tell(Confirmed(2))
    driver.tell(CanaryResult(2, "c0", passed=True))
    assert driver.state is PointState.PROVISIONAL
    again = [one for one in driver.tell(Tick(), after_s=1) if isinstance(one, TryCanaries)]
    assert [canary.id for one in again for canary in one.canaries] == ["c1"]
    driver.tell(CanaryResult(2, "c1", passed=True))
    assert driver.state is PointState.ENFORCED


def test_nobody_confirms_and_the_last_good_comes_back() -> None:
    driver = driven(Desired(bundle(1)), Desired(bundle(2, confirm_s=30)))
    driver.tell(Tick(), after_s=29)
    assert driver.kernel and driver.kernel.generation == 2
    given = driver.tell(Tick(), after_s=1)
    assert "Restore" in kinds(given)
    assert driver.kernel and driver.kernel.generation == 1
    assert driver.state is PointState.REVERTED and driver.agent.receipt.generation == 2
    assert driver.agent.receipt.holding.generation == 1
    assert "the controller" in driver.agent.receipt.reason
    assert kinds(driver.tell(Desired(bundle(2)))) == ["Report"], "what was taken back is not taken again"


def test_the_first_bundle_of_all_reverts_to_nothing() -> None:
    driver = driven(Desired(bundle(1, confirm_s=10)))
    assert Restore(None) in driver.tell(Tick(), after_s=10)
    assert driver.kernel is None and driver.state is PointState.REVERTED


def test_no_canary_answers_and_the_change_is_taken_back_at_once() -> None:
    driver = driven(Desired(bundle(1)), Desired(bundle(2, confirm_s=300, canaries=2)))
    for _ in range(CANARY_TRIES):
        driver.tell(CanaryResult(2, "c0", passed=False))
    assert driver.state is PointState.PROVISIONAL, "the other one may yet answer"
    for _ in range(CANARY_TRIES):
        driver.tell(CanaryResult(2, "c1", passed=False))
    assert driver.state is PointState.REVERTED and "`c0`, `c1`" in driver.agent.receipt.reason


def test_answers_of_canaries_of_another_change_do_not_count() -> None:
    driver = driven(Desired(bundle(1)), Desired(bundle(2, confirm_s=300, canaries=1)))
    driver.tell(CanaryResult(1, "c0", passed=True))
    assert driver.agent.trial and not driver.agent.trial.passed


def test_a_newer_bundle_ends_a_trial_and_keeps_what_was_good_before_it() -> None:
    driver = driven(Desired(bundle(1)), Desired(bundle(2, confirm_s=30)), Desired(bundle(3, confirm_s=30)))
    assert driver.kernel and driver.kernel.generation == 3
    driver.tell(Tick(), after_s=30)
    assert driver.kernel.generation == 1


def test_a_refused_bundle_after_a_trial_puts_the_last_good_back() -> None:
    driver = driven(Desired(bundle(1)), Desired(bundle(2, confirm_s=30)))
    agent, commands = step(driver.agent, Desired(bundle(3)), driver.now)
    assert commands[-1] == Apply(bundle(3))
    driver.agent = agent
    driver.tell(Applied(3, Result.REFUSED, "no"))
    assert driver.kernel and driver.kernel.generation == 1


def test_a_restart_within_the_time_goes_on_with_the_trial() -> None:
    driver = Driver()
    driver.tell(Started(bundle(1), bundle(2, confirm_s=30), until=1010.0))
    assert driver.kernel and driver.kernel.generation == 2
    driver.tell(Tick(), after_s=10)
    assert driver.kernel.generation == 1 and driver.state is PointState.REVERTED


def test_a_restart_after_the_time_puts_the_last_good_back_at_once() -> None:
    driver = Driver()
    first = driver.tell(Started(bundle(1), bundle(2, confirm_s=30), until=999.0))[0]
    assert isinstance(first, Restore) and driver.kernel and driver.kernel.generation == 1
    assert driver.state is PointState.REVERTED and driver.agent.highest == 2


def test_a_restart_goes_on_with_a_bundle_that_needs_no_confirmation() -> None:
    driver = Driver()
    driver.tell(Started(bundle(1), bundle(2), until=0.0, highest=2))
    assert driver.kernel and driver.kernel.generation == 2 and driver.state is PointState.ENFORCED
    assert driver.saved and driver.saved.good and driver.saved.good.generation == 2


def test_what_the_kernel_refuses_at_a_restart_gives_way_to_what_was_good() -> None:
    agent, (_, *_) = step(Agent(WORKLOAD), Started(bundle(1), bundle(2), until=0.0), 0.0)
    agent, commands = step(agent, Applied(2, Result.REFUSED, "no"), 0.0)
    assert Restore(bundle(1)) in commands and agent.trial is None


def test_a_first_bundle_that_is_refused_leaves_what_the_kernel_held_before_us() -> None:
    driver = Driver(answer=Result.REFUSED)
    driver.tell(Started(damage="lost"))
    assert "Restore" not in kinds(driver.tell(Desired(bundle(1))))


def test_a_first_bundle_that_is_refused_on_trial_leaves_nothing_of_it() -> None:
    driver = driven(Desired(bundle(1, confirm_s=30)))
    driver.answer = Result.REFUSED
    driver.tell(ForeignChange("nft"))
    driver.answer = Result.DONE
    driver.tell(Tick(), after_s=2)
    assert driver.kernel is None and driver.state is PointState.REFUSED


def test_a_clock_set_back_does_not_make_a_trial_longer() -> None:
    driver = Driver()
    driver.tell(Started(bundle(1), bundle(2, confirm_s=30), until=999_999.0))
    assert driver.agent.trial and driver.agent.trial.until == driver.now + 30


def test_a_change_of_members_is_one_element_one_line_of_journal_and_one_report() -> None:
    driver = driven(Desired(bundle(1)))
    good = driver.agent.good
    assert good
    told = change(good, {b"\x0a\0\0\x02": 7}, (b"\x0a\0\0\x01",))
    given = driver.tell(MembersChanged(told, encode(told)))
    assert kinds(given) == ["ApplyMembers", "SaveChange", "Report"]
    assert driver.kernel and dict(driver.kernel.members) == {b"\x0a\0\0\x02": 7}
    assert driver.agent.receipt.holding.digest == told.digest and driver.agent.highest == 2


def test_a_change_of_members_that_does_not_fit_is_reported_as_failed_and_changes_nothing() -> None:
    driver = driven(Desired(bundle(1)))
    other = change(bundle(4), {b"\x0a\0\0\x02": 7})
    before = driver.agent
    (report,) = driver.tell(MembersChanged(other, b""))
    assert isinstance(report, Report) and report.receipt.state is PointState.FAILED
    assert driver.agent == before


def test_a_change_of_members_where_nothing_is_held_is_reported_as_failed() -> None:
    driver = driven()
    (report,) = driver.tell(MembersChanged(change(bundle(1), {}), b""))
    assert isinstance(report, Report) and report.receipt.state is PointState.FAILED


def test_members_that_do_not_go_by_element_are_written_whole() -> None:
    driver = driven(Desired(bundle(1)))
    good = driver.agent.good
    assert good
    told = change(good, {b"\x0a\0\0\x02": 7})
    agent, (write, *_) = step(driver.agent, MembersChanged(told, encode(told)), driver.now)
    assert isinstance(write, ApplyMembers)
    agent, commands = step(agent, Applied(2, Result.FAILED, "no"), driver.now)
    assert isinstance(commands[-1], Apply) and commands[-1].bundle.generation == 2


def test_members_may_change_while_a_change_is_provisional() -> None:
    driver = driven(Desired(bundle(1)), Desired(bundle(2, confirm_s=30)))
    trial = driver.agent.trial
    assert trial
    told = change(trial.bundle, {b"\x0a\0\0\x02": 7})
    assert SaveChange(encode(told)) in driver.tell(MembersChanged(told, encode(told)))
    driver.tell(Connected(began=driver.now))
    driver.tell(Confirmed(2))
    assert driver.agent.good and driver.agent.good.generation == 3 and driver.state is PointState.ENFORCED


def test_only_one_write_is_made_at_a_time_and_then_the_newest() -> None:
    agent, _ = step(Agent(WORKLOAD), Started(), 0.0)
    agent, first = step(agent, Desired(bundle(1)), 0.0)
    agent, second = step(agent, Desired(bundle(2)), 0.0)
    agent, third = step(agent, Desired(bundle(3)), 0.0)
    assert [kinds([*one]) for one in (first, second, third)] == [
        ["SaveJournal", "Apply"],
        ["SaveJournal"],
        ["SaveJournal"],
    ]
    agent, after = step(agent, Applied(1, Result.DONE), 0.0)
    assert [one.bundle.generation for one in after if isinstance(one, Apply)] == [3]


def test_a_foreign_change_is_repaired_at_once() -> None:
    driver = driven(Desired(bundle(1)))
    driver.kernel = None
    given = driver.tell(ForeignChange("nft"))
    assert kinds(given) == ["Report", "Repair", "Report"]
    assert [one.receipt.state for one in given if isinstance(one, Report)] == [
        PointState.DRIFTED,
        PointState.ENFORCED,
    ]
    assert driver.kernel is driver.agent.good


def test_a_fight_over_the_table_is_slowed_down_with_an_alarm_and_ends() -> None:
    driver = driven(Desired(bundle(1)))
    for _ in range(REPAIRS):
        driver.tell(ForeignChange("ufw"), after_s=0.1)
    assert sum(isinstance(one, Repair) for one in driver.done) == REPAIRS
    given = driver.tell(ForeignChange("ufw"), after_s=0.1)
    assert [one.alarm for one in given if isinstance(one, Report)] == [True]
    for _ in range(50):
        assert "Repair" not in kinds(driver.tell(ForeignChange("ufw"), after_s=0.01))
    driver.tell(Tick(), after_s=15)
    assert sum(isinstance(one, Repair) for one in driver.done) == REPAIRS + 1
    assert driver.state is PointState.DRIFTED
    driver.tell(Tick(), after_s=61)
    assert driver.state is PointState.ENFORCED


def test_a_foreign_change_where_nothing_is_wanted_is_nothing_to_repair() -> None:
    assert driven().tell(ForeignChange("nft")) == []


def test_drift_that_is_read_back_is_repaired() -> None:
    driver = driven(Desired(bundle(1)))
    verify = [one for one in driver.tell(Tick(), after_s=301) if isinstance(one, Verify)]
    assert len(verify) == 1
    assert driver.tell(Verified(1, ())) == []
    assert driver.tell(Verified(0, ("stale",))) == []
    assert "Repair" in kinds(driver.tell(Verified(1, ("element gone",))))


def test_a_lost_controller_changes_nothing() -> None:
    driver = driven(Desired(bundle(1)), Connected(1.0))
    driver.tell(Disconnected())
    for _ in range(1000):
        given = driver.tell(Tick(), after_s=3600)
        assert not {"Apply", "Restore", "Repair", "SaveJournal"} & set(kinds(given))
    assert driver.kernel and driver.kernel.generation == 1


def test_flows_and_facts_come_by_the_clock_and_facts_when_addresses_change() -> None:
    driver = driven(Desired(bundle(1)))
    assert driver.tell(Tick()) == []
    assert driver.tell(Tick(), after_s=2) == [Collect()]
    assert driver.tell(AddressesChanged()) == [SendFacts()]
    assert SendFacts() in driver.tell(Tick(), after_s=60)


def test_a_journal_that_cannot_be_written_is_an_alarm_and_nothing_stops() -> None:
    driver = driven(Desired(bundle(1)))
    (report,) = driver.tell(JournalFailed("no space"))
    assert isinstance(report, Report) and report.alarm and report.receipt.state is PointState.ENFORCED


def test_a_damaged_journal_is_an_alarm_and_what_could_be_read_is_applied() -> None:
    driver = Driver()
    given = driver.tell(Started(bundle(1), damage="a record is cut short"))
    assert isinstance(given[0], Report) and given[0].alarm and driver.kernel


def test_a_host_that_only_observes_says_so() -> None:
    driver = Driver(replace(Agent(WORKLOAD), observe_only=True))
    driver.tell(Started())
    driver.tell(Desired(bundle(1)))
    assert driver.state is PointState.RELAXED


@pytest.mark.parametrize("receipt_before", [True, False])
def test_a_connection_hears_the_last_receipt(receipt_before: bool) -> None:
    driver = driven(*([Desired(bundle(1))] if receipt_before else []))
    assert kinds(driver.tell(Connected(0.0))) == ["SendFacts", *(["Report"] if receipt_before else [])]


def test_the_digest_after_changes_is_that_of_the_whole() -> None:
    before = bundle(1)
    told = change(before, {b"\x0a\0\0\x09": 7, b"\x0a\0\0\x01": 8})
    after = amend(before, (told,))
    assert after.holding.digest == told.digest == bundle_digest(after)


def bundle_digest(one: Bundle) -> str:
    from cellwall.wire import digest

    return digest(one.ruleset, one.members)


def test_a_reconnect_is_asked_for_once_per_trial() -> None:
    driver = driven(Desired(bundle(1)), Desired(bundle(2, confirm_s=30)))
    driver.tell(ForeignChange("nft"))
    assert sum(isinstance(one, Reconnect) for one in driver.done) == 1


def test_a_stop_takes_back_what_is_on_trial_and_leaves_what_is_good() -> None:
    driver = driven(Desired(bundle(1)), Desired(bundle(2, confirm_s=60.0)))
    assert driver.kernel and driver.kernel.generation == 2
    given = driver.tell(Stopping())
    assert kinds(given)[:2] == ["Restore", "SaveJournal"] and driver.kernel.generation == 1
    assert driver.saved and driver.saved.trial is None and driver.state is PointState.REVERTED
    assert "stopped" in driver.agent.receipt.reason
    assert driver.tell(Stopping()) == [], "the good one stays"


def test_a_suspension_writes_the_same_bundle_and_is_reported_with_its_reason() -> None:
    driver = driven(Desired(bundle(1)))
    given = driver.tell(Suspended("suspended until tomorrow: because"))
    assert kinds(given) == ["Apply", "Report"] and driver.state is PointState.RELAXED
    assert driver.agent.receipt.reason == "suspended until tomorrow: because"
    # What comes meanwhile is taken, and stands as relaxed too.
    driver.tell(Desired(bundle(2)))
    assert driver.state is PointState.RELAXED and driver.agent.receipt.holding.generation == 2
    assert kinds(driver.tell(Suspended(""))) == ["Apply", "Report"] and driver.state is PointState.ENFORCED


def test_orders_that_are_over_by_the_clock_of_the_host_are_reported_until_they_are_gone() -> None:
    driver = driven(Desired(bundle(1)))
    driver.lacking = "over by the clock that this host goes by: `contain-1`"
    driver.tell(Desired(bundle(2)))
    assert driver.state is PointState.RELAXED and "contain-1" in driver.agent.receipt.reason
    driver.lacking = ""
    driver.tell(Desired(bundle(3)))
    assert driver.state is PointState.ENFORCED


def test_when_the_clock_is_set_what_has_an_end_is_written_again_and_nothing_else() -> None:
    driver = driven(Desired(bundle(1)))
    assert kinds(driver.tell(ClockSet())) == []
    card = OrderCard((1 << 28) - 5, "contain-1", OrderKind.CONTAIN, (Way(),), ((0, 9),), (), 5000.0)
    driver = driven(Desired(bundle(1).with_orders((card,))))
    assert kinds(driver.tell(ClockSet())) == ["Apply", "Report"]
    assert kinds(Driver().tell(ClockSet())) == []
