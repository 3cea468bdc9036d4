"""The kernel takes every golden script, and nft(8) can list what it then holds."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.golden.scenarios import NAMES, UNITS, load
from tests.kernel.namespaces import Namespace, namespace, needs_namespaces

from cellwall.clients import cgroup_mount
from cellwall.enforce.nft.program import TABLE, Program
from cellwall.enforce.nft.steps import plan_steps

pytestmark = needs_namespaces
SYSTEM = Path("/sys/fs/cgroup")


@contextmanager
def units(names: list[str]) -> Generator[str]:
    """Make control groups for the units of a scenario; gives where they are, as nft names it."""
    mount = cgroup_mount()
    if mount is None or not os.access(mount, os.W_OK):
        pytest.skip("control groups cannot be made here")
    root = mount / f"cellwall-golden-{os.getpid()}"
    try:
        for name in names:
            (root / name).mkdir(parents=True)
        yield str(root.relative_to(SYSTEM))
    finally:
        for name in names:
            with suppress(FileNotFoundError):
                (root / name).rmdir()
        with suppress(FileNotFoundError):
            root.rmdir()


def names_held(space: Namespace) -> tuple[set[str], set[str]]:
    """The names of the maps and chains that nft lists; it must not give up."""
    maps: set[str] = set()
    chains: set[str] = set()
    for line in space.run(["nft", "-s", "list", "table", "inet", TABLE]).stdout.splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind in {"map", "set"}:
            maps.add(rest.removesuffix(" {"))
        elif kind == "chain":
            chains.add(rest.removesuffix(" {"))
    return maps, chains


def load_all(space: Namespace, texts: tuple[str, ...]) -> None:
    """Check all as one, which changes nothing, and then load each."""
    space.run(["nft", "-c", "-f", "-"], stdin="".join(texts))
    assert TABLE not in space.run(["nft", "list", "tables"]).stdout
    for text in texts:
        space.run(["nft", "-c", "-f", "-"], stdin=text)
        space.nft(text)


@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_takes_each_golden_script_and_nft_lists_the_table(name: str) -> None:
    scenario = load(name)
    texts = scenario.steps()
    end: Program = plan_steps(None, scenario.program()).program
    if len(scenario.policies) > 1:
        end = plan_steps(end, scenario.program(1)).program
    with namespace() as space:
        if scenario.local.units:
            with units(sorted(scenario.local.units)) as root:
                load_all(space, tuple(text.replace(f'"{UNITS}/', f'"{root}/') for text in texts))
                held = names_held(space)
        else:
            load_all(space, texts)
            held = names_held(space)
    assert held == (set(end.shapes), set(end.chains))


@pytest.mark.parametrize("name", NAMES)
def test_nft_lists_the_table_as_json_too(name: str) -> None:
    scenario = load(name)
    if scenario.local.units:
        pytest.skip("the units of this scenario are made by the other test")
    with namespace() as space:
        for text in scenario.steps():
            space.nft(text)
        assert space.run(["nft", "-j", "list", "table", "inet", TABLE]).stdout.startswith('{"nftables"')
