"""Values as the JSON that the API answers with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellwall.compile import Misfit
from cellwall.controller.core import Row
from cellwall.controller.store.state import AuditEntry, DenialRow, LabelRow, Progress, Revision
from cellwall.flows import Edge, FleetMap, Flow, FlowKey, FlowRecord, Node
from cellwall.inventory import Fleet
from cellwall.traffic import point, port_name
from cellwall.wire import Counters, Facts, HeldVerdict, Receipt, TableText

Json = dict[str, Any]


def key_shape(key: FlowKey, fleet: Fleet) -> Json:
    """A flow's ends, with the workloads that own them."""
    source, destination = fleet.by_address.get(key.source), fleet.by_address.get(key.destination)
    return {
        "source": str(key.source),
        "destination": str(key.destination),
        "source_workload": source.name if source else None,
        "destination_workload": destination.name if destination else None,
        "protocol": key.protocol,
        "port": key.port,
        "service": port_name(point(key.protocol, key.port)),
    }


def record_shape(record: FlowRecord | None) -> Json | None:
    """What one end says of a flow."""
    if record is None:
        return None
    return {
        "reporter": record.reporter,
        "outcome": record.outcome,
        "would": record.would,
        "rules": list(record.rules),
        "revision": record.revision,
        "connections": record.connections,
        "packets": record.packets,
        "bytes": record.bytes,
        "first_seen": record.first_seen,
        "last_seen": record.last_seen,
        "standing": record.standing,
        "process": {
            "name": record.process.name,
            "user": record.process.user,
            "unit": record.process.unit,
            "exe": record.process.exe,
        },
    }


def flow_shape(flow: Flow, fleet: Fleet) -> Json:
    """A flow with the reports of both ends."""
    ends = [end for end in (flow.egress, flow.ingress) if end is not None]
    return {
        **key_shape(flow.key, fleet),
        "outcome": flow.outcome,
        "would": flow.would,
        "connections": flow.connections,
        "packets": max(end.packets for end in ends),
        "bytes": max(end.bytes for end in ends),
        "first_seen": min(end.first_seen for end in ends),
        "last_seen": max(end.last_seen for end in ends),
        "rules": sorted({rule for end in ends for rule in end.rules}),
        "revision": max(end.revision for end in ends),
        "one_sided": flow.one_sided,
        "egress": record_shape(flow.egress),
        "ingress": record_shape(flow.ingress),
    }


def node_shape(node: Node) -> Json:
    """A place of the map."""
    return {
        "id": node.id,
        "kind": node.kind,
        "labels": dict(node.labels),
        "workloads": list(node.workloads),
        "addresses": [str(address) for address in node.addresses],
    }


def edge_shape(edge: Edge) -> Json:
    """Flows from one place of the map to another. `verdict` is the worst that befell any of them."""
    total = edge.tally
    verdict = "denied" if total.denied else "would" if total.would_deny else "allowed"
    return {
        "source": edge.source,
        "destination": edge.destination,
        "service": edge.service,
        "transmission": edge.transmission,
        "connections": total.allowed + total.denied,
        "allowed": total.allowed,
        "denied": total.denied,
        "would_deny": total.would_deny,
        "verdict": verdict,
        "flows": edge.flows,
        "first_seen": edge.first_seen,
        "last_seen": edge.last_seen,
        "missing": list(edge.missing),
        "processes": [list(names) for names in edge.processes],
    }


def map_shape(drawn: FleetMap) -> Json:
    """The map."""
    return {"nodes": [node_shape(one) for one in drawn.nodes], "edges": [edge_shape(one) for one in drawn.edges]}


def misfit_shape(misfit: Misfit) -> Json:
    """A rule that a point cannot express."""
    return {"rule": misfit.rule, "reason": misfit.reason}


def row_shape(row: Row) -> Json:
    """One line of a rollout."""
    return {
        "workload": row.workload,
        "state": row.state,
        "reason": row.reason,
        "revision_wanted": row.revision_wanted,
        "revision_held": row.revision_held,
        "generation_wanted": row.generation_wanted,
        "generation_held": row.generation_held,
        "misfits": [misfit_shape(one) for one in row.misfits],
        "at": row.at,
        "connected": row.connected,
    }


def label_shape(row: LabelRow) -> Json:
    """A label and where it comes from."""
    return {
        "workload": row.workload,
        "key": row.key,
        "value": row.value,
        "source": row.source,
        "author": row.author,
        "at": row.at,
    }


def revision_shape(revision: Revision, progress: Mapping[int, Progress], *, whole: bool = False) -> Json:
    """A revision, with its documents and plan where it is whole."""
    known = progress.get(revision.number)
    shape: Json = {
        "revision": revision.number,
        "author": revision.author,
        "note": revision.note,
        "created": revision.created,
        "confirm_s": revision.confirm_s,
        "reverts_to": revision.reverts_to,
        "state": known.state if known else "good",
        "reason": known.reason if known else "",
    }
    if whole:
        shape |= {"documents": dict(revision.documents), "plan": dict(revision.plan)}
    return shape


def held_shape(answer: HeldVerdict | TableText | Counters) -> Json:
    """What a point says of what it holds."""
    if isinstance(answer, TableText):
        return {"text": answer.text, "cut": answer.cut}
    if isinstance(answer, Counters):
        return {"rules": {rule: {"packets": packets, "bytes": size} for rule, (packets, size) in answer.rules.items()}}
    return {
        "side": answer.side,
        "outcome": answer.outcome,
        "would": answer.would,
        "tier": answer.tier,
        "mode": answer.mode,
        "rules": list(answer.rules),
        "revision": answer.revision,
        "foreign": answer.foreign,
    }


def denial_shape(row: DenialRow, fleet: Fleet) -> Json:
    """A sample of a denied packet."""
    key = FlowKey(row.source, row.destination, row.protocol, row.port)
    return {
        "at": row.at,
        "reporter": row.reporter,
        **key_shape(key, fleet),
        "side": row.side,
        "outcome": row.outcome,
        "rule": row.rule,
        "revision": row.revision,
        "process": row.process,
    }


def facts_shape(facts: Facts, at: float) -> Json:
    """What an agent says of its host."""
    return {
        "at": at,
        "hostname": facts.hostname,
        "os": facts.os,
        "kernel": facts.kernel,
        "nft": facts.nft,
        "foreign": list(facts.foreign),
        "blind": list(facts.blind),
        "troubles": list(facts.troubles),
        "conntrack": {"tracked": facts.tracked, "most": facts.most_tracked},
        "memory": {"free": facts.memory, "table": facts.table_memory},
        "listening": [
            {
                "service": port_name(point(one.protocol, one.port)),
                "process": one.process,
                "exe": one.exe,
                "user": one.user,
                "unit": one.unit,
            }
            for one in facts.listening
        ],
        "containers": [
            {"id": one.id, "name": one.name, "image": one.image, "published": list(one.published)}
            for one in facts.containers
        ],
    }


def receipt_shape(receipt: Receipt, at: float) -> Json:
    """What a point reported."""
    return {
        "at": at,
        "generation": receipt.generation,
        "state": receipt.state,
        "reason": receipt.reason,
        "misfits": [{"rule": one.rule, "reason": one.reason} for one in receipt.misfits],
        "revision_held": receipt.holding.revision,
        "generation_held": receipt.holding.generation,
    }


def audit_shape(entry: AuditEntry) -> Json:
    """Something that was done."""
    return {
        "number": entry.number,
        "at": entry.at,
        "author": entry.author,
        "action": entry.action,
        "subject": entry.subject,
        "details": dict(entry.details),
        "hash": entry.hash,
    }
