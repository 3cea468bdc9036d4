"""The API against its own description: whatever is asked, it answers as it says, and never breaks.

A real controller on a Unix socket, with a fleet, a policy and flows; requests as schemathesis makes them up from the
description, well formed and not.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi import checks
from tests.conftest import SOAK
from tests.fleet.controller_world import World, running

from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.traffic import parse_address

EXAMPLES = 40 if SOAK else 4
POLICY = """\
labels: {app: {values: [web, db]}}
rules:
  - {id: web-db, allow: tcp/5432, from: app=web, to: app=db}
modes: [{where: app=db, mode: observe}]
tests: [{id: t, from: app=web, can: tcp/5432, to: app=db}]
"""
LEFT_OUT = "/session/oidc"
"""Needs a provider: it has tests of its own."""
load_all_checks()


class Served:
    """A controller that runs in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(folder),))
        self.world: World
        self._thread.start()
        assert self._ready.wait(30)
        transport = httpx.HTTPTransport(uds=str(folder / "api.sock"))
        self.client = httpx.Client(transport=transport, base_url="http://controller", timeout=30)

    async def _run(self, folder: Path) -> None:
        async with running(folder) as self.world:
            for name, app, address in (("web-1", "web", "10.0.0.1"), ("db-1", "db", "10.0.0.2")):
                body = {"name": name, "addresses": [address], "labels": {"app": app}}
                await self.world.ask("POST", "/workloads", body)
            await self.world.apply(POLICY)
            key = FlowKey(parse_address("10.0.0.1"), parse_address("10.0.0.2"), 6, 5432)
            record = FlowRecord(
                key, "web-1", Side.EGRESS, Outcome.ALLOWED, Outcome.ALLOWED, ("web-db",), 1, 1, 1e9, 2e9
            )
            self.world.controller.flows.insert([record], "web-1/1")
            self._ready.set()
            await self._stop.wait()

    def close(self) -> None:
        self.client.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("api"))
    yield made
    made.close()


def never_breaks(_context: Any, response: Any, case: Any) -> bool | None:
    """500 is a mistake of ours; 503 says what is not there at the moment, as a problem."""
    assert response.status_code < 500 or response.status_code == 503, f"{case.method} {case.path}: {response.text}"
    return None


def says_what_is_wrong(_context: Any, response: Any, case: Any) -> bool | None:
    """Whatever is no answer is a problem, in one line of the user's words."""
    if response.status_code < 400:
        return None
    kind = response.headers["content-type"][0]
    assert kind == "application/problem+json", f"{case.method} {case.path}: {response.status_code} is {kind}"
    told = response.json()
    assert told["status"] == response.status_code and told["title"] and told["detail"]
    assert "\n" not in told["detail"]
    return None


STAT: dict[int, int] = {}
CONFORMANCE: Any = checks
CHECKS: list[Any] = [
    never_breaks,
    says_what_is_wrong,
    CONFORMANCE.status_code_conformance,
    CONFORMANCE.content_type_conformance,
    CONFORMANCE.response_headers_conformance,
    CONFORMANCE.response_schema_conformance,
]


def test_every_operation_answers_as_it_says(served: Served) -> None:
    description = served.client.get("/api/v1/openapi.json").json()
    # Its types are half unknown to a strict checker.
    schema: Any = schemathesis.openapi.from_dict(description)
    schema.config.update(base_url="http://controller")
    found: list[str] = []
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if LEFT_OUT in operation.path:
            continue

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        )
        @given(case=_cases(operation))
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            response = served.client.send(_request(case))
            case.validate_response(response, checks=CHECKS)

        try:
            ask()
        except (Exception, BaseExceptionGroup) as error:
            told = str(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else str(error)
            found.append(f"{operation.label}: {told[:600]}")
    assert not found, "\n\n".join(found)
    assert asked > 100


def _request(case: Any) -> httpx.Request:
    told = case.as_transport_kwargs(base_url="http://controller")
    body: dict[str, Any] = {
        "content" if name == "data" else name: told[name] for name in ("json", "data") if name in told
    }
    if isinstance(body.get("content"), dict):
        body["data"] = body.pop("content")
    head = {name: told.get(name) for name in ("params", "headers", "cookies")}
    return httpx.Request(told["method"], told["url"], **head, **body)


def _cases(operation: Any) -> st.SearchStrategy[Any]:
    """Requests to an operation as its description wants them, and such as it does not."""
    good: st.SearchStrategy[Any] = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    bad: st.SearchStrategy[Any] = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    return good | bad
