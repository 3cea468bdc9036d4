"""Samples of packets that rules log, from real packets in namespaces."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Generator

import pytest
from tests.kernel.namespaces import Namespace, needs_namespaces, pair

from cellwall.clients import KernelError
from cellwall.observe import Nflog, Sample

pytestmark = needs_namespaces

RULES = """table inet wall {
    chain input {
        type filter hook input priority 0
        udp dport 99 log prefix "cw:default D" group 5 snaplen 64 queue-threshold 50
        tcp dport 22 log prefix "cw:ssh" group 5 drop
        icmpv6 type echo-request log group 5
    }
    chain output {
        type filter hook output priority 0
        udp dport 98 meta mark set 7 log prefix "cw:out" group 5
    }
}
"""


@pytest.fixture
def wire() -> Generator[tuple[Namespace, Namespace]]:
    with pair() as (a, b):
        b.nft(RULES)
        yield a, b


def send(host: str, port: int, count: int = 1) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            sender.sendto(b"x" * 100, (host, port))


def wait_for(log: Nflog, count: int) -> list[Sample]:
    samples: list[Sample] = []
    until = time.monotonic() + 5
    while len(samples) < count and time.monotonic() < until:
        time.sleep(0.02)
        samples += log.read()
    return samples


def test_a_sample_says_who_sent_what_where_and_why(wire: tuple[Namespace, Namespace]) -> None:
    a, b = wire
    with b.inside(), Nflog(5) as log:
        assert log.read() == []
        for host in (b.v4, b.v6):
            a.call(send, str(host), 99)
            (sample,) = wait_for(log, 1)
            assert (sample.prefix, sample.hook, sample.in_device, sample.out_device) == ("cw:default D", 1, "wire", "")
            assert sample.header is not None and sample.header.complete
            ends = sample.header.ends
            assert (ends.target_address, ends.protocol, ends.dport) == (host, 17, 99)
            assert sample.header.octets == 100 + 8 + (20 if host == b.v4 else 40)
            assert sample.uid is None
            assert sample.at_ns is not None and abs(sample.at_ns / 1e9 - time.time()) < 30


def test_the_sender_of_what_goes_out_is_named(wire: tuple[Namespace, Namespace]) -> None:
    a, b = wire

    def as_another(function: Callable[[str, int], None], host: str, port: int) -> None:
        os.setresgid(1001, 1001, 1001)
        os.setresuid(1002, 1002, 1002)
        function(host, port)

    with b.inside(), Nflog(5) as log:
        b.call(as_another, send, str(a.v4), 98)
        (sample,) = wait_for(log, 1)
    assert (sample.prefix, sample.hook, sample.out_device, sample.mark) == ("cw:out", 3, "wire", 7)
    assert (sample.uid, sample.gid) == (1002, 1001)


def knock(host: str) -> None:
    with socket.socket() as caller:
        caller.settimeout(0.1)
        caller.connect_ex((host, 22))


def test_a_call_by_tcp_shows_its_flags(wire: tuple[Namespace, Namespace]) -> None:
    a, b = wire
    with b.inside(), Nflog(5) as log:
        a.call(knock, str(b.v4))
        sample = wait_for(log, 1)[0]
    assert sample.header is not None
    assert (sample.header.ends.dport, sample.header.tcp_flags) == (22, 0x02)


def test_an_echo_request_shows_type_and_identifier(wire: tuple[Namespace, Namespace]) -> None:
    a, b = wire

    def ping() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as caller:
            caller.sendto(b"\x80\0\0\0\x12\x34\0\1data", (str(b.v6), 0))

    with b.inside(), Nflog(5) as log:
        a.call(ping)
        (sample,) = wait_for(log, 1)
    assert sample.prefix == "" and sample.header is not None
    ends = sample.header.ends
    assert (ends.protocol, ends.icmp_type, ends.icmp_code, ends.sport) == (58, 128, 0, 0x1234)


def test_a_burst_is_sampled_whole_and_what_is_not_read_is_counted(wire: tuple[Namespace, Namespace]) -> None:
    a, b = wire
    with b.inside(), Nflog(5) as log:
        a.call(send, str(b.v4), 99, 5000)
        started = time.perf_counter()
        samples = wait_for(log, 5000)
        print(f"{(time.perf_counter() - started) / 5000 * 1e6:.1f} µs each")
        assert len(samples) == 5000 and (log.lost, log.overruns) == (0, 0)
        # More than the receive buffer holds; one more packet tells how many are missing.
        a.call(send, str(b.v4), 99, 60_000)
        kept = len(drain(log))
        a.call(send, str(b.v4), 99)
        (last,) = wait_for(log, 1)
        assert last.header is not None
        assert kept + log.lost == 60_000
        assert (log.lost > 0) == (log.overruns > 0)


def drain(log: Nflog) -> list[Sample]:
    time.sleep(0.3)
    samples: list[Sample] = []
    while more := log.read():
        samples += more
    return samples


def test_a_group_that_another_listens_to_is_refused(wire: tuple[Namespace, Namespace]) -> None:
    _, b = wire
    with b.inside(), Nflog(5), pytest.raises(KernelError, match="another process listens"):
        Nflog(5)
