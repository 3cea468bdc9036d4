"""Orders end when the controller says, on hosts whose clocks are wrong, in a real kernel."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fleet.agent_world import ALLOW_80, Puppet, connects, point, policy, puppet, serve_tcp, start_agent
from tests.kernel.namespaces import Namespace, namespace, needs_namespaces, pair

from cellwall.agent import AgentOptions, load_boot
from cellwall.agent.clock import Clock
from cellwall.agent.events import Applied, Apply, Result
from cellwall.agent.keeper import Keeper
from cellwall.compile import OrderCard, Point, Way
from cellwall.controller.trust.ca import open_authority
from cellwall.policy import OrderKind
from cellwall.traffic import TCP
from cellwall.traffic import point as at
from cellwall.wire import Facts, PointState

pytestmark = needs_namespaces


def shut(expires: float) -> OrderCard:
    """TCP port 80, which the policy allows, is shut."""
    span = at(TCP, 80)
    return OrderCard((1 << 28) - 9, "contain-1", OrderKind.CONTAIN, (Way(),), ((span, span),), (), expires)


def ordered(expires: float, revision: int = 1) -> Point:
    made = point(policy(ALLOW_80), revision)
    return replace(made, ruleset=replace(made.ruleset, orders=(shut(expires),)))


@contextmanager
def world(folder: Path) -> Generator[tuple[Puppet, Namespace, Namespace]]:
    """A controller beside a host that serves port 80."""
    with pair() as (client, web), puppet(client, folder / "ca") as controller:
        controller.enrol(folder / "state")
        web.start(serve_tcp, 80)
        web.wait_for_port(80)
        yield controller, client, web


@pytest.mark.parametrize("ahead_s", [-3600.0, 3600.0])
def test_a_host_whose_clock_is_an_hour_off_enforces_an_order_and_ends_it(tmp_path: Path, ahead_s: float) -> None:
    with world(tmp_path) as (controller, client, web):
        controller.ahead_s = ahead_s
        start_agent(web, tmp_path / "state")
        told = controller.wait(Facts, lambda one: bool(one.troubles))
        assert ("ahead of" if ahead_s < 0 else "behind") in told.troubles[-1]
        controller.send(controller.bundle(ordered(controller.now() + 3.0)))
        began = time.monotonic()
        controller.receipt(1, PointState.ENFORCED)
        assert not connects(client, "10.77.0.2", 80, 0.3)
        while not connects(client, "10.77.0.2", 80, 0.3):
            assert time.monotonic() < began + 5.0, "it is still shut"
        assert time.monotonic() > began + 2.2


def test_an_order_that_is_over_is_not_in_force_and_the_receipt_says_so(tmp_path: Path) -> None:
    with world(tmp_path) as (controller, client, web):
        start_agent(web, tmp_path / "state")
        controller.wait(Facts)
        controller.send(controller.bundle(ordered(controller.now() - 10.0)))
        receipt = controller.receipt(1, PointState.RELAXED)
        assert receipt.reason == "over by the clock that this host goes by: `contain-1`"
        assert connects(client, "10.77.0.2", 80, 1.0)


def test_what_was_signed_keeps_a_host_whose_clock_was_set_back_from_reviving_an_order_at_boot(tmp_path: Path) -> None:
    with world(tmp_path) as (controller, client, web):
        # For the host it is an hour before what its journal says was signed.
        controller.ahead_s = 3600.0
        agent = start_agent(web, tmp_path / "state")
        controller.wait(Facts)
        controller.send(controller.bundle(ordered(controller.now() - 10.0)))
        controller.receipt(1, PointState.RELAXED)
        agent.stop()
        web.nft("delete table inet cellwall\n")
        web.call(load_boot, AgentOptions(tmp_path / "state"), time.time())
        assert connects(client, "10.77.0.2", 80, 1.0)


class Wall:
    """A wall clock that somebody sets."""

    def __init__(self) -> None:
        self.off = 0.0

    def __call__(self) -> float:
        return time.time() + self.off


@pytest.mark.parametrize("jump_s", [-7200.0, 7200.0])
def test_a_clock_that_jumps_while_an_order_runs_neither_ends_it_nor_prolongs_it(tmp_path: Path, jump_s: float) -> None:
    with namespace() as host, host.inside():
        wall, maker = Wall(), Puppet(open_authority(tmp_path / "ca", time.time()))
        clock = Clock(wall)
        clock.welcomed(time.time(), 0.0)
        keeper = Keeper(clock=clock)
        bundle = maker.opened(ordered(time.time() + 2.0))
        assert keeper.write(Apply(bundle))[0] == Applied(1, Result.DONE)
        wall.off = jump_s
        assert not clock.look()
        assert "jump who_contain-1" in keeper.point.listing()
        assert keeper.verify(bundle).drifts == () and keeper.refresh() == []
        assert "jump who_contain-1" in keeper.point.listing()
        time.sleep(2.1)
        assert "jump who_contain-1" not in keeper.point.listing()
        # Nobody repairs what ended by itself.
        assert keeper.verify(bundle).drifts == () and keeper.refresh() == []
        assert "contain-1" not in keeper.point.listing()
        keeper.close()


def test_a_clock_that_is_put_right_puts_the_end_of_an_order_right(tmp_path: Path) -> None:
    with namespace() as host, host.inside():
        wall, maker = Wall(), Puppet(open_authority(tmp_path / "ca", time.time()))
        wall.off = -3600.0
        clock = Clock(wall)
        keeper = Keeper(clock=clock)
        bundle = maker.opened(ordered(time.time() + 1.5))
        keeper.write(Apply(bundle))
        assert clock.welcomed(time.time(), 0.0)
        assert keeper.write(Apply(bundle))[0] == Applied(1, Result.DONE)
        time.sleep(1.0)
        assert "jump who_contain-1" in keeper.point.listing()
        time.sleep(1.2)
        assert "jump who_contain-1" not in keeper.point.listing()
        keeper.close()
