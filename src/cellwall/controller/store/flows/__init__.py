"""The flows that a controller keeps: what a store of them is, chDB in a process of its own, and many put together."""

from cellwall.controller.store.flows.asker import ASKED, FlowAsker
from cellwall.controller.store.flows.contract import (
    DAY_S,
    HOUR_S,
    FlowStore,
    FlowStoreError,
    Query,
    Tick,
    cursor,
    place,
)
from cellwall.controller.store.flows.frames import receive_frame, send_frame
from cellwall.controller.store.flows.loop import FlowProcess, open_flows
from cellwall.controller.store.flows.memory import MemoryFlows
from cellwall.controller.store.flows.together import Others, OwnFlows, Parted, TogetherFlows

__all__ = [
    "ASKED",
    "DAY_S",
    "HOUR_S",
    "FlowAsker",
    "FlowProcess",
    "FlowStore",
    "FlowStoreError",
    "MemoryFlows",
    "Others",
    "OwnFlows",
    "Parted",
    "Query",
    "Tick",
    "TogetherFlows",
    "cursor",
    "open_flows",
    "place",
    "receive_frame",
    "send_frame",
]
