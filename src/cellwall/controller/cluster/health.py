"""How a rollout fares, as all controllers see it together: each knows the flows of the agents that it has."""

from __future__ import annotations

from typing import Any

from cellwall.controller.cluster.peers import Peers
from cellwall.controller.rollout import Health
from cellwall.controller.store.cluster import ClusterStore
from cellwall.controller.store.rollouts import Course

KEY = "health "
"""How the settings begin in which controllers say what they see; the rest is their name."""


def together(store: ClusterStore, peers: Peers, course: Course, seen: Health) -> Health:
    """Say what this controller sees, and give what all see: as well as where it fares worst, as of the oldest look.

    Who has not looked yet at this wave has seen nothing: the wave waits. Raises `StateError`."""
    if peers.alone:
        return seen
    store.put_setting(KEY + peers.me.name, _written(course, seen))
    found = [seen]
    for one in peers.alive():
        told = store.setting(KEY + one.name)
        if told is None or told["course"] != [course.revision, course.wave]:
            found.append(Health())
        else:
            # A controller of an earlier version does not say by whom: those flows are nobody's, and count.
            by = told.get("reporters") or [""] * len(told["unexpected"])
            found.append(Health(tuple(told["unexpected"]), tuple(told["failing"]), float(told["at"]), tuple(by)))
    flows = dict(pair for one in found for pair in zip(one.unexpected, one.reporters, strict=True))
    return Health(
        tuple(flows),
        tuple(dict.fromkeys(check for one in found for check in one.failing)),
        min(one.at for one in found),
        tuple(flows.values()),
    )


def _written(course: Course, seen: Health) -> dict[str, Any]:
    return {
        "course": [course.revision, course.wave],
        "unexpected": list(seen.unexpected),
        "reporters": list(seen.reporters),
        "failing": list(seen.failing),
        "at": seen.at,
    }
