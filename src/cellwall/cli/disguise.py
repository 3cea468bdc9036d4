"""Names and addresses replaced by others, each by the same everywhere, so that a bundle still tells who met whom."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import cast

NAMING = frozenset(
    {
        "account", "actor", "advertise", "author", "by", "controller", "from", "host", "hostname", "instance", "label",
        "labels", "listen", "made_by", "name", "node", "nodename", "owner", "peer", "person", "source", "destination",
        "subject", "to", "user", "workload", "workloads",
    }
)  # fmt: skip
"""Under these keys stand names."""
PLAIN = frozenset(
    {"", "admin", "root", "controller", "local", "localhost", "nobody", "any", "default", "policy", "none"}
    | {"http", "https", "wss", "tcp", "udp", "icmp"}
)
# An address may have a port behind it; one of IPv4 may stand in one of IPv6 (RFC 4291 §2.5.5.2).
_ADDRESS = re.compile(
    r"(?<![\w.])(?:::[fF]{4}:)?\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)"
    r"|(?<![\w.:])[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?![\w:])"
)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")
_FIELD = re.compile(rf"\b({'|'.join(sorted(NAMING))})=\"?([A-Za-z0-9][A-Za-z0-9._@-]*)")


class Disguise:
    """Learns names with `learn`, then replaces them, and all addresses, in any text."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._addresses: dict[str, str] = {}

    def learn(self, text: str) -> None:
        """Take the names that a text tells: JSON, lines of JSON, or fields such as `workload=web-1`."""
        for part in (text, *text.splitlines()) if len(text) < 1 << 26 else text.splitlines():
            if part[:1] in ("{", "["):
                try:
                    self._gather(json.loads(part), "")
                except ValueError:
                    continue
        for found in _FIELD.finditer(text):
            self._add(found[2])

    def over(self, text: str) -> str:
        """Give the text with everything replaced."""
        if self._names:
            text = _WORD.sub(lambda found: self._replaced(found[0]), text)
        return _ADDRESS.sub(self._address, text)

    def _gather(self, value: object, key: str) -> None:
        if isinstance(value, Mapping):
            for name, one in cast("Mapping[str, object]", value).items():
                if key in ("labels", "label"):
                    self._add(name)
                self._gather(one, key if key == "labels" else name)
        elif isinstance(value, list):
            for one in cast("list[object]", value):
                self._gather(one, key)
        elif isinstance(value, str) and key in NAMING:
            for word in _WORD.findall(value) if len(value) < 300 else ():
                self._add(word)

    def _add(self, word: str) -> None:
        word = word.rstrip(".-")
        if word.lower() not in PLAIN and not word.replace(".", "").isdigit() and word not in self._names:
            self._names[word] = f"name-{len(self._names) + 1}"

    def _replaced(self, word: str) -> str:
        bare = word.rstrip(".-")
        return self._names.get(bare, bare) + word[len(bare) :]

    def _address(self, found: re.Match[str]) -> str:
        try:
            address = ip_address(found[0])
        except ValueError:
            return found[0]
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if address.is_loopback or address.is_unspecified:
            return found[0]
        return self._addresses.setdefault(str(address), f"address-{len(self._addresses) + 1}")
