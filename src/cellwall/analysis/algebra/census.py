"""Which workloads of a fleet a selector or a network names, for thousands of selectors: sets of workloads as bits."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable

from cellwall.analysis.algebra.cover import bits_of, places
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Operator, Selector
from cellwall.policy import AddressBook, Who


class Census:
    """The workloads of a fleet, by label value and by address; a set of them is an int, a bit each in order of name."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.everybody = (1 << len(fleet.workloads)) - 1
        valued: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, workload in enumerate(fleet.workloads):
            for key, value in workload.labels.pairs:
                valued[key][value].append(number)
        self.values: dict[str, dict[str, int]] = {
            key: {value: bits_of(held[value]) for value in sorted(held)} for key, held in sorted(valued.items())
        }
        self._keyed = {
            key: bits_of(number for numbers in held.values() for number in numbers) for key, held in valued.items()
        }
        self.agents = bits_of(number for number, one in enumerate(fleet.workloads) if one.agent)
        self._addresses: dict[int, tuple[list[int], list[int]]] = {}
        for version in (4, 6):
            placed = sorted(
                (int(address), number)
                for number, one in enumerate(fleet.workloads)
                for address in one.addresses
                if address.version == version
            )
            self._addresses[version] = [at for at, _ in placed], [number for _, number in placed]
        self._selectors: dict[Selector, int] = {}
        self._books: dict[AddressBook, int] = {}

    def has(self, key: str) -> int:
        """Give the workloads that have a label of this key."""
        return self._keyed.get(key, 0)

    def matching(self, selector: Selector) -> int:
        """Give the workloads that `selector` matches."""
        found = self._selectors.get(selector)
        if found is None:
            found = self.everybody
            for one in selector.requirements:
                held = self.values.get(one.key, {})
                named = 0
                for value in one.values:
                    named |= held.get(value, 0)
                match one.operator:
                    case Operator.IN:
                        found &= named
                    case Operator.NOT_IN:
                        found &= ~named
                    case Operator.EXISTS:
                        found &= self.has(one.key)
                    case Operator.ABSENT:
                        found &= ~self.has(one.key)
            self._selectors[selector] = found
        return found

    def inside(self, book: AddressBook) -> int:
        """Give the workloads with an address in a network."""
        found = self._books.get(book)
        if found is None:
            held: list[int] = []
            for prefix in book.prefixes:
                at, numbers = self._addresses[prefix.version]
                first = bisect_left(at, int(prefix.network_address))
                held += numbers[first : bisect_right(at, int(prefix.broadcast_address))]
            found = self._books[book] = bits_of(held)
        return found

    def named(self, whos: Iterable[Who]) -> int:
        """Give the workloads that an end of a rule names."""
        found = 0
        for who in whos:
            one = self.matching(who.selector) if who.selector is not None else self.everybody
            found |= one & self.inside(who.network) if who.network is not None else one
        return found

    def workloads(self, bits: int) -> Iterable[Workload]:
        """Give the workloads of a set, in order of name."""
        return (self.fleet.workloads[number] for number in places(bits))

    def sharing(self, sources: int, destinations: int, same: tuple[str, ...]) -> bool:
        """Say whether one of each have the same values of the keys `same`."""
        if not sources or not destinations:
            return False
        if not same:
            return True
        held = self.values.get(same[0], {})
        return any(self.sharing(sources & one, destinations & one, same[1:]) for one in held.values())

    def pairs(self, sources: int, destinations: int, same: tuple[str, ...]) -> int:
        """Count the pairs of a source and another destination that have the same values of the keys `same`."""
        if not sources or not destinations:
            return 0
        if not same:
            return sources.bit_count() * destinations.bit_count() - (sources & destinations).bit_count()
        held = self.values.get(same[0], {})
        return sum(self.pairs(sources & one, destinations & one, same[1:]) for one in held.values())
