"""The kernel's budget held against the kernel: what a table takes is never more than `weigh` says.

`python -m tests.kernel.test_weight` measures larger ones too, and writes the table of docs/design/enforce-nft.md.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.kernel.namespaces import needs_namespaces, pair

from cellwall.compile import ClassCard, Entry, Face, NetworkSpan, RuleCard, Ruleset
from cellwall.enforce import NftPoint, Watch, Weight, weigh
from cellwall.policy import Action, Mode

pytestmark = needs_namespaces

_TCP, _ICMP = 6 << 16, 1 << 16
_MEMORY = Path("/sys/fs/cgroup/memory")


def members_of(count: int) -> dict[bytes, int]:
    return {(0x0B000000 + number).to_bytes(4, "big"): 1 + number % 100 for number in range(count)}


def ruleset(
    entries: tuple[Entry, ...] = (), rules: int = 1, networks: tuple[NetworkSpan, ...] = (), classes: int = 0
) -> Ruleset:
    """One that enforces these entries for whatever address."""
    cards = tuple(
        RuleCard(number, f"rule-{number:06}-with-a-name", Action.ALLOW, place="policy/web.yaml:12:3")
        for number in range(1, rules + 1)
    )
    titles = tuple(ClassCard(number, f"app=shop-{number}, env=prod, role=web") for number in range(1, classes + 1))
    return Ruleset("w", 1, Mode.ENFORCE, cards, titles, (Face((), ingress=entries),), networks)


def entry(number: int, low: int, width: int = 0, rule: int = 1) -> Entry:
    return Entry(1 + number // 100, low, low + width, Action.ALLOW, (rule,))


Shape = Callable[[int], tuple[Ruleset, Mapping[bytes, int]]]
SHAPES: dict[str, Shape] = {
    "members": lambda count: (ruleset(), members_of(count)),
    "ports": lambda count: (ruleset(tuple(entry(n, _TCP + 1000 + 2 * (n % 100)) for n in range(count))), {}),
    "ranges": lambda count: (ruleset(tuple(entry(n, _TCP + 1000 + 10 * (n % 100), 4) for n in range(count))), {}),
    "types of ICMP": lambda count: (
        ruleset(tuple(entry(n, _ICMP + 512 * (n % 100), 300) for n in range(count))),
        {},
    ),
    "networks": lambda count: (
        ruleset(
            networks=tuple(NetworkSpan(4, 0x0B000000 + n * 512, 0x0B000000 + n * 512 + 200, 1) for n in range(count))
        ),
        {},
    ),
    "rules": lambda count: (
        ruleset(tuple(Entry(n, _TCP + 80, _TCP + 80, Action.ALLOW, (n,)) for n in range(1, count + 1)), rules=count),
        {},
    ),
    "classes": lambda count: (ruleset(classes=count), {}),
}


@dataclass(frozen=True)
class Taken:
    """Bytes: held in the kernel after, taken at the peak by kernel, agent and nft, and by notices of the kernel."""

    weight: Weight
    held: int
    peak: int
    notices: int
    seconds: float


@contextmanager
def group() -> Generator[Path]:
    """A control group of its own that counts memory, the kernel's too."""
    if not (_MEMORY / "memory.kmem.usage_in_bytes").exists():
        pytest.skip("no control group counts the kernel's memory apart")
    made = _MEMORY / f"cwkw{os.getpid()}"
    made.mkdir()
    try:
        yield made
    finally:
        deadline = time.monotonic() + 5
        while made.exists() and time.monotonic() < deadline:
            try:
                made.rmdir()
            except OSError:
                time.sleep(0.05)


def take(where: Path, kind: str, count: int) -> Taken:
    """Write a table within a control group and this network namespace, while somebody listens."""
    (where / "cgroup.procs").write_text(str(os.getpid()))

    def read(name: str) -> int:
        return int((where / name).read_text())

    def slab() -> int:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Slab:"))

    wanted, members = SHAPES[kind](count)
    point, watch = NftPoint(), Watch(receive_buffer=1 << 16)
    point.apply(Ruleset("w", 0, Mode.ENFORCE), {})
    kernel, everything, before, most, ended = (
        read("memory.kmem.usage_in_bytes"),
        read("memory.usage_in_bytes"),
        slab(),
        [0],
        threading.Event(),
    )
    (where / "memory.max_usage_in_bytes").write_text("0")

    def look() -> None:
        while not ended.wait(0.005):
            most[0] = max(most[0], slab() - before)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    began = time.monotonic()
    point.apply(wanted, members)
    took = time.monotonic() - began
    peak = read("memory.max_usage_in_bytes") - everything
    ended.set()
    looking.join()
    held = read("memory.kmem.usage_in_bytes") - kernel
    watch.close()
    point.close()
    return Taken(weigh(wanted, len(members)), held, peak, most[0], took)


def taken_by(kind: str, count: int) -> Taken:
    """Do so in a program of its own: a fork of this one would be charged with what it shares."""
    with group() as where, pair() as (host, _):
        said = host.run([sys.executable, "-m", "tests.kernel.test_weight", str(where), kind, str(count)]).stdout
    weight, *rest = json.loads(said)
    return Taken(Weight(*weight), *rest)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_table_takes_no_more_than_was_estimated(kind: str) -> None:
    taken = taken_by(kind, 1000)
    assert taken.held <= taken.weight.held
    assert taken.peak <= taken.weight.peak


def test_many_elements_are_written_without_a_notice_of_each_at_once() -> None:
    taken = taken_by("members", 30_000)
    # One transaction of them all takes 256 MiB.
    assert taken.notices < 96 << 20
    assert taken.peak <= taken.weight.peak


def main() -> None:
    print("| what | elements | kernel holds, MiB | estimated | at the peak, MiB | notices | estimated | took, s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind in SHAPES:
        for count in (1000, 10_000, 100_000):
            if kind in ("rules", "classes") and count > 10_000:
                continue
            one = taken_by(kind, count)
            sizes = (one.held, one.weight.held, one.peak, one.notices, one.weight.peak)
            cells = " | ".join(f"{size / (1 << 20):.1f}" for size in sizes)
            print(f"| {count:,} {kind} | {one.weight.elements:,} | {cells} | {one.seconds:.2f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        found = take(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
        weight = found.weight
        weighed = (weight.elements, weight.held, weight.peak)
        print(json.dumps([weighed, found.held, found.peak, found.notices, found.seconds]))
    else:
        main()
