from dataclasses import replace
from ipaddress import ip_address

from tests.unit.analysis.village import FLEET, NOW, POLICY, read

from cellwall.analysis.change.both import State
from cellwall.analysis.change.compare import Comparison, Line, compare
from cellwall.analysis.table.reach import Assume
from cellwall.analysis.table.table import Table
from cellwall.inventory import Fleet, Workload
from cellwall.policy import Identity, Mode


def told(*changes: tuple[str, str], assume: Assume = Assume.ENFORCE, fleet: Fleet = FLEET) -> Comparison:
    text = POLICY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return compare(Table, State(read(), FLEET), State(read(text, "b.yaml"), fleet), NOW, assume)


def said(line: Line) -> str:
    same = f" same {','.join(line.same)}" if line.same else ""
    return f"{'+' if line.opened else '-'} {line.ports} {line.sources} → {line.destinations}{same}"


def test_a_rule_that_is_widened_is_one_line_in_its_own_words() -> None:
    found = told(("from: role=api, to: role=db", "from: 'role in (api,web)', to: role=db"))
    (line,) = found.lines
    assert said(line) == "+ tcp/5432 role=web → role=db same app,env"
    assert (found.opened_pairs, found.closed_pairs) == (2, 0)
    assert [str(rule) for rule in line.because] == ["`api-to-db` (b.yaml:5:5)"]
    assert [rule.action for rule in line.because] == ["changed allow"]
    assert found.changed == ("api-to-db",) and found.added == found.removed == ()
    assert found.opened == (line,) and not found.closed and not found.nothing


def test_a_rule_that_comes_or_goes_is_a_line() -> None:
    ssh = "  - {id: ssh, allow: tcp/22, from: role=gate, to: role!=monitor}\n"
    found = told((ssh, "  - {id: dns, allow: udp/53, from: any, to: role=gate}\n"))
    assert [said(line) for line in found.lines] == [
        "+ udp/53 any → role=gate",
        "- tcp/22 role=gate → role!=monitor",
    ]
    assert (found.added, found.removed) == (("dns",), ("ssh",))
    assert [rule.action for line in found.lines for rule in line.because] == ["added allow", "removed allow"]


def test_what_another_rule_allows_too_is_no_difference() -> None:
    found = told(
        ("modes:", "  - {id: more, allow: tcp/9100, from: mon=x, to: any}\nmodes:".replace("mon=x", "role=monitor"))
    )
    assert found.nothing and found.added == ("more",)
    renamed = told(("id: ssh", "id: way-in"))
    assert renamed.nothing and renamed.added == ("way-in",) and renamed.removed == ("ssh",)


def test_a_deny_closes_only_what_was_open() -> None:
    found = told(("modes:", "  - {id: no-mon, deny: any, from: role=monitor, to: env=dev}\nmodes:"))
    assert [said(line) for line in found.lines] == ["- tcp/9100 role=monitor → env=dev"]
    assert found.closed_pairs == 3


def test_networks_with_other_addresses_are_a_difference_outside_the_fleet() -> None:
    found = told(("192.0.2.0/24", "192.0.3.0/24"))
    assert {said(line) for line in found.lines} == {
        "+ tcp/443 network:office → role=web",
        "- tcp/443 network:office → role=web",
    }


def test_one_ip_version_is_named_where_the_other_fares_otherwise() -> None:
    office = "  - {id: six, allow: tcp/7, from: network:six, to: role=gate}\nmodes:"
    found = told(("{office:", "{six: ['fd00::/64'], office:"), ("modes:", office))
    assert [(said(line), line.version) for line in found.lines] == [("+ tcp/7 network:six → role=gate", None)]
    v4 = told(("{office:", "{four: [10.0.0.0/24], office:"), ("modes:", office.replace("six", "four")))
    assert all(line.version in (None, 4) for line in v4.lines) and v4.lines


def test_a_process_is_named_where_others_fare_otherwise() -> None:
    rule = "  - {id: as, allow: tcp/7, from: {workloads: role=gate, as: {user: a}}, to: role=db}\nmodes:"
    (line,) = told(("modes:", rule)).lines
    assert line.callers == (Identity(user="a"),) and line.servers == ()
    rule = "  - {id: as, allow: tcp/7, from: role=gate, to: {workloads: role=db, as: {user: a}}}\nmodes:"
    (line,) = told(("modes:", rule)).lines
    assert line.callers == () and line.servers == (Identity(user="a"),)


def test_modes_that_change_are_listed_and_count_when_asked_to() -> None:
    found = told(("modes: [", "modes: [{where: env=dev, mode: guard}, "))
    assert found.lines == () and not found.nothing
    (change,) = found.modes
    assert (change.before, change.after, str(change.workloads)) == (Mode.ENFORCE, Mode.GUARD, "env=dev")
    counted = told(("modes: [", "modes: [{where: env=dev, mode: guard}, "), assume=Assume.MODES)
    assert counted.opened and not counted.closed


def test_labels_and_addresses_that_change_are_a_difference_too() -> None:
    moved = replace(FLEET, workloads=tuple(
        replace(one, labels=one.labels.but(role="web")) if one.name == "shop-api" else one for one in FLEET.workloads
    ))  # fmt: skip
    found = told(fleet=moved)
    assert any("shop-web" in line.sources.titles and not line.opened for line in found.lines)
    more = replace(FLEET, workloads=(*FLEET.workloads, Workload("new", addresses=(ip_address("10.0.0.99"),))))
    found = told(fleet=more)
    assert {"new"} == {
        title for line in found.closed for title in (*line.sources.titles, *line.destinations.titles)
    } & {"new"}
    assert [str(change.workloads) for change in found.modes] == ["new"]


def test_the_same_policy_means_the_same() -> None:
    assert told().nothing and told(assume=Assume.MODES).nothing
