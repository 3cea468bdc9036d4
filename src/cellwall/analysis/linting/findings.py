"""What lint finds, and the edit that it proposes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cellwall.policy import ModeRule, Place, Rule


class Severity(StrEnum):
    """How much a finding matters: the policy does not do what it says; it may not; good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Check(StrEnum):
    """What was found."""

    MATCHES_NOTHING = "matches-nothing"
    NEVER_MATCHES = "never-matches"
    MATCHES_ALL = "matches-all"
    REFUSED = "refused"
    STAGED = "staged"
    EXPIRED = "expired"
    NOT_STARTED = "not-started"
    CAUGHT_BY_ABSENCE = "caught-by-absence"
    OWNERLESS = "ownerless"
    DUPLICATE = "duplicate"
    SHADOWED = "shadowed"
    REDUNDANT = "redundant"
    CONTRADICTED = "contradicted"
    PARTLY_CONTRADICTED = "partly-contradicted"
    UNREACHABLE_WALL = "unreachable-wall"
    UNDECIDED = "undecided"
    HALF = "half"
    SERVICES_OVERLAP = "services-overlap"
    UNUSED = "unused"
    UNUSED_RULE = "unused-rule"
    BROADER = "broader"

    @property
    def keeps_meaning(self) -> bool:
        """Whether its edit changes no verdict, of any flow, in any fleet, from now on."""
        return self in _EXACT


_EXACT = frozenset(
    {
        Check.EXPIRED,
        Check.DUPLICATE,
        Check.SHADOWED,
        Check.REDUNDANT,
        Check.CONTRADICTED,
        Check.UNREACHABLE_WALL,
        Check.NEVER_MATCHES,
        Check.SERVICES_OVERLAP,
        Check.UNUSED,
    }
)


class EditKind(StrEnum):
    """What an edit does to what stands at its place."""

    REMOVE = "remove"
    SET = "set"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Edit:
    """A change to a document: take away the item or entry at `place`; set `field` of the mapping there, or put
    `text`, which is YAML on one line, in the place of the value there. An empty `text` takes the field away."""

    kind: EditKind
    place: Place
    field: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, about a rule (`subject` is its id), a mode or a name; `hint` says what to do.

    `proof` are the ids of the rules that show it, `example` a flow that does; `edits` are what could be done."""

    check: Check
    severity: Severity
    subject: str
    place: Place
    message: str
    hint: str = ""
    proof: tuple[str, ...] = ()
    example: str = ""
    edits: tuple[Edit, ...] = ()


def about(
    rule: Rule,
    check: Check,
    severity: Severity,
    message: str,
    hint: str = "",
    *,
    proof: tuple[str, ...] = (),
    example: str = "",
    edits: tuple[Edit, ...] = (),
) -> Finding:
    """Make a finding about a rule."""
    return Finding(check, severity, rule.id, rule.place, message, hint, proof, example, edits)


def about_mode(
    mode: ModeRule, check: Check, severity: Severity, message: str, hint: str = "", edits: tuple[Edit, ...] = ()
) -> Finding:
    """Make a finding about a mode."""
    return Finding(check, severity, str(mode.where), mode.place, message, hint, edits=edits)


def removal(of: Rule) -> tuple[Edit, ...]:
    """Give the edit that takes a rule away."""
    return (Edit(EditKind.REMOVE, of.place),) if of.place.line else ()


def listed(names: list[str] | tuple[str, ...], most: int = 3) -> str:
    """Write names for a sentence; of many, the first few and how many more."""
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
