"""What the agent's programs are told when they are started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellwall import __version__

VERSION = __version__
"""What the agent says that it is."""


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """How to run the agent: `state` is the folder that `enroll` filled.

    `cgroup_root` is where this host's units are in the cgroup tree (None: at its mount), `interval_s` how often flows
    are collected; with `observe_only` no packet is ever dropped, whatever the policy says. `metrics_file` is where
    metrics are written (None: in the folder); `log_format` is `json` or `text`, `log_level` the least that is logged.
    `most_memory` is how many bytes writing a table may take at most (None: as many as the host has).
    """

    state: Path
    cgroup_root: Path | None = None
    interval_s: float = 2.0
    observe_only: bool = False
    metrics_file: Path | None = None
    log_format: str = "json"
    log_level: str = "info"
    most_memory: int | None = None


@dataclass(frozen=True, slots=True)
class EnrollOptions:
    """How to enrol: the controller's `https://` address, the token's text, the folder to fill, the workload's name.

    `again` takes a fresh certificate where the folder holds an enrolment already."""

    controller: str
    token: str
    state: Path
    name: str
    again: bool = False
