"""Orders at an agent: at once, never on trial, and still there after a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.agent.bundles import WORKLOAD, bundle, controller_key
from tests.unit.agent.test_core import Driver
from tests.unit.agent.test_journal import journal

from cellwall.agent.bundle import Bundle, amend
from cellwall.agent.core import Agent
from cellwall.agent.events import (
    Apply,
    ApplyMembers,
    Desired,
    MembersChanged,
    Report,
    Restore,
    Result,
    SaveChange,
    SaveJournal,
    Tick,
)
from cellwall.compile import OrderCard, Way
from cellwall.policy import OrderKind
from cellwall.wire import MemberChange, PointState, WireError, encode, encode_orders, sign

SHUT = OrderCard((1 << 28) - 5, "contain-1", OrderKind.CONTAIN, (Way(),), ((0, 9),), (), 5000.0)


def ordering(before: Bundle, *orders: OrderCard, digest: str | None = None) -> MemberChange:
    """A signed change that gives these orders and changes nothing else."""
    blank = MemberChange(
        workload=WORKLOAD,
        base=before.generation,
        generation=before.generation + 1,
        revision=before.revision,
        orders=encode_orders(orders),
    )
    told = amend(before, (blank,)).holding.digest if digest is None else digest
    return sign(
        MemberChange(
            workload=WORKLOAD,
            base=blank.base,
            generation=blank.generation,
            revision=blank.revision,
            digest=told,
            orders=blank.orders,
        ),
        controller_key(),
    )


def told(change: MemberChange) -> MembersChanged:
    return MembersChanged(change, encode(change))


def test_an_order_is_written_alone_and_kept() -> None:
    driver = Driver()
    driver.tell(Desired(bundle(1)))
    assert driver.agent.good is not None
    given = driver.tell(told(ordering(driver.agent.good, SHUT)))
    write = next(one for one in given if isinstance(one, ApplyMembers))
    assert write.orders and write.bundle.ruleset.orders == (SHUT,) and not write.added and not write.removed
    assert any(isinstance(one, SaveChange) for one in given)
    assert driver.state is PointState.ENFORCED
    assert driver.kernel is driver.agent.good is write.bundle


def test_a_lifted_order_is_gone_and_a_change_of_members_leaves_orders_alone() -> None:
    held = amend(bundle(1), (ordering(bundle(1), SHUT),))
    members = MemberChange(workload=WORKLOAD, base=2, generation=3, revision=1)
    assert amend(held, (members,)).ruleset.orders == (SHUT,)
    assert amend(held, (ordering(held),)).ruleset.orders == ()
    assert amend(held, (ordering(held),)).holding.digest == bundle(1).holding.digest


def test_orders_that_do_not_fit_the_digest_are_not_taken() -> None:
    with pytest.raises(WireError):
        amend(bundle(1), (ordering(bundle(1), SHUT, digest="0" * 64),))


def test_a_change_that_is_taken_back_takes_back_no_order() -> None:
    driver = Driver()
    driver.tell(Desired(bundle(1)))
    driver.tell(Desired(bundle(2, 30.0)))
    assert driver.agent.trial is not None
    given = driver.tell(told(ordering(driver.agent.trial.bundle, SHUT)))
    # What is gone back to changes too: that is no record of the trial alone.
    assert any(isinstance(one, SaveJournal) for one in given) and not any(isinstance(one, SaveChange) for one in given)
    assert driver.saved is not None and driver.saved.good is not None and driver.saved.trial is not None
    assert driver.saved.good.ruleset.orders == driver.saved.trial.ruleset.orders == (SHUT,)
    given = driver.tell(Tick(), 31.0)
    assert any(isinstance(one, Restore) for one in given)
    assert driver.kernel is not None
    assert (driver.kernel.generation, driver.kernel.ruleset.orders) == (1, (SHUT,))
    assert driver.state is PointState.REVERTED


def test_orders_in_a_bundle_that_is_refused_are_in_force_all_the_same() -> None:
    driver = Driver()
    driver.tell(Desired(bundle(1)))
    driver.answer = Result.REFUSED
    refused = bundle(2).with_orders((SHUT,))
    event = Desired(refused)
    driver.agent, _ = _step_refused(driver, event)
    assert driver.kernel is not None and driver.kernel.ruleset.orders == (SHUT,)
    assert driver.kernel.generation == 1


def _step_refused(driver: Driver, event: Desired) -> tuple[Agent, None]:
    """The kernel refuses the new bundle, and takes the old one with the new orders."""
    from cellwall.agent.core import step
    from cellwall.agent.events import Applied

    agent, commands = step(driver.agent, event, driver.now)
    while True:
        write = next((one for one in commands if isinstance(one, Apply | Restore)), None)
        if write is None:
            return agent, None
        refused = isinstance(write, Apply)
        if not refused:
            driver.kernel = write.bundle
        generation = write.bundle.generation if write.bundle else None
        agent, commands = step(
            agent, Applied(generation, Result.REFUSED if refused else Result.DONE, "no" if refused else ""), driver.now
        )
        driver.done += [one for one in commands if isinstance(one, Report)]


def test_orders_survive_a_restart_with_their_end(tmp_path: Path) -> None:
    good = bundle(1)
    one = journal(tmp_path)
    one.save(SaveJournal(good, None, 0.0, 1))
    one.append(encode(ordering(good, SHUT)))
    loaded = journal(tmp_path).load()
    assert loaded.good is not None and loaded.good.ruleset.orders == (SHUT,)
    # And when it is written anew as a whole.
    one.save(SaveJournal(loaded.good, bundle(5, 30.0).with_orders((SHUT,)), 9.0, 5))
    loaded = journal(tmp_path).load()
    assert loaded.good is not None and loaded.trial is not None and not loaded.damage
    assert loaded.good.ruleset.orders == loaded.trial.ruleset.orders == (SHUT,)
    assert loaded.good.holding == amend(good, (ordering(good, SHUT),)).holding


def test_the_same_orders_again_are_the_same_bundle() -> None:
    held = bundle(1).with_orders((SHUT,))
    assert held.with_orders((SHUT,)) is held
    assert held.with_orders((replace(SHUT, expires=9.0),)).holding.digest != held.holding.digest
