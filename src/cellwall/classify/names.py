"""What names of hosts and units say: environment, role, and the words that are left, which may name the application."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cellwall.classify.knowledge import ENVIRONMENTS, ROLES, SOFTWARE

_WORD = re.compile(r"[a-z]+[a-z0-9]*?(?=\d*(?:[^a-z0-9]|$))")


@dataclass(frozen=True, slots=True)
class Name:
    """A name taken apart. `rest` are the words with no known meaning, in order."""

    text: str
    environments: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()


def read_host_name(text: str) -> Name:
    """Take apart a host name such as `shop-web-1`, `db01.dev.example.net`; numbers are dropped."""
    return _read(text, text)


def read_unit_name(text: str) -> Name:
    """Take apart the name of a systemd service such as `shop-api@2.service`; scopes and slices say nothing."""
    stem, dot, kind = text.rpartition(".")
    return _read(text, stem.partition("@")[0]) if dot and kind == "service" else Name(text)


def _read(text: str, stem: str) -> Name:
    environments: list[str] = []
    roles: list[str] = []
    rest: list[str] = []
    if stem.lower() in SOFTWARE:
        return Name(text)
    for word in _WORD.findall(stem.lower()):
        if word in ENVIRONMENTS:
            environments.append(ENVIRONMENTS[word])
        elif word in ROLES:
            roles.append(ROLES[word])
        elif word not in SOFTWARE and len(word) > 1:
            rest.append(word)
    return Name(text, tuple(environments), tuple(roles), tuple(rest))
