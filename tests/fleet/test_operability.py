"""What operators see of a running controller: metrics, health, ids of requests."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.fleet.controller_world import World, blind, call, running, until

from cellwall.agent.core import Agent
from cellwall.agent.gauges import Gauges
from cellwall.controller.errors import ControllerError, StateError
from cellwall.controller.store.flows import MemoryFlows
from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.traffic import parse_address
from cellwall.wire import HEALTH_PATH, Denial, Denials, pack_flows

POLICY = 'rules:\n  - {id: web, allow: tcp/5432, from: app=web, to: app=db}\nmodes:\n  - {where: "", mode: guard}\n'
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(world: World) -> Series:
    """Read the metrics as another's parser understands them."""
    transport = httpx.AsyncHTTPTransport(uds=str(world.folder / "api.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://controller") as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    """Give one series."""
    return series[name, frozenset(labels.items())]


async def get(world: World, path: str) -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(uds=str(world.folder / "api.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://controller") as client:
        return await client.get(path)


async def test_metrics_tell_what_happened_in_the_fleet(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        agent = await world.agent("web-1", "10.0.0.1", {"app": "web"})
        await agent.enforce_what_comes()
        await world.apply(POLICY, confirm_s=0)
        await agent.enforce()
        key = FlowKey(parse_address("10.0.0.1"), parse_address("10.0.0.2"), 6, 5432)
        record = FlowRecord(key, "", Side.EGRESS, Outcome.ALLOWED, Outcome.ALLOWED, (), 1, 1, 1.0, 2.0)
        await agent.say(pack_flows([record], batch="b-1", start=1.0, end=2.0, lost=3, dropped=4))
        packed = parse_address("10.0.0.1").packed
        sample = Denial(at=1.0, source=packed, destination=packed, protocol=6, port=22, side=Side.INGRESS)
        await agent.say(Denials(samples=(sample,)))
        await world.ask("GET", "/nothing-there", status=404)

        async def counted() -> Any:
            found = await scrape(world)
            told = "cellwall_flow_rows_total", "cellwall_denials_total"
            enforced = ("cellwall_points", frozenset({("state", "enforced")})) in found
            return found if enforced and all(value(found, one) for one in told) else None

        found: Series = await until(counted)
        assert value(found, "cellwall_flows_lost_total") == 3
        assert value(found, "cellwall_flows_dropped_total") == 4
        assert value(found, "cellwall_denials_total") == 1
        assert value(found, "cellwall_agents_connected") == value(found, "cellwall_workloads") == 1
        assert value(found, "cellwall_points", state="enforced") == 1
        assert value(found, "cellwall_policy_revision") == 1
        assert value(found, "cellwall_enrolments_total", outcome="enrolled") == 1
        assert value(found, "cellwall_receipts_total", state="enforced") >= 1
        assert value(found, "cellwall_receipt_lag_seconds_count") >= 1
        assert value(found, "cellwall_compile_seconds_count") >= 2
        assert value(found, "cellwall_event_loop_lag_seconds_count") >= 1
        assert value(found, "cellwall_audit_entries_total") >= 3
        assert value(found, "cellwall_http_requests_total", method="GET", route="none", status="404") == 1
        authority = value(found, "cellwall_certificate_expiry_timestamp_seconds", certificate="authority")
        assert authority > value(found, "cellwall_certificate_expiry_timestamp_seconds", certificate="server") > 1e9
        assert value(found, "process_resident_memory_bytes") > 1e6
        await agent.close()


async def test_the_number_of_series_does_not_grow_with_the_fleet(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        before = len(await scrape(world))
        for number in range(30):
            body = {"name": f"w-{number}", "addresses": [f"10.1.0.{number}"], "labels": {"app": f"a-{number}"}}
            await world.ask("POST", "/workloads", body)
            await world.ask("GET", f"/workloads/w-{number}")
            await world.ask("GET", f"/no/such/{number}", status=404)
        assert len(await scrape(world)) < before + 12


async def test_a_controller_that_can_do_its_work_is_ready(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        live, ready = await get(world, "/health/live"), await get(world, "/health/ready")
        assert live.status_code == 200
        assert ready.status_code == 200, ready.text
        port = world.controller.port
        assert await asyncio.to_thread(call, port, blind(), "GET", HEALTH_PATH) == (200, b"ready\n")
        assert set(ready.json()["parts"].values()) == {"well"}


async def test_what_is_not_well_makes_it_unready_and_is_named(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        assert isinstance(world.controller.flows, MemoryFlows)
        world.controller.flows.close()
        ready = await get(world, "/health/ready")
        assert ready.status_code == 503
        # Load balancers ask the agents' port, where nobody is told why.
        port = world.controller.port

        async def turned_away() -> bool:
            told = await asyncio.to_thread(call, port, blind(), "GET", HEALTH_PATH)
            return told == (503, b"not ready\n")

        await until(turned_away)
        assert ready.headers["content-type"] == "application/problem+json"
        assert ready.json()["parts"]["flows"] != "well" == ready.json()["parts"]["database"]
        assert "flows: " in ready.json()["detail"]
        # What is not ready is alive, and Prometheus still reads it.
        assert (await get(world, "/health/live")).status_code == 200
        assert value(await scrape(world), "cellwall_ready", part="flows") == 0


async def test_every_answer_names_its_request_and_the_log_has_it(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        answer = await world.people.get("/status", headers={"X-Request-Id": "my-request-0001"})
        assert answer.headers["x-request-id"] == "my-request-0001"
        odd = await world.people.get("/status", headers={"X-Request-Id": "x" * 65})
        assert odd.headers["x-request-id"] != "x" * 65
        assert [fields["status"] for event, fields in world.said if event == "request"] == [200, 200]


@pytest.mark.parametrize(
    ("error", "status"), [(StateError("gone"), 503), (ControllerError("odd"), 400), (RuntimeError("secret-words"), 500)]
)
async def test_whatever_breaks_is_a_problem_with_its_request(tmp_path: Path, error: Exception, status: int) -> None:
    async with running(tmp_path) as world:

        def broken() -> None:
            raise error

        world.controller.control.ground = broken  # type: ignore[method-assign,assignment] # pyright: ignore[reportAttributeAccessIssue]
        answer = await world.people.get("/status")
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        if answer.status_code == 500:
            assert answer.json()["request"] == answer.headers["x-request-id"]
            assert "secret-words" not in answer.text
            failed = [fields for event, fields in world.said if event == "request failed"]
            assert "RuntimeError" in str(failed[0]["where"])


# --- what is shipped for Prometheus and Grafana ---

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
NAME = re.compile(r"\b(?:cellwall|process)_[a-z_]+")


def asked_for(found: Any) -> set[str]:
    """Give every metric that expressions of a dashboard or of alerts name."""
    if isinstance(found, dict):
        pairs = cast("dict[str, Any]", found)
        own = set(NAME.findall(pairs["expr"])) if isinstance(pairs.get("expr"), str) else set[str]()
        return own.union(*(asked_for(one) for one in pairs.values()))
    if isinstance(found, list):
        return set[str]().union(*(asked_for(one) for one in cast("list[Any]", found)))
    return set()


async def test_every_metric_that_dashboard_and_alerts_name_is_there(tmp_path: Path) -> None:
    dashboard = json.loads((PACKAGING / "grafana" / "cellwall.json").read_text("utf-8"))
    alerts = yaml.safe_load((PACKAGING / "prometheus" / "alerts.yml").read_text("utf-8"))
    wanted = asked_for(dashboard) | asked_for(alerts)
    async with running(tmp_path) as world:
        answer = (await get(world, "/metrics")).text
    Gauges(tmp_path / "agent.prom").write(Agent("web-1"), 0, 0.0, 1.0)
    text = answer + (tmp_path / "agent.prom").read_text("utf-8")
    there: set[str] = set()
    for family in text_string_to_metric_families(text):
        # Counters without a series yet are there by their family; a histogram's series have names of their own.
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        there |= {family.name + suffix for suffix in suffixes}
    assert len(wanted) > 30
    assert wanted <= there, wanted - there


def test_alerts_say_what_it_means_and_what_to_do() -> None:
    alerts = yaml.safe_load((PACKAGING / "prometheus" / "alerts.yml").read_text("utf-8"))
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 20
    for rule in rules:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["annotations"].keys() == {"summary", "action"}
        assert rule["labels"]["severity"] in ("page", "ticket")


def promtool(*words: str, given: str = "") -> str:
    """What Prometheus' own tool has against something; empty where nothing."""
    ran = subprocess.run(["promtool", *words], input=given, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr if ran.returncode else ""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_prometheus_itself_accepts_alerts_and_metrics(tmp_path: Path) -> None:
    assert not promtool("check", "rules", str(PACKAGING / "prometheus" / "alerts.yml"))
    async with running(tmp_path) as world:
        assert not promtool("check", "metrics", given=(await get(world, "/metrics")).text)


def test_the_dashboard_has_a_title_and_a_query_in_every_panel() -> None:
    dashboard = json.loads((PACKAGING / "grafana" / "cellwall.json").read_text("utf-8"))
    panels = [one for one in dashboard["panels"] if one["type"] != "row"]
    assert len({one["id"] for one in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["title"] and panel["targets"]
    places = [(one["gridPos"]["x"], one["gridPos"]["y"]) for one in dashboard["panels"]]
    assert len(set(places)) == len(places)
