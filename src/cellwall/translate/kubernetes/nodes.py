"""Reading manifests: small steps over YAML nodes, each fault with its place."""

from __future__ import annotations

import re

from cellwall.labels import Labels, check_key, check_value
from cellwall.policy import Node
from cellwall.traffic import SCTP, TCP, UDP
from cellwall.translate.kubernetes.labels import namespace_key, pod_key

PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
"""The protocols that Kubernetes knows, and their IP numbers."""


def opened(node: Node) -> dict[str, Node]:
    """Read a mapping of which more may be there than we look at."""
    return {name: value for name, (_, value) in node.entries().items()}


def needed(node: Node, fields: dict[str, Node], name: str) -> Node:
    """Give a field that must be there and say something."""
    if name not in fields or is_null(fields[name]):
        raise node.fail(f"`{name}` is missing")
    return fields[name]


def matched(node: Node, pattern: re.Pattern[str], what: str) -> str:
    """Read a text that must match `pattern` to name `what`."""
    if not pattern.fullmatch(node.text()):
        raise node.fail(f"`{node.text()}` cannot name {what}")
    return node.text()


def is_null(node: Node) -> bool:
    """Say whether nothing is written here."""
    return node.kind == "text" and node.value == "" and not node.quoted


def label_key(key: str) -> str:
    """Return `key` if it is a label key of Kubernetes that leaves room for ours; else raise."""
    for carried in (check_key(key), pod_key(key), namespace_key(key)):
        check_key(carried)
    return key


def labels_of(node: Node) -> Labels:
    """Read a mapping of labels."""
    return Labels({at.parse(label_key): value.parse(check_value) for at, value in node.entries().values()})


def port_number(node: Node) -> int:
    """Read the number of a port, 1 to 65535."""
    text = node.text()
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise node.fail(f"`{text}` is not a port number, 1 to 65535")
    return int(text)
