"""The agent's hold on a real kernel: written whole or not at all, whatever happens to whoever writes."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.fleet.agent_world import ALLOW_80, ALLOW_81, Puppet, fleet, kernel_text, meaning, point, policy
from tests.kernel.namespaces import Namespace, namespace, needs_namespaces

from cellwall.agent import keeper as agent_keeper
from cellwall.agent.events import Applied, Apply, ApplyMembers, ForeignChange, Repair, Restore, Result
from cellwall.agent.keeper import Keeper
from cellwall.compile import Members, Ruleset
from cellwall.controller.trust.ca import open_authority
from cellwall.enforce import Interim, Receipt
from cellwall.flows import Outcome, Side
from cellwall.policy import Mode
from cellwall.wire import Counters, HeldVerdict, Holds, ShowCounters, ShowTable, TableText, Trouble

pytestmark = needs_namespaces


@pytest.fixture
def host() -> Generator[Namespace]:
    with namespace() as made:
        made.nft('add table ip other { comment "not ours"; }\nadd set ip other s { type ipv4_addr; }\n')
        yield made


@pytest.fixture
def maker(tmp_path: Path) -> Puppet:
    return Puppet(open_authority(tmp_path / "ca", time.time()))


def test_a_bundle_is_written_read_back_and_taken_away(host: Namespace, maker: Puppet) -> None:
    others = kernel_text(host)
    with host.inside():
        keeper = Keeper()
        assert keeper.write(Apply(maker.opened(point(policy(ALLOW_80), 3)))) == [Applied(1, Result.DONE)]
        held = keeper.point.read_back()
        assert held and held.revision == 3
        assert keeper.notices() == []
        assert keeper.write(Restore(None)) == [Applied(None, Result.DONE)]
        assert keeper.notices() == []
        keeper.close()
    assert kernel_text(host) == others


def test_a_second_write_of_the_same_changes_nothing(host: Namespace, maker: Puppet) -> None:
    with host.inside():
        keeper = Keeper()
        bundle = maker.opened(point(policy(ALLOW_80), 1))
        keeper.write(Apply(bundle))
        before = keeper._read_generation()  # pyright: ignore[reportPrivateUsage]
        assert keeper.write(Apply(bundle)) == [Applied(1, Result.DONE)]
        assert keeper._read_generation() == before  # pyright: ignore[reportPrivateUsage]
        keeper.close()


@pytest.mark.parametrize(
    "harm",
    ["delete table inet cellwall", "flush ruleset", "flush chain inet cellwall input", "add chain inet cellwall evil"],
)
def test_what_others_do_to_our_table_is_noticed_and_undone(host: Namespace, maker: Puppet, harm: str) -> None:
    with host.inside():
        keeper = Keeper()
        bundle = maker.opened(point(policy(ALLOW_80), 1))
        keeper.write(Apply(bundle))
        whole = meaning(host)
        host.nft(harm + "\n")
        found = keeper.notices()
        assert [type(one) for one in found] == [ForeignChange]
        assert keeper.write(Repair(bundle))[0] == Applied(1, Result.DONE)
        assert meaning(host) == whole
        assert keeper.verify(bundle).drifts == ()
        keeper.close()


def test_what_others_do_to_other_tables_is_nothing_to_us(host: Namespace, maker: Puppet) -> None:
    with host.inside():
        keeper = Keeper()
        keeper.write(Apply(maker.opened(point(policy(ALLOW_80), 1))))
        host.nft("add element ip other s { 10.0.0.1 }\nadd table ip third\n")
        assert keeper.notices() == []
        keeper.close()


def test_a_change_that_nobody_announced_is_found_when_the_kernel_is_read_back(host: Namespace, maker: Puppet) -> None:
    with host.inside():
        keeper = Keeper()
        bundle = maker.opened(point(policy(ALLOW_80), 1))
        keeper.write(Apply(bundle))
        host.nft("delete element inet cellwall peer4 { 10.77.0.1 }\n")
        assert keeper.verify(bundle).drifts
        keeper.close()


def test_a_live_question_is_answered_from_the_kernel(host: Namespace, maker: Puppet) -> None:
    client, web = ip_address("10.77.0.1").packed, ip_address("10.77.0.2").packed
    with host.inside():
        keeper = Keeper()
        asked = Holds(source=client, destination=web, protocol=6, port=80, side=Side.INGRESS)
        nothing = keeper.answer(asked)
        assert isinstance(nothing, HeldVerdict) and nothing.outcome is Outcome.ALLOWED and nothing.revision == 0
        keeper.write(Apply(maker.opened(point(policy(ALLOW_80), 7))))
        held = keeper.answer(asked)
        assert isinstance(held, HeldVerdict)
        assert (held.outcome, held.rules, held.revision) == (Outcome.ALLOWED, ("in-80",), 7)
        other = keeper.answer(Holds(source=client, destination=web, protocol=6, port=81, side=Side.INGRESS))
        assert isinstance(other, HeldVerdict) and other.outcome is Outcome.DENIED
        text = keeper.answer(ShowTable())
        assert isinstance(text, TableText) and "in-80" in text.text
        counted = keeper.answer(ShowCounters())
        assert isinstance(counted, Counters) and counted.rules["in-80"] == (0, 0)
        host.nft("delete element inet cellwall peer4 { 10.77.0.1 }\n")
        assert isinstance(keeper.answer(asked), Trouble), "what the kernel holds is not what was written"
        keeper.close()


def test_a_trial_that_ends_in_the_kernel_is_no_foreign_change_and_no_drift(host: Namespace, maker: Puppet) -> None:
    old, new = maker.opened(point(policy(ALLOW_80), 1)), maker.opened(point(policy(ALLOW_81), 2))
    client, web = ip_address("10.77.0.1").packed, ip_address("10.77.0.2").packed
    asked = Holds(source=client, destination=web, protocol=6, port=81, side=Side.INGRESS)
    with host.inside():
        keeper = Keeper()
        keeper.write(Apply(old))
        assert keeper.write(Apply(new, 2.0, old)) == [Applied(2, Result.DONE)]
        held = keeper.answer(asked)
        assert isinstance(held, HeldVerdict) and (held.outcome, held.revision) == (Outcome.ALLOWED, 2)
        # Members come and go within it, the first time beside those of the old one.
        gone = replace(new, members={key: one for key, one in new.members.items() if key != client})
        for change in (ApplyMembers(gone, {}, (client,)), ApplyMembers(new, {client: new.members[client]}, ())):
            assert keeper.write(change) == [Applied(2, Result.DONE)]
        time.sleep(2.1)
        assert (keeper.notices(), keeper.verify(new).drifts) == ([], ())
        assert isinstance(keeper.answer(asked), Trouble), "another decides by then"
        assert keeper.write(Restore(old)) == [Applied(1, Result.DONE)]
        held = keeper.answer(asked)
        assert isinstance(held, HeldVerdict) and held.outcome is Outcome.DENIED
        assert (keeper.notices(), keeper.verify(old).drifts) == ([], ())
        keeper.close()


def test_a_suspended_host_goes_on_to_hold_its_trial_and_its_orders_beneath(host: Namespace, maker: Puppet) -> None:
    old, new = maker.opened(point(policy(ALLOW_80), 1)), maker.opened(point(policy(ALLOW_81), 2))
    with host.inside():
        keeper = Keeper()
        keeper.write(Apply(new, 60.0, old))
        trial = meaning(host)
        keeper.suspend(60.0)
        keeper.write(Apply(new, 60.0, old))
        held = keeper.point.read_back()
        assert held and held.mode is Mode.OBSERVE and keeper.verify(new).drifts == ()
        keeper.suspend(0.0)
        keeper.write(Apply(new, 60.0, old))
        held = keeper.point.read_back()
        assert held and held.mode is Mode.ENFORCE and held.revision == 2 and meaning(host) == trial
        keeper.close()


def test_a_host_that_only_observes_gets_mode_observe(host: Namespace, maker: Puppet) -> None:
    with host.inside():
        keeper = Keeper(observe_only=True)
        keeper.write(Apply(maker.opened(point(policy(ALLOW_80), 1))))
        held = keeper.point.read_back()
        assert held and held.mode == "observe"
        assert keeper.verify(maker.opened(point(policy(ALLOW_81), 1))).drifts == ()
        keeper.close()


def test_what_others_do_while_very_much_is_written_is_found_and_without_it_the_whole_is_known(
    host: Namespace, maker: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_keeper, "_MOST_COMPARED", 100)
    with host.inside():
        keeper = Keeper()
        first = maker.opened(point(policy(ALLOW_80), 1, fleet(more=300)))
        assert keeper.write(Apply(first)) == [Applied(1, Result.DONE)]
        assert (keeper.notices(), keeper.verify(first).drifts) == ([], ())
        apply = keeper.point.apply

        def disturbed(ruleset: Ruleset, members: Members, interims: tuple[Interim, ...]) -> Receipt:
            done = apply(ruleset, members, interims)
            host.nft("delete element inet cellwall peer4 { 10.77.0.1 }\n")
            return done

        monkeypatch.setattr(keeper.point, "apply", disturbed)
        second = maker.opened(point(policy(ALLOW_80), 2, fleet(more=300)))
        done, *found = keeper.write(Apply(second))
        assert done == Applied(2, Result.DONE) and [type(one) for one in found] == [ForeignChange]
        keeper.close()
