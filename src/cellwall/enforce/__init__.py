"""Enforcement points: each renders, applies and reads back rulesets in its own words."""

from typing import TYPE_CHECKING

from cellwall.enforce.nft import (
    LOG_GROUP,
    TABLE,
    TRACE_TABLE,
    Dropped,
    NftPoint,
    Scales,
    Tracing,
    Transaction,
    Watch,
    Weight,
    cut_mark,
    generation_id,
    sweep_trace,
    weigh,
)
from cellwall.enforce.point import (
    Drift,
    Held,
    Interim,
    Leave,
    Point,
    Receipt,
    Refused,
    Seen,
    Spell,
    digest_of,
)

if TYPE_CHECKING:
    from cellwall.enforce.fake import FakePoint


def __getattr__(name: str) -> object:
    # What stands for a kernel in tests is loaded when it is asked for.
    if name == "FakePoint":
        from cellwall.enforce.fake import FakePoint

        return FakePoint
    raise AttributeError(f"module `cellwall.enforce` has no attribute `{name}`")


__all__ = [
    "LOG_GROUP",
    "TABLE",
    "TRACE_TABLE",
    "Drift",
    "Dropped",
    "FakePoint",
    "Held",
    "Interim",
    "Leave",
    "NftPoint",
    "Point",
    "Receipt",
    "Refused",
    "Scales",
    "Seen",
    "Spell",
    "Tracing",
    "Transaction",
    "Watch",
    "Weight",
    "cut_mark",
    "digest_of",
    "generation_id",
    "sweep_trace",
    "weigh",
]
