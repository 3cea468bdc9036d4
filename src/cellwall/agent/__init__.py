"""The program on a host: it enforces what its controller signs, and tells what it sees."""

from cellwall.agent.boot import load_boot, remove
from cellwall.agent.enroll import enroll
from cellwall.agent.enrolment import AgentError, Enrolment, NotEnrolled, load_enrolment
from cellwall.agent.loop import run_agent
from cellwall.agent.options import AgentOptions, EnrollOptions
from cellwall.agent.ring import recent_flows

__all__ = [
    "AgentError",
    "AgentOptions",
    "EnrollOptions",
    "Enrolment",
    "NotEnrolled",
    "enroll",
    "load_boot",
    "load_enrolment",
    "recent_flows",
    "remove",
    "run_agent",
]
