"""Passwords: which ones are taken (NIST SP 800-63B, 5.1.1.2), and how they are kept (scrypt, RFC 7914)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import unicodedata
from hmac import compare_digest

from cellwall.controller.errors import ControllerError

SHORTEST, LONGEST = 12, 256
COST, BLOCK, LANES = 2**15, 8, 3
"""N, r and p: 32 MiB and some 0.3 s (OWASP Password Storage, scrypt)."""
_MEMORY = 128 * COST * BLOCK * 2
_KEYBOARD = ("0123456789" * 3, "abcdefghijklmnopqrstuvwxyz" * 2, "qwertyuiopasdfghjklzxcvbnm" * 2)
_COMMON = ("password", "passwort", "cellwall", "welcome", "letmein", "iloveyou", "administrator", "admin", "changeme")


def check_password(password: str, name: str) -> None:
    """Raise `ControllerError` where a password is too short or too easily guessed for the account `name`.

    No mix of kinds of characters is asked for."""
    plain = _normal(password)
    if len(plain) < SHORTEST:
        raise ControllerError(f"the password has {len(plain)} characters; wanted {SHORTEST} at least")
    if len(plain) > LONGEST:
        raise ControllerError(f"the password has {len(plain)} characters; wanted {LONGEST} at most")
    rest = plain.casefold()
    for word in (*_COMMON, name.casefold()):
        rest = rest.replace(word, "") if word else rest
    for row in _KEYBOARD:
        if rest and (rest in row or rest in row[::-1]):
            rest = ""
    if len(set(rest)) < 5:
        raise ControllerError("the password is easily guessed; wanted one without names, repetition and rows of keys")


def new_password(password: str, name: str) -> str:
    """Give what is kept of a new password of the account `name`, if it is taken. Raises `ControllerError`."""
    check_password(password, name)
    return keep_password(password)


def keep_password(password: str) -> str:
    """Give what is kept of a password. Takes a fraction of a second, and 32 MiB."""
    salt = secrets.token_bytes(16)
    return f"scrypt${COST}${BLOCK}${LANES}${_text(salt)}${_text(_scrypt(password, salt, COST, BLOCK, LANES))}"


def is_password(password: str, kept: str) -> bool:
    """Say whether it is the password of which `kept` was kept; takes as long where there is none."""
    try:
        kind, cost, block, lanes, salt, digest = kept.split("$")
        wanted = base64.b64decode(digest)
        numbers = int(cost), int(block), int(lanes)
        found = _scrypt(password, base64.b64decode(salt), *numbers) if kind == "scrypt" else b""
    except (ValueError, binascii.Error):
        _scrypt(password, b"nobody", COST, BLOCK, LANES)
        return False
    return compare_digest(found, wanted)


def _scrypt(password: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    data = _normal(password).encode("utf-8", "surrogatepass")
    return hashlib.scrypt(data, salt=salt, n=cost, r=block, p=lanes, maxmem=_MEMORY, dklen=32)


def _normal(password: str) -> str:
    # SP 800-63B, 5.1.1.2: one form for what can be typed in several.
    return unicodedata.normalize("NFKC", password)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
