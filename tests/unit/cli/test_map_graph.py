from cellwall.cli.maps.graph import EVERYONE, Edge, Group, Load, Map, Panel, Verdict, gather, make_map

SHOP, INFRA = Panel("shop", "prod"), Panel("infra", "prod")


def group(panel: Panel, title: str, workloads: int = 1) -> Group:
    return Group(f"{panel.app}/{title}", panel, title, workloads)


def flow(source: str, destination: str, service: str, count: int = 1, verdict: Verdict = Verdict.ALLOWED) -> Edge:
    return Edge(source, destination, service, count, verdict)


def small(*edges: Edge) -> Map:
    roles = [group(SHOP, name) for name in ("api", "db", "web")]
    return make_map([*roles, group(INFRA, "dns")], edges)


def test_equal_edges_add_up() -> None:
    drawn = small(flow("shop/web", "shop/api", "tcp/80", 2), flow("shop/web", "shop/api", "tcp/80", 3))
    assert drawn.edges == (flow("shop/web", "shop/api", "tcp/80", 5),)


def test_an_edge_to_an_unknown_group_is_left_out() -> None:
    assert small(flow("shop/web", "nowhere", "tcp/80")).edges == ()


def test_groups_stand_in_their_panels_in_order() -> None:
    assert [(panel.app, [one.title for one in groups]) for panel, groups in small().panels.items()] == [
        ("infra", ["dns"]),
        ("shop", ["api", "db", "web"]),
    ]


def test_services_between_the_same_ends_become_one_strand_with_the_busiest_first() -> None:
    drawn = small(flow("shop/web", "shop/api", "tcp/80", 2), flow("shop/web", "shop/api", "tcp/443", 7))
    (strand,) = gather(drawn)
    assert strand.loads == (Load("tcp/443", 7), Load("tcp/80", 2))
    assert (strand.connections, strand.label) == (9, "tcp/443, tcp/80")


def test_verdicts_are_never_merged() -> None:
    drawn = small(flow("shop/web", "shop/db", "tcp/22"), flow("shop/web", "shop/db", "tcp/22", 1, Verdict.DENIED))
    assert {strand.verdict for strand in gather(drawn)} == {Verdict.ALLOWED, Verdict.DENIED}


def test_what_a_panel_shares_becomes_one_strand_of_the_panel() -> None:
    drawn = small(*(flow(f"shop/{name}", "infra/dns", "udp/53", 4) for name in ("api", "db", "web")))
    (strand,) = gather(drawn)
    assert (strand.source, strand.destination, strand.loads) == (SHOP, "infra/dns", (Load("udp/53", 12, 3),))
    assert strand.label == "udp/53 ×3"


def test_two_of_three_groups_are_not_gathered() -> None:
    drawn = small(flow("shop/api", "infra/dns", "udp/53"), flow("shop/db", "infra/dns", "udp/53"))
    assert {strand.source for strand in gather(drawn)} == {"shop/api", "shop/db"}


def test_what_most_of_the_fleet_shares_becomes_a_note_at_its_hub() -> None:
    groups = [group(Panel(f"app{n}"), "web") for n in range(7)] + [group(INFRA, "dns")]
    drawn = make_map(groups, [flow(f"app{n}/web", "infra/dns", "udp/53") for n in range(7)])
    (strand,) = gather(drawn)
    assert (strand.source, strand.hub, strand.loads[0].of) == (EVERYONE, "infra/dns", 7)


def test_a_hub_that_asks_everyone_is_noted_too() -> None:
    groups = [group(Panel(f"app{n}"), "web") for n in range(7)] + [group(INFRA, "monitoring")]
    drawn = make_map(groups, [flow("infra/monitoring", f"app{n}/web", "tcp/9100") for n in range(7)])
    (strand,) = gather(drawn)
    assert (strand.destination, strand.hub) == (EVERYONE, "infra/monitoring")


def test_no_connection_is_lost_by_gathering() -> None:
    drawn = small(
        *(flow(f"shop/{name}", "infra/dns", "udp/53", 4) for name in ("api", "db", "web")),
        flow("shop/web", "shop/api", "tcp/80", 2),
        flow("shop/db", "shop/db", "tcp/5432", 1),
    )
    assert sum(strand.connections for strand in gather(drawn)) == sum(edge.connections for edge in drawn.edges)


def test_what_is_not_allowed_is_said_in_words() -> None:
    (strand,) = gather(small(flow("shop/web", "shop/db", "tcp/22", 1, Verdict.WOULD)))
    assert strand.label == "tcp/22 would be denied"


def test_every_verdict_has_a_sign_of_its_own() -> None:
    assert len({one.glyph for one in Verdict}) == 3
