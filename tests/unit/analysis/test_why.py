import pytest
from tests.unit.analysis.world import FLEET, NOW, POLICY, flow, policy

from cellwall.analysis import Miss, why
from cellwall.flows import Outcome, Side
from cellwall.policy import Action, Identity, Mode


def test_an_allowed_flow_names_the_rule_its_place_and_both_ends() -> None:
    told = why(policy(), FLEET, flow("web-1", "db-1"), NOW)
    assert (told.flow, told.service, told.outcome, told.would) == (
        "web-1 → db-1 tcp/5432",
        "tcp/5432",
        "allowed",
        "allowed",
    )
    (note,) = told.matching
    assert (note.id, note.action, note.place, note.decides) == ("web-to-db", Action.ALLOW, "0.yaml:7:5", True)
    assert (note.source, note.destination, note.owner, note.reason) == ("role=web", "role=db", "data", "it reads")
    assert note.sides == (Side.EGRESS, Side.INGRESS)
    assert (told.egress.workload, told.egress.mode, told.egress.labels) == (
        "web-1",
        Mode.ENFORCE,
        "app=shop,env=prod,role=web",
    )
    assert told.advice == (
        "egress: it passes at `web-1`, which is in mode enforce: the allow `web-to-db` (0.yaml:7:5)",
        "ingress: it passes at `db-1`, which is in mode enforce: the allow `web-to-db` (0.yaml:7:5)",
        "to stop it, remove or narrow `web-to-db`, or add a deny",
    )


def test_a_denied_flow_says_that_no_allow_outweighs_it() -> None:
    told = why(policy(), FLEET, flow("web-dev", "db-1"), NOW)
    assert (told.outcome, told.egress.verdict is not None) == (Outcome.DENIED, True)
    assert told.advice[-1] == "to let it pass, narrow `no-dev` (0.yaml:9:5): no allow outweighs a deny"
    assert told.advice[0].endswith("full enforcement would deny it")
    assert [(near.rule.id, near.miss) for near in told.near] == [("web-to-db", Miss.SAME)]
    assert told.near[0].words == "`env` is not the same: dev and prod"


def test_a_flow_that_no_rule_speaks_of_names_the_rule_that_nearly_does() -> None:
    told = why(policy(), FLEET, flow("web-1", "db-1", "tcp/5433"), NOW)
    assert told.matching == ()
    assert told.advice[2] == (
        "to let it pass, allow tcp/5433 from `app=shop,env=prod,role=web` to `app=shop,env=prod,role=db`"
    )
    assert told.advice[3] == "`web-to-db` (0.yaml:7:5) nearly allows it: it is about postgres, not tcp/5433"


def test_a_wall_is_named_too() -> None:
    told = why(policy(POLICY.replace("mode: enforce", "mode: guard")), FLEET, flow("web-1", "db-1", "tcp/445"), NOW)
    assert [note.id for note in told.matching] == ["smb"]
    assert "the wall `smb`" in told.advice[0]


def test_ends_without_a_point_and_without_labels_are_told() -> None:
    told = why(policy(), FLEET, flow("203.0.113.5", "printer", "tcp/80"), NOW)
    assert told.advice == (
        "egress: `203.0.113.5` has no point, so nothing is decided there",
        "ingress: `printer` has no point, so nothing is decided there",
    )
    assert (told.egress.workload, told.ingress.mode) == (None, None)
    inward = why(policy(), FLEET, flow("203.0.113.5", "web-1", "tcp/81"), NOW)
    assert "from a network that holds 203.0.113.5" in inward.advice[2]
    outward = why(policy(), FLEET, flow("web-1", "printer", "tcp/81"), NOW)
    assert "to `printer`, which has no labels yet" in outward.advice[2]


def test_a_lifeline_decides_and_is_built_in() -> None:
    told = why(policy(), FLEET, flow("web-1", "198.51.100.1", "tcp/7443"), NOW)
    assert [note.id for note in told.matching] == ["controller-channel"]
    assert "the lifeline `controller-channel`" in told.advice[0]
    assert told.advice[-1] == "no deny outweighs a lifeline"


def test_who_would_stop_a_written_lifeline_is_sent_to_it() -> None:
    text = "networks: {all: [0.0.0.0/0]}\nlifelines: [{id: ssh, allow: tcp/22, from: network:all, to: any}]"
    told = why(policy(text), FLEET, flow("web-1", "db-1", "tcp/22"), NOW)
    assert told.advice[-1].startswith("to stop it, narrow `ssh` (") and told.advice[-1].endswith("outweighs a lifeline")


@pytest.mark.parametrize(
    ("rule", "miss", "words"),
    [
        ("from: role=db, to: role=db", Miss.SOURCE, "`web-1` (app=shop,env=prod,role=web) is not role=db"),
        ("from: role=web, to: network:n", Miss.DESTINATION, "`db-1` (app=shop,env=prod,role=db) is not network:n"),
        ("from: any, to: any, staged: true", Miss.STAGED, "it is staged"),
        ("from: any, to: any, expires: 2020-01-01T00:00:00Z", Miss.TIME, "it has expired"),
        ("from: any, to: any, starts: 2060-01-01T00:00:00Z", Miss.TIME, "it has not started"),
        ("from: {workloads: any, as: {user: root}}, to: any", Miss.IDENTITY, "the process is user=a, not user=root"),
        ("from: network:names, to: any", None, ""),
    ],
)
def test_the_one_thing_in_which_a_rule_misses_is_named(rule: str, miss: Miss | None, words: str) -> None:
    text = (
        f"networks: {{n: [192.0.2.0/24], names: {{names: [example.com]}}}}\nrules: [{{id: r, allow: tcp/5432, {rule}}}]"
    )
    told = why(policy(text), FLEET, flow("web-1", "db-1", identity=Identity(user="a")), NOW)
    assert [(near.miss, near.words) for near in told.near] == ([(miss, words)] if miss else [])


def test_a_rule_that_no_point_can_express_is_a_near_miss() -> None:
    text = "services: {s: {ports: tcp/5432, http: {methods: GET}}}\nrules: [{id: r, allow: s, from: any, to: any}]"
    (near,) = why(policy(text), FLEET, flow("web-1", "db-1"), NOW).near
    assert near.miss is Miss.REFUSED
