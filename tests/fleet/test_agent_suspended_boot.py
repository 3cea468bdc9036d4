"""A host that was suspended and began anew: it enforces at the suspension's end, though no agent is ever started."""

from __future__ import annotations

import time
from pathlib import Path

from tests.fleet.agent_world import ALLOW_80, connects, point, policy, puppet, serve_tcp, start_agent
from tests.kernel.namespaces import needs_namespaces, pair

from cellwall.agent import AgentOptions, load_boot, suspend
from cellwall.wire import Facts, PointState

pytestmark = needs_namespaces


def test_after_a_reboot_without_an_agent_a_suspension_ends_in_the_kernel(tmp_path: Path) -> None:
    with pair() as (client, web), puppet(client, tmp_path / "ca") as controller:
        state = tmp_path / "state"
        controller.enrol(state)
        web.start(serve_tcp, 81)
        web.wait_for_port(81)
        agent = start_agent(web, state)
        controller.wait(Facts)
        controller.send(controller.bundle(point(policy(ALLOW_80), 1)))
        controller.receipt(1, PointState.ENFORCED)
        agent.stop()
        # The kernel forgets everything, and nobody but the unit that loads the policy runs.
        web.nft("delete table inet cellwall\n")
        began = time.monotonic()
        suspend(state, 3.0, "ticket 4711", time.time())
        assert web.call(load_boot, AgentOptions(state), time.time()) == 1
        assert connects(client, "10.77.0.2", 81)
        while connects(client, "10.77.0.2", 81, 0.2):
            assert time.monotonic() < began + 4.5, "it is suspended beyond its end"
        assert time.monotonic() > began + 2.5
        # What begins after the end has nothing to suspend.
        web.nft("delete table inet cellwall\n")
        assert web.call(load_boot, AgentOptions(state), time.time()) == 1
        assert not connects(client, "10.77.0.2", 81, 0.3)
