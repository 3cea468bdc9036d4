"""Facts of the host: who it is, what it runs, what it listens on, and which firewalls and runtimes it has."""

from __future__ import annotations

import errno
import os
import platform
import re
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cellwall.clients import KernelError, Netlink, Protocol, attributes, cgroup_mount, to_text
from cellwall.observe.packed import unpack_address
from cellwall.observe.processes import Process, Processes
from cellwall.observe.routes import DefaultRoute, HostAddresses, default_routes, host_addresses
from cellwall.observe.sockets import Socket, listening_sockets
from cellwall.traffic import Address

_GETTABLE = 10 << 8 | 1
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
# Where a runtime of containers answers, by its name.
_RUNTIMES = {
    "docker": ("/run/docker.sock", "/var/run/docker.sock"),
    "containerd": ("/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock"),
    "cri-o": ("/run/crio/crio.sock",),
    "podman": ("/run/podman/podman.sock",),
    "kubelet": ("/var/lib/kubelet/config.yaml",),
    "libvirt": ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"),
}


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """Who this host is.

    `machine_id` stays for the life of an installation (machine-id(5)), `boot_id` until the next start; "" when the
    host has none. `os` and `os_version` are ID and VERSION_ID of os-release(5), `os_name` its PRETTY_NAME.
    """

    hostname: str
    machine_id: str
    boot_id: str
    os: str
    os_version: str
    os_name: str
    kernel: str
    architecture: str


@dataclass(frozen=True, slots=True)
class ListeningService:
    """A port that the host answers on, and the process behind it, None when it is not known.

    `address` is the unspecified one when it answers on all; an IPv6 socket that takes IPv4 too has two of these.
    `user` is the owner of the socket.
    """

    protocol: int
    address: Address
    port: int
    user: str
    process: Process | None


@dataclass(frozen=True, slots=True)
class FirewallTable:
    """A table of nftables, or of the older iptables (family `ip-legacy` or `ip6-legacy`)."""

    family: str
    name: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a host says of itself; `nft_version` is None and `cgroup_mount` "" where there is none."""

    identity: HostIdentity
    addresses: HostAddresses
    routes: tuple[DefaultRoute, ...]
    services: tuple[ListeningService, ...]
    nft_version: tuple[int, ...] | None
    tables: tuple[FirewallTable, ...]
    runtimes: tuple[str, ...]
    cgroup_mount: str


def host_facts(processes: Processes, now: float) -> HostFacts:
    """Collect all facts; about ten milliseconds, most of them for running `nft`. `now` is that of `Processes`."""
    mount = cgroup_mount()
    return HostFacts(
        host_identity(),
        host_addresses(),
        default_routes(),
        listening_services(processes, now),
        nft_version(),
        firewall_tables(),
        container_runtimes(),
        str(mount) if mount else "",
    )


def host_identity() -> HostIdentity:
    """Read who this host is."""
    release = parse_os_release(_text("/etc/os-release") or _text("/usr/lib/os-release"))
    return HostIdentity(
        socket.gethostname(),
        _text("/etc/machine-id").strip(),
        _text("/proc/sys/kernel/random/boot_id").strip(),
        release.get("ID", "linux"),
        release.get("VERSION_ID", ""),
        release.get("PRETTY_NAME", "Linux"),
        platform.release(),
        platform.machine(),
    )


def parse_os_release(listing: str) -> dict[str, str]:
    """Read os-release(5): NAME=value lines, the value quoted or not; comments and what is no such line are skipped."""
    told: dict[str, str] = {}
    for line in listing.splitlines():
        if found := re.fullmatch(r"([A-Z][A-Z0-9_]*)=(?:\"(.*)\"|'(.*)'|(.*))", line.strip()):
            value = found[2] or found[3] or found[4] or ""
            told[found[1]] = re.sub(r"\\(.)", r"\1", value)
    return told


def listening_services(processes: Processes, now: float, link: Netlink | None = None) -> tuple[ListeningService, ...]:
    """List what the host answers on, with the processes behind it, in order."""
    return services_of(listening_sockets(link), processes, now)


def services_of(sockets: Iterable[Socket], processes: Processes, now: float) -> tuple[ListeningService, ...]:
    """Make services of listening sockets; many sockets of one process on one port are one."""
    listening = list(sockets)
    holders = processes.holders(listening, now)
    found: dict[ListeningService, None] = {}
    for one in listening:
        holder = holders.get(one.inode)
        user = processes.user(one.uid)
        found[ListeningService(one.protocol, one.local_address, one.local_port, user, holder)] = None
        if len(one.local) == 16 and one.takes_any and not one.v6_only:
            found[ListeningService(one.protocol, unpack_address(bytes(4)), one.local_port, user, holder)] = None
    return tuple(sorted(found, key=_order))


def _order(service: ListeningService) -> tuple[int, int, int, bytes, int]:
    address = service.address
    pid = service.process.pid if service.process else 0
    return service.protocol, service.port, address.version, address.packed, pid


def nft_version() -> tuple[int, ...] | None:
    """Say which version of nft(8) is installed, such as (1, 0, 6); None when there is none."""
    try:
        said = subprocess.run(
            ["nft", "--version"], capture_output=True, text=True, check=False, timeout=10, env=_tool_path()
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"nftables v(\d+(?:\.\d+)*)", said.stdout)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def firewall_tables(link: Netlink | None = None) -> tuple[FirewallTable, ...]:
    """List all tables of nftables, ours among them, and those of the older iptables, of this network namespace."""
    found: list[FirewallTable] = []
    try:
        with Netlink(Protocol.NETFILTER) as own:
            for body in (link or own).dump(_GETTABLE, bytes(4), doing="cannot list tables"):
                name = to_text(attributes(body, 4).get(1, b""))
                found.append(FirewallTable(_FAMILIES.get(body[0], str(body[0])), name))
    except KernelError as error:
        # A kernel without nftables has no tables.
        if error.code not in (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):
            raise
    for family, file in (("ip-legacy", "ip_tables_names"), ("ip6-legacy", "ip6_tables_names")):
        found += [FirewallTable(family, name) for name in _text(f"/proc/thread-self/net/{file}").split()]
    return tuple(found)


def container_runtimes() -> tuple[str, ...]:
    """Name the container and machine runtimes that are on this host."""
    return tuple(name for name, places in _RUNTIMES.items() if any(os.path.exists(place) for place in places))


def _tool_path() -> dict[str, str]:
    # nft lives in sbin, which the PATH of a service need not have.
    return {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
