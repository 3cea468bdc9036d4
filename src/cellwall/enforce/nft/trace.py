"""Follow packets of one flow through every table of nftables, to see which one drops them.

A table of our own, `inet cellwall_trace`, marks them, and the kernel tells of each rule that they meet (`meta nftrace`,
nft(8)). The mark's element has an end: should nobody take the table away, it does nothing after that.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import ceil

from cellwall.clients import KernelError, Netlink, Protocol, attributes, messages, to_number, to_text
from cellwall.enforce.nft.elements import table_exists
from cellwall.enforce.nft.program import TABLE
from cellwall.enforce.point import Refused
from cellwall.traffic import TCP, UDP, Address

TRACE_TABLE = "cellwall_trace"
_GROUP_TRACE = 9  # NFNLGRP_NFTRACE
_NEWTRACE = 17  # NFT_MSG_TRACE
_POLICY, _RULE, _DROP = 1, 3, 0  # enum nft_trace_types; NF_DROP
_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Dropped:
    """Where a packet ended: a chain of somebody's table, by the rule with `handle`, or by the chain's policy for 0."""

    family: str
    table: str
    chain: str
    handle: int

    def __str__(self) -> str:
        how = f"rule handle {self.handle}" if self.handle else "its policy"
        return f"table {self.family} {self.table}, chain {self.chain}, {how}"


class Tracing:
    """Follows one flow; wait for `fileno` to be readable, then `read`. To be closed, which takes the table away."""

    def __init__(
        self, source: Address, destination: Address, protocol: int, port: int, *, incoming: bool, seconds: float
    ) -> None:
        """Begin, for at most `seconds`. Raises `Refused` for a protocol without ports, or `KernelError`."""
        if protocol not in (TCP, UDP):
            raise Refused("only TCP and UDP can be followed")
        self._link = Netlink(Protocol.NETFILTER, 1 << 20)
        try:
            self._link.join(_GROUP_TRACE)
            _nft(_script(source, destination, protocol, port, incoming=incoming, seconds=seconds))
        except BaseException:
            self._link.close()
            raise

    def fileno(self) -> int:
        """Give the descriptor to wait for."""
        return self._link.fileno()

    def read(self) -> list[Dropped]:
        """Give what has ended packets so far, by tables that are not ours; does not wait. Raises `KernelError`."""
        return [one for datagram in self._link.drain() for one in read_drops(datagram)]

    def close(self) -> None:
        """End it, and leave nothing behind."""
        self._link.close()
        sweep_trace()


def read_drops(datagram: bytes) -> Iterator[Dropped]:
    """Give the drops that a datagram of trace messages tells of. Raises `KernelError` for one that is cut short."""
    for message in messages(datagram):
        if message.kind & 0xFF != _NEWTRACE or not message.body:
            continue
        told = attributes(message.body, 4)
        kind = to_number(told.get(4, b""))
        verdict = attributes(told[5]).get(1, b"") if 5 in told else told.get(16, b"")
        table = to_text(told.get(1, b""))
        # A verdict is four bytes, and a drop is 0; a missing one is no drop.
        if kind not in (_RULE, _POLICY) or len(verdict) != 4 or to_number(verdict) != _DROP:
            continue
        if table not in (TABLE, TRACE_TABLE):
            family = _FAMILIES.get(message.body[0], str(message.body[0]))
            handle = to_number(told.get(3, b"")) if kind == _RULE else 0
            yield Dropped(family, table, to_text(told.get(2, b"")), handle)


def sweep_trace() -> None:
    """Take the table away, where there is one."""
    with suppress(Refused, KernelError):
        if table_exists(TRACE_TABLE):
            _nft(f"delete table inet {TRACE_TABLE}\n")


def _script(source: Address, destination: Address, protocol: int, port: int, *, incoming: bool, seconds: float) -> str:
    family = "ip" if source.version == 4 else "ip6"
    kind = "ipv4_addr" if source.version == 4 else "ipv6_addr"
    hook = "prerouting" if incoming else "output"
    return f"""add table inet {TRACE_TABLE}
delete table inet {TRACE_TABLE}
table inet {TRACE_TABLE} {{
  set followed {{
    type {kind} . {kind} . inet_proto . inet_service; flags timeout;
    elements = {{ {source} . {destination} . {protocol} . {port} timeout {ceil(seconds)}s }}
  }}
  chain follow {{
    type filter hook {hook} priority -450; policy accept;
    {family} saddr . {family} daddr . meta l4proto . th dport @followed meta nftrace set 1
  }}
}}
"""


def _nft(script: str) -> None:
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=script, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"nft cannot be run: {error}") from None
    if done.returncode:
        complaint = next((line.strip() for line in done.stderr.splitlines() if line.strip()), "no reason given")
        raise Refused(f"nft refused: {complaint}")
