"""Labels and the selectors over them."""

from cellwall.labels.selectors import Operator, Requirement, Selector, implies, overlaps, parse_selector
from cellwall.labels.values import LabelError, Labels, check_key, check_value, parse_labels

__all__ = [
    "LabelError",
    "Labels",
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
