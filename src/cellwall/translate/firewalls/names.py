"""Names for what imported firewalls leave unnamed: rules, networks, long lists of ports; each once, always the same."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cellwall.translate.firewalls.first_match import Step
from cellwall.translate.firewalls.intervals import ADDRESSES, IPV4, IPV6, PORTS, Intervals, less, networks_of, ports_of

MOST_NAME, MOST_PORTS, MOST_NAMED = 63, 16, 3
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")


class Names:
    """Gives names; equal networks have one name, whichever host they come from. Those of one host alone begin with it,
    so that documents of hosts that were imported one by one can stand in one folder."""

    def __init__(self, host: str = "") -> None:
        self._host = host
        self.networks: dict[str, Intervals] = {}
        self.services: dict[str, Intervals] = {}
        self._by_addresses: dict[Intervals, str] = {}
        self._by_ports: dict[Intervals, str] = {}
        self._rules: set[str] = set()
        self._wanted: dict[Intervals, str] = {}

    def hint(self, addresses: Intervals, name: str) -> None:
        """Take note of what an original calls some addresses."""
        self._wanted.setdefault(addresses, name)

    def rule(self, host: str, step: Step) -> str:
        """Give an id for a rule: from its comment, else from its chain and number."""
        words = _UNFIT.sub("-", step.comment).strip("-_.")
        return self.word(f"{host}-{words if 0 < len(words) <= MOST_NAME else step.name}")

    def word(self, wish: str) -> str:
        """Give an id that no rule has yet, as near to `wish` as can be."""
        return _free(wish, self._rules, add=True)

    def network(self, addresses: Intervals, wish: str) -> str:
        """Say `any`, or `network:` and a name, for addresses of the far or the own end."""
        if addresses == ADDRESSES:
            return "any"
        name = self._by_addresses.get(addresses)
        if name is None:
            known = {IPV4: "ipv4", IPV6: "ipv6"}.get(addresses) or _only("net-", addresses)
            wish = known or self._wanted.get(addresses) or _but(addresses) or wish
            name = _free(self._own(wish), self.networks)
            self.networks[name] = addresses
            self._by_addresses[addresses] = name
        return f"network:{name}"

    def ports(self, points: Intervals, rule: str) -> list[str]:
        """Write ports as a document lists them; a long list becomes a service named after the first rule with it."""
        listed = str(ports_of(points)).split(", ")
        if len(listed) <= MOST_PORTS:
            return listed
        name = self._by_ports.get(points)
        if name is None:
            rest = str(ports_of(less(PORTS, points))).split(", ")
            wish = f"all-but-{'-'.join(rest)}" if len(rest) <= MOST_NAMED else f"{rule}-ports"
            name = _free(self._own(wish.replace("/", "-")), self.services)
            self.services[name] = points
            self._by_ports[points] = name
        return [name]

    def _own(self, wish: str) -> str:
        # Names after a rule begin with the host already.
        return f"{self._host}.{wish.removeprefix(f'{self._host}-')}" if self._host else wish


def _only(word: str, addresses: Intervals) -> str:
    """Name what is a single prefix; empty where it is not."""
    prefixes = networks_of(addresses) if len(addresses) == 1 else ()
    if len(prefixes) != 1:
        return ""
    alone = prefixes[0].prefixlen == prefixes[0].max_prefixlen
    text = str(prefixes[0].network_address if alone else prefixes[0])
    return word + text.replace("::", "--").replace(":", "-").replace("/", "-")


def _but(addresses: Intervals) -> str:
    """Name what is all but a single prefix; empty where it is not."""
    for word, whole in (("all", ADDRESSES), ("ipv4", IPV4), ("ipv6", IPV6)):
        if not less(addresses, whole) and (name := _only(f"{word}-but-", less(whole, addresses))):
            return name
    return ""


def _free(wish: str, taken: Iterable[str], *, add: bool = False) -> str:
    wish = _UNFIT.sub("-", wish).strip("-_.") or "unnamed"
    name, number = wish[:MOST_NAME].rstrip("-_."), 1
    while name in taken:  # type: ignore[operator]
        number += 1
        name = f"{wish[: MOST_NAME - 1 - len(str(number))].rstrip('-_.')}-{number}"
    if add and isinstance(taken, set):
        taken.add(name)
    return name
