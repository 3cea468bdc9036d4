"""Routes about the controllers themselves: which there are, and what a person says to a state that is an old one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from cellwall.controller.api.desk import Author, Body, Desk, TheDesk, listed
from cellwall.controller.errors import Conflict, NotFound
from cellwall.controller.ground import read_policy

router = APIRouter()


class Accepting(Body):
    """What a person says: that what is here goes to the agents; or these documents, as a revision of their own."""

    documents: dict[str, str] | None = None
    note: str = ""
    dry_run: bool = False


@router.get("/controllers")
async def controllers(desk: TheDesk) -> dict[str, Any]:
    """List the controllers of this database: where they are, which one leads, and how many agents each has."""
    return listed(all_controllers(desk))


@router.delete("/controllers/{name}")
async def forget(desk: TheDesk, author: Author, name: str) -> dict[str, Any]:
    """Forget a controller that is gone for good: agents are no longer told of it, nor its address kept open."""
    peers = desk.control.peers
    if name == peers.me.name or name in (one.name for one in peers.alive()):
        raise Conflict(f"controller `{name}` is running; stop it first")
    if name not in (one.name for one in peers.others):
        raise NotFound(f"there is no controller `{name}`")
    with desk.control.store.transaction():
        peers.forget(name)
        desk.control.store.record(desk.clock(), author, "forget controller", name)
    desk.control.meet(peers.listeners)
    desk.changed()
    return {"forgotten": name}


@router.post("/accept-restore")
async def accept_restore(desk: TheDesk, author: Author, body: Accepting) -> dict[str, Any]:
    """Let the policy that is here go to agents that hold a newer one, as the state was restored from a backup."""
    control, now = desk.control, desk.clock()
    why = control.hold.why
    if body.documents is not None:
        read_policy(body.documents)
    if body.dry_run:
        return {"held": held_shape(desk), "revision": None}
    revision = control.accept_restore(body.documents, author, body.note or f"accepted although {why}", now)
    desk.changed()
    return {"held": None, "revision": revision}


def all_controllers(desk: Desk) -> list[dict[str, Any]]:
    """Give the controllers as the API shows them, this one first."""
    peers = desk.control.peers
    alive = {one.name for one in peers.alive()}
    here = len(desk.channel.connected)
    theirs = list(peers.elsewhere.values())
    leader = peers.leader
    found = [(peers.me, "leads" if peers.leads else "follows", here)]
    found += [
        (one, "gone" if one.name not in alive else "leads" if one.name == leader else "follows", theirs.count(one.name))
        for one in peers.others
    ]
    return [
        {
            "name": one.name,
            "state": state,
            "urls": list(one.urls),
            "version": one.version,
            "agents": agents,
            "seen": one.seen,
        }
        for one, state, agents in found
    ]


def held_shape(desk: Desk) -> dict[str, Any] | None:
    """Say why no policy is sent to agents, where none is."""
    held = desk.control.hold.held
    if held is None:
        return None
    return {"why": held.why, "since": held.at, "known": held.known, "seen": held.seen}
