"""Policy documents: what they are made of, how they are read, and `decide`, which is what they mean."""

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
)
from cellwall.policy.document import Node, read_stream, suggestion
from cellwall.policy.errors import Place, PolicyError
from cellwall.policy.lifelines import BUILT_IN, controller_channel
from cellwall.policy.modes import Mode, ModeRule
from cellwall.policy.parse import parse_policy
from cellwall.policy.schema import document_schema
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

__all__ = [
    "BOTH_SIDES",
    "BUILT_IN",
    "NOBODY",
    "Action",
    "AddressBook",
    "Application",
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
    "Outcome",
    "Place",
    "Policy",
    "PolicyError",
    "Rule",
    "Service",
    "Side",
    "Test",
    "Tier",
    "Verdict",
    "Who",
    "controller_channel",
    "decide",
    "decide_at",
    "document_schema",
    "endpoint",
    "matches",
    "parse_policy",
    "read_stream",
    "suggestion",
]
