"""One file per question that an operator asks of a policy, a fleet and what was observed."""

from cellwall.analysis.dynamic import PortRange
from cellwall.analysis.impact import Change, Impact, difference, impact
from cellwall.analysis.lint import Check, Finding, Severity, caught_by_absence, lint
from cellwall.analysis.mine import suggest
from cellwall.analysis.reach import Assume, Kind, Reach, all_identities, holds, places_outside
from cellwall.analysis.recolour import recolour
from cellwall.analysis.replay import Effect, Replay, Seen, distinct, identity_of, judge_seen, plain_replay, replay
from cellwall.analysis.suggestion import Coverage, Level, Stage, SuggestedRule, Suggestion
from cellwall.analysis.table import Table, TableKind
from cellwall.analysis.testing import Counterexample, TestResult, run_test, run_tests
from cellwall.analysis.why import End, Explanation, Miss, NearMiss, RuleNote, why

__all__ = [
    "Assume",
    "Change",
    "Check",
    "Counterexample",
    "Coverage",
    "Effect",
    "End",
    "Explanation",
    "Finding",
    "Impact",
    "Kind",
    "Level",
    "Miss",
    "NearMiss",
    "PortRange",
    "Reach",
    "Replay",
    "RuleNote",
    "Seen",
    "Severity",
    "Stage",
    "SuggestedRule",
    "Suggestion",
    "Table",
    "TableKind",
    "TestResult",
    "all_identities",
    "caught_by_absence",
    "difference",
    "distinct",
    "holds",
    "identity_of",
    "impact",
    "judge_seen",
    "lint",
    "places_outside",
    "plain_replay",
    "recolour",
    "replay",
    "run_test",
    "run_tests",
    "suggest",
    "why",
]
