"""How soon a policy is felt: from `apply` to the first packet that meets it, with a real controller and real agents."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cellwall.clients import Api
from tests.bench.measure import Progress, Scale, Section, Table, Target, quantile

ROOT = Path(__file__).parents[2]
CELLWALL = Path(sys.executable).with_name("cellwall")
LAB, PORT, WITHIN_S, LOOK_S = "cwbench", 9100, 0.3, 0.002
SHUT = """
modes: [{where: "", mode: enforce}]
rules:
  - {id: rest, allow: [tcp/5432, udp], from: any, to: any}
"""
OPEN = SHUT + f"  - {{id: metrics, allow: tcp/{PORT}, from: any, to: any}}\n"


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    rounds = int(scale.of(60, 5))
    found: dict[tuple[str, float], list[tuple[float, float]]] = {}
    with lab() as (api, namespace, address), probe(namespace, address) as look:
        _apply(api, OPEN, 0.0)
        look("open", time.time() + 10)
        for confirm_s in (0.0, 30.0):
            progress.say(f"applied: {rounds} times each way, {confirm_s:g} s to confirm")
            for _ in range(rounds):
                for word, text in (("shut", SHUT), ("open", OPEN)):
                    began = time.time()
                    decided = _apply(api, text, confirm_s)
                    felt = look(word, began + 10)
                    found.setdefault((word, confirm_s), []).append((felt - began, felt - decided))
                    _good(api)
    rows: list[tuple[str, ...]] = []
    for (word, confirm_s), times in found.items():
        alls = [[1000 * one[at] for one in times] for at in (0, 1)]
        told = f"a port is {word}, {'confirmed afterwards' if confirm_s else 'not to be confirmed'}"
        shares = (f"{quantile(values, at):.0f}" for values in alls for at in (0.5, 0.99))
        rows.append((told, str(len(times)), *shares))
    worst = max(quantile([one for one, _ in times], 0.99) for times in found.values())
    got, wanted = f"{1000 * worst:.0f} ms", f"< {1000 * WITHIN_S:.0f} ms"
    target = Target("apply to first enforced packet, p99", wanted, got, worst < WITHIN_S)
    note = (
        "Two hosts with traffic, each with its agent, and a controller, in namespaces. From the request to apply "
        "(plan, tests and replay of what was seen are in it), and from its answer, to the first try to connect that "
        f"meets the new policy; one is made every {1000 * LOOK_S:g} ms."
    )  # fmt: skip
    heads = ("what", "times", "from the request p50, ms", "p99, ms", "from its answer p50, ms", "p99, ms")
    return Section(
        "applied",
        "From apply to the first packet",
        (Table("Until it is felt", heads, tuple(rows), note),),
        (target,),
        {},
    )


@contextmanager
def lab() -> Generator[tuple[Api, str, str]]:
    """A lab of two hosts; gives its controller, the caller's namespace and the server's address."""
    with TemporaryDirectory() as folder:
        scenario = Path(folder) / "lab.yaml"
        text = (ROOT / "scenarios" / "two.yaml").read_text("utf-8")
        scenario.write_text(text.replace("lab: two", f"lab: {LAB}"), "utf-8")
        try:
            made = json.loads(_cellwall("lab", "up", str(scenario), "-o", "json"))
            one = {each["name"]: each for each in made["workloads"]}
            yield Api(Path(made["socket"])), one["web"]["namespace"], one["db"]["addresses"][0]
        finally:
            _cellwall("lab", "down", LAB)


def _cellwall(*words: str) -> str:
    done = subprocess.run([CELLWALL, *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def probe(namespace: str, address: str) -> Generator[Any]:
    """Try to connect all the time; gives what waits for the first try after which the port is `open` or `shut`."""
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", "tests.bench.applied", address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    lines = process.stdout

    def look(word: str, until: float) -> float:
        while True:
            found, at = lines.readline().split()
            if found == word:
                return float(at)
            assert float(at) < until, f"the port is not {word} in time"

    try:
        yield look
    finally:
        process.kill()
        process.wait()


def _try_for_ever(address: str) -> None:
    last = ""
    while True:
        began = time.time()
        try:
            with socket.create_connection((address, PORT), 0.05):
                word = "open"
        except OSError:
            word = "shut"
        if word != last:
            # A try that found it shut began before it was known to be.
            print(word, time.time() if word == "open" else began, flush=True)
            last = word
        time.sleep(LOOK_S)


def _apply(api: Api, text: str, confirm_s: float) -> float:
    api.post("policy", "apply", body={"documents": {"policy.yaml": text}, "confirm_s": confirm_s})
    return time.time()


def _good(api: Api) -> None:
    until = time.monotonic() + 30
    while api.get("policy", "rollout")["state"] != "good":
        assert time.monotonic() < until, "it is not good in time"
        time.sleep(0.02)


if __name__ == "__main__":
    _try_for_ever(sys.argv[1])
