import pytest
from tests.unit.analysis.world import NOW

from cellwall.analysis import Check, Severity, lint
from cellwall.analysis.linting.covered import Covered
from cellwall.policy import Outcome, Policy, decide_at, parse_policy

HEAD = """
labels: {env: {values: [prod, dev]}, role: {}, app: {}}
networks: {all: [10.0.0.0/8], low: [10.0.0.0/9], high: [10.128.0.0/9], here: [127.0.0.0/8], six: ["2001:db8::/64"]}
"""


def read(*rules: str, lifelines: str = "") -> Policy:
    lines = [f"  - {{id: {'abcdefgh'[number]}, owner: me, {rule}}}" for number, rule in enumerate(rules)]
    tail = f"lifelines: [{lifelines}]" if lifelines else ""
    return parse_policy([("p.yaml", "\n".join([HEAD, "rules:", *lines, tail]))])


def told(*rules: str, lifelines: str = "") -> list[tuple[str, Check, tuple[str, ...]]]:
    """What never decides, as subject, check and proof."""
    return [(one.subject, one.check, one.proof) for one in Covered(read(*rules, lifelines=lifelines), NOW).never]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            ("allow: tcp/80, from: role=web, to: role=db", "allow: tcp, from: 'role in (web,api)', to: role"),
            ("a", Check.SHADOWED, ("b",)),
        ),
        (
            ("allow: tcp/80, from: network:low, to: any", "allow: tcp/80-81, from: network:all, to: any"),
            ("a", Check.SHADOWED, ("b",)),
        ),
        (
            (
                "allow: tcp/80, from: network:all, to: any",
                "allow: tcp/80-81, from: network:low, to: any",
                "allow: tcp/80-81, from: network:high, to: any",
            ),
            ("a", Check.REDUNDANT, ("b", "c")),
        ),
        (
            (
                "allow: tcp/1-9, from: env, to: any",
                "allow: tcp/1-9, from: env=prod, to: any",
                "allow: tcp/1-9, from: env=dev, to: any",
            ),
            ("c", Check.SHADOWED, ("a",)),
        ),
        (
            ("allow: tcp/80, from: [role=web, role=db], to: any", "allow: tcp/80, from: 'role in (db,web)', to: any"),
            ("a", Check.DUPLICATE, ("b",)),
        ),
        (
            ("allow: tcp/80, from: role=web, to: role=db", "deny: tcp/80, from: any, to: role=db"),
            ("a", Check.CONTRADICTED, ("b",)),
        ),
        (
            (
                "allow: tcp/80, from: role=web, to: env",
                "deny: tcp, from: any, to: env=prod",
                "deny: any, from: role=web, to: env=dev",
            ),
            ("a", Check.CONTRADICTED, ("b", "c")),
        ),
        (
            ("wall: tcp/80, from: role=web, to: role=db", "allow: tcp/80, from: any, to: role=db"),
            ("a", Check.UNREACHABLE_WALL, ("b",)),
        ),
        (
            (
                "wall: tcp/80, from: env, to: role=db",
                "allow: tcp/80, from: env=dev, to: role=db",
                "deny: tcp/80, from: env=prod, to: any",
            ),
            ("a", Check.UNREACHABLE_WALL, ("b", "c")),
        ),
        (
            ("wall: tcp/80, from: role=web, to: role=db", "wall: tcp/80, from: any, to: any"),
            ("a", Check.SHADOWED, ("b",)),
        ),
        (("allow: icmp/3, from: role=web, to: any",), ("a", Check.REDUNDANT, ("icmp-errors",))),
        (("deny: icmp/3, from: role=web, to: any",), ("a", Check.CONTRADICTED, ("icmp-errors",))),
        (
            (
                "allow: tcp/80, from: env, to: role=db",
                "allow: tcp/80-89, from: env=dev, to: role=db",
                "deny: tcp/80, from: env=prod, to: any",
            ),
            ("a", Check.REDUNDANT, ("b", "c")),
        ),
        (
            ("allow: tcp/80, from: {workloads: any, as: {user: web}}, to: any", "allow: tcp/80, from: any, to: any"),
            ("a", Check.SHADOWED, ("b",)),
        ),
        (
            (
                "allow: tcp/80, from: any, to: any, expires: 2050-01-01T00:00:00Z",
                "allow: tcp/80, from: any, to: any",
            ),
            ("a", Check.SHADOWED, ("b",)),
        ),
        (("allow: tcp/80, from: 'env=prod,env=dev', to: any",), ("a", Check.NEVER_MATCHES, ())),
        (("allow: tcp/80, from: network:low, to: network:six",), ("a", Check.NEVER_MATCHES, ())),
        (("allow: tcp/80, from: any, to: network:here",), ("a", Check.NEVER_MATCHES, ())),
        (("allow: tcp/80, from: role=a, to: role=b, same: role",), ("a", Check.NEVER_MATCHES, ())),
    ],
)
def test_rules_that_never_decide_are_found_with_the_rules_that_prove_it(
    rules: tuple[str, ...], expected: tuple[str, Check, tuple[str, ...]]
) -> None:
    assert expected in told(*rules)


@pytest.mark.parametrize(
    "rules",
    [
        # An identity, a time, a side or a vocabulary that is open makes the difference.
        ("allow: tcp/80, from: any, to: any", "allow: tcp/80, from: {workloads: any, as: {user: web}}, to: any"),
        ("allow: tcp/80, from: any, to: any", "allow: tcp/80, from: any, to: any, expires: 2050-01-01T00:00:00Z"),
        ("allow: tcp/80, from: any, to: any", "allow: tcp/80, from: any, to: any, starts: 2050-01-01T00:00:00Z"),
        ("allow: tcp/80, from: any, to: any", "allow: tcp/80, from: any, to: any, staged: true"),
        ("allow: tcp/80, from: role, to: any", "allow: tcp/80, from: role=a, to: any"),
        (
            "allow: tcp/80, from: any, to: any",
            "allow: tcp/80, from: env, to: any",
            "allow: tcp/80, from: '!env', to: any",
        ),
        # A far end's identity is not seen: the deny does not speak there.
        ("allow: tcp/80, from: role=a, to: any", "deny: tcp/80, from: {workloads: any, as: {user: web}}, to: any"),
    ],
)
def test_a_rule_that_decides_something_is_left_alone(rules: tuple[str, ...]) -> None:
    assert not [one for one in told(*rules) if one[0] == "a"]


def test_all_that_is_found_can_be_taken_away_at_once() -> None:
    same = "allow: tcp/80, from: role=web, to: role=db"
    assert told(same, same, same) == [("c", Check.DUPLICATE, ("a",)), ("b", Check.DUPLICATE, ("a",))]


def test_a_lifeline_that_another_holds_is_found_too() -> None:
    lines = "{id: x, allow: tcp/22, from: network:low, to: any}, {id: y, allow: tcp/22, from: network:all, to: any}"
    assert told("deny: tcp/22, from: network:low, to: any", lifelines=lines) == [
        ("x", Check.SHADOWED, ("y",)),
        ("a", Check.CONTRADICTED, ("y",)),
    ]


def test_a_deny_in_part_is_good_to_know_with_the_overlap() -> None:
    policy = read(
        "allow: tcp/1-9, from: role=web, to: any",
        "deny: tcp/5-20, from: env=dev, to: env=prod",
        "deny: tcp/7, from: network:low, to: any",
    )
    (one,) = [one for one in lint(policy, None, NOW) if one.check is Check.PARTLY_CONTRADICTED]
    assert (one.severity, one.subject, one.proof) == (Severity.INFO, "a", ("b", "c"))
    assert one.message == "`b`, `c` deny some of it: tcp/5-9 from `env=dev,role=web` to `env=prod`"
    assert " from a workload `env=dev,role=web`" in one.example


def test_the_overlap_names_shared_labels_and_networks() -> None:
    policy = read(
        "allow: tcp/1, from: network:all, to: any",
        "deny: tcp/1, from: network:low, to: any",
        "allow: tcp/2, from: '!env', to: env!=dev, same: app",
        "deny: tcp/2, from: any, to: env",
    )
    told = [one.message for one in Covered(policy, NOW).partly()]
    assert told == [
        "`b` denies some of it: tcp/1 from `network:low` to any",
        "`d` denies some of it: tcp/2 from `!env` to `env=prod`, with the same `app`",
    ]


def test_what_a_lifeline_lets_through_is_not_denied_in_part() -> None:
    policy = read("allow: icmp, from: any, to: any", "deny: icmp/3, from: any, to: role=db")
    assert not list(Covered(policy, NOW).partly())


def test_a_rule_that_decides_has_a_flow_to_show_for_it() -> None:
    policy = read(
        "allow: tcp/80, from: role=web, to: role=db", "allow: tcp/80-81, from: role=web, to: 'role=db,env=prod'"
    )
    covered = Covered(policy, NOW)
    shown = covered.example("a")
    assert shown is not None and covered.example("nothing") is None
    verdict = decide_at(shown.side, policy, shown.fleet, shown.flow, shown.moment)
    assert (verdict.because, verdict.would) == (("a",), Outcome.ALLOWED)


def test_a_flow_is_told_in_words() -> None:
    policy = read(
        "allow: tcp/80, from: {workloads: role=web, as: {user: www}}, to: any, starts: 2050-01-01T00:00:00Z",
        "allow: tcp/80, from: any, to: any, expires: 2050-01-01T00:00:00Z",
    )
    shown = Covered(policy, NOW).example("a")
    assert shown is not None
    assert shown.words.endswith("later")
    plain = Covered(read("deny: tcp/80, from: {workloads: any, as: {user: www}}, to: '!role'"), NOW).example("a")
    assert plain is not None
    assert " as user=www to a workload without labels" in plain.words
    outside = Covered(read("allow: gre, from: any, to: any", "allow: gre, from: any, to: role"), NOW).example("a")
    assert outside is not None and "(no workload)" in outside.words


def test_rules_too_entangled_to_be_compared_are_said_to_be() -> None:
    policy = read("allow: tcp/80, from: any, to: any", "allow: tcp/80, from: env, to: any")
    covered = Covered(policy, NOW, most_steps=0)
    assert {one.check for one in covered.undecided} == {Check.UNDECIDED}
    assert covered.never == []


def test_an_example_has_no_labels_but_those_that_matter() -> None:
    policy = read("allow: tcp/80, from: role=web, to: any", "deny: tcp/80, from: env=dev, to: app=shop")
    (one,) = Covered(policy, NOW).partly()
    assert one.example == "tcp/80 from a workload `env=dev,role=web` to a workload `app=shop`, on ingress"
    policy = read("allow: tcp/80, from: role=web, to: network:all", "deny: tcp, from: role=web, to: any")
    shown = Covered(policy, NOW).example("b")
    assert shown is not None and "from a workload `role=web` (" in shown.words


def test_an_example_keeps_a_label_that_a_lifeline_wants_absent() -> None:
    lines = "{id: x, allow: tcp/80, from: '!env', to: network:all}"
    policy = read(
        "allow: tcp/80-81, from: role=web, to: network:all", "deny: tcp/80, from: role, to: any", lifelines=lines
    )
    (one,) = Covered(policy, NOW).partly()
    assert "`env=" in one.example
