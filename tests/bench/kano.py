"""The bit-matrix method that others verify container networks with, written anew: a rival to run beside ours.

The method is Kano's (Li and others, "Kano: Efficient Container Network Policy Verification", HOTI 2020): a bit row per
label over all pods, a row of pods for each end of each policy, and one row of reachable pods per pod, with the rows of
the policies that speak of it joined in. Two things differ from what its authors published as code, so that the results
are NetworkPolicy's: a policy of one direction isolates in that direction only, and a pod gets no way to itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from tests.bench.fleets import PodPolicy

Pods = Sequence[Mapping[str, str]]
BitRow = Any
"""A `bitarray` of pods. That package is not among the locked ones of development, so its types are not to be had."""


def missing() -> bool:
    """Say whether the package that holds the bits is not installed."""
    return find_spec("bitarray") is None


def matrix(pods: Pods, policies: Sequence[PodPolicy], *, by_value: bool = False) -> list[BitRow]:
    """Give for each pod the row of pods that it reaches.

    As published, rows are kept per label key, and what has all keys is then looked at pod by pod. `by_value` keeps a
    row per key and value instead, and looks at no pod.
    """
    rows = _rows(pods, by_value=by_value)
    ends = [
        [_selected(pods, labels, rows, by_value=by_value) for labels in (one.subject, one.peer)] for one in policies
    ]
    isolated = {True: _none(len(pods)), False: _none(len(pods))}
    for one, (subject, _) in zip(policies, ends, strict=True):
        isolated[one.ingress] |= subject
    into = [~isolated[True] for _ in pods]
    out = [_none(len(pods)) if closed else ~_none(len(pods)) for closed in isolated[False]]
    bit = _bits("1")
    for one, (subject, peer) in zip(policies, ends, strict=True):
        if one.ingress:
            for number in peer.search(bit):
                into[number] |= subject
        else:
            for number in subject.search(bit):
                out[number] |= peer
    return [one & other for one, other in zip(into, out, strict=True)]


def _rows(pods: Pods, *, by_value: bool) -> dict[object, BitRow]:
    rows: dict[object, BitRow] = {}
    for number, labels in enumerate(pods):
        for pair in labels.items():
            at = pair if by_value else pair[0]
            if at not in rows:
                rows[at] = _none(len(pods))
            rows[at][number] = True
    return rows


def _selected(pods: Pods, wanted: Mapping[str, str], rows: dict[object, BitRow], *, by_value: bool) -> BitRow:
    found = ~_none(len(pods))
    for pair in wanted.items():
        found &= rows.get(pair if by_value else pair[0], _none(len(pods)))
    if not by_value:
        for number, held in enumerate(found):
            if held and any(pods[number].get(key) != value for key, value in wanted.items()):
                found[number] = False
    return found


def _none(count: int) -> BitRow:
    return _bits(count)


def _bits(of: object) -> BitRow:
    # Of a number, so many zeros (since 3.0 of the package).
    return import_module("bitarray").bitarray(of)
