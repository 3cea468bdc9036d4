"""The program on a host: it enforces what its controller signs, and tells what it sees."""

from importlib import import_module
from typing import TYPE_CHECKING

from cellwall.agent.enroll import enroll

if TYPE_CHECKING:
    from cellwall.agent.boot import load_boot, remove
    from cellwall.agent.enrolment import AgentError, Enrolment, NotEnrolled, check_controller, load_enrolment
    from cellwall.agent.folder import is_running
    from cellwall.agent.lean import put_off
    from cellwall.agent.loop import run_agent
    from cellwall.agent.options import AgentOptions, EnrollOptions
    from cellwall.agent.ring import recent_flows
    from cellwall.agent.suspension import Suspension, read_suspension, resume, suspend

# Each is loaded when it is asked for: `put_off` must come before what it puts off.
_WHERE = {
    "boot": ("load_boot", "remove"),
    "enrolment": ("AgentError", "Enrolment", "NotEnrolled", "check_controller", "load_enrolment"),
    "folder": ("is_running",),
    "lean": ("put_off",),
    "loop": ("run_agent",),
    "options": ("AgentOptions", "EnrollOptions"),
    "ring": ("recent_flows",),
    "suspension": ("Suspension", "read_suspension", "resume", "suspend"),
}


def __getattr__(name: str) -> object:
    for module, names in _WHERE.items():
        if name in names:
            return getattr(import_module(f"cellwall.agent.{module}"), name)
    raise AttributeError(f"module `cellwall.agent` has no attribute `{name}`")


__all__ = [
    "AgentError",
    "AgentOptions",
    "EnrollOptions",
    "Enrolment",
    "NotEnrolled",
    "Suspension",
    "check_controller",
    "enroll",
    "is_running",
    "load_boot",
    "load_enrolment",
    "put_off",
    "read_suspension",
    "recent_flows",
    "remove",
    "resume",
    "run_agent",
    "suspend",
]
