"""One file per question that an operator asks of a policy, a fleet and what was observed."""

from cellwall.analysis.dynamic import PortRange
from cellwall.analysis.edits import apply_edits, difference_of
from cellwall.analysis.findings import Edit, EditKind
from cellwall.analysis.impact import Change, Impact, difference, impact
from cellwall.analysis.lint import Check, Finding, Severity, caught_by_absence, lint
from cellwall.analysis.lint_flows import Observed
from cellwall.analysis.mine import suggest
from cellwall.analysis.minimise import Merge, Minimised, Removal, minimise
from cellwall.analysis.reach import Assume, Kind, Reach, all_identities, holds, places_outside
from cellwall.analysis.recolour import recolour
from cellwall.analysis.replay import Effect, Replay, Seen, distinct, identity_of, judge_seen, plain_replay, replay
from cellwall.analysis.sameness import TooEntangledError, told_apart
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
    "Edit",
    "EditKind",
    "Effect",
    "End",
    "Explanation",
    "Finding",
    "Impact",
    "Kind",
    "Level",
    "Merge",
    "Minimised",
    "Miss",
    "NearMiss",
    "Observed",
    "PortRange",
    "Reach",
    "Removal",
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
    "TooEntangledError",
    "all_identities",
    "apply_edits",
    "caught_by_absence",
    "difference",
    "difference_of",
    "distinct",
    "holds",
    "identity_of",
    "impact",
    "judge_seen",
    "lint",
    "minimise",
    "places_outside",
    "plain_replay",
    "recolour",
    "replay",
    "run_test",
    "run_tests",
    "suggest",
    "told_apart",
    "why",
]
