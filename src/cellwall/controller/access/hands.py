"""Whose hand did something: the person behind a name, where that is a program's token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PROGRAM = "token:"


def person_behind(name: str, owners: Mapping[str, str]) -> str | None:
    """Give the person who answers for `name`; None where it is a token that is gone.

    `owners` says who made each token, by the token's name."""
    return owners.get(name.removeprefix(PROGRAM)) if name.startswith(PROGRAM) else name


def persons_behind(names: Iterable[str], owners: Mapping[str, str]) -> frozenset[str]:
    """Give the persons who answer for `names`, each once, however many of their programs said the same."""
    return frozenset(one for name in names if (one := person_behind(name, owners)) is not None)
