"""The host point: nftables."""

from cellwall.enforce.nft.driver import NftPoint
from cellwall.enforce.nft.elements import generation_id
from cellwall.enforce.nft.orders import cut_mark
from cellwall.enforce.nft.program import TABLE
from cellwall.enforce.nft.script import LOG_GROUP
from cellwall.enforce.nft.trace import TRACE_TABLE, Dropped, Tracing, sweep_trace
from cellwall.enforce.nft.watch import Transaction, Watch
from cellwall.enforce.nft.weight import Scales, Weight, weigh

__all__ = [
    "LOG_GROUP",
    "TABLE",
    "TRACE_TABLE",
    "Dropped",
    "NftPoint",
    "Scales",
    "Tracing",
    "Transaction",
    "Watch",
    "Weight",
    "cut_mark",
    "generation_id",
    "sweep_trace",
    "weigh",
]
