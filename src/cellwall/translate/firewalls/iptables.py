"""iptables-save and ip6tables-save become policy documents: what INPUT and OUTPUT of the filter table accept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cellwall.flows import Side
from cellwall.policy import Place, PolicyError
from cellwall.translate.firewalls.boxes import Box
from cellwall.translate.firewalls.documents import ImportedHosts, write_hosts
from cellwall.translate.firewalls.first_match import Chains, Does, Step
from cellwall.translate.firewalls.host import Part, assemble
from cellwall.translate.firewalls.intervals import IPV4, IPV6, Intervals
from cellwall.translate.firewalls.ipset import IpSet, is_ipset, read_ipset
from cellwall.translate.firewalls.iptables_options import OPTIONS, OTHER_QUIET, QUIET_TARGETS, Rule
from cellwall.translate.firewalls.iptables_text import Chain, Line, Table, Word, family_of, read_tables
from cellwall.translate.firewalls.order_free import Effect, Remark
from cellwall.translate.firewalls.rule import HostFacts, Reading, SavedRules, Unread

HOOKS = {Side.INGRESS: "INPUT", Side.EGRESS: "OUTPUT"}
_VERDICTS = {"ACCEPT": Does.ACCEPT, "DROP": Does.DROP, "REJECT": Does.DROP, "RETURN": Does.RETURN}
_VERDICT_OPTIONS = {"REJECT": {"--reject-with": 1}}
_REWRITING = frozenset({"DNAT", "REDIRECT", "NETMAP", "TPROXY", "DNPT"})


def import_iptables(sources: Sequence[SavedRules], known: HostFacts | None = None) -> ImportedHosts:
    """Read what `iptables-save`, `ip6tables-save` and `ipset save` write, and say it as policy documents.

    Sources of one host belong together, in any order. Raises `PolicyError` where a text is none of these."""
    known = known or HostFacts()
    parts: list[Part] = []
    for host in dict.fromkeys(source.host for source in sources):
        mine = [source for source in sources if source.host == host]
        sets: dict[str, IpSet] = {}
        for source in mine:
            if is_ipset(source.text):
                sets.update((one.name, one) for one in read_ipset(source.file, source.text))
        saved = [source for source in mine if not is_ipset(source.text)]
        if not saved:
            raise PolicyError(Place(mine[0].file, 1, 1), "sets alone; give what `iptables-save` writes too")
        families: dict[int, str] = {}
        for source in saved:
            version = family_of(source.file, source.text)
            if version in families:
                told = f"of the same family as {families[version]}; name the hosts apart with --host"
                raise PolicyError(Place(source.file, 1, 1), told)
            families[version] = source.file
            parts.append(_Saved(source, version, known, sets).part())
        for version in {4, 6} - set(families):
            word = "ip6tables-save" if version == 6 else "iptables-save"
            reason = f"nothing of `{word}` is given, so everything over IPv{version} is denied"
            parts.append(Part(host, saved[0].file, remarks=(Remark(Place(saved[0].file), Effect.CLOSES, reason),)))
    return write_hosts(assemble(parts, known))


class _Saved:
    """One file, being read."""

    def __init__(self, source: SavedRules, version: int, known: HostFacts, sets: dict[str, IpSet]) -> None:
        self._source = source
        self._version = version
        self._known = known
        self._sets = sets
        self._remarks: list[Remark] = []
        everything = IPV4 if version == 4 else IPV6
        self._family = Box(remote=everything, local=everything)

    def part(self) -> Part:
        """Give what the file says of its host."""
        tables = read_tables(self._source.file, self._source.text)
        self._remarks.extend(_beside(tables))
        table = tables.get("filter") or Table("filter", Place(self._source.file))
        bases = {side: (self._chains(table, side),) for side in Side}
        return Part(self._source.host, self._source.file, bases, tuple(self._remarks), _named(self._sets.values()))

    def _chains(self, table: Table, side: Side) -> Chains:
        hook = HOOKS[side]
        base = table.chains.get(hook) or Chain(hook, "ACCEPT", table.place)
        suffix = "6" if self._version == 6 else ""
        does = Does.DROP if base.policy == "DROP" else Does.ACCEPT
        text = f":{hook} {does.value.upper()}"
        policy = Step(base.place, f"{hook.lower()}{suffix}-policy", text, does, policy=True)
        steps: dict[str, tuple[Step, ...]] = {hook: ()}
        todo = [base]
        while todo:
            chain = todo.pop()
            named = f"{chain.name.lower()}{suffix}"
            made = tuple(self._step(line, f"{named}-{at}", side, table) for at, line in enumerate(chain.rules, 1))
            steps[chain.name] = made
            for target in {step.target for step in made} - steps.keys():
                if target in table.chains:
                    todo.append(table.chains[target])
                    steps[target] = ()
        return Chains(hook, steps, policy, self._family)

    def _step(self, line: Line, name: str, side: Side, table: Table) -> Step:
        rule = Rule(Reading(side, line.text), self._version, self._known, self._sets)
        for place, reason in _read(rule, line):
            rule.reading.doubt(place, reason)
        for place, reason in rule.notes:
            self._remarks.append(Remark(place, Effect.CHECK, reason))
        reading, doubts = rule.reading, tuple(rule.reading.doubts)
        does, target = Does.NOTHING, ""
        if rule.target in table.chains:
            does, target = Does.GOTO if rule.goes else Does.JUMP, rule.target
        elif rule.target in _VERDICTS and not rule.goes:
            does = _VERDICTS[rule.target]
        elif rule.target in QUIET_TARGETS or rule.target in OTHER_QUIET or not rule.target:
            told = f"`{rule.target}` decides nothing" if rule.target else "a rule without a target decides nothing"
            self._remarks.append(Remark(line.place, Effect.SAME, told, line.text))
            doubts = ()
        else:
            # Whatever such a target decides: what it may have dropped is dropped.
            reasons = [f"what `{rule.target}` decides is not known", *(doubt.reason for doubt in doubts)]
            told = "; ".join(reasons) + ": all that it matches is denied"
            self._remarks.append(Remark(line.place, Effect.CLOSES, told, line.text))
            does, doubts = Does.DROP, ()
        return Step(
            line.place,
            name,
            line.text,
            does,
            reading.boxes,
            reading.when,
            target,
            rule.comment,
            doubts,
        )


def _named(sets: Iterable[IpSet]) -> dict[Intervals, str]:
    plain = (one for one in sets if one.kinds == ("ip",) and not one.unread)
    return {addresses: one.name for one in plain for addresses, _ in one.elements()[:1]}


def _read(rule: Rule, line: Line) -> Iterator[tuple[Place, str]]:
    """Read the options of a rule; give what is in doubt, and why."""
    at, but = 0, False
    module = ""
    while at < len(line.words):
        word = line.words[at]
        at += 1
        if word.text == "!" and not word.quoted:
            if but:
                yield line.at(word), "`!` twice"
            but = True
            continue
        option = OPTIONS.get(word.text) if not word.quoted else None
        if option is None or (option.modules and not option.modules & rule.modules):
            skipped = _skipped(rule, word, line.words[at:])
            if skipped is None:
                skipped = next((n for n, one in enumerate(line.words[at:]) if _is_option(one)), len(line.words) - at)
                # The options of a match that is not carried over go with it.
                if not module:
                    yield line.at(word), f"unknown option `{word.text}`"
            at += skipped
            but = False
            continue
        given = line.words[at : at + option.values]
        if len(given) < option.values or any(one.text in OPTIONS and not one.quoted for one in given):
            yield line.at(word), f"`{word.text}` lacks a value"
            but = False
            continue
        values = tuple(one.text for one in given)
        at += option.values
        if word.text in ("-m", "--match"):
            module = ""
        try:
            option.take(rule, values, but)
        except Unread as reason:
            module = values[0] if word.text in ("-m", "--match") else module
            yield line.at(word), str(reason)
        but = False


def _skipped(rule: Rule, word: Word, rest: Sequence[Word]) -> int | None:
    """Give how many values an option of the rule's target has; None where it is not one of its options."""
    if rule.target in OTHER_QUIET:
        return next((number for number, one in enumerate(rest) if _is_option(one)), len(rest))
    options = QUIET_TARGETS.get(rule.target) or _VERDICT_OPTIONS.get(rule.target) or {}
    return options.get(word.text) if not word.quoted else None


def _is_option(word: Word) -> bool:
    return not word.quoted and (word.text.startswith("-") or word.text == "!")


def _beside(tables: dict[str, Table]) -> Iterator[Remark]:
    """Say what of a file is not the filter table's INPUT and OUTPUT."""
    forward = tables["filter"].chains.get("FORWARD") if "filter" in tables else None
    if forward is not None and (forward.rules or forward.policy == "DROP"):
        told = (
            f"FORWARD ({len(forward.rules)} rules, policy {forward.policy}): Cellwall filters a host's own connections"
        )
        yield Remark(forward.place, Effect.CHECK, told, f":FORWARD {forward.policy}")
    for table in tables.values():
        if table.name == "filter":
            continue
        rules = [line for chain in table.chains.values() for line in chain.rules]
        for line in rules:
            target = _target_of(line)
            if target in ("DROP", "REJECT"):
                told = f"table `{table.name}` is not carried over; what this drops may be allowed"
                yield Remark(line.place, Effect.OPENS, told, line.text)
            elif target in _REWRITING:
                told = f"table `{table.name}` is not carried over; the policy speaks of addresses as rewritten by this"
                yield Remark(line.place, Effect.CHECK, told, line.text)
        for chain in table.chains.values():
            if chain.policy == "DROP":
                told = f"table `{table.name}` is not carried over; what this drops may be allowed"
                yield Remark(chain.place, Effect.OPENS, told, f":{chain.name} DROP")
        if rules:
            told = f"table `{table.name}` ({len(rules)} rules) is not carried over"
            yield Remark(table.place, Effect.CHECK, told, f"*{table.name}")


def _target_of(line: Line) -> str:
    words: Iterable[tuple[Word, Word]] = zip(line.words, line.words[1:], strict=False)
    return next((two.text for one, two in words if one.text in ("-j", "--jump") and not one.quoted), "")
