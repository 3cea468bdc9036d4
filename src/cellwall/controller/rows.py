"""How all points stand, worked out anew only for those of which something changed since somebody asked last."""

from __future__ import annotations

from collections.abc import Mapping

from cellwall.controller.core import Row, Standing, Wanted, is_silent, show


class Rows:
    """The rows of a rollout as they were shown last: a row is another where its standing, what is wanted of it, or
    whether it is silent is another."""

    def __init__(self) -> None:
        self._wanted: Mapping[str, Wanted] = {}
        self._names: tuple[str, ...] = ()
        self._kept: dict[str, tuple[Standing, Wanted, bool, Row]] = {}

    def of(
        self, standings: Mapping[str, Standing], wanted: Mapping[str, Wanted], now: float, silent_after_s: float
    ) -> dict[str, Row]:
        """Give the row of every point, in order of name; see `core.show`."""
        if wanted is not self._wanted or wanted.keys() != self._kept.keys():
            self._wanted, self._names = wanted, tuple(sorted(wanted))
            self._kept = {name: one for name, one in self._kept.items() if name in wanted}
        rows: dict[str, Row] = {}
        for name in self._names:
            standing, want = standings[name], wanted[name]
            silent = is_silent(standing, now, silent_after_s)
            kept = self._kept.get(name)
            if kept is None or kept[0] is not standing or kept[1] is not want or kept[2] is not silent:
                kept = self._kept[name] = (standing, want, silent, show(standing, want, now, silent_after_s))
            rows[name] = kept[3]
        return rows
