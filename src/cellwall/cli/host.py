"""The commands of a host, `agent` and `enroll`: plain argparse, because a host has only the agent's packages."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cellwall.cli import suspending
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.files import keep

STATE = Path("/var/lib/cellwall/agent")
ENROLL_EXAMPLES = """examples:
  cellwall enroll --controller https://10.0.0.5:7443 --token-file token --name web-1
  cellwall tokens create --workload web-1 | ssh web-1 cellwall enroll --token-file - --name web-1 \\
      --controller https://10.0.0.5:7443
  cellwall enroll --controller https://10.0.0.5:7443 --token-file token --name web-1 --again
"""
AGENT_EXAMPLES = """examples:
  cellwall agent run
  cellwall agent run --state /var/lib/cellwall/agent --observe-only
"""


# What may be left on a host, and what that means.
_LEFT = {
    "keep": "the rules stay, until a reboot",
    "open": "everything passes",
    "close": "all but the lifelines is closed, until a reboot",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Stop(Exit.USAGE, f"{message}; try `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """Give the parser of the host's commands; the reference page is written from it too."""
    shape = argparse.RawDescriptionHelpFormatter
    top = _Parser(prog="cellwall", formatter_class=shape)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    enroll = commands.add_parser(
        "enroll",
        help="make this host a workload of a controller",
        description="Make this host a workload of a controller: trade a token for a certificate of its own.",
        epilog=ENROLL_EXAMPLES,
        formatter_class=shape,
    )
    enroll.add_argument("--controller", required=True, metavar="URL", help="where the controller listens for agents")
    enroll.add_argument("--token-file", required=True, type=Path, metavar="FILE", help="the token; `-` reads it")
    enroll.add_argument("--state", type=Path, default=STATE, metavar="DIR", help="the agent's folder (%(default)s)")
    enroll.add_argument("--name", required=True, metavar="NAME", help="the workload's name")
    enroll.add_argument(
        "--again", action="store_true", help="a host that is enrolled gets a fresh certificate; its rules stay"
    )
    agent = commands.add_parser("agent", help="run the agent", formatter_class=shape)
    acts = agent.add_subparsers(dest="act", required=True, metavar="COMMAND", parser_class=_Parser)
    run = acts.add_parser(
        "run",
        help="enforce and report for this host until stopped",
        description="Enforce and report for this host until stopped. Stopping the agent leaves its rules in force.",
        epilog=AGENT_EXAMPLES,
        formatter_class=shape,
    )
    _shared(run)
    run.add_argument("--interval", type=float, default=2.0, metavar="S", help="seconds between reports (%(default)s)")
    run.add_argument("--observe-only", action="store_true", help="never drop a packet, whatever the policy says")
    run.add_argument("--metrics-file", type=Path, metavar="PATH", help="where metrics are written (in the folder)")
    run.add_argument("--log-format", choices=("json", "text"), default="json", help="how the log is (%(default)s)")
    levels = ("debug", "info", "warning", "error")
    run.add_argument("--log-level", choices=levels, default="info", help="the least that is logged (%(default)s)")
    run.add_argument(
        "--most-memory", type=_mebibytes, metavar="MIB", help="what writing a table may take (what there is)"
    )
    boot = acts.add_parser(
        "boot",
        help="enforce the last policy, from disk, before the network is up",
        description="Enforce the last policy that was in force, from disk alone: run it before the network comes up.",
        epilog="examples:\n  cellwall agent boot\n",
        formatter_class=shape,
    )
    _shared(boot)
    boot.add_argument("--observe-only", action="store_true", help="never drop a packet, whatever the policy says")
    suspending.add(acts, _shared)
    remove = acts.add_parser(
        "remove",
        help="take Cellwall off this host, while no agent runs",
        description="Take Cellwall off this host, while no agent runs. What it enforced is forgotten. Without --leave "
        "a terminal is asked, and the answer is acted upon.",
        epilog="examples:\n  cellwall agent remove\n  cellwall agent remove --leave open\n"
        "  cellwall agent remove --leave keep --yes\n",
        formatter_class=shape,
    )
    _shared(remove)
    remove.add_argument(
        "--leave",
        choices=tuple(_LEFT),
        help="keep the rules as they are, open everything, or close all but the lifelines",
    )
    remove.add_argument("--yes", "-y", action="store_true", help="do it; without, only say what would be done")
    bundle = acts.add_parser(
        "support-bundle",
        help="collect what helps others to find a fault",
        description="Collect what helps others to find a fault of this host, without secrets. "
        "`cellwall support-bundle` asks the controller too.",
        epilog="examples:\n  cellwall agent support-bundle\n"
        "  cellwall agent support-bundle --no-names --out web-1.tar.gz\n",
        formatter_class=shape,
    )
    _shared(bundle)
    bundle.add_argument("--out", type=Path, metavar="FILE", help="(cellwall-agent-TIME.tar.gz)")
    bundle.add_argument("--no-names", action="store_true", help="replace names and addresses, each by the same")
    bundle.add_argument("--yes", "-y", "--force", action="store_true", help="replace the file where it is there")
    return top


def _mebibytes(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 24:
        raise argparse.ArgumentTypeError(f"`{text}` is no number of MiB; wanted a whole one, such as `64`")
    return int(text) << 20


def _shared(command: argparse.ArgumentParser) -> None:
    command.add_argument("--state", type=Path, default=STATE, metavar="DIR", help="the agent's folder (%(default)s)")
    command.add_argument(
        "--cgroup-root", type=Path, metavar="PATH", help="where this host's units are (found by itself)"
    )


def concerns(argv: Sequence[str]) -> bool:
    """Say whether a command line is one of the host's."""
    return argv[:1] == ["enroll"] or argv[:1] == ["agent"]


def run(argv: Sequence[str]) -> int:
    """Run one of the host's commands."""
    try:
        given = parser().parse_args(argv)
    except SystemExit as end:  # --help
        return int(end.code or 0)
    if given.command == "enroll":
        return _enroll(given)
    acts = {
        "run": _run_agent,
        "boot": _boot,
        "suspend": suspending.run_suspend,
        "resume": suspending.run_resume,
        "remove": _remove,
        "support-bundle": _bundle,
    }
    return acts[given.act](given)


def _enroll(given: argparse.Namespace) -> int:
    from cellwall.agent import EnrollOptions, enroll

    token = sys.stdin.read() if str(given.token_file) == "-" else _token(given.token_file)
    name = enroll(EnrollOptions(given.controller, token.strip(), given.state, given.name, given.again))
    if given.again:
        print(f"this host is workload `{name}` again; its agent takes that up within a minute")
    else:
        print(f"this host is workload `{name}`; start its agent with `{_start(given.state)}`")
    return Exit.OK


def _start(state: Path) -> str:
    unit = Path("/lib/systemd/system/cellwall-agent.service")
    if state == STATE and unit.exists():
        return f"systemctl start {unit.name}"
    return f"cellwall agent run --state {state}"


def _run_agent(given: argparse.Namespace) -> int:
    from cellwall.agent import put_off

    put_off()
    from cellwall.agent import AgentOptions, run_agent

    run_agent(
        AgentOptions(
            given.state,
            given.cgroup_root,
            given.interval,
            given.observe_only,
            given.metrics_file,
            given.log_format,
            given.log_level,
            given.most_memory,
        )
    )
    return Exit.OK


def _boot(given: argparse.Namespace) -> int:
    from cellwall.agent import AgentOptions, load_boot

    generation = load_boot(AgentOptions(given.state, given.cgroup_root, 2.0, given.observe_only), time.time())
    print("nothing was in force" if generation is None else f"enforcing generation {generation}")
    return Exit.OK


def _remove(given: argparse.Namespace) -> int:
    from cellwall.agent import AgentOptions, remove
    from cellwall.enforce import Leave

    leave = given.leave or _asked()
    told = _LEFT[leave]
    # Who was asked has answered; who wrote it into a command line may still want to see what it means.
    if given.leave and not given.yes:
        print(f"would take Cellwall off this host: {told}; repeat with --yes to do it")
        return Exit.OK
    remove(AgentOptions(given.state, given.cgroup_root), Leave(leave))
    print(f"Cellwall is off this host: {told}")
    return Exit.OK


def _asked() -> str:
    if not sys.stdin.isatty():
        raise Stop(Exit.USAGE, f"say what to leave on this host: --leave {', --leave '.join(_LEFT)}")
    print("What shall stay in force on this host?", *(f"  {word:6} {told}" for word, told in _LEFT.items()), sep="\n")
    while True:
        try:
            answer = input("keep, open or close? ").strip().lower()
        except (EOFError, KeyboardInterrupt):
            raise Stop(Exit.NO, "nothing was done") from None
        if answer in _LEFT:
            return answer


def _bundle(given: argparse.Namespace) -> int:
    from cellwall.cli.bundle import collect

    out = given.out or Path(time.strftime("cellwall-agent-%Y%m%d-%H%M%S.tar.gz", time.gmtime()))
    keep([out], replace=given.yes)
    made = collect(None, "not asked for from a host", given.state, names=not given.no_names)
    made.write(out)
    for name, text in sorted(made.files.items()):
        print(f"{len(text):>9}  {name}")
    for name, why in made.missing.items():
        print(f"          {name}: could not be had: {why}")
    print(f"{out}; look through it before you give it away")
    return Exit.OK


def _token(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a token"
        raise Stop(Exit.USAGE, f"cannot read the token in `{path}`: {str(why).lower()}") from None
