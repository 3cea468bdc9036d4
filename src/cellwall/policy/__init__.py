"""Policy documents: what they are made of, how they are read, and `decide`, which is what they mean."""

from typing import TYPE_CHECKING

from cellwall.flows import Outcome, Side
from cellwall.policy.decide import (
    Decision,
    Endpoint,
    Flow,
    Tier,
    Verdict,
    decide,
    decide_at,
    endpoint,
    matches,
    speaks_of,
)
from cellwall.policy.document import Node, read_stream, suggestion
from cellwall.policy.errors import Place, PolicyError
from cellwall.policy.lifelines import BUILT_IN, CONTROLLER_CHANNEL, ESSENTIAL, controller_channel
from cellwall.policy.modes import Mode, ModeRule
from cellwall.policy.orders import ANYBODY, QUARANTINES, Order, OrderError, OrderKind, Party
from cellwall.policy.rollout import Approval, Check, OnFailure, Rollout, Wave, WaveError, parse_waves
from cellwall.policy.types import (
    BOTH_SIDES,
    NOBODY,
    Action,
    AddressBook,
    Application,
    Claim,
    DeclaredWorkload,
    Identity,
    LabelKey,
    Policy,
    Rule,
    Service,
    Test,
    Who,
)

if TYPE_CHECKING:
    from cellwall.policy.parse import parse_policy
    from cellwall.policy.schema import document_schema


def __getattr__(name: str) -> object:
    # What reads documents is loaded when it is asked for: an agent needs only what they mean.
    match name:
        case "parse_policy":
            from cellwall.policy import parse

            return parse.parse_policy
        case "document_schema":
            from cellwall.policy import schema

            return schema.document_schema
        case _:
            raise AttributeError(f"module `cellwall.policy` has no attribute `{name}`")


__all__ = [
    "ANYBODY",
    "BOTH_SIDES",
    "BUILT_IN",
    "CONTROLLER_CHANNEL",
    "ESSENTIAL",
    "NOBODY",
    "QUARANTINES",
    "Action",
    "AddressBook",
    "Application",
    "Approval",
    "Check",
    "Claim",
    "Decision",
    "DeclaredWorkload",
    "Endpoint",
    "Flow",
    "Identity",
    "LabelKey",
    "Mode",
    "ModeRule",
    "Node",
    "OnFailure",
    "Order",
    "OrderError",
    "OrderKind",
    "Outcome",
    "Party",
    "Place",
    "Policy",
    "PolicyError",
    "Rollout",
    "Rule",
    "Service",
    "Side",
    "Test",
    "Tier",
    "Verdict",
    "Wave",
    "WaveError",
    "Who",
    "controller_channel",
    "decide",
    "decide_at",
    "document_schema",
    "endpoint",
    "matches",
    "parse_policy",
    "parse_waves",
    "read_stream",
    "speaks_of",
    "suggestion",
]
