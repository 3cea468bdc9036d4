import pytest
from tests.unit.analysis.village import FLEET, NOW, read

from cellwall.analysis.table.asked import QuestionError
from cellwall.analysis.table.table import Table
from cellwall.analysis.walks.prove import Proof, prove, read_claim


def proven(claim: str, hops: int | None = None, text: str | None = None) -> Proof:
    policy = read(text) if text else read()
    return prove(Table, policy, FLEET, NOW, read_claim(claim, policy, FLEET, hops=hops))


def test_a_claim_that_holds_says_what_was_looked_at_and_which_rules_let_the_named_ones_through() -> None:
    told = proven("only role=api may-reach role=db on postgres", hops=1)
    assert told.holds and told.at_once and not told.vacuous and told.path == ()
    assert [str(rule) for rule in told.because] == ["`api-to-db` (a.yaml:5:5)"]
    assert (told.destinations, told.ports) == (2, 1)
    assert told.pairs == (told.sources - 2) * 2 + 2


def test_a_claim_that_fails_shows_a_shortest_path_and_whether_it_holds_at_once() -> None:
    told = proven("only role=api may-reach role=db on postgres")
    assert not told.holds and told.at_once
    assert [(hop.source, hop.destination) for hop in told.path] == [("blog-web", "blog-api"), ("blog-api", "blog-db")]


def test_on_the_way_any_service_will_do_and_the_last_hop_is_the_claims() -> None:
    assert proven("shop-web cannot-reach shop-db on tcp/22").holds
    told = proven("shop-web cannot-reach shop-db on postgres")
    assert [hop.service for hop in told.path] == ["tcp/8080", "tcp/5432"]
    assert proven("shop-web cannot-reach shop-db", hops=1).holds


def test_a_deny_is_a_proof() -> None:
    assert proven("env=dev cannot-reach env=prod").holds


def test_who_is_on_both_sides_must_be_reached_by_another() -> None:
    assert proven("role=web cannot-reach role=web").holds
    around = "rules:\n  - {id: a, allow: tcp/1, from: role=web, to: role=gate}\n"
    around += "  - {id: b, allow: tcp/1, from: role=gate, to: role=web}\n"
    told = proven("role=web cannot-reach role=web", text=around)
    assert len(told.path) == 2 and told.path[0].source != told.path[1].destination
    assert proven("shop-web cannot-reach shop-web", text=around).holds


def test_can_reach_is_about_every_pair_and_every_port() -> None:
    assert proven("mon can-reach role=db on tcp/9100").holds
    told = proven("role=api can-reach role=db on tcp/5432").refusal
    assert told is not None and told.default and told.rules == ()
    assert {told.source, told.destination} == {"shop-api", "blog-db"} or told.source == "blog-api"
    denied = proven("blog-web can-reach shop-api on tcp/8080").refusal
    assert denied is not None and [rule.id for rule in denied.rules] == ["no-dev"] and not denied.default
    assert str(denied.ports) == "tcp/8080"


def test_a_server_may_be_any_process_of_its_end() -> None:
    text = "rules: [{id: r, allow: tcp/1, from: gate=1, to: {workloads: role=db, as: {user: pg}}}]"
    text = text.replace("gate=1", "role=gate")
    assert proven("gate can-reach role=db on tcp/1", text=text).holds
    assert not proven("gate cannot-reach role=db on tcp/1", text=text).holds


def test_a_claim_about_nobody_proves_nothing() -> None:
    assert proven("role=db,app=none cannot-reach role=api").vacuous


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ("web db", "is no claim; wanted"),
        ("", "is no claim"),
        ("role=web may reach role=db", "`may reach` is not understood; did you mean `may-reach`?"),
        ("role=web can't reach role=db", "did you mean `cannot-reach`?"),
        ("role=web reaches role=db", "`reaches` is not understood"),
        ("role=web may-reach role=db", "`may-reach` does not go with `role=web`; did you mean `only X may-reach Y`?"),
        ("only role=web can-reach role=db on tcp/1", "`can-reach` does not go with `only`"),
        ("only may-reach role=db", "is not whole"),
        ("role=web cannot-reach", "is not whole"),
        ("role=web cannot-reach role=db on ", "is not whole"),
        ("role=web can-reach role=db", "what can it be reached on?"),
        ("role=web cannot-reach role=db on postgrs", "unknown service `postgrs`; did you mean `postgres`?"),
        ("shop-wep cannot-reach role=db", "there is no workload and no label `shop-wep`; did you mean `shop-web`?"),
        ("rule=web cannot-reach role=db", "unknown label `rule`; did you mean `role`?"),
        ("network:offise cannot-reach role=db", "unknown network `offise`; did you mean `office`?"),
        ("10.0.0.300 cannot-reach role=db", "is no address and no network"),
        ("role=web or cannot-reach role=db", "wanted a workload"),
        ("role=(web cannot-reach role=db", "wanted"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_was_wanted(claim: str, told: str) -> None:
    with pytest.raises(QuestionError) as caught:
        read_claim(claim, read(), FLEET)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("claim", "known"),
    [
        ("env=dev cannot-reach env=prod", True),
        ("only role=api may-reach role=db on postgres", True),
        ("only role=web may-reach role=db on postgres", False),
        ("role=web cannot-reach role=db on postgres", True),
        ("role=web cannot-reach role=db on tcp/22", True),
        ("app=shop cannot-reach app=blog", False),
        ("network:office cannot-reach role=db on tcp/443", True),
        ("network:office cannot-reach app=shop on tcp/443", False),
        ("role=web cannot-reach network:office on tcp/443", False),
        ("role=gate cannot-reach network:office on tcp/9100", True),
        ("any cannot-reach role=db on any", False),
        ("mon can-reach role=db on tcp/9100", False),
    ],
)
def test_what_no_fleet_can_change_is_known_for_every_fleet(claim: str, known: bool) -> None:
    assert proven(claim, hops=1).every_fleet is known


def test_services_are_given_once() -> None:
    with pytest.raises(QuestionError, match="twice"):
        read_claim("role=web cannot-reach role=db on tcp/1", read(), FLEET, ("tcp/2",))
    assert str(read_claim("role=web cannot-reach role=db", read(), FLEET, ("5432",)).ports) == "tcp/5432"
