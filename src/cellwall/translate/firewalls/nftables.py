"""A ruleset of nftables becomes policy documents: what all base chains at hooks input and output accept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cellwall.flows import Side
from cellwall.policy import Place, PolicyError
from cellwall.translate.firewalls.boxes import Box
from cellwall.translate.firewalls.documents import ImportedHosts, write_hosts
from cellwall.translate.firewalls.first_match import Chains, Does, Step
from cellwall.translate.firewalls.host import Part, assemble
from cellwall.translate.firewalls.intervals import ADDRESSES, IPV4, IPV6, Intervals, join, less
from cellwall.translate.firewalls.iptables_text import MOST_CHARACTERS
from cellwall.translate.firewalls.nft_fields import flags, narrow
from cellwall.translate.firewalls.nft_json import is_json, read_json
from cellwall.translate.firewalls.nft_syntax import (
    UNKNOWN,
    Branch,
    Chain,
    Element,
    Flags,
    Match,
    Riddle,
    Rule,
    Table,
    Verdict,
)
from cellwall.translate.firewalls.nft_text import read_text
from cellwall.translate.firewalls.order_free import Effect, Remark
from cellwall.translate.firewalls.rule import HostFacts, Reading, SavedRules, Unread, address_range

HOOKS = {Side.INGRESS: "input", Side.EGRESS: "output"}
_FAMILIES = {"ip": IPV4, "ip6": IPV6, "inet": ADDRESSES}
_KINDS = frozenset({"filter", "route"})


def import_nft(sources: Sequence[SavedRules], known: HostFacts | None = None) -> ImportedHosts:
    """Read what `nft list ruleset` or `nft -j list ruleset` writes, and say it as policy documents.

    Each source is the whole ruleset of a host. Raises `PolicyError` where a text is neither."""
    known = known or HostFacts()
    parts: list[Part] = []
    files: dict[str, str] = {}
    for source in sources:
        if source.host in files:
            told = f"the ruleset of `{source.host}` is {files[source.host]} already; name the hosts apart with --host"
            raise PolicyError(Place(source.file, 1, 1), told)
        files[source.host] = source.file
        parts.append(_Ruleset(source, known).part())
    return write_hosts(assemble(parts, known))


class _Ruleset:
    """One ruleset, being read."""

    def __init__(self, source: SavedRules, known: HostFacts) -> None:
        if not source.file.isprintable():
            raise PolicyError(Place(ascii(source.file)), "the name of the file has characters that cannot be shown")
        if len(source.text) > MOST_CHARACTERS:
            raise PolicyError(Place(source.file, 1, 1), f"over {MOST_CHARACTERS} characters")
        self._source = source
        self._known = known
        self._remarks: list[Remark] = []
        read = read_json if is_json(source.text) else read_text
        self._tables = read(source.file, source.text)

    def part(self) -> Part:
        """Give what the ruleset says of its host."""
        self._remarks.extend(_beside(self._tables))
        bases: dict[Side, tuple[Chains, ...]] = {side: tuple(self._bases(side)) for side in Side}
        return Part(self._source.host, self._source.file, bases, tuple(self._remarks), self._names())

    def _bases(self, side: Side) -> Iterator[Chains]:
        covered: Intervals = ()
        for table in self._tables:
            for chain in table.chains.values() if table.family in _FAMILIES else ():
                if chain.hook == HOOKS[side] and chain.kind in _KINDS:
                    family = _FAMILIES[table.family]
                    covered = join((*covered, *family))
                    yield self._chains(table, chain, side, Box(remote=family, local=family))
        missed = less(ADDRESSES, covered)
        if missed:
            # Where no base chain is, everything passes.
            text = f"no base chain at hook {HOOKS[side]}"
            step = Step(Place(self._source.file), f"{HOOKS[side]}-all", text, Does.ACCEPT, policy=True)
            yield Chains("", {"": ()}, step, Box(remote=missed, local=missed))

    def _chains(self, table: Table, base: Chain, side: Side, family: Box) -> Chains:
        suffix = "6" if table.family == "ip6" else ""
        text = f"chain {base.name} {{ policy {base.policy} }}"
        policy = Step(base.place, f"{base.name.lower()}{suffix}-policy", text, base.policy, policy=True)
        steps: dict[str, tuple[Step, ...]] = {}
        todo = [base]
        while todo:
            chain = todo.pop()
            if chain.name in steps:
                continue
            named = f"{chain.name.lower()}{suffix}"
            steps[chain.name] = tuple(
                step
                for number, rule in enumerate(chain.rules, 1)
                for step in self._steps(table, rule, f"{named}-{number}", side)
            )
            todo.extend(table.chains[step.target] for step in steps[chain.name] if step.target in table.chains)
        return Chains(base.name, steps, policy, family)

    def _steps(self, table: Table, rule: Rule, name: str, side: Side) -> Iterator[Step]:
        if rule.aside:
            told = f"`{'`, `'.join(dict.fromkeys(rule.aside))}` decides nothing and is not carried over"
            self._remarks.append(Remark(rule.place, Effect.SAME, told, rule.text))
        reading = Reading(side, rule.text)
        for statement in rule.statements:
            try:
                match statement:
                    case Riddle():
                        reading.doubt(statement.place, statement.reason)
                    case Flags():
                        flags(reading, statement)
                    case Match():
                        elements = self._elements(table, statement.right, rule)
                        narrow(reading, self._known, statement.fields, statement.how, elements)
                    case Branch():
                        yield from self._branches(table, rule, name, reading, statement)
                        return
                    case Verdict():
                        yield self._decided(rule, name, reading, statement)
                        return
            except Unread as reason:
                reading.doubt(statement.place if not isinstance(statement, Verdict) else rule.place, str(reason))
        for doubt in reading.doubts:
            told = f"{doubt.reason}; it has no verdict of its own, and is left out"
            self._remarks.append(Remark(doubt.place, Effect.CHECK, told, rule.text))

    def _branches(self, table: Table, rule: Rule, name: str, reading: Reading, branch: Branch) -> Iterator[Step]:
        pairs = branch.right
        if isinstance(pairs, str):
            named = table.sets.get(pairs.removeprefix("@"))
            if named is None or named.unread:
                reading.doubt(branch.place, named.unread if named else f"map `{pairs}` is not in its table")
                yield self._decided(rule, name, reading, Verdict(Does.DROP, "", UNKNOWN))
                return
            pairs = tuple(named.verdicts)
        for element, verdict in pairs:
            one = reading.copy()
            try:
                narrow(one, self._known, branch.fields, "==", (element,))
            except Unread as reason:
                one.doubt(branch.place, str(reason))
            yield self._decided(rule, name, one, verdict)

    def _decided(self, rule: Rule, name: str, reading: Reading, verdict: Verdict) -> Step:
        doubts = tuple(reading.doubts)
        if verdict.word == UNKNOWN:
            reasons = ["what it decides is not known", *(doubt.reason for doubt in doubts)]
            told = "; ".join(reasons) + ": all that it matches is denied"
            self._remarks.append(Remark(rule.place, Effect.CLOSES, told, rule.text))
            doubts = ()
        return Step(
            rule.place,
            name,
            rule.text,
            verdict.does,
            reading.boxes,
            reading.when,
            verdict.target,
            rule.comment,
            doubts,
        )

    def _elements(self, table: Table, right: tuple[Element, ...] | str, rule: Rule) -> Sequence[Element]:
        if not isinstance(right, str):
            return right
        named = table.sets.get(right.removeprefix("@"))
        if named is None:
            raise Unread(f"set `{right}` is not in its table")
        if named.unread:
            raise Unread(named.unread)
        if named.temporary:
            told = f"elements of set `{named.name}` come and go; those that it has are carried over"
            self._remarks.append(Remark(rule.place, Effect.CHECK, told, rule.text))
        return named.elements

    def _names(self) -> dict[Intervals, str]:
        """Give what the ruleset calls sets of addresses."""
        names: dict[Intervals, str] = {}
        for table in self._tables:
            for named in table.sets.values():
                try:
                    words = [element[0] for element in named.elements if len(element) == 1]
                    some = [address_range(word, 6 if ":" in word else 4) for word in words]
                except Unread:
                    continue
                if some and len(words) == len(named.elements):
                    names.setdefault(join(part for one in some for part in one), named.name)
        return names


def _beside(tables: Sequence[Table]) -> Iterator[Remark]:
    """Say what of a ruleset is not at the hooks input and output of IP."""
    for table in tables:
        if table.family not in _FAMILIES:
            told = f"table `{table.family} {table.name}` is not carried over: Cellwall speaks of IP alone"
            drops = any(_drops(table, chain) for chain in table.chains.values() if chain.hook)
            yield Remark(table.place, Effect.OPENS if drops else Effect.CHECK, told)
            continue
        for chain in table.chains.values():
            if not chain.hook or (chain.hook in HOOKS.values() and chain.kind in _KINDS):
                continue
            if not chain.rules and chain.policy is Does.ACCEPT:
                continue
            told = f"chain `{chain.name}` (type {chain.kind}, hook {chain.hook}) is not carried over"
            if chain.hook == "forward":
                yield Remark(chain.place, Effect.CHECK, f"{told}: Cellwall filters a host's own connections")
            elif chain.kind != "nat" and _drops(table, chain):
                yield Remark(chain.place, Effect.OPENS, f"{told}; what it drops may be allowed")
            else:
                rewrites = "; the policy speaks of addresses as rewritten by it" if chain.kind == "nat" else ""
                yield Remark(chain.place, Effect.CHECK, told + rewrites)


def _drops(table: Table, base: Chain) -> bool:
    """Say whether anything may be dropped in a chain, or in one that it leads to."""
    if base.policy is Does.DROP:
        return True
    seen, todo = {base.name}, [base]
    while todo:
        for rule in todo.pop().rules:
            for statement in rule.statements:
                verdicts: list[Verdict] = [statement] if isinstance(statement, Verdict) else []
                if isinstance(statement, Branch):
                    named = table.sets.get(str(statement.right).removeprefix("@"))
                    pairs = statement.right if not isinstance(statement.right, str) else named.verdicts if named else ()
                    verdicts = [verdict for _, verdict in pairs]
                for verdict in verdicts:
                    if verdict.does is Does.DROP:
                        return True
                    if verdict.target in table.chains and verdict.target not in seen:
                        seen.add(verdict.target)
                        todo.append(table.chains[verdict.target])
    return False
