"""Policy and fleet become one ruleset per enforcement point."""

from cellwall.compile.build import Compiled, Point, compile_fleet, next_change, rule_numbers, rules_in_force
from cellwall.compile.classes import Atlas, Class, build_atlas
from cellwall.compile.judge import Judged, find_face, judge, outcome_of, without_expired
from cellwall.compile.ruleset import (
    EVERYONE,
    Canary,
    ClassCard,
    Entry,
    Face,
    LifelineCard,
    Members,
    Misfit,
    NetworkSpan,
    RuleCard,
    Ruleset,
    class_of,
    pack,
    unpack,
)

__all__ = [
    "EVERYONE",
    "Atlas",
    "Canary",
    "Class",
    "ClassCard",
    "Compiled",
    "Entry",
    "Face",
    "Judged",
    "LifelineCard",
    "Members",
    "Misfit",
    "NetworkSpan",
    "Point",
    "RuleCard",
    "Ruleset",
    "build_atlas",
    "class_of",
    "compile_fleet",
    "find_face",
    "judge",
    "next_change",
    "outcome_of",
    "pack",
    "rule_numbers",
    "rules_in_force",
    "unpack",
    "without_expired",
]
