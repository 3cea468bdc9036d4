"""Propose labels from names, facts and behaviour, each with its reasons and a confidence."""

from cellwall.classify.behaviour import Behaviour, observe_behaviour
from cellwall.classify.community import code_length, communities
from cellwall.classify.facts import Facts, Listening, Proposal
from cellwall.classify.propose import propose

__all__ = [
    "Behaviour",
    "Facts",
    "Listening",
    "Proposal",
    "code_length",
    "communities",
    "observe_behaviour",
    "propose",
]
