from xml.etree import ElementTree

from cellwall.cli.maps.graph import Edge, Group, Map, Panel, Verdict, make_map
from cellwall.cli.maps.svg import draw_svg

SVG = "{http://www.w3.org/2000/svg}"


def shop() -> Map:
    names = ("api", "db", "web")
    groups = [Group(f"shop/{name}", Panel("shop", "prod"), name, 2) for name in names]
    outside = Group("198.51.100.20", Panel("outside the fleet"), "198.51.100.20")
    edges = [
        Edge(outside.id, "shop/web", "tcp/443", 900, Verdict.ALLOWED),
        Edge("shop/web", "shop/api", "tcp/8080", 1200, Verdict.ALLOWED),
        Edge("shop/api", "shop/db", "tcp/5432", 7, Verdict.WOULD),
        Edge("shop/web", "shop/db", "tcp/22", 1, Verdict.DENIED),
        Edge("shop/db", "shop/db", "tcp/5432", 1, Verdict.ALLOWED),
    ]
    return make_map([*groups, outside], edges)


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_every_group_service_and_verdict_is_in_the_picture_as_text() -> None:
    shown = texts(draw_svg(shop()))
    for text in (
        "api",
        "db",
        "web",
        "198.51.100.20",
        "tcp/8080",
        "tcp/5432 would be denied",
        "tcp/22 denied",
        "tcp/443",
    ):
        assert text in shown


def test_verdicts_differ_in_dash_and_in_ending_not_in_colour_alone() -> None:
    svg = draw_svg(shop())
    for name in ("allowed", "would", "denied"):
        assert f'marker-end="url(#end-{name})"' in svg
    assert ".line.would{stroke-dasharray:9 5}" in svg and ".line.denied{stroke-dasharray:2 4}" in svg


def test_the_picture_has_a_title_and_a_description_for_those_who_cannot_see_it() -> None:
    root = ElementTree.fromstring(draw_svg(shop(), "the shop"))
    assert root.get("role") == "img" and root.get("aria-labelledby") == "title desc"
    assert root.findtext(f"{SVG}title") == "the shop"
    assert "shop · prod web to shop · prod db over tcp/22, denied" in (root.findtext(f"{SVG}desc") or "")


def test_it_follows_the_readers_theme() -> None:
    assert "@media (prefers-color-scheme:dark)" in draw_svg(shop())


def test_equal_maps_give_equal_pictures() -> None:
    drawn = shop()
    assert draw_svg(drawn) == draw_svg(make_map(reversed(drawn.groups), reversed(drawn.edges)))


def test_names_are_escaped() -> None:
    group = Group("x", Panel("<app>"), 'a&b"<script>', 1)
    svg = draw_svg(make_map([group], []))
    assert "<script>" not in svg and 'a&b"<script>' in texts(svg)


def test_an_empty_map_is_a_picture_too() -> None:
    assert ElementTree.fromstring(draw_svg(make_map([], []))).tag == f"{SVG}svg"
