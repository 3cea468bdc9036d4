"""A controller in a process of its own, so that it can be killed; its log goes to standard error."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cellwall.controller import ControllerOptions, run_controller


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
        flows="memory",
    )
    run_controller(options, lambda controller: print(controller.port, flush=True))


if __name__ == "__main__":
    main()
