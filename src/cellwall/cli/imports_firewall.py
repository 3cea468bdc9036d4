"""`cellwall policy import iptables|nft`: a host's own firewall, from its saved text to policy documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli.documents import Replace, write_all
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.help import examples
from cellwall.cli.output import Format, Output, counted, hint, say, show
from cellwall.traffic import Address, CellwallError, Network, parse_address, parse_network

if TYPE_CHECKING:
    from cellwall.translate import HostFacts, ImportedHosts, SavedRules

Files = Annotated[list[Path], typer.Argument(help="the saved rules, one file or more a host", metavar="FILE...")]
Host = Annotated[
    list[str] | None,
    typer.Option(help="the host: once for all files, or once a file; else the name of each file", metavar="NAME"),
]
Address_ = Annotated[
    list[str] | None,
    typer.Option("--address", help="the host's own addresses, for rules that name some", metavar="[NAME=]ADDRESS,..."),
]
Interface = Annotated[
    list[str] | None,
    typer.Option(help="the networks behind an interface, or `any`; else rules that name it are left out",
                 metavar="NAME=NETWORK,..."),
]  # fmt: skip
Passwd = Annotated[
    Path | None, typer.Option(help="the host's /etc/passwd, for rules that name a user by number", metavar="FILE")
]
To = Annotated[
    Path | None, typer.Option(help="write the documents to this folder, in place of printing", metavar="DIR")
]
FleetTo = Annotated[Path | None, typer.Option(help="write the hosts as a fleet to this file", metavar="FILE")]
_EFFECTS = ("opens", "closes", "check", "same")
_STYLES = {"opens": "red", "closes": "yellow", "check": "cyan"}
_SUFFIXES = {".txt", ".rules", ".nft", ".json", ".save", ".conf", ".v4", ".v6", ".iptables", ".ip6tables", ".ipset"}


def add(app: typer.Typer) -> None:
    """Add `iptables` and `nft`."""
    app.command(
        "iptables",
        epilog=examples(
            "cellwall policy import iptables web1.v4 web1.v6 web1.ipset --to policy/",
            "cellwall policy import iptables rules --host web1 --address 10.0.0.5 --interface eth1=10.20.0.0/16",
        ),
    )(import_iptables)
    app.command(
        "nft",
        epilog=examples(
            "cellwall policy import nft web1.nft --to policy/ --fleet-to fleet.json",
            "cellwall policy import nft - --host web1 -o json < web1.json",
        ),
    )(import_nft)


def import_iptables(
    files: Files,
    host: Host = None,
    address: Address_ = None,
    interface: Interface = None,
    passwd: Passwd = None,
    to: To = None,
    fleet_to: FleetTo = None,
    yes: Replace = False,
    output: Output = Format.TABLE,
) -> None:
    """Make documents of what iptables-save, ip6tables-save and ipset save write; a host is the label `host=NAME`.

    INPUT and OUTPUT of the filter table become rules without order that let through the same new connections. What
    cannot be carried over is listed with its place, and whether that opens or closes anything; exit code 1 when
    something may be open that was not."""
    from cellwall.translate import import_iptables as read
    from cellwall.translate import is_ipset

    _import(read, files, host, address, interface, passwd, to, fleet_to, yes, output, "iptables", is_ipset)


def import_nft(
    files: Files,
    host: Host = None,
    address: Address_ = None,
    interface: Interface = None,
    passwd: Passwd = None,
    to: To = None,
    fleet_to: FleetTo = None,
    yes: Replace = False,
    output: Output = Format.TABLE,
) -> None:
    """Make documents of what `nft list ruleset` writes, with or without -j; a host is the label `host=NAME`.

    The base chains at the hooks input and output become rules without order that let through the same new connections.
    What cannot be carried over is listed with its place, and whether that opens or closes anything; exit code 1 when
    something may be open that was not."""
    from cellwall.translate import import_nft as read

    _import(read, files, host, address, interface, passwd, to, fleet_to, yes, output, "nft")


def _import(
    read: Callable[[Sequence[SavedRules], HostFacts], ImportedHosts],
    files: list[Path],
    host: list[str] | None,
    address: list[str] | None,
    interface: list[str] | None,
    passwd: Path | None,
    to: Path | None,
    fleet_to: Path | None,
    yes: bool,
    output: Format,
    wanted: str,
    for_all: Callable[[str], bool] = lambda _: False,
) -> None:
    from cellwall.translate import HostFacts

    sources = _sources(files, host or [], for_all)
    _of_the_kind(sources, wanted)
    hosts = list(dict.fromkeys(source.host for source in sources))
    addresses = _addresses(address or [], hosts)
    users = _users(passwd) if passwd else {}
    made = read(sources, HostFacts(addresses, dict(_interface(one) for one in interface or []), users))
    counts = Counter(one.effect.value for one in made.remarks)
    answer: dict[str, Any] = {
        "documents": dict(made.documents),
        "rules": made.rules,
        "remarks": [
            {
                "place": {"file": one.place.file, "line": one.place.line, "column": one.place.column},
                "effect": one.effect.value,
                "reason": one.reason,
                "text": one.text,
            }
            for one in made.remarks
        ],
    }
    if output is not Format.TABLE or to is None:
        show(answer, output, lambda: _documents(answer))
    if to is not None and output is Format.TABLE:
        say(_remarks(made))
    write_all(answer["documents"], to, _fleet(hosts, addresses), fleet_to, replace=yes)
    if fleet_to is not None and (bare := [host for host in hosts if not addresses.get(host)]):
        told = ", ".join(f"`{host}`" for host in bare)
        hint(f"no address is known of {told}: `why` and `reach` need one; give it with --address")
    told = ", ".join(f"{counts[effect]} {effect}" for effect in _EFFECTS if counts[effect])
    hint(f"{counted(made.rules, 'rule')}; {told or 'everything is carried over'}")
    if made.opens:
        raise Stop(Exit.NO, f"{counted(counts['opens'], 'place')} may let through what the original does not")


def _sources(files: list[Path], hosts: list[str], for_all: Callable[[str], bool]) -> list[SavedRules]:
    from cellwall.translate import SavedRules

    if len(hosts) > 1 and len(hosts) != len(files):
        raise Stop(Exit.USAGE, f"{len(hosts)} hosts for {len(files)} files; give --host once, or once a file")
    if not hosts and str(files[0]) == "-":
        raise Stop(Exit.USAGE, "give the host of what is read from standard input with --host")
    read = [(str(file), _text(file), hosts[at % len(hosts)] if hosts else _stem(file)) for at, file in enumerate(files)]
    if hosts:
        return [SavedRules(*one) for one in read]
    # A file of sets is of all hosts, as long as nobody says otherwise.
    named = list(dict.fromkeys(host for _, text, host in read if not for_all(text)))
    found: list[SavedRules] = []
    for file, text, host in read:
        whose = [host] if host in named or not for_all(text) else named or [host]
        found.extend(SavedRules(file, text, one) for one in whose)
    return found


def _of_the_kind(sources: Iterable[SavedRules], wanted: str) -> None:
    """Stop where a file is plainly what the other command reads. Raises `Stop`."""
    for one in sources:
        lines = (line.strip() for line in one.text.splitlines())
        first = next((line for line in lines if line and not line.startswith("#")), "")
        if wanted == "nft" and first.startswith("*"):
            raise Stop(Exit.DOCUMENT, f"{one.file}: this is what `iptables-save` writes; use `policy import iptables`")
        if wanted == "iptables" and first.startswith(("table ", '{"nftables"')):
            raise Stop(Exit.DOCUMENT, f"{one.file}: this is what `nft list ruleset` writes; use `policy import nft`")


def _stem(file: Path) -> str:
    name = file.name
    while (suffix := Path(name).suffix) in _SUFFIXES and name != suffix:
        name = name.removesuffix(suffix)
    return name


def _text(file: Path) -> str:
    if str(file) == "-":
        return typer.get_text_stream("stdin").read()
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError:
        raise Stop(Exit.DOCUMENT, f"{file}: it is not UTF-8 text") from None
    except OSError as error:
        raise Stop(Exit.DOCUMENT, f"{file}: {(error.strerror or 'unreadable').lower()}") from None


def _addresses(texts: list[str], hosts: list[str]) -> dict[str, tuple[Address, ...]]:
    found: dict[str, list[Address]] = {}
    for text in texts:
        name, equals, listed = text.rpartition("=")
        if not equals and len(hosts) != 1:
            raise Stop(Exit.USAGE, f"`--address {text}` is whose? write `NAME={text}`")
        host = name or hosts[0]
        if host not in hosts:
            raise Stop(Exit.USAGE, f"`{host}` is not one of the hosts `{'`, `'.join(hosts)}`")
        found.setdefault(host, []).extend(_each(listed, parse_address))
    return {host: tuple(some) for host, some in found.items()}


def _interface(text: str) -> tuple[str, tuple[Network, ...]]:
    name, equals, listed = text.partition("=")
    if not equals or not name:
        raise Stop(Exit.USAGE, f"`--interface {text}` says not what is behind it; wanted `eth0=10.20.0.0/16`")
    return name, tuple(_each("0.0.0.0/0,::/0" if listed == "any" else listed, parse_network))


def _each(listed: str, parse: Callable[[str], Any]) -> list[Any]:
    try:
        return [parse(one) for one in listed.split(",")]
    except CellwallError as error:
        raise Stop(Exit.USAGE, str(error)) from None


def _users(file: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        fields = line.split(":")
        if len(fields) < 3 or not fields[2].isdecimal():
            raise Stop(Exit.DOCUMENT, f"{file}:{number}:1: not a line of /etc/passwd")
        found.setdefault(fields[2], fields[0])
    return found


def _fleet(hosts: list[str], addresses: dict[str, tuple[Address, ...]]) -> dict[str, Any]:
    items = [
        {
            "name": host,
            "labels": {"host": host},
            "addresses": [str(address) for address in addresses.get(host, ())],
            "agent": True,
        }
        for host in hosts
    ]
    return {"items": items}


def _documents(answer: dict[str, Any]) -> RenderableType:
    return Group(*(Text(f"# {name}\n{text.rstrip()}\n") for name, text in answer["documents"].items()))


def _remarks(made: ImportedHosts) -> RenderableType:
    """Draw what is not carried over as it was, what opens first, each with its place and how it was written."""
    ordered = sorted(made.remarks, key=lambda one: _EFFECTS.index(one.effect.value))
    lines: list[Text] = []
    for one in ordered:
        if one.effect.value != "same":
            told = Text.assemble(f"{one.place}: ", (one.effect.value, _STYLES[one.effect.value]), f": {one.reason}")
            lines += [told, Text(f"    {one.text}")] if one.text else [told]
    idle = sum(one.effect.value == "same" for one in ordered)
    if idle:
        lines.append(Text(f"{counted(idle, 'part', 'parts')} left out without any effect; see them with -o json"))
    return Group(*lines) if lines else Text("everything is carried over")
