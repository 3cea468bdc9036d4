"""Which right each route of the API asks for, and which rights each role gives: the whole of it, in two tables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Right(StrEnum):
    """What somebody may do, in words. `OPEN` is asked of nobody, `OWN` is what everybody may who has signed in."""

    OPEN = "open"
    OWN = "own"
    READ = "read"
    AUTHOR = "write policy"
    LABEL = "set labels"
    APPROVE = "approve"
    ANSWER = "answer proposals"
    OPERATE = "operate rollouts"
    ORDER = "give orders"
    ENROL = "let hosts in"
    AUDIT = "read the audit log"
    PEOPLE = "administer people"


class Role(StrEnum):
    """What somebody is; a role is given everywhere, or for the workloads that a selector matches."""

    VIEWER = "viewer"
    AUDITOR = "auditor"
    AUTHOR = "author"
    REVIEWER = "reviewer"
    OPERATOR = "operator"
    ADMIN = "admin"


RIGHTS: dict[Role, frozenset[Right]] = {
    Role.VIEWER: frozenset({Right.OWN, Right.READ}),
    Role.AUDITOR: frozenset({Right.OWN, Right.READ, Right.AUDIT}),
    Role.AUTHOR: frozenset({Right.OWN, Right.READ, Right.AUTHOR, Right.ANSWER, Right.LABEL}),
    Role.REVIEWER: frozenset({Right.OWN, Right.READ, Right.APPROVE, Right.ANSWER}),
    Role.OPERATOR: frozenset({Right.OWN, Right.READ, Right.OPERATE, Right.ORDER, Right.ENROL}),
    Role.ADMIN: frozenset(Right) - {Right.OPEN},
}
READING = frozenset({Right.OPEN, Right.OWN, Right.READ, Right.AUDIT})
"""Rights by which nothing of the fleet and nothing of other people can be changed."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a route asks for: a right, for some workloads at least or, where `everywhere`, for all.

    A route that asks for it not everywhere looks itself at which workloads are concerned."""

    right: Right
    everywhere: bool = False


_OPEN, _OWN = Need(Right.OPEN), Need(Right.OWN)
_READ, _READ_ALL = Need(Right.READ), Need(Right.READ, everywhere=True)
_AUTHOR, _LABEL, _APPROVE = Need(Right.AUTHOR), Need(Right.LABEL), Need(Right.APPROVE)
_OPERATE, _ORDER, _ENROL = Need(Right.OPERATE, everywhere=True), Need(Right.ORDER), Need(Right.ENROL)
_AUDIT, _PEOPLE = Need(Right.AUDIT, everywhere=True), Need(Right.PEOPLE, everywhere=True)

ROUTES: dict[tuple[str, str], Need] = {
    # the controller
    ("GET", "/openapi.json"): _OWN,
    ("GET", "/status"): _READ,
    ("GET", "/metrics"): _READ,
    ("GET", "/health/live"): _OPEN,
    ("GET", "/health/ready"): _OPEN,
    ("GET", "/support"): _PEOPLE,
    ("GET", "/controllers"): _READ,
    ("DELETE", "/controllers/{name}"): _PEOPLE,
    ("POST", "/accept-restore"): _PEOPLE,
    # the fleet
    ("GET", "/workloads"): _READ,
    ("POST", "/workloads"): _ENROL,
    ("GET", "/workloads/{name}"): _READ,
    ("DELETE", "/workloads/{name}"): _ENROL,
    ("GET", "/tokens"): _ENROL,
    ("POST", "/tokens"): _ENROL,
    ("DELETE", "/tokens/{id}"): _ENROL,
    ("GET", "/labels"): _READ,
    ("PUT", "/labels/{name}"): _LABEL,
    ("GET", "/label-proposals"): _READ,
    ("POST", "/label-proposals/accept"): _LABEL,
    ("GET", "/points/{name}/table"): _READ,
    ("GET", "/points/{name}/counters"): _READ,
    # what was seen, and questions
    ("GET", "/flows"): _READ,
    ("GET", "/map"): _READ,
    ("GET", "/series"): _READ_ALL,
    ("GET", "/denials"): _READ,
    ("GET", "/why"): _READ,
    ("GET", "/ground"): _READ_ALL,
    ("POST", "/ground"): _READ_ALL,
    ("POST", "/replay"): _READ,
    # policy
    ("GET", "/policy"): _READ,
    ("POST", "/policy/check"): _READ,
    ("POST", "/policy/plan"): _READ,
    ("POST", "/policy/suggest"): _READ_ALL,
    ("POST", "/policy/apply"): _AUTHOR,
    ("GET", "/policy/tests"): _READ,
    ("GET", "/policy/proposals"): _READ,
    ("GET", "/policy/rollout"): _READ,
    ("GET", "/policy/revisions"): _READ,
    ("GET", "/policy/revisions/{number}"): _READ,
    ("GET", "/policy/diff"): _READ,
    ("POST", "/policy/revert"): _OPERATE,
    ("POST", "/policy/revisions/{number}/approve"): _APPROVE,
    ("POST", "/policy/revisions/{number}/reject"): Need(Right.ANSWER),
    ("POST", "/policy/rollout/halt"): _OPERATE,
    ("POST", "/policy/rollout/resume"): _OPERATE,
    # orders
    ("GET", "/orders"): _READ,
    ("GET", "/orders/{id}"): _READ,
    ("POST", "/orders"): _ORDER,
    ("DELETE", "/orders/{id}"): _ORDER,
    # people
    ("GET", "/authority"): _OPEN,
    ("GET", "/session/ways"): _OPEN,
    ("POST", "/session"): _OPEN,
    ("POST", "/session/oidc"): _OPEN,
    ("POST", "/session/oidc/finish"): _OPEN,
    ("GET", "/session/oidc/browser"): _OPEN,
    ("GET", "/session/oidc/callback"): _OPEN,
    ("GET", "/session"): _OWN,
    ("DELETE", "/session"): _OWN,
    ("POST", "/session/password"): _OWN,
    ("GET", "/people"): _PEOPLE,
    ("POST", "/people"): _PEOPLE,
    ("PUT", "/people/{name}"): _PEOPLE,
    ("DELETE", "/people/{name}"): _PEOPLE,
    ("DELETE", "/people/{name}/sessions"): _PEOPLE,
    ("GET", "/api-tokens"): _PEOPLE,
    ("POST", "/api-tokens"): _PEOPLE,
    ("DELETE", "/api-tokens/{id}"): _PEOPLE,
    ("GET", "/audit"): _AUDIT,
    ("GET", "/audit/verify"): _AUDIT,
    ("GET", "/audit/checkpoints"): _AUDIT,
}
"""What each route asks for, by method and path below `/api/v1` (or from the root, outside it).

INVARIANT: a route that is not here is refused to everybody."""


def need_of(method: str, path: str) -> Need | None:
    """Give what a route asks for; None where nobody may use it."""
    return ROUTES.get(("GET" if method == "HEAD" else method, path))
