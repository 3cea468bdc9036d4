"""Metrics are written as Prometheus reads them, and their number is bounded."""

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from cellwall.clients import Counter, Histogram, counter, exposition, gauge

Read = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Read:
    """Read metrics with the parser of Prometheus' own client."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\r")), st.floats(allow_nan=False)))
def test_what_is_written_is_read_as_it_was(values: dict[str, float]) -> None:
    found = read(exposition([gauge("things", "How\nmany \\ things.", values, "kind")]))
    assert found == {("things", (("kind", key),)): value for key, value in list(values.items())[:200]}


def test_a_counter_counts_by_its_labels() -> None:
    made = Counter("asked_total", "Asked.", "who", "what")
    made.add("a", "b")
    made.add("a", "b", by=2)
    assert read(exposition([made.family()])) == {("asked_total", (("what", "b"), ("who", "a"))): 3}


def test_a_counter_without_labels_begins_at_nothing() -> None:
    assert read(exposition([Counter("lost_total", "Lost.").family()])) == {("lost_total", ()): 0}


def test_too_many_series_are_one() -> None:
    made = Counter("asked_total", "Asked.", "who")
    for number in range(100_000):
        made.add(str(number))
    found = read(exposition([made.family()]))
    assert len(found) == 201 and sum(found.values()) == 100_000
    assert found["asked_total", (("who", "other"),)] == 99_800


def test_a_histogram_adds_up() -> None:
    made = Histogram("took_seconds", "Took.", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        made.observe(value)
    found = read(exposition([made.family()]))
    buckets = [found["took_seconds_bucket", (("le", bound),)] for bound in ("0.1", "1", "+Inf")]
    assert buckets == [2, 3, 4]
    assert found["took_seconds_count", ()] == 4 and math.isclose(found["took_seconds_sum", ()], 7.65)


def test_what_is_not_known_has_no_sample() -> None:
    assert read(exposition([gauge("ends", "When.", None), counter("done_total", "Done.", 2)])) == {
        ("done_total", ()): 2.0
    }
