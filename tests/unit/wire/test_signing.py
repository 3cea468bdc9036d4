"""A signature holds for one workload, one generation and one content."""

from __future__ import annotations

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from cellwall.wire import (
    Bundle,
    Forged,
    MemberChange,
    WireError,
    decode_from_controller,
    digested,
    encode,
    sign,
    signed_part,
    verify,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
BUNDLE = sign(
    Bundle(workload="web-1", generation=5, revision=2, ruleset=b"r", members=b"m", issued_at=9.0, confirm_s=30), KEY
)
DIGESTED = digested(BUNDLE, KEY, sha256(b"m").digest())
CHANGE = sign(MemberChange(workload="web-1", base=5, generation=6, revision=2, added=b"a", digest="d"), KEY)


def test_what_the_controller_signed_is_believed() -> None:
    assert verify(BUNDLE, PUBLIC, "web-1") is BUNDLE
    assert verify(DIGESTED, PUBLIC, "web-1") is DIGESTED
    assert verify(CHANGE, PUBLIC, "web-1") is CHANGE


@pytest.mark.parametrize(
    "change",
    [
        {"workload": "web-2"},
        {"generation": 6},
        {"revision": 3},
        {"ruleset": b"x"},
        {"members": b"x"},
        {"issued_at": 10.0},
        {"confirm_s": 0},
        {"signature": b""},
        {"signature": bytes(64)},
    ],
)
@pytest.mark.parametrize("bundle", [BUNDLE, DIGESTED], ids=["whole", "digested"])
def test_no_field_of_a_bundle_can_be_changed(bundle: Bundle, change: dict[str, object]) -> None:
    with pytest.raises(Forged):
        verify(replace(bundle, **change), PUBLIC, "web-1")


def test_neither_form_passes_for_the_other() -> None:
    for changed in (replace(BUNDLE, form=2), replace(DIGESTED, form=1)):
        with pytest.raises(Forged):
            verify(changed, PUBLIC, "web-1")


def test_a_form_that_is_not_known_is_refused() -> None:
    with pytest.raises(WireError):
        decode_from_controller(encode(replace(BUNDLE, form=3)))


def test_a_digest_that_is_not_of_the_members_signs_nothing() -> None:
    with pytest.raises(Forged):
        verify(digested(BUNDLE, KEY, sha256(b"other").digest()), PUBLIC, "web-1")


def test_what_is_signed_as_digests_is_no_longer_for_longer_members() -> None:
    short, long = (signed_part(replace(DIGESTED, members=bytes(size))) for size in (1, 1_000_000))
    assert len(short) == len(long) < 200


@pytest.mark.parametrize(
    "change", [{"base": 4}, {"generation": 7}, {"added": b"b"}, {"removed": (b"1234",)}, {"digest": "e"}]
)
def test_no_field_of_a_change_can_be_changed(change: dict[str, object]) -> None:
    with pytest.raises(Forged):
        verify(replace(CHANGE, **change), PUBLIC, "web-1")


def test_a_bundle_of_another_workload_is_refused() -> None:
    with pytest.raises(Forged, match="is for `web-1`, not for `db-1`"):
        verify(BUNDLE, PUBLIC, "db-1")


def test_another_key_is_not_believed() -> None:
    for key in (Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw(), b"short"):
        with pytest.raises(Forged, match="not signed by our controller"):
            verify(BUNDLE, key, "web-1")
