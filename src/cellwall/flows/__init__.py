"""Flow records, how they add up, and the map of who talks to whom."""

from cellwall.flows.edges import Edge, FleetMap, Node, NodeKind, Tally, Transmission, draw_map, tally, transmission
from cellwall.flows.record import UNKNOWN, Flow, FlowKey, FlowRecord, Outcome, Process, Side, add, merge

__all__ = [
    "UNKNOWN",
    "Edge",
    "FleetMap",
    "Flow",
    "FlowKey",
    "FlowRecord",
    "Node",
    "NodeKind",
    "Outcome",
    "Process",
    "Side",
    "Tally",
    "Transmission",
    "add",
    "draw_map",
    "merge",
    "tally",
    "transmission",
]
