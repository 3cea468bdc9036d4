"""Somebody who asks: their name, their roles and where those hold, and how they proved who they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cellwall.controller.access.rights import RIGHTS, Need, Right, Role
from cellwall.controller.errors import ControllerError, Denied
from cellwall.inventory import Workload
from cellwall.labels import LabelError, Selector, implies, parse_selector

EVERYWHERE = Selector(())


class Way(StrEnum):
    """How somebody proved who they are."""

    SOCKET = "socket"
    PASSWORD = "password"  # noqa: S105 - the word, not one
    OIDC = "oidc"
    TOKEN = "token"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Binding:
    """A role for the workloads that `where` matches."""

    role: Role
    where: Selector = EVERYWHERE

    def __str__(self) -> str:
        return f"{self.role}@{self.where}" if self.where.requirements else str(self.role)


ADMIN = (Binding(Role.ADMIN),)


def parse_binding(text: str) -> Binding:
    """Read `viewer`, or `author@app=shop,env!=prod`. Raises `ControllerError`."""
    role, at, where = text.partition("@")
    if role not in tuple(Role):
        raise ControllerError(f"`{role}` is no role; wanted one of `{'`, `'.join(Role)}`")
    if at and not where:
        raise ControllerError(f"`{text}` has no selector behind `@`; wanted such as `{role}@app=shop`")
    try:
        return Binding(Role(role), parse_selector(where))
    except LabelError as error:
        raise ControllerError(f"`{text}`: {error}") from None


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. `owner` is the person behind a token: who made it; else the same as `name`.

    `origin` is the network address that they ask from, empty at the socket; `key` names the session or token."""

    name: str
    bindings: tuple[Binding, ...]
    way: Way
    origin: str = ""
    key: str = ""
    made_by: str = ""

    @property
    def owner(self) -> str:
        """The human who answers for it."""
        return self.made_by or self.name

    def may(self, right: Right, labels: Mapping[str, str] | None = None) -> bool:
        """Say whether they may for a workload with these labels; None asks for everywhere."""
        return any(
            not where.requirements or (labels is not None and where.matches(labels)) for where in self.scopes(right)
        )

    def may_somewhere(self, right: Right) -> bool:
        """Say whether there may be workloads for which they may."""
        return any(right in RIGHTS[one.role] for one in self.bindings)

    def may_within(self, right: Right, where: Selector) -> bool:
        """Say whether they may for every workload that `where` can ever match."""
        return any(implies(where, scope) for scope in self.scopes(right))

    def meets(self, need: Need) -> bool:
        """Say whether they may use a route that asks for this."""
        return self.may(need.right) if need.everywhere else self.may_somewhere(need.right)

    def scopes(self, right: Right) -> tuple[Selector, ...]:
        """Give where they have a right."""
        return tuple(one.where for one in self.bindings if right in RIGHTS[one.role])

    def scope_text(self, right: Right) -> str:
        """Say in words where they have a right."""
        return " or ".join(f"`{one}`" for one in self.scopes(right)) or "nowhere"


def may_touch(person: Person, right: Right, workloads: Iterable[Workload]) -> None:
    """Raise `Denied` with the first workload, in order of name, for which `person` has not that right."""
    if person.may(right):
        return
    for one in sorted(workloads, key=lambda one: one.name):
        if not person.may(right, one.labels):
            raise Denied(
                f"workload `{one.name}` is outside of where `{person.name}` may {right}: {person.scope_text(right)}"
            )


def may_everywhere(person: Person, right: Right, what: str) -> None:
    """Raise `Denied` where `person` has not that right for the whole fleet."""
    if not person.may(right):
        raise Denied(
            f"{what} concerns the whole fleet, and `{person.name}` may {right} only at {person.scope_text(right)}"
        )


def may_read_texts(person: Person) -> None:
    """Raise `Denied` where the policy's texts are not `person`'s to read.

    They are of the whole fleet, and cannot be cut along a selector: so whoever sees a part of the fleet only reads
    them where writing them, or agreeing to them, is their business."""
    if not (person.may(Right.READ) or person.may_somewhere(Right.AUTHOR) or person.may_somewhere(Right.APPROVE)):
        may_everywhere(person, Right.READ, "the text of the policy")


def may_see(person: Person, *workloads: Workload | None) -> bool:
    """Say whether one of these at least is theirs to see; None stands for an address that is nobody's."""
    return person.may(Right.READ) or any(one is not None and person.may(Right.READ, one.labels) for one in workloads)
