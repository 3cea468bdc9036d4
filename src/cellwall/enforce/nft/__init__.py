"""The host point: nftables."""

from cellwall.enforce.nft.driver import NftPoint
from cellwall.enforce.nft.elements import generation_id
from cellwall.enforce.nft.program import TABLE
from cellwall.enforce.nft.script import LOG_GROUP
from cellwall.enforce.nft.watch import Transaction, Watch

__all__ = ["LOG_GROUP", "TABLE", "NftPoint", "Transaction", "Watch", "generation_id"]
