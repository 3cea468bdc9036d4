"""Writes the reference page of the commands: `python -m cellwall.cli.reference > docs/reference/cli.md`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import typer
from typer.main import get_command

from cellwall.cli.app import ABOUT, build
from cellwall.cli.exits import Exit
from cellwall.cli.host import parser

_HEAD = """# The command line

<!-- Written by `python -m cellwall.cli.reference > docs/reference/cli.md`; do not edit. -->

{about}

- Every command explains itself with `--help`. `cellwall --install-completion` sets up the shell's completion.
- Answers come as a table, or whole with `-o json` or `-o yaml`. Hints and progress go to standard error.
- What writes shows what it would do, and does it with `--yes`. Only the lab and the demonstration act at once.
- A command asks the controller at `--socket`, at `$CELLWALL_SOCKET`, of the only lab that is up, or at
  `/run/cellwall/controller.sock`: the first of these that there is. Whoever may open the socket is an administrator.

## Exit codes

| code | meaning |
| --- | --- |
{codes}
"""


def reference() -> str:
    """Give the text of the page."""
    codes = "\n".join(f"| {code.value} | {code.meaning} |" for code in Exit)
    host = dict(_host_commands(parser(), "cellwall"))
    sections = [_section(path, command, host.get(path)) for path, command in commands(build(), "cellwall")]
    return "\n".join([_HEAD.format(about=ABOUT, codes=codes), *sections])


def commands(app: typer.Typer, name: str) -> Iterator[tuple[str, Any]]:
    """Give the commands of `app` at every depth, each with the words that call it."""
    root: Any = get_command(app)
    yield from _below(root, name)


def _below(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children: dict[str, Any] | None = getattr(command, "commands", None)
    if children is None or (command.invoke_without_command and path != "cellwall"):
        yield path, command
    for name, child in sorted((children or {}).items()):
        yield from _below(child, f"{path} {name}")


def _host_commands(top: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in top._actions:  # pyright: ignore[reportPrivateUsage]
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            children: dict[str, argparse.ArgumentParser] = action.choices  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            for name, child in children.items():
                yield f"{path} {name}", child
                yield from _host_commands(child, f"{path} {name}")


def _section(path: str, command: Any, host: argparse.ArgumentParser | None) -> str:
    rows = list(_host_rows(host) if host else _rows(command))
    words = [path, *(f"{name}" for name, _, _ in rows if not name.startswith("`-"))]
    usage = " ".join(word.strip("`") for word in words) + (
        " [OPTIONS]" if any(r[0].startswith("`-") for r in rows) else ""
    )
    lines = [f"## {path}", "", " ".join((command.help or "").split()), "", "```", usage, "```", ""]
    if rows:
        lines += ["| what | meaning | default |", "| --- | --- | --- |"]
        lines += [f"| {name} | {meaning} | {default} |" for name, meaning, default in rows]
        lines.append("")
    examples = [line.strip() for line in (command.epilog or "").replace("\\[", "[").splitlines()[1:]]
    if examples:
        lines += ["```sh", *examples, "```", ""]
    return "\n".join(lines)


def _rows(command: Any) -> Iterator[tuple[str, str, str]]:
    for one in command.params:
        if one.param_type_name == "argument":
            name = (one.metavar or one.name.upper()).strip("[]").upper() + ("..." if one.nargs == -1 else "")
            yield f"`{name if one.required else f'[{name}]'}`", one.help or "", ""
        else:
            flags = ", ".join(f"`{flag}`" for flag in (*one.opts, *one.secondary_opts))
            value = "" if one.is_flag else f" `{one.metavar or one.name.upper()}`"
            default = (
                "" if one.default in (None, False, ()) or one.is_flag or callable(one.default) else f"`{one.default}`"
            )
            yield flags + value, one.help or "", "required" if one.required else default


def _host_rows(command: argparse.ArgumentParser) -> Iterator[tuple[str, str, str]]:
    for one in command._actions:  # pyright: ignore[reportPrivateUsage]
        if one.dest != "help":
            flags = ", ".join(f"`{flag}`" for flag in one.option_strings)
            value = f" `{one.metavar}`" if one.metavar else ""
            default = "required" if one.required else f"`{one.default}`" if one.default else ""
            yield flags + value, (one.help or "").replace(" (%(default)s)", ""), default


if __name__ == "__main__":
    print(reference(), end="")
