"""A controller in a process of its own, so that it can be killed; its log goes to standard error."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cellwall.controller import ControllerOptions, run_controller
from cellwall.controller.store.flows import FlowProcess
from cellwall.flows import FlowRecord


def main() -> None:
    """Run the controller that the JSON of the first argument describes; print its port once it listens."""
    told = json.loads(sys.argv[1])
    options = ControllerOptions(
        Path(told["data"]),
        listen=told["listen"],
        advertise=tuple(told["advertise"]),
        socket=Path(told["socket"]),
        name=told["name"],
        database=told["database"],
        flows=told.get("flows", "memory"),
    )
    die_at(told.get("dies", ""))
    run_controller(options, lambda controller: print(controller.port, flush=True))


def die_at(moment: str) -> None:
    """Be killed with the first flows that come: `before` they are written or `after`, or after it `together` with the
    flow store's process."""
    written = FlowProcess.insert_many

    def write(self: FlowProcess, batches: Sequence[tuple[Sequence[FlowRecord], str]]) -> Mapping[str, str]:
        refused: Mapping[str, str] = {} if moment == "before" else written(self, batches)
        if moment == "together":
            os.kill(self.pid, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
        return refused

    if moment:
        FlowProcess.insert_many = write


if __name__ == "__main__":
    main()
