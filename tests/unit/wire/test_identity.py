"""Names and tokens are read as they were written, and only then."""

from __future__ import annotations

import pytest

from cellwall.wire import Token, WireError, fingerprint, parse_token, spiffe_id, workload_of

SECRET = "s" * 43


def test_a_workload_is_named_by_its_uri() -> None:
    assert spiffe_id("web-1") == "spiffe://cellwall/workload/web-1"
    assert workload_of(spiffe_id("web-1")) == "web-1"


@pytest.mark.parametrize(
    "uri", ["spiffe://other/workload/a", "web-1", "spiffe://cellwall/workload/a/b", "spiffe://cellwall/workload/"]
)
def test_another_uri_names_no_workload(uri: str) -> None:
    with pytest.raises(WireError):
        workload_of(uri)


def test_a_token_is_read_as_it_is_written() -> None:
    token = Token(fingerprint(b"certificate"), SECRET)
    assert parse_token(f" {token}\n") == token


def test_a_token_is_not_shown_by_accident() -> None:
    assert SECRET not in repr(Token(fingerprint(b""), SECRET))
    with pytest.raises(WireError) as caught:
        parse_token(f"cw9.{SECRET}")
    assert SECRET not in str(caught.value)
