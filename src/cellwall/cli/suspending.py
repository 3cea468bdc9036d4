"""The commands `agent suspend` and `agent resume`: a host that for a while only observes."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from typing import Any

from cellwall.cli.exits import Exit, Stop

EXAMPLES = """examples:
  cellwall agent suspend --for 30m --reason 'ticket 4711: is it us?'
  cellwall agent suspend --for 30m --reason 'ticket 4711: is it us?' --yes
  cellwall agent resume --yes
"""
_UNITS = {"s": 1, "m": 60, "h": 3600}


def add(acts: Any, shared: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add both to the parser of `cellwall agent`."""
    shape = argparse.RawDescriptionHelpFormatter
    suspend = acts.add_parser(
        "suspend",
        help="drop nothing on this host for a while",
        description="Drop nothing on this host for a while, at most a day; then the policy is in force again by "
        "itself. The controller is told, with the reason.",
        epilog=EXAMPLES,
        formatter_class=shape,
    )
    shared(suspend)
    suspend.add_argument("--for", dest="span", required=True, metavar="TIME", help="for how long: `90s`, `30m`, `2h`")
    suspend.add_argument("--reason", required=True, metavar="TEXT", help="why; it is reported")
    resume = acts.add_parser(
        "resume",
        help="enforce again on a host that is suspended",
        description="Enforce again, at once, on a host that is suspended.",
        epilog=EXAMPLES,
        formatter_class=shape,
    )
    shared(resume)
    for command in (suspend, resume):
        command.add_argument("--yes", "-y", action="store_true", help="do it; without, only say what would be done")


def run_suspend(given: argparse.Namespace) -> int:
    """Suspend. The agent must run: it is what ends it."""
    from cellwall.agent import AgentOptions, is_running, load_enrolment, suspend

    load_enrolment(given.state)
    seconds = duration(given.span)
    if not is_running(AgentOptions(given.state)):
        raise Stop(Exit.UNABLE, f"no agent runs on `{given.state}`, so nobody would end it; start the agent first")
    if not given.yes:
        print(f"would drop nothing on this host for {given.span}; repeat with --yes to do it")
        return Exit.OK
    made = suspend(given.state, seconds, given.reason, time.time())
    print(f"this host is {made}")
    return Exit.OK


def run_resume(given: argparse.Namespace) -> int:
    """Resume; where no agent runs, by loading what was in force."""
    from cellwall.agent import AgentOptions, is_running, load_boot, load_enrolment, read_suspension, resume

    load_enrolment(given.state)
    found = read_suspension(given.state, time.time())
    if found is None:
        print("this host is not suspended")
        return Exit.OK
    if not given.yes:
        print(f"this host is {found}; would enforce again; repeat with --yes to do it")
        return Exit.OK
    resume(given.state)
    options = AgentOptions(given.state, given.cgroup_root)
    if not is_running(options):
        load_boot(options, time.time())
    print("this host enforces again")
    return Exit.OK


def duration(text: str) -> float:
    """Read `90s`, `30m` or `2h` as seconds."""
    found = re.fullmatch(r"(\d{1,6})([smh])", text)
    if found is None:
        raise Stop(Exit.USAGE, f"`{text}` is no time; wanted `90s`, `30m` or `2h`")
    return float(int(found[1]) * _UNITS[found[2]])
