"""The tests of the policy in force, checked again whenever policy, labels, addresses or the time change them.

Ground ──run_tests──▶ Report ──┬─▶ what turned: a test that held and fails, or that failed and holds again
how they stood last ───────────┴─▶ how they stand, and since when
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cellwall.analysis import TestResult, run_tests
from cellwall.compile import next_change
from cellwall.controller.ground import Ground
from cellwall.controller.store.state import StateStore, TestOutcome
from cellwall.flows import Outcome

CONTROLLER = "controller"
"""The author of what the controller does of itself."""


class Cause(StrEnum):
    """What made a test turn: another policy, another fleet (labels, addresses, workloads), or a rule's time."""

    POLICY = "policy"
    FLEET = "fleet"
    TIME = "time"


@dataclass(frozen=True)
class Report:
    """How the tests stand: `results` hold for `ground` at `at`, in seconds since the epoch."""

    ground: Ground
    at: float
    results: tuple[TestResult, ...]


@dataclass(frozen=True, slots=True)
class Turned:
    """A test that fails and did not, or that holds again; `counterexample` says in words what breaks it."""

    test: str
    place: str
    passed: bool
    counterexample: str


def check(ground: Ground, now: float) -> Report:
    """Check the tests of a policy over its fleet. May take long: it touches nothing but its values."""
    return Report(ground, now, run_tests(ground.policy, ground.fleet, now))


def stand(before: Mapping[str, TestOutcome], report: Report) -> tuple[TestOutcome, ...]:
    """Say how every test stands, and since when it has stood so."""
    found: list[TestOutcome] = []
    for one in report.results:
        last = before.get(one.test.id)
        since = last.since if last is not None and last.passed == one.passed else report.at
        found.append(TestOutcome(one.test.id, one.passed, since, report.ground.revision, counterexample(one)))
    return tuple(found)


def turned(before: Mapping[str, TestOutcome], report: Report) -> tuple[Turned, ...]:
    """Give the tests that stand differently than before; one that is new counts where it fails."""
    return tuple(
        Turned(one.test.id, str(one.test.place), one.passed, counterexample(one))
        for one in report.results
        if one.passed is not (before[one.test.id].passed if one.test.id in before else True)
    )


def cause(before: Report | None, after: Report) -> Cause:
    """Say what is different from one report to the next."""
    if before is None or before.ground.policy is not after.ground.policy:
        return Cause.POLICY
    return Cause.TIME if before.ground.fleet == after.ground.fleet else Cause.FLEET


class StandingTests:
    """How the tests of the policy in force stand: `report` as last checked, `outcomes` as kept in the store."""

    def __init__(self, store: StateStore, log: Callable[..., None]) -> None:
        self._store = store
        self._log = log
        self.report: Report | None = None
        self.outcomes = store.test_outcomes()

    def refresh(self) -> None:
        """Read how they stood last again: another controller has checked them."""
        self.outcomes = self._store.test_outcomes()

    def due(self, ground: Ground, now: float) -> bool:
        """Say whether they may stand differently by now than when they were last checked."""
        last = self.report
        if last is None or last.ground.revision != ground.revision:
            return True
        if last.ground.policy is not ground.policy or last.ground.fleet is not ground.fleet:
            return True
        change = next_change(ground.policy, last.at)
        return change is not None and change <= now

    def adopt(self, report: Report) -> None:
        """Take how they stand: what turned is logged and goes into the audit log, with what breaks it."""
        why, changes = cause(self.report, report), turned(self.outcomes, report)
        outcomes = {one.test: one for one in stand(self.outcomes, report)}
        self.report = report
        if outcomes == self.outcomes:
            return
        with self._store.transaction():
            self._store.put_test_outcomes(tuple(outcomes.values()))
            for one in changes:
                act = "test holds again" if one.passed else "test fails"
                details: dict[str, object] = {
                    "revision": report.ground.revision,
                    "place": one.place,
                    "counterexample": one.counterexample,
                    "because": why.value,
                }
                self._store.record(report.at, CONTROLLER, act, one.test, details)
                self._log(act, test=one.test, **details)
        self.outcomes = outcomes


def counterexample(result: TestResult) -> str:
    """Say in words what breaks a test: `web-1 → db-1 tcp/22 passes, and 3 more`; empty where it holds."""
    if not result.counterexamples:
        return ""
    first = result.counterexamples[0]
    verdicts = [one for one in (first.egress, first.ingress) if one is not None]
    passes = all(one.would is Outcome.ALLOWED for one in verdicts)
    more = len(result.counterexamples) - 1 + sum(one.alike for one in result.counterexamples)
    as_who = f" as {first.identity}" if first.identity else ""
    told = f"{first.source}{as_who} → {first.destination} {first.service} {'passes' if passes else 'is denied'}"
    told += f" by way of {', '.join(hop.destination for hop in first.path[:-1])}" if first.path else ""
    return told + (f", and {more} more" if more else "")


def failure(result: TestResult) -> str:
    """Say which test fails, where it is written, and what breaks it."""
    return f"test `{result.test.id}` fails, at {result.test.place}: {counterexample(result)}"
