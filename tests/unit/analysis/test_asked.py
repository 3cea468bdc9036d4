import pytest
from tests.property.plain_table import PlainTable
from tests.unit.analysis.village import FLEET, NOW, POLICY, read

from cellwall.analysis.table.asked import SERVICES, QuestionError, read_ends, read_services, services_in_words
from cellwall.analysis.table.reach import Assume
from cellwall.analysis.table.ways import Ways
from cellwall.analysis.walks.paths import Walk
from cellwall.inventory import Fleet, Workload
from cellwall.policy import endpoint
from cellwall.traffic import EVERYTHING, parse_address, parse_ports

CLOSED = read("labels: {role: {values: [web, db]}, app: {}, env: {}}\nnetworks: {dns: {names: [a.example]}}\n")


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("shop-web", "10.0.0.1", "10.0.0.2"),
        ("role=web,app=shop", "fd00::1", "10.0.0.4"),
        ("network:office", "192.0.2.7", "10.0.0.1"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("10.0.0.0/30", "10.0.0.3", "10.0.0.4"),
        ("shop-web or role=db", "10.0.0.3", "10.0.0.2"),
    ],
)
def test_ends_are_asked_for_in_many_ways(text: str, inside: str, outside: str) -> None:
    asked = read_ends(text, read(), FLEET)
    assert endpoint(FLEET, parse_address(inside)) in asked
    assert endpoint(FLEET, parse_address(outside)) not in asked
    assert endpoint(FLEET, parse_address(outside)) in read_ends("any", read(), FLEET)
    assert len(asked.books) + len(asked.selectors) == len(asked.whos)


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(QuestionError, match="has no address"):
        read_ends("w", read(), Fleet((Workload("w"),)))
    with pytest.raises(QuestionError, match="`wep` is not a value of `role`; did you mean `web`"):
        read_ends("role=wep", CLOSED, FLEET)
    with pytest.raises(QuestionError, match="has DNS names"):
        read_ends("network:dns", CLOSED, FLEET)


def test_services_are_read_and_written_by_name() -> None:
    policy = read()
    assert read_services((), policy) == read_services(("all",), policy) == SERVICES != EVERYTHING
    assert read_services(("any",), policy) == EVERYTHING
    assert str(read_services(("postgres", "22", "udp/53"), policy)) == "tcp/22, tcp/5432, udp/53"
    assert services_in_words(SERVICES) == "all services"
    assert services_in_words(parse_ports("tcp/5432"), policy) == "postgres"
    assert services_in_words(parse_ports("tcp/5432")) == "tcp/5432"
    with pytest.raises(QuestionError, match="is over"):
        read_services(("tcp/70000",), policy)
    assert parse_ports("icmp/3/4").spans[0].first not in SERVICES


def test_a_plain_table_gives_the_same_walk() -> None:
    policy = read(POLICY)
    asked = read_ends("network:office or mon", policy, FLEET)
    ways = Ways(PlainTable, policy, FLEET, NOW, Assume.ENFORCE, asked=(asked,))
    told = Walk(ways, SERVICES).forward(asked)
    assert told.reached and "elsewhere (IPv4)" in {end for one in told.landings for end in one.ends}
    assert ways.words(("shop-web", "blog-web", "elsewhere (IPv4)")) == "role=web (2) or elsewhere (IPv4)"
