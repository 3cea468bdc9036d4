"""Both ways of checking a signature give the same answer, to what is signed and to what was tampered with."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cellwall.wire.ed25519 import by_cryptography, by_openssl, signed_by

OPENSSL = by_openssl()
SEEDS = st.binary(min_size=32, max_size=32)


@pytest.mark.skipif(OPENSSL is None, reason="Python's OpenSSL cannot be called here")
@given(seed=SEEDS, message=st.binary(max_size=300), place=st.integers(0, 10_000), flip=st.integers(0, 255))
def test_both_ways_agree(seed: bytes, message: bytes, place: int, flip: int) -> None:
    assert OPENSSL is not None
    key = Ed25519PrivateKey.from_private_bytes(seed)
    whole = bytearray(key.public_key().public_bytes_raw() + key.sign(message) + message)
    whole[place % len(whole)] ^= flip
    told = bytes(whole[:32]), bytes(whole[32:96]), bytes(whole[96:])
    assert OPENSSL(*told) == by_cryptography(*told) == signed_by(*told)
    assert signed_by(*told) or flip


WRONG = st.binary(max_size=70)


@given(key=WRONG.filter(lambda one: len(one) not in (32, 64)), signature=WRONG, message=st.binary(max_size=20))
def test_what_is_no_key_is_refused_and_raises_nothing(key: bytes, signature: bytes, message: bytes) -> None:
    assert signed_by(key, signature, message) is False
    assert signed_by(signature[:32], key, message) is False
