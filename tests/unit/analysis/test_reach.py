from ipaddress import ip_address, ip_network

from tests.unit.analysis.world import FLEET, NOW, flow, policy

from cellwall.analysis import Assume, Reach, all_identities, holds, places_outside
from cellwall.flows import Side
from cellwall.inventory import Fleet
from cellwall.policy import NOBODY, AddressBook, Identity
from cellwall.traffic import EVERYTHING, NOTHING, PortSet, parse_ports


def passing(source: str, destination: str, assume: Assume = Assume.MODES, *texts: str) -> str:
    reach = Reach(policy(*texts), FLEET, NOW)
    asked = flow(source, destination)
    return str(reach.passing(reach.kind_of(asked.source), reach.kind_of(asked.destination), assume) - lifelines())


def lifelines() -> PortSet:
    reach = Reach(policy(""), FLEET, NOW)
    asked = flow("web-1", "db-1")
    ports = NOTHING
    for side in Side:
        ports |= reach.passing_at(side, reach.kind_of(asked.source), reach.kind_of(asked.destination), Assume.ENFORCE)
    return ports


def test_what_rules_allow_passes_and_modes_decide_the_rest() -> None:
    assert passing("web-1", "db-1") == "tcp/5432"
    assert passing("192.0.2.9", "web-1") == "tcp/80"
    assert passing("web-dev", "db-1") == "nothing"
    assert passing("web-dev", "db-dev", Assume.ENFORCE) == "tcp/5432"
    assert passing("web-dev", "db-dev") == str(EVERYTHING - lifelines())


def test_a_guard_denies_walls_and_denies_only() -> None:
    guard = "modes: [{where: '', mode: guard}]"
    text = "rules: [{id: w, wall: tcp, from: any, to: any}, {id: a, allow: tcp/80, from: any, to: any}]"
    wall = parse_ports("tcp") - parse_ports("tcp/80")
    assert passing("web-1", "db-1", Assume.MODES, guard, text) == str(EVERYTHING - wall - lifelines())
    assert passing("web-1", "db-1", Assume.ENFORCE, guard, text) == "tcp/80"


def test_without_a_point_everything_passes() -> None:
    assert passing("nas", "printer") == str(EVERYTHING - lifelines())
    assert passing("nas", "127.0.0.1") == str(EVERYTHING - lifelines())


def test_ends_that_no_rule_tells_apart_are_one_kind() -> None:
    reach = Reach(policy(), FLEET, NOW)
    kinds = [reach.kind(ip_address(text)) for text in ("10.0.0.1", "10.0.0.2", "fd00::1")]
    assert kinds[0] is kinds[1] is kinds[2]
    assert reach.kind(ip_address("192.0.2.9")) is not reach.kind(ip_address("203.0.113.9"))
    assert reach.kind(ip_address("10.0.0.1")) is not reach.kind(ip_address("10.0.0.1"), Identity(user="a"))


def test_ports_hold_points_as_their_spans_say() -> None:
    ports = parse_ports("tcp/80-90") | parse_ports("udp/53")
    for at in range(0, 1 << 24, 997):
        assert holds(ports, at) == (at in ports)
    assert holds(ports, 6 << 16 | 90) and not holds(ports, 6 << 16 | 91) and not holds(NOTHING, 0)


def test_two_identities_can_be_had_at_once_unless_they_differ() -> None:
    user, unit, other = Identity(user="a"), Identity(unit="u"), Identity(user="b")
    assert set(all_identities([user, unit, other])) == {
        NOBODY,
        user,
        unit,
        other,
        Identity("a", "u"),
        Identity("b", "u"),
    }


def test_the_world_outside_has_one_address_for_each_combination_of_networks() -> None:
    books = policy(
        "networks: {a: [192.0.2.0/24, '2001:db8::/32'], b: [192.0.2.128/25], c: [10.0.0.0/29], all: [0.0.0.0/0]}"
    ).networks
    found = dict(places_outside(books, FLEET))
    assert set(found) == {
        "other network:all (IPv4)",
        "other network:a (IPv4)",
        "network:b (IPv4)",
        "network:c (IPv4)",
        "elsewhere (IPv6)",
        "network:a (IPv6)",
    }
    assert str(found["network:c (IPv4)"].address) == "10.0.0.0"
    assert all(one.workload is None for one in found.values())


def test_a_network_full_of_workloads_has_no_place_outside() -> None:
    books = policy("networks: {one: [10.0.0.1]}").networks
    assert set(dict(places_outside(books, FLEET))) == {"elsewhere (IPv4)", "elsewhere (IPv6)"}


def test_talk_with_itself_passes_and_is_told_from_talk_with_another_of_its_kind() -> None:
    reach = Reach(policy(), FLEET, NOW)
    kind = reach.kind(ip_address("10.0.0.1"))
    own = reach.decide(kind, kind, 6, 22, own=True)
    assert own.egress is not None and own.egress.because == ("loopback",)
    other = reach.decide(kind, kind, 6, 22)
    assert other.egress is not None and other.egress.because == ()
    assert str(reach.passing(kind, kind, Assume.MODES, own=True)) == "any"
    assert not reach.lets(kind, kind, 6 << 16 | 22, Assume.MODES)


def test_a_deny_that_asks_for_the_far_process_leaves_the_matter_to_the_far_point() -> None:
    text = """
    rules:
      - {id: a, allow: tcp, from: any, to: any}
      - {id: d, deny: tcp/22, from: any, to: {workloads: any, as: {user: root}}}
    """
    reach = Reach(policy(text), FLEET, NOW)
    source, target = reach.kind(ip_address("10.0.0.1")), reach.kind(ip_address("10.0.0.2"), Identity(user="root"))
    at = 6 << 16 | 22
    assert holds(reach.passing_at(Side.EGRESS, source, target, Assume.ENFORCE), at)
    assert not holds(reach.passing_at(Side.INGRESS, source, target, Assume.ENFORCE), at)
    assert reach.identities(Side.INGRESS) == (NOBODY, Identity(user="root"))


def test_a_controller_on_loopback_takes_no_time_to_pass_by() -> None:
    book = AddressBook("near", (ip_network("127.0.0.1/32"), ip_network("127.0.0.0/9")))
    titles = [title for title, _ in places_outside([book], Fleet())]
    assert titles == ["elsewhere (IPv4)", "elsewhere (IPv6)"]
