"""A small fleet with a policy, and short ways to make flow records of it."""

from ipaddress import ip_address

from cellwall.flows import UNKNOWN, FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import parse_labels
from cellwall.policy import Flow, Identity, Policy, endpoint, parse_policy
from cellwall.traffic import parse_ports

NOW = 1_800_000_000.0
OUTSIDE = "192.0.2.9"

FLEET = Fleet(
    tuple(
        Workload(name, parse_labels(labels), (ip_address(f"10.0.0.{at}"), ip_address(f"fd00::{at}")), agent=agent)
        for at, (name, labels, agent) in enumerate(
            [
                ("web-1", "app=shop,env=prod,role=web", True),
                ("web-2", "app=shop,env=prod,role=web", True),
                ("db-1", "app=shop,env=prod,role=db", True),
                ("web-dev", "app=shop,env=dev,role=web", True),
                ("db-dev", "app=shop,env=dev,role=db", True),
                ("nas", "app=infra,role=storage", False),
                ("printer", "", False),
            ],
            1,
        )
    ),
    (Listener(ip_address("198.51.100.1"), 7443),),
)

POLICY = """
services:
  postgres: tcp/5432
networks:
  office: [192.0.2.0/24]
rules:
  - {id: web-to-db, allow: postgres, from: role=web, to: role=db, same: [app, env], owner: data, reason: it reads}
  - {id: office-in, allow: tcp/80, from: network:office, to: role=web, owner: web}
  - {id: no-dev, deny: any, from: env=dev, to: env=prod, owner: security}
  - {id: smb, wall: tcp/445, from: any, to: any, owner: security}
modes:
  - {where: "", mode: enforce}
  - {where: env=dev, mode: observe}
"""


def policy(*texts: str) -> Policy:
    """Parse documents."""
    return parse_policy([(f"{number}.yaml", text) for number, text in enumerate(texts or (POLICY,))])


def address(name: str) -> str:
    """Give the IPv4 address of a workload, or the name itself."""
    return str(FLEET.by_name[name].addresses[0]) if name in FLEET.by_name else name


def flow(source: str, destination: str, service: str = "tcp/5432", identity: Identity | None = None) -> Flow:
    """Make a flow between workloads or addresses."""
    first = parse_ports(service).spans[0].first
    ends = ip_address(address(source)), ip_address(address(destination))
    return Flow(endpoint(FLEET, ends[0], identity or Identity()), endpoint(FLEET, ends[1]), first >> 16, first & 0xFFFF)


def record(
    source: str,
    destination: str,
    service: str = "tcp/5432",
    side: Side = Side.EGRESS,
    outcome: Outcome = Outcome.ALLOWED,
    process: Process = UNKNOWN,
    connections: int = 1,
    last: float = 20.0,
) -> FlowRecord:
    """Make a flow record between workloads or addresses."""
    first = parse_ports(service).spans[0].first
    key = FlowKey(ip_address(address(source)), ip_address(address(destination)), first >> 16, first & 0xFFFF)
    return FlowRecord(key, "r", side, outcome, outcome, (), 1, connections, 10.0, last, process=process)
