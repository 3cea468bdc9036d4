"""How revisions of a policy come into force: in which waves, what halts them, and who has to agree."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from cellwall.labels import Selector, parse_selector
from cellwall.policy.document import Node
from cellwall.policy.errors import Place
from cellwall.traffic import CellwallError

ROLLOUT_FIELDS = ("waves", "settle_s", "unexpected_denials", "on_failure", "checks")
WAVE_FIELDS = ("where",)
CHECK_FIELDS = ("id", "http", "status", "tcp")
APPROVAL_FIELDS = ("where", "reviewers")
LONGEST_SETTLE_S = 86_400.0
_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?([/?][!-~]*)?")
MOST_WAVES, MOST_CHECKS, MOST_REVIEWERS = 20, 100, 10
SHARES = {"canary": 0.01, "tenth": 0.1, "all": 1.0}
"""Waves by name, and the share of all points that has the revision when they are open; a canary is at least one."""


class WaveError(CellwallError):
    """A wave cannot be read."""


class OnFailure(StrEnum):
    """What becomes of a revision whose wave is not well: the last good one comes back, or nothing moves."""

    REVERT = "revert"
    HALT = "halt"


@dataclass(frozen=True, slots=True)
class Wave:
    """A step of a rollout: the points that `where` matches, or so many that `share` (over 0, to 1) of all have it.

    Waves add up: what an earlier one opened stays open."""

    name: str
    share: float = 0.0
    where: Selector | None = None


ALL = Wave("all", 1.0)


@dataclass(frozen=True, slots=True)
class Check:
    """An application's own check, made by the controller: `http` answers with `status`, or `tcp` opens."""

    id: str
    http: str = ""
    status: int = 200
    tcp: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a revision comes into force.

    Each wave must be in force at all its points, and well for `settle_s` seconds, before the next begins: with no more
    than `unexpected_denials` distinct flows denied that the revision before let pass and the plan did not foresee, and
    with all `checks` passing."""

    waves: tuple[Wave, ...] = (ALL,)
    settle_s: float = 0.0
    unexpected_denials: int = 0
    on_failure: OnFailure = OnFailure.REVERT
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Approval:
    """A change at points whose workloads match `where` needs so many `reviewers` beside its author."""

    where: Selector
    reviewers: int = 1
    place: Place = field(default_factory=Place, compare=False)


def parse_wave(text: str) -> Wave:
    """Read a wave: `canary` (one point in a hundred, at least one), `tenth`, `all`, `25%`, or a selector.

    Raises `WaveError` and `SelectorError`."""
    if text in SHARES:
        return Wave(text, SHARES[text])
    percent = re.fullmatch(r"(\d{1,3})%", text)
    if percent:
        if not 1 <= int(percent[1]) <= 100:
            raise WaveError(f"`{text}` is no share of the points; wanted `1%` to `100%`")
        return ALL if percent[1] == "100" else Wave(text, int(percent[1]) / 100)
    if re.fullmatch(r"\w+", text):
        raise WaveError(f"unknown wave `{text}`; wanted `canary`, `tenth`, `all`, such as `25%`, or a selector")
    where = parse_selector(text)
    if not where.requirements:
        raise WaveError("a wave is empty; wanted `canary`, `tenth`, `all`, such as `25%`, or a selector")
    return Wave(str(where), where=where)


def parse_waves(texts: Iterable[str]) -> tuple[Wave, ...]:
    """Read waves in their order; the last one is `all`, also where it is not said. Raises `WaveError`."""
    waves = tuple(parse_wave(text) for text in texts)
    if ALL in waves[:-1]:
        raise WaveError("after the wave `all` there is nothing left to do; let it be the last one")
    waves = waves if waves[-1:] == (ALL,) else (*waves, ALL)
    if len(waves) > MOST_WAVES:
        raise WaveError(f"{len(waves)} waves; wanted {MOST_WAVES} at most")
    return waves


def read_rollout(node: Node) -> Rollout:
    """Read the section `rollout`. Raises `PolicyError`."""
    fields = node.fields(ROLLOUT_FIELDS)
    waves = (ALL,)
    if "waves" in fields:
        nodes = fields["waves"].one_or_more()
        if len(nodes) > MOST_WAVES:
            raise fields["waves"].fail(f"{len(nodes)} waves; wanted {MOST_WAVES} at most")
        found = [(_wave(one), one) for one in nodes]
        for wave, one in found[:-1]:
            if wave == ALL:
                raise one.fail("after the wave `all` there is nothing left to do; let it be the last one")
        waves = tuple(wave for wave, _ in found)
        waves = waves if waves[-1] == ALL else (*waves, ALL)
    return Rollout(
        waves,
        _number(fields["settle_s"], LONGEST_SETTLE_S) if "settle_s" in fields else 0.0,
        int(_number(fields["unexpected_denials"], 1e6, whole=True)) if "unexpected_denials" in fields else 0,
        OnFailure(fields["on_failure"].choice(tuple(OnFailure))) if "on_failure" in fields else OnFailure.REVERT,
        _checks(fields["checks"]) if "checks" in fields else (),
    )


def read_approval(node: Node, where: Selector) -> Approval:
    """Read one of the section `approvals`, of which the selector was read. Raises `PolicyError`."""
    fields = node.fields(APPROVAL_FIELDS)
    reviewers = int(_number(fields["reviewers"], MOST_REVIEWERS, whole=True)) if "reviewers" in fields else 1
    if reviewers < 1:
        raise fields["reviewers"].fail("`0` reviewers; wanted at least one, or no such approval")
    return Approval(where, reviewers, node.place)


def _wave(node: Node) -> Wave:
    if node.kind == "mapping":
        fields = node.fields(WAVE_FIELDS)
        if "where" not in fields:
            raise node.fail("`where` is missing")
        node = fields["where"]
    return node.parse(parse_wave)


def _checks(node: Node) -> tuple[Check, ...]:
    found: dict[str, Check] = {}
    for one in node.items():
        check = _check(one)
        if check.id in found:
            raise one.fail(f"the check `{check.id}` is there twice")
        found[check.id] = check
    if len(found) > MOST_CHECKS:
        raise node.fail(f"{len(found)} checks; wanted {MOST_CHECKS} at most")
    return tuple(found.values())


def _check(node: Node) -> Check:
    fields = node.fields(CHECK_FIELDS)
    if "id" not in fields:
        raise node.fail("`id` is missing")
    name = fields["id"].filled()
    if ("http" in fields) == ("tcp" in fields):
        raise node.fail("a check has one of `http`, `tcp`")
    if "tcp" in fields:
        if "status" in fields:
            raise fields["status"].fail("`status` has no meaning beside `tcp`")
        return Check(name, tcp=_host_and_port(fields["tcp"]))
    url = fields["http"].filled()
    parts = _URL.fullmatch(url)
    if parts is None or not 1 <= int(parts["port"] or 80) <= 65535:
        raise fields["http"].fail(f"`{url}` is no URL to ask; wanted such as `http://10.0.0.5:8080/health`")
    status = int(_number(fields["status"], 599, whole=True)) if "status" in fields else 200
    if status < 100:
        raise fields["status"].fail(f"`{status}` is no HTTP status; wanted 100 to 599")
    return Check(name, http=url, status=status)


def _host_and_port(node: Node) -> tuple[str, int]:
    text = node.filled()
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise node.fail(f"`{text}` is nowhere to connect to; wanted such as `10.0.0.5:5432`")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _number(node: Node, most: float, *, whole: bool = False) -> float:
    text = node.text()
    try:
        number = float(text) if re.fullmatch(r"\d+" if whole else r"\d+(\.\d+)?", text) else math.nan
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        raise node.fail(f"`{text}` is not a {'whole ' if whole else ''}number from 0 to {most:g}")
    return number
