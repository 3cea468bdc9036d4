"""Connections to other systems: transport, no meaning."""

from typing import TYPE_CHECKING

from cellwall.clients.cgroups import cgroup_members, cgroup_mount, cgroup_path, unit_of_path, unit_of_process
from cellwall.clients.exposition import (
    CONTENT_TYPE,
    Counter,
    Family,
    Histogram,
    Kind,
    Sample,
    counter,
    exposition,
    gauge,
)
from cellwall.clients.kernel import Netlink
from cellwall.clients.log import REQUEST, EventLog, Form, Level, LogError, form_named, level_named
from cellwall.clients.netlink import (
    F_APPEND,
    F_CREATE,
    F_EXCLUSIVE,
    F_REPLACE,
    NESTED,
    BatchRefused,
    Changed,
    KernelError,
    Message,
    Protocol,
    attribute,
    attributes,
    be16,
    be32,
    be64,
    every_attribute,
    messages,
    nested,
    text,
    to_number,
    to_text,
)

if TYPE_CHECKING:
    from cellwall.clients.api import Api, ApiRefused, Server, Unreachable, Untrusted, authority_of


def __getattr__(name: str) -> object:
    # An agent asks the kernel and never the API: with it come HTTP and mail headers.
    if name in ("Api", "ApiRefused", "Server", "Unreachable", "Untrusted", "authority_of"):
        from cellwall.clients import api

        return getattr(api, name)
    raise AttributeError(f"module `cellwall.clients` has no attribute `{name}`")


__all__ = [
    "CONTENT_TYPE",
    "F_APPEND",
    "F_CREATE",
    "F_EXCLUSIVE",
    "F_REPLACE",
    "NESTED",
    "REQUEST",
    "Api",
    "ApiRefused",
    "BatchRefused",
    "Changed",
    "Counter",
    "EventLog",
    "Family",
    "Form",
    "Histogram",
    "KernelError",
    "Kind",
    "Level",
    "LogError",
    "Message",
    "Netlink",
    "Protocol",
    "Sample",
    "Server",
    "Unreachable",
    "Untrusted",
    "attribute",
    "attributes",
    "authority_of",
    "be16",
    "be32",
    "be64",
    "cgroup_members",
    "cgroup_mount",
    "cgroup_path",
    "counter",
    "every_attribute",
    "exposition",
    "form_named",
    "gauge",
    "level_named",
    "messages",
    "nested",
    "text",
    "to_number",
    "to_text",
    "unit_of_path",
    "unit_of_process",
]
