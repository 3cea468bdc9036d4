"""Flow records survive their columns, and columns that do not fit each other are refused."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cellwall.flows import FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.traffic import canonical
from cellwall.wire import (
    MOST_ROWS,
    Flows,
    WireError,
    decode_from_agent,
    encode,
    pack_flows,
    unpack_flows,
)

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(canonical)
words = st.sampled_from(("", "nginx", "www-data", "a.service"))
counts = st.integers(0, 2**48)
moments = st.floats(0, 1e11)
records = st.lists(
    st.builds(
        FlowRecord,
        st.builds(FlowKey, addresses, addresses, st.integers(0, 255), st.integers(0, 65535)),
        st.just("web-1"),
        st.sampled_from(Side),
        st.sampled_from(Outcome),
        st.sampled_from(Outcome),
        st.lists(words, max_size=2).map(tuple),
        counts,
        counts,
        moments,
        moments,
        counts,
        counts,
        st.builds(Process, words, words, words, words),
        st.booleans(),
    ),
    max_size=8,
)


def batch(of: list[FlowRecord]) -> Flows:
    return pack_flows(of, batch="b/1", start=1.0, end=3.0)


@given(records)
def test_records_come_back_as_they_were(before: list[FlowRecord]) -> None:
    sent = decode_from_agent(encode(batch(before)))
    assert isinstance(sent, Flows)
    assert unpack_flows(sent, "web-1") == tuple(before)


ONE = FlowRecord(
    FlowKey(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"), 6, 80),
    "web-1",
    Side.EGRESS,
    Outcome.ALLOWED,
    Outcome.DENIED,
    ("r",),
    1,
    1,
    1.0,
    2.0,
)


def test_the_reporter_is_who_sent_it_and_not_what_it_says() -> None:
    (record,) = unpack_flows(batch([ONE]), "db-1")
    assert record.reporter == "db-1"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"port": b"\0"}, "column `port` has 1 bytes for 1 rows"),
        ({"rows": 2}, "bytes for 2 rows"),
        ({"rows": MOST_ROWS + 1}, "at most"),
        ({"source": b"\x09\0\0\0"}, "column `source` points past"),
        ({"rule": b"\x01\0\0\0"}, "column `rule` points past"),
        ({"owners": ()}, "column `owner` points past"),
        ({"addresses": (b"12345", b"1234")}, "an address of 5 bytes"),
        ({"first": b"\0\0\0\0\0\0\xf8\x7f"}, "column `first` holds"),
        ({"packets": b"\xff" * 8}, "column `packets` holds"),
    ],
)
def test_columns_that_do_not_fit_are_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(WireError, match=why):
        unpack_flows(replace(batch([ONE]), **change), "web-1")
