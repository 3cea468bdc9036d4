import pytest

from cellwall.cli.maps.graph import Edge, Group, Map, Panel, Verdict, make_map
from cellwall.cli.maps.text import draw_text

SHOP, INFRA = Panel("shop", "prod"), Panel("infra", "prod")


def shop() -> Map:
    groups = [Group(f"shop/{name}", SHOP, name, size) for name, size in (("api", 2), ("db", 1), ("web", 2))]
    edges = [
        Edge("shop/web", "shop/api", "tcp/8080", 1200, Verdict.ALLOWED),
        Edge("shop/api", "shop/db", "tcp/5432", 7, Verdict.WOULD),
        Edge("shop/web", "shop/db", "tcp/22", 1, Verdict.DENIED),
        *(Edge(f"shop/{name}", "infra/dns", "udp/53", 3, Verdict.ALLOWED) for name in ("api", "db", "web")),
    ]
    return make_map([*groups, Group("infra/dns", INFRA, "dns", 1)], edges)


def test_the_map_reads_as_lines() -> None:
    assert draw_text(shop(), 80) == [
        "infra · prod: dns ×1",
        "",
        "shop · prod: api ×2, db ×1, web ×2",
        "  api       tcp/5432 ─▶ db                      7  ◌ would be denied",
        "  web       tcp/8080 ─▶ api                 1 200  ✔ allowed",
        "            tcp/22   ─▶ db                      1  ✘ denied",
        "  (3 of 3)  udp/53   ─▶ infra · prod / dns      9  ✔ allowed",
        "",
        "6 workloads in 4 groups; connections: 1 209 allowed, 7 would be denied, 1 denied",
    ]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_line_is_wider_than_asked(width: int) -> None:
    long = "a-role-with-a-name-that-goes-on-and-on-and-on"
    groups = [
        Group(f"{panel}/{n}", Panel("a-long-application-name", panel), f"{long}-{n}")
        for panel in "ab"
        for n in range(4)
    ]
    edges = [Edge("a/1", "b/2", "tcp/50000-50127", 123456, Verdict.WOULD)]
    assert all(len(line) <= width for line in draw_text(make_map(groups, edges), width)[:-1])


def test_an_empty_map_says_so() -> None:
    assert draw_text(make_map([], [])) == ["nothing has been seen yet"]
