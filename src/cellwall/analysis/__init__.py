"""One file per question that an operator asks of a policy, a fleet and what was observed."""

from importlib import import_module
from typing import TYPE_CHECKING

from cellwall.analysis.asked import QuestionError, read_ends, read_services, services_in_words
from cellwall.analysis.both import State
from cellwall.analysis.compare import Comparison, Line, compare
from cellwall.analysis.cuts import cut_most, separate
from cellwall.analysis.dynamic import PortRange
from cellwall.analysis.edits import apply_edits, difference_of
from cellwall.analysis.findings import Edit, EditKind
from cellwall.analysis.impact import Change, Impact, difference, impact, sifted_impact
from cellwall.analysis.lint import Check, Finding, Severity, caught_by_absence, lint
from cellwall.analysis.lint_flows import Observed
from cellwall.analysis.mine import suggest
from cellwall.analysis.minimise import Merge, Minimised, Removal, minimise
from cellwall.analysis.paths import Spread, Walk
from cellwall.analysis.prove import Proof, prove, read_claim
from cellwall.analysis.reach import Assume, Kind, Reach, all_identities, holds, places_outside
from cellwall.analysis.recolour import recolour
from cellwall.analysis.replay import Effect, Replay, Seen, distinct, identity_of, judge_seen, plain_replay, replay
from cellwall.analysis.sameness import TooEntangledError, told_apart
from cellwall.analysis.suggestion import Coverage, Level, Stage, SuggestedRule, Suggestion
from cellwall.analysis.table import Table, TableKind
from cellwall.analysis.testing import Counterexample, TestResult, run_test, run_tests
from cellwall.analysis.ways import Ways
from cellwall.analysis.why import End, Explanation, Miss, NearMiss, RuleNote, why

if TYPE_CHECKING:
    from cellwall.analysis.columns import Columns
    from cellwall.analysis.keys import Keys, Sifted, sift


_ON_ARRAYS = {"Columns": "columns", "Keys": "keys", "Sifted": "keys", "sift": "keys"}


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
