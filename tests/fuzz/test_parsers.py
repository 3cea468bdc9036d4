"""Whatever bytes come, a parser gives a value or its room's own error: soon, and within little memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import SOAK
from tests.fuzz.mutants import mutants
from tests.fuzz.targets import TARGETS, Target

MOST_S, MOST_BYTES = 2.0, 64 << 20
"""For inputs of a few kilobytes, on a machine that others share; a value is some hundred times its bytes at most."""


def parse(target: Target, data: bytes) -> bool:
    """Whether a value came of it; an error that is not the parser's own goes on."""
    began = time.process_time()
    try:
        target.parse(data)
    except target.errors as error:
        said = str(error)
    else:
        said = ""
    assert time.process_time() - began < MOST_S
    assert len(said) < 8000 and "\n" not in said
    return not said


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_what_is_well_formed_is_read(target: Target) -> None:
    for seed in target.seeds:
        parse(target, seed)
    assert parse(target, target.seeds[0])


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_only_its_own_errors_come_out_of_a_parser(target: Target) -> None:
    examples = settings().max_examples * (4 if SOAK else 1)

    @settings(max_examples=examples)
    @given(mutants(target.seeds))
    def hold(data: bytes) -> None:
        parse(target, data)

    hold()


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_short_input_takes_little_memory(target: Target) -> None:
    @settings(max_examples=settings().max_examples // 10)
    @given(st.lists(mutants(target.seeds), min_size=5, max_size=5))
    def hold(some: list[bytes]) -> None:
        tracemalloc.start()
        try:
            for data in some:
                parse(target, data)
            assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
        finally:
            tracemalloc.stop()

    hold()
