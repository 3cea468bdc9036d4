"""A policy with fewer rules that means the same: rules that never decide are left out, and alike ones become one.

Rules become one where that is exact: those that differ in one place alone (ports, `from`, `to` or the side), as a
rule is the product of these and products distribute over unions; and those that let one value of a key talk with the
same value, as `same` is the union of these. They must have one owner and stand in one file, so that nobody's
words come into what others look after, unless that is asked for; reasons and tickets are joined. What is staged,
expired, refused or logged is left as it is. That both policies mean the same is proven afterwards, of the documents as
they are written: `told_apart`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cellwall.analysis.linting.alternatives import joined_ends
from cellwall.analysis.linting.covered import Covered, live
from cellwall.analysis.linting.findings import Edit, EditKind
from cellwall.analysis.linting.notation import end_text, one_or_list, scalar
from cellwall.labels import Operator, Requirement, Selector
from cellwall.policy import Policy, Rule, Service, Who
from cellwall.traffic import EVERYTHING, NOTHING, PortSet, parse_ports


@dataclass(frozen=True, slots=True)
class Merge:
    """The rule `kept` says what `rules` (ids, its own included) said."""

    kept: str
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Removal:
    """The rule never decided, as the rules `proof` (ids) show."""

    rule: str
    proof: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Minimised:
    """How a policy gets fewer rules: `before` and `after` count them."""

    before: int
    after: int
    merges: tuple[Merge, ...]
    removals: tuple[Removal, ...]
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """A rule, and the ids of the rules of the documents that it stands for."""

    rule: Rule
    of: tuple[str, ...]


def minimise(policy: Policy, now: float, *, across_files: bool = False) -> Minimised:
    """Find fewer rules that mean what those of `policy` mean from `now` on (seconds since the epoch), for any fleet
    whose label values are those of the vocabulary, where it lists them.

    Rules of several files become one only `across_files`: then it stands where the first of them stood."""
    removals = _removals(policy, now)
    gone = {one.rule for one in removals}
    movable = [rule for rule in policy.rules if live(rule, now) and not rule.log and rule.id not in gone]
    groups = _fewest([_Group(_plain(rule), (rule.id,)) for rule in movable], policy, across_files)
    # One may cover what two did not.
    still = {rule.id for rule in movable}
    left = tuple(rule for rule in policy.rules if rule.id not in gone and rule.id not in still)
    merged = replace(policy, rules=tuple(sorted((*left, *(one.rule for one in groups)), key=lambda rule: rule.id)))
    after = _removals(merged, now)
    late = {one.rule: one for one in after}
    edits = [Edit(EditKind.REMOVE, policy.by_id[rule_id].place) for rule_id in sorted(gone)]
    for group in groups:
        if group.rule.id in late:
            edits += (Edit(EditKind.REMOVE, policy.by_id[rule_id].place) for rule_id in group.of)
        elif len(group.of) > 1:
            edits += _rewritten(group, policy)
    merges = tuple(Merge(one.rule.id, one.of) for one in groups if len(one.of) > 1 and one.rule.id not in late)
    count = len(merged.rules) - len(late)
    # What was joined and then found not to decide, goes with all that it stood for.
    of = {one.rule.id: one.of for one in groups}
    removed = (*removals, *(replace(one, rule=rule_id) for one in after for rule_id in of.get(one.rule, (one.rule,))))
    return Minimised(len(policy.rules), count, merges, removed, tuple(edits))


def _removals(policy: Policy, now: float) -> tuple[Removal, ...]:
    lifelines = {rule.id for rule in policy.lifelines}
    return tuple(
        Removal(one.subject, one.proof, one.message)
        for one in Covered(policy, now).never
        if one.subject not in lifelines and not policy.by_id[one.subject].log
    )


def _plain(rule: Rule) -> Rule:
    """Give `rule` with its ends in their shortest spelling, so that equal ends are equal values."""
    return replace(rule, source=joined_ends(rule.source), destination=joined_ends(rule.destination))


def _fewest(groups: list[_Group], policy: Policy, across_files: bool) -> list[_Group]:
    """Merge until nothing more does: in each round the largest sets of rules first that can be one."""
    values = {key.key: key.values for key in policy.labels}
    keys = sorted({one.key for selector in policy.selectors for one in selector.requirements})
    while True:
        alike: defaultdict[tuple[str, object], list[int]] = defaultdict(list)
        for at, group in enumerate(groups):
            for way, rest in _ways(group.rule, keys, across_files):
                alike[way, rest].append(at)
        used: set[int] = set()
        made: list[_Group] = []
        for (way, _), found in sorted(alike.items(), key=lambda one: -len(one[1])):
            left = [at for at in found if at not in used]
            if len(left) > 1:
                used.update(left)
                made.append(_together([groups[at] for at in left], way, values))
        if not made:
            return groups
        groups = [*made, *(group for at, group in enumerate(groups) if at not in used)]


def _ways(rule: Rule, keys: list[str], across_files: bool) -> Iterator[tuple[str, object]]:
    """Give the ways in which `rule` can become one with others, each with all that the others must have alike."""
    frame = rule.action, rule.owner, rule.starts, rule.expires, "" if across_files else rule.place.file
    yield "sides", (*frame, rule.same, rule.ports, rule.source, rule.destination)
    yield "ports", (*frame, rule.same, rule.sides, rule.source, rule.destination)
    yield "from", (*frame, rule.same, rule.sides, rule.ports, rule.destination)
    yield "to", (*frame, rule.same, rule.sides, rule.ports, rule.source)
    for key in keys:
        if (told := _with_itself(rule, key)) is not None:
            bare, _ = told
            yield f"same {key}", (*frame, bare.same, bare.sides, bare.ports, bare.source, bare.destination)


def _together(found: list[_Group], way: str, values: dict[str, tuple[str, ...]]) -> _Group:
    first, rules = found[0].rule, [one.rule for one in found]
    match way.split():
        case ["sides"]:
            made = replace(first, sides=frozenset(side for rule in rules for side in rule.sides))
        case ["ports"]:
            ports = PortSet.of(span for rule in rules for span in rule.ports.spans)
            services = tuple(dict.fromkeys(name for rule in rules for name in rule.services))
            made = replace(first, ports=ports, services=services)
        case ["from"]:
            made = replace(first, source=joined_ends(who for rule in rules for who in rule.source))
        case ["to"]:
            made = replace(first, destination=joined_ends(who for rule in rules for who in rule.destination))
        case words:
            key = words[-1]
            told = [one for rule in rules if (one := _with_itself(rule, key)) is not None]
            held = frozenset(value for _, some in told for value in some)
            made = replace(told[0][0], same=tuple(sorted({*told[0][0].same, key})))
            if held != frozenset(values.get(key, ())):
                source, destination = (_having(whos, key, held) for whos in (made.source, made.destination))
                made = replace(made, source=source, destination=destination)
    return _Group(made, tuple(rule_id for one in found for rule_id in one.of))


def _with_itself(rule: Rule, key: str) -> tuple[Rule, frozenset[str]] | None:
    """Give a rule without what it asks of `key`, and the values that it lets talk with themselves and no others."""
    ends = (*rule.source, *rule.destination)
    if len(rule.source) != 1 or len(ends) != 2:
        return None
    held: list[frozenset[str]] = []
    for who in ends:
        asked = [one for one in who.selector.requirements if one.key == key] if who.selector else []
        if len(asked) != 1 or asked[0].operator is not Operator.IN:
            return None
        held.append(frozenset(asked[0].values))
    if key not in rule.same and (held[0] != held[1] or len(held[0]) != 1):
        return None
    source, destination = (_without(who, key) for who in ends)
    same = tuple(one for one in rule.same if one != key)
    return replace(rule, source=(source,), destination=(destination,), same=same), held[0] & held[1]


def _without(who: Who, key: str) -> Who:
    assert who.selector is not None
    left = tuple(one for one in who.selector.requirements if one.key != key)
    return replace(who, selector=Selector(left) if left else None)


def _having(whos: tuple[Who, ...], key: str, values: Iterable[str]) -> tuple[Who, ...]:
    (who,) = whos
    asked = Requirement(key, Operator.IN, tuple(sorted(values)))
    held = who.selector.requirements if who.selector else ()
    return (replace(who, selector=Selector(tuple(sorted({*held, asked})))),)


def _rewritten(group: _Group, policy: Policy) -> list[Edit]:
    """Give the edits that make the first of the rules say what all of them say, and take the others away."""
    rules = sorted((policy.by_id[rule_id] for rule_id in group.of), key=lambda rule: (rule.place, rule.id))
    first, made = policy.by_id[group.rule.id], group.rule
    edits = [Edit(EditKind.REMOVE, rule.place) for rule in rules if rule is not first]
    changed = {
        str(made.action): _services_text(made, policy) if made.ports != first.ports else None,
        "from": end_text(made.source) if made.source != _plain(first).source else None,
        "to": end_text(made.destination) if made.destination != _plain(first).destination else None,
        "same": one_or_list(made.same) if made.same != first.same else None,
        "side": "" if made.sides != first.sides else None,
    }
    for word, mark in (("reason", "; "), ("ticket", ", ")):
        told = dict.fromkeys(text for rule in rules if (text := getattr(rule, word)))
        if len(told) > 1 or (told and not getattr(first, word)):
            changed[word] = scalar(mark.join(told))
    return edits + [Edit(EditKind.SET, first.place, word, text) for word, text in changed.items() if text is not None]


def _services_text(rule: Rule, policy: Policy) -> str:
    """Write the services of a rule: by the names that it had, as few as are needed."""
    if rule.ports == EVERYTHING:
        return "any"
    named: dict[str, Service] = {service.name: service for service in policy.services}
    kept = [name for name in rule.services if name in named]
    ports: PortSet = rule.ports
    for name in kept:
        ports -= named[name].ports
    loose = [name for name in rule.services if name not in named]
    if ports:
        # Bare ports are written anew: neighbours become a range.
        bare = NOTHING
        for name in loose:
            bare |= parse_ports(name)
        kept += str(bare).split(", ")
    return one_or_list(scalar(name) for name in kept)
