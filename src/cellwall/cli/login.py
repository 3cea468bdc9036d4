"""Signing in to a controller elsewhere, with a password or with an identity provider."""

from __future__ import annotations

import sys
import webbrowser
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.flows import moment
from cellwall.cli.help import PROGRAMS, examples
from cellwall.cli.loopback import Loopback
from cellwall.cli.output import Format, Output, hint, show, table
from cellwall.cli.where import (
    Socket,
    controller,
    keep_authority,
    keep_session,
    known_authority,
    sessions_file,
    signed_in,
)
from cellwall.clients import Api, ApiRefused, Server, Unreachable, Untrusted, authority_of
from cellwall.wire import WireError, der_of
from cellwall.wire import fingerprint as digest_of

PORT = 7444
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", help="read the password from here; `-` is standard input", metavar="FILE"),
]


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        "login",
        rich_help_panel=PROGRAMS,
        epilog=examples(
            "cellwall login --server https://cellwall.example.com:7444 --name alice",
            "cellwall login --server https://10.0.0.5:7444 --oidc",
            "cellwall login --server https://10.0.0.5:7444 --name ci --password-file - --fingerprint 3fa1…",
        ),
    )(login)
    app.command("logout", rich_help_panel=PROGRAMS, epilog=examples("cellwall logout"))(logout)
    app.command("whoami", rich_help_panel=PROGRAMS, epilog=examples("cellwall whoami", "cellwall whoami -o json"))(
        whoami
    )
    app.command("passwd", rich_help_panel=PROGRAMS, epilog=examples("cellwall passwd"))(passwd)


def login(
    server: Annotated[str, typer.Option(help="the controller's face for people", metavar="URL")],
    name: Annotated[str | None, typer.Option(help="the account's name", metavar="NAME")] = None,
    oidc: Annotated[bool, typer.Option("--oidc", help="sign in with the controller's identity provider")] = False,
    password_file: PasswordFile = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="the SHA-256 of the controller's CA, as `controller status` says", metavar="HEX")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="the CA that signed the server's certificate, as PEM", metavar="FILE")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="print where to go, and open no browser")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Sign in; later commands speak to that controller, as you, until `cellwall logout`."""
    url = _url(server)
    at = Server(url, authority=ca.read_text("utf-8") if ca is not None else _trusted(url, fingerprint))
    answer = _with_provider(at, no_browser) if oidc else _with_password(at, name, password_file)
    keep_session(Server(url, answer["session"], at.authority), answer["name"])
    told = {"server": url, "name": answer["name"], "ends": answer["ends"]}
    until = moment(answer["ends"])
    show(told, output, lambda: f"signed in to {url} as {answer['name']}, until {until} at the latest")


def logout(output: Output = Format.TABLE) -> None:
    """Sign out: the session ends at the controller too."""
    server = signed_in()
    if server is None:
        raise Stop(Exit.NO, "nobody is signed in")
    try:
        Api(server, timeout_s=10).delete("session")
    except (ApiRefused, Unreachable) as error:
        hint(f"the session could not be ended at the controller: {error}")
    sessions_file().unlink(missing_ok=True)
    show({"server": server.url}, output, lambda: "signed out")


def whoami(socket: Socket = None, output: Output = Format.TABLE) -> None:
    """Say as whom commands speak to the controller, and with which roles."""
    api = controller(socket)
    answer = {**api.get("session"), "controller": str(api.path)}
    answer.pop("csrf", None)
    rows = [["name", answer["name"]], ["by", answer["way"]], ["roles", answer["roles"]], ["at", answer["controller"]]]
    show(answer, output, lambda: table(["what", "is"], rows))


def passwd(password_file: PasswordFile = None, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """Change your own password; your other sessions end. A file has the old one, then the new one, a line each."""
    if password_file is not None:
        lines = read_secret(password_file, "").splitlines()
        if len(lines) != 2:
            raise Stop(
                Exit.USAGE, f"`{password_file}` has {len(lines)} lines; wanted the old password, then the new one"
            )
        old, new = lines
    else:
        old, new = read_secret(None, "Password: "), new_secret(None)
    answer = controller(socket).post("session", "password", body={"old": old, "new": new})
    show(answer, output, lambda: "the password is changed")


def read_secret(file: Path | None, prompt: str) -> str:
    """Read a secret from a file, from standard input (`-`), or from the terminal; never from the command line."""
    if file is None:
        if not sys.stdin.isatty():
            raise Stop(
                Exit.USAGE, "there is no terminal to ask at; give the password with --password-file, `-` is a pipe"
            )
        return getpass(prompt)
    return (sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")).removesuffix("\n")


def new_secret(file: Path | None) -> str:
    """Read a new password, twice where a person types it."""
    first = read_secret(file, "New password: ")
    if file is None and first != getpass("Again: "):
        raise Stop(Exit.USAGE, "the two are not the same")
    return first


def _with_password(server: Server, name: str | None, file: Path | None) -> dict[str, Any]:
    if name is None:
        raise Stop(Exit.USAGE, "who? give --name, or sign in with --oidc")
    password = read_secret(file, f"Password of {name} at {server}: ")
    return Api(server).post("session", body={"name": name, "password": password})


def _with_provider(server: Server, no_browser: bool) -> dict[str, Any]:
    api = Api(server)
    with Loopback() as loopback:
        begun = api.post("session", "oidc", body={"redirect": loopback.url})
        if no_browser or not webbrowser.open(begun["url"]):
            print(f"open this in a browser on this machine:\n{begun['url']}", flush=True)
        came = loopback.wait()
    if came.get("state") != begun["state"]:
        raise Stop(Exit.REFUSED, "what came back is not the answer to this sign-in")
    if "code" not in came:
        why = came.get("error_description") or came.get("error") or "it gave no code"
        raise Stop(Exit.REFUSED, f"the identity provider refused: {why}")
    body = {"state": came["state"], "code": came["code"], "secret": begun["secret"], "iss": came.get("iss")}
    return api.post("session", "oidc", "finish", body=body)


def _trusted(url: str, fingerprint: str | None) -> str:
    """Give the CA to trust for a server: the one that this machine trusts (empty), that of before, or a new one."""
    known = known_authority(url)
    wanted = fingerprint.lower().replace(":", "") if fingerprint else ""
    if known and wanted in ("", fingerprint_of(known)):
        return known
    if not wanted:
        try:
            Api(Server(url), timeout_s=10).get("session", "ways")
        except Untrusted:
            pass
        else:
            return ""
    pem = authority_of(url)
    found = fingerprint_of(pem)
    if wanted and found != wanted:
        raise Stop(Exit.REFUSED, f"the CA of `{url}` has the fingerprint `{found}`, not `{wanted}`: do not trust it")
    if not wanted:
        _ask(url, found)
    keep_authority(url, pem)
    return pem


def _ask(url: str, found: str) -> None:
    if not sys.stdin.isatty():
        raise Stop(
            Exit.USAGE, f"`{url}` is not known here; its CA is `{found}`: compare it, and give it as --fingerprint"
        )
    print(f"{url} is not known here. The SHA-256 of its CA is\n  {found}\nIt has to be what the controller's own")
    print("`cellwall controller status` calls its authority.")
    if input("Is it (yes/no)? ").strip().lower() not in ("y", "yes"):
        raise Stop(Exit.NO, "not signed in")


def fingerprint_of(pem: str) -> str:
    """Give the SHA-256 of a certificate, hexadecimal."""
    try:
        return digest_of(der_of(pem))
    except WireError:
        raise Stop(Exit.REFUSED, "what the server shows is no certificate, or more than one") from None


def _url(text: str) -> str:
    from urllib.parse import urlsplit

    try:
        url = urlsplit(text if "://" in text else f"https://{text}")
        if url.scheme == "https" and url.hostname and url.path in ("", "/") and not url.query and not url.username:
            host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
            return f"https://{host}:{url.port or PORT}"
    except ValueError:
        pass
    raise Stop(Exit.USAGE, f"`{text}` is no server; wanted such as `https://10.0.0.5:{PORT}`")
