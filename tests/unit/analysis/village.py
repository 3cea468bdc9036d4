"""Two shops of three tiers each, a monitor, a way in and a printer; and questions about who reaches whom there."""

from ipaddress import ip_address

from cellwall.analysis.table.asked import Asked, read_ends
from cellwall.analysis.table.reach import Assume
from cellwall.analysis.table.table import Table
from cellwall.analysis.table.ways import Ways
from cellwall.inventory import Fleet, Workload
from cellwall.labels import parse_labels
from cellwall.policy import Policy, parse_policy

NOW = 1_800_000_000.0

HOSTS = [
    *((f"{app}-{role}", f"app={app},env={env},role={role}", True)
      for app, env in (("shop", "prod"), ("blog", "dev")) for role in ("web", "api", "db")),
    ("mon", "role=monitor", True),
    ("gate", "role=gate", True),
    ("printer", "", False),
]  # fmt: skip
FLEET = Fleet(
    tuple(
        Workload(name, parse_labels(labels), (ip_address(f"10.0.0.{at}"), ip_address(f"fd00::{at}")), agent=agent)
        for at, (name, labels, agent) in enumerate(HOSTS, 1)
    )
)
POLICY = """\
services: {postgres: tcp/5432}
networks: {office: [192.0.2.0/24]}
rules:
  - {id: web-to-api, allow: tcp/8080, from: role=web, to: role=api, same: [app, env]}
  - {id: api-to-db, allow: postgres, from: role=api, to: role=db, same: [app, env]}
  - {id: office-in, allow: tcp/443, from: network:office, to: role=web}
  - {id: metrics, allow: tcp/9100, from: role=monitor, to: any}
  - {id: ssh, allow: tcp/22, from: role=gate, to: role!=monitor}
  - {id: no-dev, deny: any, from: env=dev, to: env=prod}
modes: [{where: "", mode: enforce}]
"""


def read(text: str = POLICY, name: str = "a.yaml") -> Policy:
    """Read a document."""
    return parse_policy([(name, text)])


def asked(text: str, policy: Policy | None = None) -> Asked:
    """Read who a question is about."""
    return read_ends(text, policy or read(), FLEET)


def ways(*names: Asked, policy: Policy | None = None, without: str = "", assume: Assume = Assume.ENFORCE) -> Ways:
    """Lay the ways of the village."""
    gone = frozenset(without.split())
    return Ways(Table, policy or read(), FLEET, NOW, assume, without=gone, asked=names)
