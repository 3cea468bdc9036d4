from __future__ import annotations

from ipaddress import ip_address

from cellwall.controller.ground import Ground
from cellwall.controller.health import unexpected
from cellwall.flows import Flow, FlowKey, FlowRecord, Outcome, Side
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import parse_policy

ENFORCED = 'modes: [{where: "", mode: enforce}]\n'
ALLOWED = ENFORCED + "rules: [{id: a, allow: tcp/80-90, from: role=web, to: role=db}]\n"
WEB, DB = ip_address("10.0.0.1"), ip_address("10.0.0.2")
FLEET = Fleet(
    (
        Workload("web-1", Labels({"role": "web"}), (WEB,), agent=True),
        Workload("db-1", Labels({"role": "db"}), (DB,), agent=True),
    ),
    (),
)
NEW, OLD = Ground(2, parse_policy([("a", ENFORCED)]), FLEET), Ground(1, parse_policy([("a", ALLOWED)]), FLEET)


def denied(port: int, revision: int = 2) -> Flow:
    key = FlowKey(WEB, DB, 6, port)
    record = FlowRecord(
        key=key,
        side=Side.EGRESS,
        reporter="web-1",
        outcome=Outcome.DENIED,
        would=Outcome.DENIED,
        rules=(),
        revision=revision,
        connections=1,
        first_seen=10.0,
        last_seen=10.0,
    )
    return Flow(key, record, None)


def test_what_the_base_lets_pass_and_the_new_revision_denies_is_named() -> None:
    assert unexpected([denied(80)], {}, NEW, OLD, 20.0) == (("`web-1` to `db-1` on tcp/80", "web-1"),)


def test_what_the_base_denies_too_and_what_another_revision_denied_does_not_count() -> None:
    assert unexpected([denied(22), denied(80, revision=1)], {}, NEW, OLD, 20.0) == ()


def test_what_the_plan_foresaw_does_not_count() -> None:
    cut = {"source": "10.0.0.1", "destination": "10.0.0.2", "protocol": 6, "port": 80}
    plan = {"replay": {"cut": [cut], "cut_count": 1}}
    assert unexpected([denied(80), denied(81)], plan, NEW, OLD, 20.0) == (("`web-1` to `db-1` on tcp/81", "web-1"),)


def test_of_more_than_a_plan_lists_as_many_are_taken_to_be_foreseen() -> None:
    plan: dict[str, object] = {"replay": {"cut": [], "cut_count": 2}}
    assert len(unexpected([denied(port) for port in (80, 81, 82)], plan, NEW, OLD, 20.0)) == 1
