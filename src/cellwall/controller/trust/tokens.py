"""Enrolment tokens: made here, kept as a digest only."""

from __future__ import annotations

import secrets
from hashlib import sha256
from hmac import compare_digest

from cellwall.controller.errors import Denied
from cellwall.controller.store.state import TokenRow
from cellwall.inventory import check_name
from cellwall.labels import Labels

MOST_USES, LONGEST_S = 100_000, 365 * 86_400


def make_secret() -> str:
    """Make the secret of a token: 256 bits, as 43 characters."""
    return secrets.token_urlsafe(32)


def secret_digest(secret: str) -> str:
    """Give what is kept of a secret. It has 256 random bits, so that a plain hash cannot be searched."""
    return sha256(secret.encode()).hexdigest()


def check_token(row: TokenRow | None, secret: str, wished: str, now: float) -> str:
    """Say which workload name the token lets in, for who wished for `wished` (may be empty). Raises `Denied`.

    `row` is what was found by the secret's digest. That it has uses left is checked when it is used. Whatever is
    wrong with the secret, the answer is the same.
    """
    # The row was found by digest: this comparison, at constant time, keeps that from being all that is checked.
    digest = secret_digest(secret)
    if row is None or not compare_digest(row.digest, digest) or now >= row.expires:
        raise Denied("the token is unknown, used up or expired; ask for a new one")
    if row.workload and wished and row.workload != wished:
        raise Denied(f"the token is for another workload than `{wished}`")
    name = row.workload or wished
    if not name:
        raise Denied("the token names no workload; say which name is wished for")
    return check_name(name)


def token_id(secret: str) -> str:
    """Name a token by its secret, without telling it."""
    return secret_digest(secret)[:12]


def make_token_row(
    secret: str, labels: Labels, uses: int, ttl_s: float, workload: str | None, author: str, now: float
) -> TokenRow:
    """Make the row of a new token. Raises `ControllerError` and `InventoryError`."""
    if not 1 <= uses <= MOST_USES:
        raise Denied(f"`{uses}` uses; wanted 1 to {MOST_USES}")
    if not 0 < ttl_s <= LONGEST_S:
        raise Denied(f"`{ttl_s:g}` seconds; wanted over 0 and at most {LONGEST_S}")
    if workload and uses != 1:
        raise Denied("a token for one workload has one use")
    return TokenRow(
        id=token_id(secret),
        digest=secret_digest(secret),
        labels=labels,
        workload=check_name(workload) if workload else None,
        uses=uses,
        used=0,
        expires=now + ttl_s,
        created=now,
        author=author,
    )
