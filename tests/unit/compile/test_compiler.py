"""A point is given what it needs and nothing else, and says what it cannot express."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.unit.compile.worlds import DB, DEV, FLEET, NOW, PLC, WEB, WEB6, compiled, policy

from cellwall.compile import (
    EVERYONE,
    Canary,
    Misfit,
    Point,
    compile_fleet,
    next_change,
    rule_numbers,
    rules_in_force,
)
from cellwall.flows import Side
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import NOBODY, Action, Identity, Mode


def point(text: str, name: str = "db", **more: object) -> Point:
    return compiled(text, **more).points[name]  # type: ignore[arg-type]


# --- which points, which rules ---


def test_only_workloads_with_an_agent_have_a_point() -> None:
    assert sorted(compiled("rules: []").points) == ["db", "dev", "web"]


def test_a_point_holds_the_rules_that_touch_it_and_the_peers_that_they_name() -> None:
    text = """
    rules:
      - {id: in, allow: tcp/1, from: role=web, to: role=db}
      - {id: out, allow: tcp/2, from: role=db, to: role=plc}
      - {id: other, allow: tcp/3, from: role=web, to: role=plc}
    """
    one = point(text)
    assert [card.id for card in sorted(one.ruleset.rules, key=lambda card: card.id)] == ["in", "out"]
    assert set(one.members) == {a.packed for a in (WEB, WEB6, DEV, PLC)}
    assert {card.title for card in one.ruleset.classes} == {"role=web", "role=plc"}
    assert point(text, "dev").ruleset.classes == tuple(
        card for card in point(text, "web").ruleset.classes if card.title in {"role=db", "role=plc"}
    )


def test_a_rule_for_everyone_needs_no_members() -> None:
    one = point("rules: [{id: r, allow: tcp/1, from: any, to: any}]")
    assert one.members == {}
    assert one.ruleset.classes == one.ruleset.networks == ()
    assert {entry.peer for face in one.ruleset.faces for entry in (*face.ingress, *face.egress)} == {EVERYONE}


def test_what_a_class_has_in_common_with_everyone_is_written_once() -> None:
    text = "rules: [{id: all, allow: any, from: any, to: any}, {id: no, deny: tcp/5, from: role=web, to: role=db}]"
    own = next(face for face in point(text).ruleset.faces if DB in face.addresses)
    numbers = rule_numbers(policy(text).by_id)
    assert [(entry.first & 0xFFFF, entry.action, entry.rules) for entry in own.ingress if entry.peer] == [
        (5, Action.DENY, (numbers["no"],))
    ]


def test_a_rule_hidden_by_another_brings_no_peers() -> None:
    text = "rules: [{id: no, deny: any, from: any, to: any}, {id: yes, allow: tcp/5, from: role=web, to: role=db}]"
    one = point(text)
    assert one.members == {}
    assert [card.id for card in one.ruleset.rules] == ["no"]


def test_networks_come_with_the_rules_that_name_them() -> None:
    text = "rules: [{id: r, allow: any, from: 'network:office', to: role=db}]"
    assert len(point(text).ruleset.networks) == 1
    assert point(text, "web").ruleset.networks == ()


def test_who_shares_no_value_is_touched_by_no_rule_that_wants_one() -> None:
    fleet = Fleet((*FLEET.workloads, Workload("bare", Labels(), (ip_address("10.0.0.9"),))))
    text = "rules: [{id: r, allow: any, from: any, to: any, same: env}]"
    assert point(text, "bare", fleet=fleet).ruleset.rules == ()
    assert set(point(text, "web").members) == {a.packed for a in (WEB, WEB6, DB)}


# --- faces ---


def test_each_class_of_own_addresses_has_a_face_and_other_addresses_have_one() -> None:
    text = "networks: {v6: 'fd00::/64'}\nrules: [{id: r, allow: any, from: any, to: 'network:v6'}]"
    faces = point(text, "web").ruleset.faces
    assert [face.addresses for face in faces] == [(WEB,), (WEB6,), ()]
    assert [len(face.ingress) for face in faces] == [0, 1, 0]


def test_an_address_that_another_workload_owns_is_not_ours() -> None:
    thief = Workload("thief", Labels({"role": "db"}), (WEB,), epoch=9.0)
    text = "rules: [{id: r, allow: any, from: any, to: role=web}]"
    points = compiled(text, fleet=Fleet((*FLEET.workloads, thief))).points
    assert [face.addresses for face in points["web"].ruleset.faces] == [(WEB6,), ()]
    assert [face.addresses for face in points["thief"].ruleset.faces] == [(WEB,), ()]


def test_each_combination_of_users_and_units_that_rules_ask_for_has_a_face() -> None:
    faces = point(
        """
        rules:
          - {id: a, allow: any, from: {workloads: role=web, as: {user: a}}, to: any}
          - {id: u, deny: tcp/1, from: {workloads: any, as: {unit: u}}, to: any}
          - {id: no, allow: any, from: {workloads: role=db, as: {user: z}}, to: any}
        """,
        "web",
    ).ruleset.faces
    own = [face for face in faces if face.addresses]
    assert [face.identity for face in own] == [
        NOBODY,
        Identity(user="a", unit="u"),
        Identity(user="a"),
        Identity(unit="u"),
    ]
    assert [face.identity for face in faces if not face.addresses] == [NOBODY, Identity(unit="u")]
    assert all(face.ingress == () for face in faces if face.identity)
    assert len(own[1].entries(Side.EGRESS)) > len(own[2].entries(Side.EGRESS))


def test_an_allow_for_an_identity_there_lets_through_here_and_a_deny_does_not() -> None:
    text = """
    rules:
      - {id: yes, allow: tcp/1, from: {workloads: role=web, as: {user: a}}, to: role=db}
      - {id: no, deny: tcp/2, from: {workloads: role=web, as: {user: a}}, to: role=db}
    """
    assert [card.id for card in point(text).ruleset.rules] == ["yes"]


def test_a_rule_for_one_side_is_in_force_there_alone() -> None:
    meant = policy("rules: [{id: r, allow: tcp/1, from: any, to: any}]")
    meant = replace(meant, rules=(replace(meant.rules[0], sides=frozenset({Side.EGRESS})),))
    face = compile_fleet(meant, FLEET, 1, NOW).points["db"].ruleset.faces[0]
    assert (len(face.ingress), len(face.egress)) == (0, 1)


def test_classes_that_the_same_rules_name_have_the_same_entries() -> None:
    one = point("rules: [{id: r, allow: tcp/1, from: [role=web, role=plc], to: role=db}]")
    web, plc = one.ruleset.faces[0].ingress
    assert web.peer != plc.peer and replace(web, peer=0) == replace(plc, peer=0)


# --- what a point says of itself ---


def test_a_ruleset_names_its_workload_revision_and_mode() -> None:
    ruleset = compile_fleet(policy("rules: []", "guard"), FLEET, 42, NOW).points["web"].ruleset
    assert (ruleset.workload, ruleset.revision, ruleset.mode) == ("web", 42, Mode.GUARD)


def test_a_card_says_where_a_rule_was_written_and_until_when_it_holds() -> None:
    (card,) = point("""
        services: {pg: tcp/5}
        rules: [{id: r, allow: [pg, tcp/6], from: any, to: any, log: true, expires: 2040-01-01T00:00:00Z}]
        """).ruleset.rules
    assert (card.id, card.action, card.log, card.expires, card.place, card.services) == (
        "r",
        Action.ALLOW,
        True,
        2_208_988_800.0,
        "p.yaml:3:9",
        "pg, tcp/6",
    )


def test_the_built_in_lifelines_come_along_and_the_controllers_where_there_are_any() -> None:
    ids = ["icmp-errors", "neighbour-discovery", "dhcp-request", "dhcp-answer"]
    assert [card.id for card in point("rules: []").ruleset.lifelines] == [*ids, "controller-channel"]
    assert point("rules: []").ruleset.lifelines[-1].to == (ip_address("198.51.100.1"),)
    alone = compiled("rules: []", fleet=Fleet(FLEET.workloads)).points["db"]
    assert [card.id for card in alone.ruleset.lifelines] == ids


# --- canaries ---


def canaries(text: str, name: str = "web") -> tuple[Canary, ...]:
    return point(text, name).ruleset.canaries


def test_a_canary_is_for_the_agents_of_its_source_and_leads_to_others() -> None:
    text = "tests: [{id: t, from: role=web, can: [udp/53, tcp/5432-5433], to: app=shop, canary: true}]"
    assert canaries(text) == (Canary("t", (DB, DEV), 5432),)
    assert canaries(text, "dev") == (Canary("t", (DB, WEB, WEB6), 5432),)
    assert canaries(text, "db") == ()


@pytest.mark.parametrize(
    "text",
    [
        "tests: [{id: t, from: role=web, can: tcp/1, to: role=db}]",
        "tests: [{id: t, from: role=web, cannot: tcp/1, to: role=db}]",
        "tests: [{id: t, from: role=web, can: udp/1, to: role=db, canary: true}]",
        "tests: [{id: t, from: role=web, can: tcp/1, to: role=nobody, canary: true}]",
    ],
)
def test_what_cannot_be_tried_is_no_canary(text: str) -> None:
    assert canaries(text) == ()


def test_a_canary_leads_to_those_addresses_of_a_network_that_are_in_it() -> None:
    text = "networks: {v4: 10.0.0.0/24}\ntests: [{id: t, from: role=db, can: tcp/1, to: 'network:v4', canary: true}]"
    assert canaries(text, "db") == (Canary("t", (DEV, PLC, WEB), 1),)


def test_a_canary_has_few_addresses() -> None:
    many = Workload("many", Labels({"role": "db"}), tuple(ip_address(f"10.1.0.{n}") for n in range(1, 50)))
    text = "tests: [{id: t, from: role=web, can: tcp/1, to: role=db, canary: true}]"
    (canary,) = compiled(text, fleet=Fleet((*FLEET.workloads, many))).points["web"].ruleset.canaries
    assert len(canary.addresses) == 8


# --- misfits ---

ARRIVES = "the host point cannot tell the local process of a connection that arrives"
BY_PATH = "the host point cannot tell programs by path; use `user` or `unit`"


@pytest.mark.parametrize(
    ("rule", "name", "wanted"),
    [
        ("from: any, to: {workloads: role=db, as: {user: a}}", "db", ARRIVES),
        ("from: any, to: {workloads: role=db, as: {user: a}}", "web", ""),
        ("from: {workloads: role=web, as: {exe: /bin/a}}, to: any", "web", BY_PATH),
        ("from: {workloads: role=web, as: {exe: /bin/a}}, to: any", "db", ""),
        ("from: {workloads: role=web, as: {user: a}}, to: any", "web", ""),
        ("from: {workloads: 'network:office', as: {exe: /bin/a}}, to: any", "web", ""),
        ("from: 'network:dns', to: role=db", "db", "no point can follow the DNS names of `network:dns` yet"),
        ("from: 'network:dns', to: role=db", "web", ""),
    ],
)
def test_a_point_says_what_it_cannot_express_of_its_own_rules(rule: str, name: str, wanted: str) -> None:
    text = f"networks: {{dns: {{names: a.example}}}}\nrules: [{{id: r, allow: any, {rule}}}]"
    assert point(text, name).misfits == ((Misfit("r", wanted),) if wanted else ())


def test_the_rest_of_a_rule_that_a_point_cannot_express_in_part_is_in_force() -> None:
    text = "rules: [{id: r, allow: any, from: [{workloads: role=web, as: {exe: /bin/a}}, env=dev], to: role=plc}]"
    assert (point(text, "web").ruleset.rules, point(text, "web").misfits) == ((), (Misfit("r", BY_PATH),))
    dev = point(text, "dev")
    assert [card.id for card in dev.ruleset.rules] == ["r"] and dev.misfits == (Misfit("r", BY_PATH),)


def test_a_lifeline_that_no_point_can_express_is_told() -> None:
    text = "networks: {dns: {names: a.example}}\nlifelines: [{id: l, allow: tcp/1, from: 'network:dns', to: any}]"
    assert point(text).misfits == (Misfit("l", "no point can follow the DNS names of `network:dns` yet"),)


@pytest.mark.parametrize("extra", ["staged: true", "expires: 2020-01-01T00:00:00Z", "starts: 2040-01-01T00:00:00Z"])
def test_a_rule_that_is_not_to_be_in_force_is_no_misfit(extra: str) -> None:
    text = f"rules: [{{id: r, allow: any, from: any, to: {{workloads: role=db, as: {{user: a}}}}, {extra}}}]"
    assert point(text).misfits == ()


# --- time and numbers ---


def test_rules_in_force_are_those_in_time_not_staged_and_expressible() -> None:
    text = """
    networks: {dns: {names: a.example}}
    lifelines: [{id: line, allow: tcp/1, from: "network:office", to: any}]
    rules:
      - {id: now, allow: any, from: any, to: any}
      - {id: over, allow: any, from: any, to: any, expires: 2020-01-01T00:00:00Z}
      - {id: later, allow: any, from: any, to: any, starts: 2040-01-01T00:00:00Z}
      - {id: staged, allow: any, from: any, to: any, staged: true}
      - {id: refused, allow: any, from: "network:dns", to: any}
    """
    assert [rule.id for rule in rules_in_force(policy(text), NOW)] == ["line", "now"]
    assert [rule.id for rule in rules_in_force(policy(text), 2_208_988_800.0)] == ["line", "later", "now"]


def test_the_next_change_is_the_next_start_or_end() -> None:
    meant = policy("""
        rules:
          - {id: a, allow: any, from: any, to: any, starts: 2040-01-01T00:00:00Z, expires: 2041-01-01T00:00:00Z}
          - {id: b, allow: any, from: any, to: any, expires: 2020-01-01T00:00:00Z}
        """)
    assert next_change(meant, NOW) == 2_208_988_800.0
    assert next_change(meant, 2_208_988_800.0) == 2_240_611_200.0
    assert next_change(meant, 2_240_611_200.0) is None
    assert next_change(policy("rules: []"), NOW) is None


def test_the_number_of_a_rule_is_made_from_its_id() -> None:
    one = rule_numbers(policy("rules: [{id: a, allow: tcp/1, from: any, to: any}]").by_id)
    two = rule_numbers(
        policy("rules: [{id: b, deny: any, from: any, to: any}, {id: a, deny: tcp/9, from: any, to: any}]").by_id
    )
    assert one["a"] == two["a"] != two["b"]
    assert all(0 < number < 2**28 for number in two.values())
