"""Enforcement points: each renders, applies and reads back rulesets in its own words."""

from cellwall.enforce.fake import FakePoint
from cellwall.enforce.nft import LOG_GROUP, TABLE, NftPoint, Transaction, Watch, generation_id
from cellwall.enforce.point import Drift, Held, Leave, Point, Receipt, Refused, Seen, digest_of

__all__ = [
    "LOG_GROUP",
    "TABLE",
    "Drift",
    "FakePoint",
    "Held",
    "Leave",
    "NftPoint",
    "Point",
    "Receipt",
    "Refused",
    "Seen",
    "Transaction",
    "Watch",
    "digest_of",
    "generation_id",
]
