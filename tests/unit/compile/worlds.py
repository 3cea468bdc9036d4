"""A small fleet and policies for it."""

from __future__ import annotations

import textwrap
from ipaddress import ip_address

from cellwall.compile import Compiled, compile_fleet
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels
from cellwall.policy import Policy, parse_policy

NOW = 1_800_000_000.0
WEB, WEB6, DB, DEV, PLC = (ip_address(a) for a in ("10.0.0.1", "fd00::1", "10.0.0.2", "10.0.0.3", "10.0.0.4"))
OFFICE, ELSEWHERE, CONTROLLER = (ip_address(a) for a in ("10.20.0.7", "192.0.2.1", "198.51.100.1"))
FLEET = Fleet(
    (
        Workload("web", Labels({"app": "shop", "role": "web", "env": "prod"}), (WEB, WEB6)),
        Workload("db", Labels({"app": "shop", "role": "db", "env": "prod"}), (DB,)),
        Workload("dev", Labels({"app": "shop", "role": "web", "env": "dev"}), (DEV,)),
        Workload("plc", Labels({"role": "plc"}), (PLC,), agent=False),
    ),
    (Listener(CONTROLLER, 7443),),
)


def policy(text: str, mode: str = "enforce") -> Policy:
    """A policy with the networks `office` and `all`, one mode for all."""
    common = f"networks: {{office: 10.20.0.0/16, all: [0.0.0.0/0, '::/0']}}\nmodes: [{{where: any, mode: {mode}}}]\n"
    return parse_policy([("common.yaml", common), ("p.yaml", textwrap.dedent(text))])


def compiled(text: str, mode: str = "enforce", fleet: Fleet = FLEET, now: float = NOW) -> Compiled:
    """The points of the fleet under such a policy."""
    return compile_fleet(policy(text, mode), fleet, 1, now)
