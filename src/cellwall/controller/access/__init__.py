"""Who may do what: roles and rights, people and their sessions, and how they prove who they are."""

from cellwall.controller.access.change import check_change, check_relabelling, seen_ground
from cellwall.controller.access.hands import person_behind, persons_behind
from cellwall.controller.access.person import (
    ADMIN,
    EVERYWHERE,
    Binding,
    Person,
    Way,
    may_everywhere,
    may_read_texts,
    may_see,
    may_touch,
    parse_binding,
)
from cellwall.controller.access.rights import READING, RIGHTS, ROUTES, Need, Right, Role, need_of

__all__ = [
    "ADMIN",
    "EVERYWHERE",
    "READING",
    "RIGHTS",
    "ROUTES",
    "Binding",
    "Need",
    "Person",
    "Right",
    "Role",
    "Way",
    "check_change",
    "check_relabelling",
    "may_everywhere",
    "may_read_texts",
    "may_see",
    "may_touch",
    "need_of",
    "parse_binding",
    "person_behind",
    "persons_behind",
    "seen_ground",
]
