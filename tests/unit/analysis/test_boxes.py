"""The algebra of boxes against plain sets of looks."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.analysis.algebra.atoms import ALL, APART, DIAGONAL, FROM, PORT, SCENE, TO, Pair, Universe
from cellwall.analysis.algebra.boxes import Box, boxes_of, breadth, holds_all, meet, minus, possible, some_look
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import Rule, parse_policy

TEXT = """
labels: {env: {values: [prod, dev]}, app: {}}
networks: {one: [192.0.2.1], more: [192.0.2.1, 10.0.0.0/8, "2001:db8::/64", 127.0.0.0/8], looped: [127.0.0.1]}
rules:
  - {id: a, allow: [tcp/80, udp/53], from: env=prod, to: network:one}
  - {id: b, allow: tcp/80-90, from: network:more, to: [env!=dev, app=shop]}
  - {id: c, allow: any, from: any, to: any, same: env}
  - {id: d, deny: tcp/1, from: {workloads: any, as: {user: root}}, to: network:one, expires: 2050-01-01T00:00:00Z}
"""
POLICY = parse_policy([("a.yaml", TEXT)])
UNIVERSE = Universe(POLICY.rules, POLICY.labels)
ENV = UNIVERSE.number["env"]


def rule(rule_id: str) -> Rule:
    return POLICY.by_id[rule_id]


def atoms(mask: int) -> list[int]:
    return [at for at in range(mask.bit_length()) if mask >> at & 1]


def pairs_of(pair: Pair) -> set[tuple[int, int]]:
    kind, mine, theirs = pair
    both = set(product(atoms(mine), atoms(theirs)))
    return {one for one in both if kind == ALL or (one[0] == one[1]) == (kind == DIAGONAL)}


def looks_of(box: Box) -> set[tuple[int, ...]]:
    """The looks of a box, as far as the dimensions go that the boxes below use."""
    found: set[tuple[int, ...]] = set()
    for scene, port, source, target in product(*(atoms(box.plain[at]) for at in (SCENE, PORT, FROM, TO))):
        if source == target and UNIVERSE.singles(scene) >> source & 1:
            continue
        for env in pairs_of(box.pairs.get(ENV, UNIVERSE.full_pairs[ENV])):
            found.add((scene, port, source, target, *env))
    return found


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    def mask(full: int) -> int:
        return draw(st.sampled_from([full, *(range(1, full + 1) if full < 256 else (1, 5, full - 1))]))

    full = UNIVERSE.full
    plain = list(full)
    plain[SCENE] = draw(st.sampled_from([0b1, 0b11000000, 0b11111111, 0b110011]))
    plain[PORT] = draw(st.sampled_from([1, 2, 3, full[PORT]]))
    plain[FROM], plain[TO] = mask(full[FROM]), mask(full[TO])
    pairs: dict[int, Pair] = {}
    if draw(st.integers(0, 3)):
        kind = draw(st.sampled_from([ALL, DIAGONAL, APART]))
        mine, theirs = mask(0b111), mask(0b111)
        if kind == DIAGONAL:
            mine = theirs = mine & theirs or mine
        if kind == APART and not (mine & theirs and (mine != theirs or mine & (mine - 1))):
            kind = ALL
        if (kind, mine, theirs) != UNIVERSE.full_pairs[ENV]:
            pairs[ENV] = kind, mine, theirs
    return Box(tuple(plain), pairs)


@settings(max_examples=settings().max_examples * 6)
@given(boxes(), boxes())
def test_boxes_are_sets_of_looks(one: Box, other: Box) -> None:
    mine, theirs = looks_of(one), looks_of(other)
    assert possible(UNIVERSE, one) == bool(mine)
    if not mine or not theirs:
        return
    both = meet(UNIVERSE, one, other)
    assert (looks_of(both) if both else set()) == mine & theirs
    pieces = [looks_of(piece) for piece in minus(UNIVERSE, one, other)]
    assert set().union(*pieces) == mine - theirs
    assert sum(map(len, pieces)) == len(mine - theirs)
    assert all(pieces)
    if holds_all(UNIVERSE, one, other):
        assert theirs <= mine
    look = some_look(UNIVERSE, one)
    assert (*(look.plain[at] for at in (SCENE, PORT, FROM, TO)), *look.pairs[ENV]) in mine


def test_a_rule_is_a_box_for_each_pair_of_alternatives_and_family_that_differs() -> None:
    assert len(boxes_of(UNIVERSE, rule("a"))) == 1
    assert len(boxes_of(UNIVERSE, rule("b"))) == 4
    assert len(boxes_of(UNIVERSE, rule("c"))) == 1
    (denied,) = boxes_of(UNIVERSE, rule("d"))
    assert denied.plain[SCENE] & 0b10101010 == 0, "a deny leaves the far end's process to the far point"


def test_a_rule_that_nothing_can_match_is_no_box() -> None:
    text = """
    networks: {four: [10.0.0.0/8], six: ["2001:db8::/64"], looped: [127.0.0.0/9], one: [192.0.2.1]}
    rules:
      - {id: a, allow: any, from: "env=x,env=y", to: any}
      - {id: b, allow: any, from: network:four, to: network:six}
      - {id: c, allow: any, from: any, to: network:looped}
      - {id: d, allow: any, from: network:one, to: network:one}
      - {id: e, allow: any, from: "!env", to: any, same: env}
      - {id: f, allow: any, from: any, to: any, expires: 1990-01-01T00:00:00Z}
      - {id: g, allow: any, from: network:looped, to: any}
    """
    policy = parse_policy([("a.yaml", text)])
    universe = Universe(policy.rules, (), None, 1e9)
    assert [one.id for one in policy.rules if boxes_of(universe, one)] == ["g"]


def test_what_a_vocabulary_lists_has_no_other_values_unless_the_fleet_has_them() -> None:
    assert UNIVERSE.keys[ENV].closed and not UNIVERSE.keys[ENV].others
    assert not UNIVERSE.keys[UNIVERSE.number["app"]].closed
    fleet = Fleet((Workload("w", Labels({"env": "lab", "rack": "9"})),))
    opened = Universe(POLICY.rules, POLICY.labels, fleet)
    assert not opened.keys[opened.number["env"]].closed


def test_the_breadth_of_everything_is_nothing_and_of_less_is_less() -> None:
    everything, narrow = boxes_of(UNIVERSE, rule("c"))[0], boxes_of(UNIVERSE, rule("a"))[0]
    free = Box(UNIVERSE.full, {})
    assert breadth(free, UNIVERSE) == 0.0
    assert breadth(narrow, UNIVERSE) < breadth(everything, UNIVERSE) < 0.0
