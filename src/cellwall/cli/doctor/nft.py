"""Checks of nftables: the program, every feature that a ruleset needs, and the firewalls of others.

A feature is probed by loading a ruleset that uses it, in a network namespace that ends with the probe: what the
kernel takes there it takes here, and nothing of this host is touched.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cellwall.cli.doctor.checks import NET_ADMIN, Check, capabilities, failed, good, warned

_PATIENCE_S = 10.0
_OURS = ("inet", "cellwall")
_OLDEST_NFT = (1, 0)
_KEY = "type mark . inet_proto . inet_service : verdict;"


@dataclass(frozen=True, slots=True)
class Feature:
    """Something a ruleset uses. Where it is not `needed`, `without` says what is lost."""

    name: str
    script: str
    without: str = ""

    @property
    def needed(self) -> bool:
        """Whether nothing can be enforced without it."""
        return not self.without


def _with(*items: str, rule: str = "", hook: str = "input") -> str:
    """Write a table with `items` and a chain with `rule`; nft 1.0.6 wants a newline after each brace."""
    chain = f"chain c {{\ntype filter hook {hook} priority 0; policy accept;\n{rule}\n}}\n"
    return "table inet probe {\n" + "".join(f"{item}\n" for item in items) + chain + "}\n"


FEATURES = (
    Feature("IPv4 and IPv6 in one table", _with()),
    Feature("outgoing packets", _with(hook="output")),
    Feature("address maps", _with("map a {\ntype ipv4_addr : mark;\n}", "map b {\ntype ipv6_addr : mark;\n}")),
    Feature("network maps", _with("map net {\ntype ipv4_addr : mark; flags interval;\n}")),
    Feature("concatenated verdict maps", _with(f"map verdicts {{\n{_KEY}\n}}")),
    Feature("port ranges in verdict maps", _with(f"map ranges {{\n{_KEY} flags interval;\n}}")),
    Feature("connection tracking", _with(rule="ct state established ct direction reply accept\nct mark set 7 accept")),
    Feature(
        "counting sets",
        _with(
            "set seen {\ntype ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic,timeout;\n"
            "timeout 1m; size 1024; counter;\n}",
            rule="update @seen { ip saddr . ip daddr . meta l4proto . th dport }",
        ),
    ),
    Feature("reject", _with(rule="reject with icmpx type admin-prohibited"), "denied clients wait until they time out"),
    Feature("denial samples (NFLOG)", _with(rule='log group 5 prefix "probe"'), "denials are counted, not described"),
    Feature("users (skuid)", _with(rule="meta skuid 0 accept", hook="output"), "rules for users are refused"),
    Feature(
        "systemd units (socket cgroupv2)",
        _with("set units {\ntype cgroupsv2;\n}", rule="socket cgroupv2 level 1 @units accept", hook="output"),
        "rules for systemd units are refused",
    ),
)


def nft_checks() -> list[Check]:
    """Check the nft program, the kernel's features and the firewalls of others."""
    program = shutil.which("nft")
    if program is None:
        return [failed("nft", "the program `nft` is not installed", "install the package `nftables`")]
    told = _run([program, "--version"])
    found = re.search(r"v(\d+)\.(\d+)[.\d]*", told.stdout)
    if not found:
        return [failed("nft", "`nft --version` says nothing of use", "install the package `nftables` anew")]
    if (int(found[1]), int(found[2])) < _OLDEST_NFT:
        return [failed("nft", f"nftables {found[0]} is too old", "use nftables 1.0 or later")]
    return [good("nft", f"nftables {found[0]}"), *_features(program), *_foreign(program)]


def _features(program: str) -> Iterator[Check]:
    within = _throw_away()
    if not within:
        yield warned("features", "cannot make a namespace to try things in", "run as root to have features probed")
        return
    tried = [(feature, _run([*within, program, "-f", "-"], feature.script)) for feature in FEATURES]
    missing = [(feature, ran) for feature, ran in tried if ran.returncode]
    if not missing:
        yield good("features", f"the kernel takes all {len(tried)} kinds of rule that a policy can need")
        return
    yield good("features", f"the kernel takes {len(tried) - len(missing)} of {len(tried)} kinds of rule")
    for feature, ran in missing:
        why = next((line.strip() for line in ran.stderr.splitlines() if "rror" in line), "it was refused")
        why = why.rpartition("Error: ")[2]
        if feature.needed:
            yield failed(
                feature.name, f"the kernel or nft does not have it: {why}", "use a kernel with nf_tables whole"
            )
        else:
            yield warned(feature.name, f"the kernel or nft does not have it: {why}", feature.without)


def _throw_away() -> list[str]:
    """Give the words that run a program in a namespace of its own, as root or as a user who may make one."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return []
    words = [unshare, "--net"] if capabilities() >> NET_ADMIN & 1 else [unshare, "--user", "--map-root-user", "--net"]
    return [*words, "--"] if _run([*words, "--", "true"]).returncode == 0 else []


def _foreign(program: str) -> Iterator[Check]:
    if not capabilities() >> NET_ADMIN & 1:
        yield warned("other firewalls", "cannot look without rights", "run as root")
        return
    dropping = list[str]()
    standing = list[str]()
    ran = _run([program, "-j", "list", "ruleset"])
    entries = _entries(ran.stdout)
    if ran.returncode or not entries:
        # nft 1.0.6 aborts on some tables of others; then at least their names can be had.
        ran = _run([program, "-j", "list", "tables"])
        entries = _entries(ran.stdout)
    for table in foreign_tables(entries):
        (dropping if table.drops else standing).append(str(table))
    for names, family in (("/proc/net/ip_tables_names", "iptables"), ("/proc/net/ip6_tables_names", "ip6tables")):
        try:
            tables = Path(names).read_text("ascii").split()
        except OSError:
            continue
        standing += [f"{family} {name} (legacy)" for name in tables if name == "filter"]
    if dropping:
        yield warned(
            "other firewalls",
            f"{', '.join(dropping)}: they drop packets too, and a packet must pass all",
            "leave them, or take them away once Cellwall enforces; `cellwall why` names them at the end that has them",
        )
    elif standing:
        yield good("other firewalls", f"{', '.join(standing)}: they drop nothing")
    else:
        yield good("other firewalls", "none")


@dataclass(frozen=True, slots=True)
class ForeignTable:
    """A table of another firewall; `drops` says whether it can drop what a host sends or receives."""

    family: str
    name: str
    drops: bool

    def __str__(self) -> str:
        return f"table {self.family} {self.name}"


def foreign_tables(entries: list[dict[str, Any]]) -> list[ForeignTable]:
    """Read the answer of `nft -j list ruleset` (libnftables-json(5)): the tables that are not ours."""
    tables = {(one["table"]["family"], one["table"]["name"]) for one in entries if "table" in one} - {_OURS}
    dropping: set[tuple[str, str]] = set()
    for one in entries:
        chain, rule = one.get("chain"), one.get("rule")
        if (
            chain
            and chain.get("hook") in ("input", "output", "prerouting", "ingress")
            and chain.get("policy") == "drop"
        ):
            dropping.add((chain["family"], chain["table"]))
        if rule and any("drop" in part or "reject" in part for part in rule.get("expr", ())):
            dropping.add((rule["family"], rule["table"]))
    return [ForeignTable(*table, drops=table in dropping) for table in sorted(tables)]


def _entries(text: str) -> list[dict[str, Any]]:
    try:
        return cast("list[dict[str, Any]]", json.loads(text)["nftables"])
    except (ValueError, KeyError, TypeError):
        return []


def _run(argv: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(argv, 127, "", f"Error: {error}")
