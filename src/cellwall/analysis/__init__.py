"""One file per question that an operator asks of a policy, a fleet and what was observed."""

from importlib import import_module
from typing import TYPE_CHECKING

from cellwall.analysis.change.both import State
from cellwall.analysis.change.compare import Comparison, Line, compare
from cellwall.analysis.change.impact import Change, Impact, difference, impact, sifted_impact
from cellwall.analysis.linting.edits import apply_edits, difference_of
from cellwall.analysis.linting.findings import Edit, EditKind
from cellwall.analysis.linting.flows import Observed
from cellwall.analysis.linting.lint import Check, Finding, Severity, caught_by_absence, lint
from cellwall.analysis.linting.minimise import Merge, Minimised, Removal, minimise
from cellwall.analysis.linting.sameness import TooEntangledError, told_apart
from cellwall.analysis.seen.dynamic import PortRange
from cellwall.analysis.seen.mine import suggest
from cellwall.analysis.seen.recolour import recolour
from cellwall.analysis.seen.replay import Effect, Replay, Seen, distinct, identity_of, judge_seen, plain_replay, replay
from cellwall.analysis.seen.suggestion import Coverage, Level, Stage, SuggestedRule, Suggestion
from cellwall.analysis.table.asked import QuestionError, read_ends, read_services, services_in_words
from cellwall.analysis.table.reach import Assume, Kind, Reach, all_identities, holds, places_outside
from cellwall.analysis.table.table import Table, TableKind
from cellwall.analysis.table.ways import Ways
from cellwall.analysis.testing import Counterexample, TestResult, run_test, run_tests
from cellwall.analysis.walks.cuts import cut_most, separate
from cellwall.analysis.walks.paths import Spread, Walk
from cellwall.analysis.walks.prove import Proof, prove, read_claim
from cellwall.analysis.why import End, Explanation, Miss, NearMiss, RuleNote, why

if TYPE_CHECKING:
    from cellwall.analysis.table.columns import Columns
    from cellwall.analysis.table.keys import Keys, Sifted, sift


_ON_ARRAYS = {"Columns": "table.columns", "Keys": "table.keys", "Sifted": "table.keys", "sift": "table.keys"}


def __getattr__(name: str) -> object:
    # What stands on arrays is loaded when it is asked for: documents are checked on machines without numpy too.
    if name in _ON_ARRAYS:
        return getattr(import_module(f"cellwall.analysis.{_ON_ARRAYS[name]}"), name)
    raise AttributeError(f"module `cellwall.analysis` has no attribute `{name}`")


__all__ = [
    "Assume",
    "Change",
    "Check",
    "Columns",
    "Comparison",
    "Counterexample",
    "Coverage",
    "Edit",
    "EditKind",
    "Effect",
    "End",
    "Explanation",
    "Finding",
    "Impact",
    "Keys",
    "Kind",
    "Level",
    "Line",
    "Merge",
    "Minimised",
    "Miss",
    "NearMiss",
    "Observed",
    "PortRange",
    "Proof",
    "QuestionError",
    "Reach",
    "Removal",
    "Replay",
    "RuleNote",
    "Seen",
    "Severity",
    "Sifted",
    "Spread",
    "Stage",
    "State",
    "SuggestedRule",
    "Suggestion",
    "Table",
    "TableKind",
    "TestResult",
    "TooEntangledError",
    "Walk",
    "Ways",
    "all_identities",
    "apply_edits",
    "caught_by_absence",
    "compare",
    "cut_most",
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
    "prove",
    "read_claim",
    "read_ends",
    "read_services",
    "recolour",
    "replay",
    "run_test",
    "run_tests",
    "separate",
    "services_in_words",
    "sift",
    "sifted_impact",
    "suggest",
    "told_apart",
    "why",
]
