"""Policy and fleet become one ruleset per enforcement point; whole, and by difference."""

from importlib import import_module
from typing import TYPE_CHECKING

from cellwall.compile.carried import Carried, Part
from cellwall.compile.judge import Judged, find_face, judge, outcome_of, without_expired
from cellwall.compile.ruleset import (
    EVERYONE,
    AddressSpan,
    Canary,
    ClassCard,
    Entry,
    Face,
    LifelineCard,
    Members,
    Misfit,
    NetworkSpan,
    OrderCard,
    RuleCard,
    Ruleset,
    Way,
    class_of,
    pack,
    unpack,
)

if TYPE_CHECKING:
    from cellwall.compile.compiler import Compiled, Compiler, Difference, Point, compile_fleet
    from cellwall.compile.cut import Class, Cut
    from cellwall.compile.orders import OrderBook, next_order_change
    from cellwall.compile.rulebook import RuleBook, name_of, next_change, rule_numbers, rules_in_force

# What an agent needs is above. What makes rulesets, and the bitmaps under that, is loaded when it is asked for.
_MAKERS = {
    "compiler": ("Compiled", "Compiler", "Difference", "Point", "compile_fleet"),
    "cut": ("Class", "Cut"),
    "orders": ("OrderBook", "next_order_change"),
    "rulebook": ("RuleBook", "name_of", "next_change", "rule_numbers", "rules_in_force"),
}


def __getattr__(name: str) -> object:
    for module, names in _MAKERS.items():
        if name in names:
            return getattr(import_module(f"cellwall.compile.{module}"), name)
    raise AttributeError(f"module `cellwall.compile` has no attribute `{name}`")


__all__ = [
    "EVERYONE",
    "AddressSpan",
    "Canary",
    "Carried",
    "Class",
    "ClassCard",
    "Compiled",
    "Compiler",
    "Cut",
    "Difference",
    "Entry",
    "Face",
    "Judged",
    "LifelineCard",
    "Members",
    "Misfit",
    "NetworkSpan",
    "OrderBook",
    "OrderCard",
    "Part",
    "Point",
    "RuleBook",
    "RuleCard",
    "Ruleset",
    "Way",
    "class_of",
    "compile_fleet",
    "find_face",
    "judge",
    "name_of",
    "next_change",
    "next_order_change",
    "outcome_of",
    "pack",
    "rule_numbers",
    "rules_in_force",
    "unpack",
    "without_expired",
]
