from typing import Any

from cellwall.cli.maps.command import read_map
from cellwall.cli.maps.graph import Edge, Panel, Verdict

STATUS = {"revision": 3, "advertise": ["https://10.77.0.2:7443"]}


def node(name: str, kind: str = "group", addresses: tuple[str, ...] = (), **labels: str) -> dict[str, Any]:
    workloads = [f"{name}-1"] if kind in ("group", "workload") else []
    return {"id": name, "kind": kind, "labels": labels, "workloads": workloads, "addresses": list(addresses)}


def edge(source: str, to: str, service: str, allowed: int = 0, would: int = 0, denied: int = 0) -> dict[str, Any]:
    counts = {"allowed": allowed, "would_deny": would, "denied": denied}
    return {"source": source, "destination": to, "service": service, **counts}


def answer(nodes: list[dict[str, Any]], *edges: dict[str, Any]) -> dict[str, Any]:
    return {"group": ["app", "env", "role"], "nodes": nodes, "edges": list(edges)}


def test_groups_stand_by_application_and_environment_under_their_role() -> None:
    nodes = [
        node("a", app="shop", env="prod", role="web"),
        node("b", role="db"),
        node("c", "workload"),
        node("network:office", "network", ("10.1.0.0",)),
        node("10.77.0.2", "outside", ("10.77.0.2",)),
    ]
    found = {one.id: (one.panel, one.title) for one in read_map(answer(nodes), STATUS).groups}
    assert found == {
        "a": (Panel("shop", "prod"), "web"),
        "b": (Panel("without app"), "db"),
        "c": (Panel("without labels"), "c-1"),
        "network:office": (Panel("outside the fleet"), "office"),
        "10.77.0.2": (Panel("outside the fleet"), "controller"),
    }


def test_an_edge_is_drawn_once_for_each_verdict() -> None:
    nodes = [node("a", app="shop", role="web"), node("b", app="shop", role="db")]
    drawn = read_map(answer(nodes, edge("a", "b", "tcp/5432", allowed=10, would=4, denied=2)), STATUS)
    assert {(one.verdict, one.connections) for one in drawn.edges} == {
        (Verdict.ALLOWED, 6),
        (Verdict.WOULD, 4),
        (Verdict.DENIED, 2),
    }


def test_before_there_is_a_policy_what_passes_is_allowed() -> None:
    nodes = [node("a", app="shop", role="web"), node("b", app="shop", role="db")]
    drawn = read_map(answer(nodes, edge("a", "b", "tcp/5432", allowed=10, would=10)), {**STATUS, "revision": 0})
    assert drawn.edges == (Edge("a", "b", "tcp/5432", 10, Verdict.ALLOWED),)


def test_ports_that_were_handed_out_are_drawn_as_their_range() -> None:
    nodes = [node("a", app="shop", role="web"), node("b", app="shop", role="db")]
    edges = [edge("a", "b", f"tcp/{50000 + port}", allowed=1) for port in (3, 1, 4, 9)]
    few = [edge("b", "a", f"tcp/{50000 + port}", allowed=1) for port in (1, 2)]
    drawn = read_map(answer(nodes, edge("a", "b", "tcp/135", allowed=1), *edges, *few), STATUS)
    assert [(one.source, one.service, one.connections) for one in drawn.edges] == [
        ("a", "tcp/135", 1),
        ("a", "tcp/50001-50009", 4),
        ("b", "tcp/50001", 1),
        ("b", "tcp/50002", 1),
    ]


def test_what_only_a_link_says_to_itself_is_left_out() -> None:
    nodes = [node("a", app="shop", role="web"), node("fe80::1", "outside", ("fe80::1",))]
    drawn = read_map(answer(nodes, edge("fe80::1", "a", "icmpv6/137/0", allowed=1)), STATUS)
    assert [one.id for one in drawn.groups] == ["a"] and drawn.edges == ()
