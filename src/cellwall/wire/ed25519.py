"""Check an Ed25519 signature with the OpenSSL that Python has loaded for TLS, or with the library `cryptography`.

`cryptography` brings an OpenSSL of its own: 7 MiB in every agent, for one question. The one that is there already has
the same function (EVP_DigestVerify(3), since OpenSSL 1.1.1). Where that cannot be called, or does not know a good
signature from a bad one, `cryptography` is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

Check = Callable[[bytes, bytes, bytes], bool]
"""Whether a public key (raw, 32 bytes) made a signature (64 bytes) of a message: in this order."""

_ED25519 = 1087  # openssl/obj_mac.h, NID_ED25519
# RFC 8032, section 7.1, test 2.
_KEY = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
_MESSAGE = b"\x72"
_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def signed_by(key: bytes, signature: bytes, message: bytes) -> bool:
    """Say whether `key` (raw Ed25519, 32 bytes) made `signature` of `message`; what has a wrong size did not."""
    return len(key) == 32 and len(signature) == 64 and _check()(key, signature, message)


@cache
def _check() -> Check:
    """Give the first way that knows a good signature from a bad one."""
    found = by_openssl()
    if found and found(_KEY, _SIGNATURE, _MESSAGE) and not found(_KEY, _SIGNATURE, _MESSAGE + b"\0"):
        return found
    return by_cryptography


def by_cryptography(key: bytes, signature: bytes, message: bytes) -> bool:
    """Check with `cryptography`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def by_openssl() -> Check | None:
    """Give a check with Python's own OpenSSL; None where that cannot be called."""
    import _hashlib  # Python's module that is linked with it
    from ctypes import CDLL, c_char_p, c_int, c_size_t, c_void_p

    try:
        # Its own file and not a name like `libcrypto.so.3`: the very library that is loaded, whichever that is.
        library = CDLL(_hashlib.__file__)
        make_key, free_key = library.EVP_PKEY_new_raw_public_key, library.EVP_PKEY_free
        make, free = library.EVP_MD_CTX_new, library.EVP_MD_CTX_free
        begin, verify = library.EVP_DigestVerifyInit, library.EVP_DigestVerify
    except (AttributeError, OSError):
        return None
    make_key.argtypes, make_key.restype = (c_int, c_void_p, c_char_p, c_size_t), c_void_p
    make.argtypes, make.restype = (), c_void_p
    begin.argtypes, begin.restype = (c_void_p,) * 5, c_int
    verify.argtypes, verify.restype = (c_void_p, c_char_p, c_size_t, c_char_p, c_size_t), c_int
    for freed in (free_key, free):
        freed.argtypes, freed.restype = (c_void_p,), None

    def check(key: bytes, signature: bytes, message: bytes) -> bool:
        held, context = make_key(_ED25519, None, key, len(key)), make()
        try:
            # 1 is yes; 0 and below are no, or an error (EVP_DigestVerify(3)).
            return bool(
                held
                and context
                and begin(context, None, None, None, held) == 1
                and verify(context, signature, len(signature), message, len(message)) == 1
            )
        finally:
            free(context)
            free_key(held)

    return check
