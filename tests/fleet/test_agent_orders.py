"""Orders of an emergency at the agent's hold on a real kernel."""

from __future__ import annotations

import time
from collections.abc import Generator
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.fleet.agent_world import ALLOW_80, Puppet, point, policy
from tests.kernel.namespaces import Namespace, namespace, needs_namespaces

from cellwall.agent.events import Applied, Apply, ApplyMembers, ForeignChange, Result
from cellwall.agent.keeper import Keeper
from cellwall.compile import OrderCard, Way
from cellwall.controller.trust.ca import open_authority
from cellwall.flows import Outcome, Side
from cellwall.policy import OrderKind, Tier
from cellwall.traffic import TCP
from cellwall.traffic import point as at
from cellwall.wire import HeldVerdict, Holds

pytestmark = needs_namespaces
HERE, PEER = ip_address("10.99.0.1"), ip_address("10.99.0.2")


@pytest.fixture
def host() -> Generator[Namespace]:
    with namespace() as made:
        yield made


@pytest.fixture
def maker(tmp_path: Path) -> Puppet:
    return Puppet(open_authority(tmp_path / "ca", time.time()))


def shut(lasts_s: float) -> OrderCard:
    """TCP port 80, which the policy allows, is shut."""
    span = at(TCP, 80)
    return OrderCard(
        (1 << 28) - 9, "contain-1", OrderKind.CONTAIN, (Way(),), ((span, span),), (), time.time() + lasts_s
    )


def asked(keeper: Keeper) -> HeldVerdict:
    question = Holds(source=PEER.packed, destination=HERE.packed, protocol=TCP, port=80, side=Side.INGRESS)
    answer = keeper.answer(question)
    assert isinstance(answer, HeldVerdict), answer
    return answer


def test_an_order_is_written_beside_the_rules_named_when_asked_and_ends_by_itself(
    host: Namespace, maker: Puppet
) -> None:
    with host.inside():
        keeper = Keeper()
        bundle = maker.opened(point(policy(ALLOW_80), 1))
        keeper.write(Apply(bundle))
        before = asked(keeper)
        ordered = bundle.with_orders((shut(2.5),))
        assert keeper.write(ApplyMembers(ordered, {}, (), orders=True)) == [Applied(1, Result.DONE)]
        assert keeper.notices() == []
        found = asked(keeper)
        assert (found.outcome, found.tier, found.rules) == (Outcome.DENIED, Tier.ORDER, ("contain-1",))
        time.sleep(2.8)
        # Nobody did anything: no drift, and the kernel says what it said before.
        assert keeper.verify(ordered).drifts == ()
        assert keeper.refresh() == []
        assert asked(keeper) == before
        assert "contain-1" not in keeper.point.listing()
        keeper.close()


def test_what_others_do_to_an_order_is_noticed(host: Namespace, maker: Puppet) -> None:
    with host.inside():
        keeper = Keeper()
        bundle = maker.opened(point(policy(ALLOW_80), 1))
        keeper.write(Apply(bundle))
        ordered = bundle.with_orders((shut(60.0),))
        keeper.write(ApplyMembers(ordered, {}, (), orders=True))
        host.nft("flush map inet cellwall order_contain-1\n")
        assert [type(one) for one in keeper.notices()] == [ForeignChange]
        assert keeper.verify(ordered).drifts
        assert keeper.write(Apply(ordered))[0] == Applied(1, Result.DONE)
        keeper.close()


def test_a_host_that_only_observes_drops_nothing_by_order_either(host: Namespace, maker: Puppet) -> None:
    with host.inside():
        keeper = Keeper(observe_only=True)
        bundle = maker.opened(point(policy(ALLOW_80), 1))
        keeper.write(Apply(bundle.with_orders((shut(60.0),))))
        keeper.write(ApplyMembers(bundle.with_orders((shut(61.0),)), {}, (), orders=True))
        assert "contain-1" not in keeper.point.listing()
        keeper.close()
