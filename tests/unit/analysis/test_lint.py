import pytest
from tests.unit.analysis.world import FLEET, NOW, POLICY, policy

from cellwall.analysis import Check, Severity, caught_by_absence, lint
from cellwall.labels import parse_selector


def found(rule: str, head: str = "") -> list[tuple[Check, str, str]]:
    text = f"{head}\nrules: [{{owner: me, id: r, {rule}}}]"
    return [(one.check, one.message, one.hint) for one in lint(policy(text), FLEET, NOW)]


def test_a_sound_policy_has_no_findings() -> None:
    assert [one for one in lint(policy(), FLEET, NOW) if one.severity is not Severity.INFO] == []


@pytest.mark.parametrize(
    ("rule", "check", "message", "hint"),
    [
        (
            "allow: tcp/1, from: role=wep, to: any",
            Check.MATCHES_NOTHING,
            "`from: role=wep` matches no workload",
            "did you mean `role=web`?",
        ),
        (
            "allow: tcp/1, from: any, to: rolle=web",
            Check.MATCHES_NOTHING,
            "`to: rolle=web` matches no workload",
            "no workload has the label `rolle`; did you mean `role`?",
        ),
        (
            "allow: tcp/1, from: any, to: zone=x",
            Check.MATCHES_NOTHING,
            "`to: zone=x` matches no workload",
            "no workload has the label `zone`",
        ),
        (
            "allow: tcp/1, from: any, to: role=zzz",
            Check.MATCHES_NOTHING,
            "`to: role=zzz` matches no workload",
            "values of `role` are `db`, `storage`, `web`",
        ),
        (
            "allow: tcp/1, from: any, to: 'role=storage,app=shop'",
            Check.MATCHES_NOTHING,
            "`to: app=shop,role=storage` matches no workload",
            "its parts match, but never all on one workload",
        ),
        (
            "allow: tcp/1, from: role=storage, to: role=web, same: app",
            Check.NEVER_MATCHES,
            "no two workloads that it names share `app`",
            "",
        ),
        (
            "allow: tcp/1, from: role=web, to: role=db, expires: 2020-01-01T00:00:00Z",
            Check.EXPIRED,
            "the rule has expired",
            "remove it, or move its end",
        ),
        (
            "allow: tcp/1, from: role=web, to: role=db, starts: 2060-01-01T00:00:00Z",
            Check.NOT_STARTED,
            "the rule has not started",
            "",
        ),
        (
            "allow: tcp/1, from: role=web, to: role=db, staged: true",
            Check.STAGED,
            "the rule is staged: reported, not enforced",
            "",
        ),
        (
            "allow: tcp/1, from: env!=prod, to: any",
            Check.CAUGHT_BY_ABSENCE,
            "`from: env!=prod` also catches `nas`, `printer`, without that label",
            "ask for the label too: `env,env!=prod`",
        ),
        (
            "allow: tcp/1, from: '!env', to: any",
            Check.CAUGHT_BY_ABSENCE,
            "`from: !env` also catches `nas`, `printer`, without that label",
            "",
        ),
        (
            "allow: tcp/1, from: network:net, to: role=storage",
            Check.HALF,
            "no end has a point: nothing enforces it",
            "",
        ),
        (
            "deny: tcp/1, from: role=storage, to: role=web",
            Check.HALF,
            "the source has no point: only the destination enforces it",
            "",
        ),
        (
            "wall: tcp/1, from: role=web, to: network:net",
            Check.HALF,
            "the destination has no point: only the source enforces it",
            "",
        ),
    ],
)
def test_what_is_questionable_is_found(rule: str, check: Check, message: str, hint: str) -> None:
    head = "networks: {net: [192.0.2.0/24]}" if "network:" in rule else ""
    assert found(rule, head) == [(check, message, hint)]


def test_one_of_several_alternatives_may_match_nothing_yet() -> None:
    (one,) = lint(policy("rules: [{owner: me, id: r, allow: tcp/1, from: [role=web, role=late], to: any}]"), FLEET, NOW)
    assert (one.check, one.severity) == (Check.MATCHES_NOTHING, Severity.WARNING)
    (both,) = lint(policy("rules: [{owner: me, id: r, allow: tcp/1, from: [role=late, any], to: any}]"), FLEET, NOW)
    assert both.severity is Severity.WARNING
    dead = lint(policy("rules: [{owner: me, id: r, allow: tcp/1, from: [role=late, role=later], to: any}]"), FLEET, NOW)
    assert {one.severity for one in dead if one.check is Check.MATCHES_NOTHING} == {Severity.ERROR}


def test_an_end_that_matches_nothing_shares_nothing_and_is_said_once() -> None:
    told = found("allow: tcp/1, from: role=late, to: role=db, same: app")
    assert [check for check, _, _ in told] == [Check.MATCHES_NOTHING]


def test_a_selector_may_miss_though_each_of_its_parts_is_there() -> None:
    ((_, _, hint),) = found("allow: tcp/1, from: 'role in (web,late),app=infra', to: any")
    assert hint == "its parts match, but never all on one workload"
    told = found("allow: tcp/1, from: 'app!=shop,role=web', to: any")
    assert told == [(Check.MATCHES_NOTHING, "`from: app!=shop,role=web` matches no workload", hint)]


def test_a_rule_that_no_point_can_express_is_an_error() -> None:
    head = "services: {s: {ports: tcp/80, http: {methods: GET}}}"
    ((check, message, _),) = found("allow: s, from: role=web, to: role=db", head)
    assert (check, message) == (Check.REFUSED, "the rule is in force nowhere: no point can look into http yet")


def test_two_rules_that_say_the_same_are_found_whatever_their_words() -> None:
    text = """
    services: {db: tcp/5432}
    rules:
      - {id: a, owner: x, allow: db, from: [role=web, role=db], to: role=db}
      - {id: b, owner: y, allow: tcp/5432, from: [role=db, role=web], to: role=db}
    """
    (one,) = lint(policy(text), FLEET, NOW)
    assert (one.check, one.subject, one.message) == (Check.DUPLICATE, "b", "says the same as `a` (0.yaml:4:9)")


def test_names_that_nothing_uses_and_rules_that_nobody_owns_are_good_to_know() -> None:
    text = """
    services: {used: tcp/1, idle: tcp/2}
    networks: {used: [192.0.2.0/24], tested: [192.0.2.1], idle: [192.0.2.2]}
    rules: [{id: r, allow: used, from: network:used, to: role=web}]
    tests: [{id: t, from: network:tested, can: used, to: role=web}]
    """
    told = [(one.check, one.subject, one.severity) for one in lint(policy(text), FLEET, NOW)]
    assert told == [
        (Check.UNUSED, "idle", Severity.INFO),
        (Check.UNUSED, "idle", Severity.INFO),
        (Check.OWNERLESS, "r", Severity.INFO),
    ]


def test_modes_are_looked_at_too() -> None:
    text = "modes: [{where: role=wbe, mode: guard}, {where: env!=prod, mode: guard}]"
    told = [(one.check, one.subject, one.hint) for one in lint(policy(text), FLEET, NOW)]
    assert told == [
        (Check.MATCHES_NOTHING, "role=wbe", "did you mean `role=web`?"),
        (Check.CAUGHT_BY_ABSENCE, "env!=prod", ""),
    ]


def test_findings_are_in_order_of_place() -> None:
    places = [one.place for one in lint(policy(POLICY.replace("owner: data, ", "")), FLEET, NOW)]
    assert places == sorted(places)


def test_those_caught_by_absence_can_be_asked_for() -> None:
    assert caught_by_absence(parse_selector("env notin (prod,dev)"), FLEET) == ("nas", "printer")
    assert caught_by_absence(parse_selector("role,env!=prod"), FLEET) == ("nas",)
    assert caught_by_absence(parse_selector("env=prod"), FLEET) == ()


def test_long_lists_are_cut() -> None:
    ((_, message, _),) = found("allow: tcp/1, from: '!rack', to: any")
    assert message.endswith("`db-1`, `db-dev`, `nas` and 4 more, without that label")
