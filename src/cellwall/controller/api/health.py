"""Whether the controller is alive and ready, and what it counts: routes for probes and for Prometheus.

/health/live    the loop turns: it answers
/health/ready   200, or 503 and what is not well: database, flow store, policy compiled, keys, leader
/metrics        everything that is counted
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from cellwall.clients import CONTENT_TYPE, exposition
from cellwall.controller.api.desk import Desk, TheDesk
from cellwall.controller.metrics import Metrics, Standings
from cellwall.controller.rollout import MOVING
from cellwall.controller.store.state import RevisionState
from cellwall.policy import OrderKind
from cellwall.traffic import CellwallError

router = APIRouter(tags=["operations"])
PROBE_S, WATCH_S, PULSE_S = 2.0, 2.0, 0.25


@dataclass(frozen=True, slots=True)
class Part:
    """Something that readiness asks for: whether it is well, and what is wrong in words where it is not."""

    name: str
    well: bool
    why: str = ""


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Say that the loop turns."""
    return {"status": "live"}


@router.get("/health/ready", responses={503: {"description": "not ready; `parts` says why"}})
async def ready(desk: TheDesk) -> Response:
    """Say whether this controller can do all that it is there for; 503 with the reasons where not."""
    parts = await probe(desk)
    wrong = [one for one in parts if not one.well]
    shown = {one.name: one.why or "well" for one in parts}
    if not wrong:
        return JSONResponse({"status": "ready", "parts": shown})
    detail = "; ".join(f"{one.name}: {one.why}" for one in wrong)
    problem = {"type": "about:blank", "title": "not ready", "status": 503, "detail": detail, "parts": shown}
    return JSONResponse(problem, 503, media_type="application/problem+json")


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
async def metrics(desk: TheDesk) -> Response:
    """Give all metrics as Prometheus reads them (text format 0.0.4)."""
    parts = {one.name: one.well for one in await probe(desk)}
    try:
        now = standings(desk)
    except CellwallError:
        # Without a database too, what was counted is told, and that there is none.
        now = None
    return Response(exposition(desk.metrics.families(now, parts)), media_type=CONTENT_TYPE)


async def watch(desk: Desk) -> None:
    """See again and again whether all is well, for the agents' port and the log, until cancelled."""
    before = ""
    while True:
        parts = await probe(desk)
        why = "; ".join(f"{one.name}: {one.why}" for one in parts if not one.well)
        desk.channel.well = not why
        if why and not before:
            desk.control.log("not ready", level="warning", why=why)
        elif before and not why:
            desk.control.log("ready again")
        before = why
        await asyncio.sleep(WATCH_S)


async def probe(desk: Desk) -> tuple[Part, ...]:
    """Look at every part that is needed. Raises nothing, and takes `PROBE_S` at most for each."""
    return (_database(desk), await _flows(desk), _compiled(desk), _keys(desk), *_leader(desk))


def _database(desk: Desk) -> Part:
    try:
        desk.control.store.audit(1)
    except CellwallError as error:
        return Part("database", False, str(error))
    return Part("database", True)


async def _flows(desk: Desk) -> Part:
    try:
        async with asyncio.timeout(PROBE_S):
            await asyncio.to_thread(desk.flows.ping)
    except TimeoutError:
        return Part("flows", False, f"the flow store did not answer within {PROBE_S:g} s")
    except CellwallError as error:
        return Part("flows", False, str(error))
    return Part("flows", True)


def _compiled(desk: Desk) -> Part:
    # Points whose wave is not open yet are to hold the revision before: that is how a rollout goes, and all is well.
    control = desk.control
    if control.compiled == control.revision.number:
        return Part("policy", True)
    return Part("policy", False, f"revision {control.revision.number} is in force, {control.compiled} is compiled")


def _keys(desk: Desk) -> Part:
    now, ends = desk.clock(), certificate_ends(desk)
    expired = [name for name in ("authority", "server") if name in ends and ends[name] <= now]
    if expired:
        return Part("keys", False, f"the certificate of the {expired[0]} has expired")
    return Part("keys", True)


def _leader(_desk: Desk) -> tuple[Part, ...]:
    return ()


def certificate_ends(desk: Desk) -> dict[str, float]:
    """Give when certificates end: `authority`, `server`; seconds since the epoch."""
    authority = desk.control.authority
    found = {"authority": authority.certificate.not_valid_after_utc.timestamp()}
    try:
        server = x509.load_pem_x509_certificate((authority.folder / "server.pem").read_bytes())
        found["server"] = server.not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        pass
    return found


def standings(desk: Desk) -> Standings:
    """Say how the controller stands at this moment."""
    control, now = desk.control, desk.clock()
    fleet = control.ground().fleet
    report = control.tests.report
    results = Counter("passed" if one.passed else "failed" for one in report.results) if report else Counter[str]()
    newest = control.store.audit(1)
    known = control.store.progress().get(control.revision.number)
    course, moving = control.rollouts.course, known is not None and known.state in (*MOVING, RevisionState.HALTED)
    kinds = Counter(one.kind for one in control.orders.standing)
    return Standings(
        name=control.options.name,
        workloads=len(fleet.workloads),
        agents_known=sum(one.agent for one in fleet.workloads),
        agents_connected=len(desk.channel.connected),
        versions=dict(Counter(one.version for one in control.store.workloads() if one.agent).most_common(20)),
        points=Counter(row.state for row in control.rollout(now).values()),
        modes=Counter(one.ruleset.mode for one in control.wanted.values()),
        revision=control.revision.number,
        revision_state=known.state if known else "good",
        wave=course.wave + 1 if moving and course is not None else 0,
        waves=len(course.waves) if moving and course is not None else 0,
        uncompiled=control.stale,
        leader=control.peers.leads,
        orders={kind.value: kinds[kind] for kind in OrderKind},
        database_errors=control.store.database.errors,
        tests={"passed": results["passed"], "failed": results["failed"]},
        conflicts=len(fleet.conflicts),
        audit_entries=newest[0].number if newest else 0,
        certificates=certificate_ends(desk),
        queues=desk.channel.pressure(),
    )


async def pulse(metrics: Metrics, log: Callable[..., None]) -> None:
    """Measure how late the loop wakes up, until cancelled; a stall of over a second is logged."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + PULSE_S
        await asyncio.sleep(PULSE_S)
        late = max(loop.time() - due, 0.0)
        metrics.lag.observe(late)
        if late > 1:
            log("the loop was held up", level="warning", seconds=round(late, 3))
