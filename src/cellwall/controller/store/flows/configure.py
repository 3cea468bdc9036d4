"""What chDB is told before it is loaded: how it counts memory on this machine.

chDB opens an engine as soon as it is imported, with the `config.xml` of where its process stands. By default it
counts memory by its cgroup, and writes a stack trace where there is none to read (other namespaces, strict containers:
chdb-io/chdb-core#51) before it counts by itself. Told so, it does that at once.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def configure(folder: Path) -> None:
    """Write the engine's configuration into `folder`, and stand there; before chDB is imported.

    So no `config.xml` that happens to lie where the controller was started is taken for the engine's."""
    kept = folder / "config.xml"
    text = f"<clickhouse><memory_worker_use_cgroup>{int(counts_memory())}</memory_worker_use_cgroup></clickhouse>\n"
    if not kept.exists() or kept.read_bytes() != text.encode():
        kept.write_text(text, "utf-8")
    os.chdir(folder)


def counts_memory() -> bool:
    """Whether a cgroup that counts memory can be read: ours, one around it, or that of version 1 (cgroups(7))."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            if line.startswith("0::"):
                own = _CGROUPS / line.removeprefix("0::").lstrip("/")
                if any((one / "memory.current").exists() for one in (own, *own.parents)):
                    return True
    return (_CGROUPS / "memory" / "memory.stat").exists()
