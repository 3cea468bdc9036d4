"""Labels, the selectors over them, and the index that answers "which match which?"."""

from cellwall.labels.index import LabelIndex, Match
from cellwall.labels.selectors import Operator, Requirement, Selector, implies, overlaps, parse_selector
from cellwall.labels.values import LabelError, Labels, check_key, check_value, parse_labels

__all__ = [
    "LabelError",
    "LabelIndex",
    "Labels",
    "Match",
    "Operator",
    "Requirement",
    "Selector",
    "check_key",
    "check_value",
    "implies",
    "overlaps",
    "parse_labels",
    "parse_selector",
]
