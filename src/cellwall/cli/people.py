"""Who may do what: accounts, their roles, and tokens for programs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.flows import moment
from cellwall.cli.help import PROGRAMS, examples
from cellwall.cli.login import PasswordFile, new_secret
from cellwall.cli.output import Format, Output, hint, show, table
from cellwall.cli.where import Socket, controller

Yes = Annotated[bool, typer.Option("--yes", "-y", help="do it; without, only show what would be done")]
Name = Annotated[str, typer.Argument(help="the account's name", metavar="NAME")]
Roles = Annotated[
    list[str],
    typer.Option(
        "--role",
        help="viewer, auditor, author, reviewer, operator or admin; with `@SELECTOR` for some workloads only; "
        "may be given several times",
        metavar="ROLE[@SELECTOR]",
    ),
]
_NO = "nothing was changed; repeat with --yes to do it"
DAY_S = {"h": 1 / 24, "d": 1.0, "w": 7.0}


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    people = typer.Typer(invoke_without_command=True, help="Who may do what.")
    people.callback(epilog=examples("cellwall people", "cellwall people -o json"))(list_people)
    people.command(
        "add",
        epilog=examples(
            "cellwall people add alice --role author@app=shop --role viewer --yes",
            "cellwall people add bob --role admin --password-file - --yes < password",
            "cellwall people add carol@example.com --role reviewer --oidc --yes",
        ),
    )(add_person)
    people.command(
        "set",
        epilog=examples(
            "cellwall people set alice --role operator --yes",
            "cellwall people set alice --disable --yes",
            "cellwall people set alice --password --yes",
        ),
    )(set_person)
    people.command("remove", epilog=examples("cellwall people remove alice --yes"))(remove_person)
    people.command("sign-out", epilog=examples("cellwall people sign-out alice --yes"))(sign_out)
    token = typer.Typer(invoke_without_command=True, help="Tokens, by which programs ask.")
    token.callback(epilog=examples("cellwall people token", "cellwall people token -o json"))(list_tokens)
    token.command(
        "create", epilog=examples("cellwall people token create ci --role viewer --expires 90d --yes > token")
    )(create_token)
    token.command("revoke", epilog=examples("cellwall people token revoke ci --yes"))(revoke_token)
    people.add_typer(token, name="token")
    app.add_typer(people, name="people", rich_help_panel=PROGRAMS)


def list_people(ctx: typer.Context, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """List accounts and whoever is signed in, with their roles."""
    if ctx.invoked_subcommand is not None:
        return
    items = list(controller(socket).items("people"))
    show({"items": items}, output, lambda: table(_HEADERS, [_row(one) for one in items], _NOBODY))


_HEADERS = ["name", "roles", "signs in by", "sessions#", "last used", "is"]
_NOBODY = "no accounts; whoever may open the controller's socket administers: `cellwall people add`"


def _row(one: dict[str, Any]) -> list[Any]:
    sessions: list[dict[str, Any]] = one["sessions"]
    used = max((row["used"] for row in sessions), default=None)
    ways = sorted({str(row["way"]) for row in sessions}) or ["password" if one["password"] else "oidc"]
    return [one["name"], one["roles"], ways, len(sessions), moment(used), "closed" if one["disabled"] else "open"]


def add_person(
    name: Name,
    role: Roles,
    oidc: Annotated[bool, typer.Option("--oidc", help="no password: the identity provider knows who it is")] = False,
    password_file: PasswordFile = None,
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Make an account."""
    body: dict[str, Any] = {"name": name, "roles": role, "dry_run": not yes}
    if yes and not oidc:
        body["password"] = new_secret(password_file)
    answer = controller(socket).post("people", body=body)
    show(answer, output, lambda: f"{'made' if yes else 'would make'} `{name}` with {', '.join(answer['roles'])}")
    _say_so(yes)


def set_person(
    name: Name,
    role: Annotated[list[str] | None, typer.Option("--role", help="all its roles", metavar="ROLE[@SELECTOR]")] = None,
    password: Annotated[bool, typer.Option("--password", help="ask for a new password")] = False,
    password_file: PasswordFile = None,
    disable: Annotated[bool | None, typer.Option("--disable/--enable", help="close the account, or open it")] = None,
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Change an account's roles or password, or close it; whoever is closed is signed out."""
    if not role and disable is None and not password and password_file is None:
        raise Stop(Exit.USAGE, "what changes? give --role, --password, --disable or --enable")
    body: dict[str, Any] = {"roles": role or None, "disabled": disable, "dry_run": not yes}
    if yes and (password or password_file is not None):
        body["password"] = new_secret(password_file)
    answer = controller(socket).put("people", name, body=body)
    told = f"`{name}`: {', '.join(answer['roles'])}{', closed' if answer['disabled'] else ''}"
    show(answer, output, lambda: told if yes else f"would be {told}")
    _say_so(yes)


def remove_person(name: Name, yes: Yes = False, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """Forget an account, and end its sessions; what it did stays in the audit log."""
    answer = controller(socket).delete("people", name, dry_run=not yes)
    show(answer, output, lambda: f"{'removed' if yes else 'would remove'} `{name}`")
    _say_so(yes)


def sign_out(name: Name, yes: Yes = False, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """End all sessions of a person, who may sign in again."""
    api = controller(socket)
    if yes:
        answer = api.delete("people", name, "sessions")
    else:
        found = [one for one in api.items("people") if one["name"] == name]
        answer = {"name": name, "ended": len(found[0]["sessions"]) if found else 0}
    show(answer, output, lambda: f"{'ended' if yes else 'would end'} {answer['ended']} sessions of `{name}`")
    _say_so(yes)


def list_tokens(ctx: typer.Context, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """List tokens of programs, without their secrets."""
    if ctx.invoked_subcommand is not None:
        return
    items = list(controller(socket).items("api-tokens"))
    headers = ["name", "roles", "made by", "last used", "ends"]
    rows = [[one["name"], one["roles"], one["author"], moment(one["used"]), moment(one["ends"])] for one in items]
    show({"items": items}, output, lambda: table(headers, rows, "no tokens"))


def create_token(
    name: Annotated[str, typer.Argument(help="the token's name", metavar="NAME")],
    role: Roles,
    expires: Annotated[str, typer.Option(help="how long it lasts: 12h, 90d, 52w", metavar="TIME")] = "90d",
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a token for a program, and print it; it is shown this once. Give it in `CELLWALL_TOKEN`, or as a bearer."""
    body = {"name": name, "roles": role, "days": _days(expires), "dry_run": not yes}
    answer = controller(socket).post("api-tokens", body=body)
    told = f"would make `{name}` with {', '.join(answer['roles'])}, until {moment(answer['ends'])}"
    show(answer, output, lambda: answer["token"] if yes else told)
    _say_so(yes)


def revoke_token(
    name: Annotated[str, typer.Argument(help="the token's name", metavar="NAME")],
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Take a token away; it ends at once."""
    answer = controller(socket).delete("api-tokens", name, dry_run=not yes)
    show(answer, output, lambda: f"{'revoked' if yes else 'would revoke'} `{name}`")
    _say_so(yes)


def _days(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in DAY_S or not number.isdecimal():
        raise Stop(Exit.USAGE, f"`{text}` is no time; wanted such as `12h`, `90d` or `52w`")
    return int(number) * DAY_S[unit]


def _say_so(yes: bool) -> None:
    if not yes:
        hint(_NO)
