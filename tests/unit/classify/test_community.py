import random
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from cellwall.classify import code_length, communities

Edges = dict[tuple[str, str], float]


def graph(edges: Edges, nodes: str = "") -> dict[str, dict[str, float]]:
    made: dict[str, dict[str, float]] = {node: {} for node in nodes}
    for (one, other), weight in edges.items():
        made.setdefault(one, {})[other] = weight
        made.setdefault(other, {})[one] = weight
    return made


def test_nothing_falls_into_nothing_and_loners_stay_alone() -> None:
    assert communities({}) == ()
    assert communities(graph({}, "ab")) == (("a",), ("b",))
    assert code_length(graph({}, "ab"), (("a",), ("b",))) == 0.0


def test_two_cliques_with_one_bridge_are_two_groups() -> None:
    edges = {pair: 1.0 for part in ("abcd", "wxyz") for pair in combinations(part, 2)} | {("a", "w"): 1.0}
    assert communities(graph(edges)) == (("a", "b", "c", "d"), ("w", "x", "y", "z"))


def test_what_no_cut_makes_shorter_is_one_group() -> None:
    # Single moves stop at three pairs, of 2.59 bits; all in one are 2.49.
    edges = {("a", "b"): 2.0, ("a", "d"): 3.0, ("a", "e"): 1.0, ("b", "c"): 3.0, ("b", "e"): 2.0, ("e", "f"): 3.0}
    assert communities(graph(edges | {("x", "y"): 1.0})) == (("a", "b", "c", "d", "e", "f"), ("x", "y"))
    assert communities(graph(edges)) == (("a", "b", "c", "d", "e", "f"),)


def test_a_hundred_small_groups_in_a_ring_do_not_merge() -> None:
    # Where modularity has its resolution limit: 100 cliques of 5, each with one link to the next.
    edges: Edges = {}
    for number in range(100):
        members = [f"{number:03}{letter}" for letter in "abcde"]
        edges |= dict.fromkeys(combinations(members, 2), 1.0)
        edges[members[0], f"{(number + 1) % 100:03}b"] = 1.0
    found = communities(graph(edges))
    assert len(found) == 100
    assert all(len({name[:3] for name in group}) == 1 for group in found)


def test_groups_do_not_depend_on_the_order_of_nodes() -> None:
    chance = random.Random(3)
    edges = {
        (f"n{a}", f"n{b}"): 1.0
        for a, b in combinations(range(30), 2)
        if chance.random() < (0.6 if a // 6 == b // 6 else 0.03)
    }
    first = communities(graph(edges))
    shuffled = list(edges.items())
    chance.shuffle(shuffled)
    assert communities(graph(dict(shuffled))) == first


graphs = st.dictionaries(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")).filter(lambda pair: pair[0] < pair[1]),
    st.sampled_from([1.0, 2.0, 3.0]),
    min_size=1,
    max_size=14,
)


@given(graphs)
def test_no_single_move_makes_the_code_shorter(edges: Edges) -> None:
    made = graph(edges)
    found = communities(made)
    length = code_length(made, found)
    alone = tuple((node,) for node in sorted(made))
    assert length <= code_length(made, alone) + 1e-9
    assert sorted(node for group in found for node in group) == sorted(made)


@given(graphs)
def test_the_best_cut_of_a_small_graph_is_hardly_ever_much_better(edges: Edges) -> None:
    # The dumb twin tries all cuts. A greedy search may miss the best one, but not by a tenth of a bit.
    nodes = sorted(graph(edges))[:6]
    made = graph({pair: weight for pair, weight in edges.items() if set(pair) <= set(nodes)})
    best = min((code_length(made, cut) for cut in cuts(tuple(sorted(made)))), default=0.0)
    assert code_length(made, communities(made)) <= best + 0.1


def cuts(nodes: tuple[str, ...]) -> list[tuple[tuple[str, ...], ...]]:
    if not nodes:
        return [()]
    found: list[tuple[tuple[str, ...], ...]] = []
    for rest in cuts(nodes[1:]):
        found.append(((nodes[0],), *rest))
        found += [(*rest[:at], (nodes[0], *group), *rest[at + 1 :]) for at, group in enumerate(rest)]
    return found
