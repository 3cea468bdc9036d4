"""Signing in with an identity provider (OpenID Connect Core 1.0): what we are told of it, and what it has to prove.

The flow is the authorization code with PKCE (RFC 7636), in a browser or, for the command line, with a redirect to
loopback (RFC 8252). What comes back is believed only if every check below passes.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import jwt

from cellwall.controller.access.person import Binding, parse_binding
from cellwall.controller.errors import ControllerError, Denied
from cellwall.policy import Node, PolicyError, read_stream

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""What an ID token may be signed with: never `none`, and nothing with a shared secret."""
SLACK_S, MOST_AGE_S = 60.0, 600.0
"""How far the provider's clock may be from ours, and how old an ID token may be that was asked for just now."""
LAST_S = 1e11
"""No moment that a token names is later: the year 5138."""
_FIELDS = (
    "issuer", "client_id", "client_secret_file", "ca_file", "scopes", "name", "groups", "redirect", "roles"
)  # fmt: skip
_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|\[::1\]):\d{1,5}/[A-Za-z0-9/_-]*")


@dataclass(frozen=True)
class OidcOptions:
    """An identity provider, as the file of `--oidc` names it.

    `name` is the claim that is a person's name here, `groups` the one whose values `roles` turns into roles. `redirect`
    is where browsers come back to us, empty where they may not sign in this way."""

    issuer: str
    client_id: str
    client_secret: str = ""
    ca_file: Path | None = None
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    name: str = "email"
    groups: str = "groups"
    redirect: str = ""
    roles: Mapping[str, tuple[Binding, ...]] = None  # pyright: ignore[reportAssignmentType]

    def bindings_of(self, groups: Sequence[str]) -> tuple[Binding, ...]:
        """Give what the values of the claim `groups` give at this moment."""
        return tuple(dict.fromkeys(one for group in groups for one in self.roles.get(group, ())))


@dataclass(frozen=True, slots=True)
class Claimed:
    """What an ID token that passed every check says: who it is, and the groups they belong to."""

    name: str
    groups: tuple[str, ...]


def read_oidc(file: Path) -> OidcOptions:
    """Read the file that names an identity provider. Raises `PolicyError` with file, line and column."""
    try:
        documents = read_stream(str(file), file.read_bytes())
    except OSError as error:
        raise ControllerError(f"`{file}` cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(documents) != 1:
        raise ControllerError(f"`{file}` holds {len(documents)} documents; wanted one")
    fields = documents[0].fields(_FIELDS)
    for wanted in ("issuer", "client_id"):
        if wanted not in fields:
            raise documents[0].fail(f"`{wanted}` is missing")
    given = {key: fields[key].filled() for key in ("client_id", "name", "groups", "redirect") if key in fields}
    roles = fields["roles"].entries() if "roles" in fields else {}
    return OidcOptions(
        issuer=_url(fields["issuer"]),
        client_secret=_secret(fields["client_secret_file"]) if "client_secret_file" in fields else "",
        ca_file=Path(fields["ca_file"].filled()) if "ca_file" in fields else None,
        scopes=_scopes(fields["scopes"]) if "scopes" in fields else OidcOptions.scopes,
        roles={group: tuple(_binding(one) for one in value.one_or_more()) for group, (_, value) in roles.items()},
        **given,
    )


def _url(node: Node) -> str:
    text = node.filled()
    if not is_trusted_url(text):
        raise node.fail(f"`{text}` is no issuer; wanted such as `https://id.example.com`")
    return text


def is_trusted_url(text: str) -> bool:
    """Say whether it is an https URL, or one of this machine alone."""
    try:
        url = urlsplit(text)
        local = url.hostname in ("127.0.0.1", "::1", "localhost")
        return bool(url.hostname) and (url.scheme == "https" or (url.scheme == "http" and local)) and not url.username
    except ValueError:
        return False


def _secret(node: Node) -> str:
    try:
        return Path(node.filled()).read_text("utf-8").strip()
    except (OSError, ValueError):
        raise node.fail(f"`{node.filled()}` cannot be read") from None


def _scopes(node: Node) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("openid", *(one.filled() for one in node.one_or_more()))))


def _binding(node: Node) -> Binding:
    try:
        return parse_binding(node.filled())
    except PolicyError:
        raise
    except ControllerError as error:
        raise node.fail(str(error)) from None


# --- the flow ---


@dataclass(frozen=True, slots=True)
class Asked:
    """What we make up for one sign-in: each is 256 random bits."""

    state: str
    nonce: str
    verifier: str


def ask() -> Asked:
    """Make up a sign-in."""
    return Asked(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))


def check_redirect(options: OidcOptions, redirect: str) -> str:
    """Give where a browser may be sent back to: loopback of the asker (RFC 8252, 7.3), or us. Raises `Denied`."""
    if (options.redirect and redirect == options.redirect) or _LOOPBACK.fullmatch(redirect):
        return redirect
    raise Denied(f"`{redirect[:200]}` is no place to come back to; wanted such as `http://127.0.0.1:PORT/callback`")


def authorization_url(endpoint: str, options: OidcOptions, asked: Asked, redirect: str) -> str:
    """Give where to send the browser."""
    challenge = base64.urlsafe_b64encode(sha256(asked.verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": options.client_id,
        "redirect_uri": redirect,
        "scope": " ".join(options.scopes),
        "state": asked.state,
        "nonce": asked.nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"


def key_of(token: str, keys: Sequence[Mapping[str, Any]]) -> jwt.PyJWK | None:
    """Give the key that an ID token says it is signed with; None where it is not among `keys`. Raises `Denied`."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, UnicodeError, RecursionError):
        raise Denied("the identity provider's answer is no ID token") from None
    algorithm, wanted = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise Denied(f"the ID token is signed with `{str(algorithm)[:20]}`; wanted one of `{'`, `'.join(ALGORITHMS)}`")
    fit = [one for one in keys if one.get("use", "sig") == "sig" and (wanted is None or one.get("kid") == wanted)]
    # Without a key id only one key may be meant (OpenID Connect Core, 10.1).
    if not fit or (wanted is None and len(fit) > 1):
        return None
    if fit[0].get("kty") == "oct" or fit[0].get("alg", algorithm) != algorithm:
        raise Denied("the ID token is signed with another algorithm than its key is for")
    try:
        return jwt.PyJWK(dict(fit[0]), algorithm)
    except jwt.PyJWTError:
        raise Denied("a key of the identity provider cannot be used") from None


def check_id_token(token: str, key: jwt.PyJWK, options: OidcOptions, nonce: str, now: float) -> Claimed:
    """Check an ID token (OpenID Connect Core, 3.1.3.7) and give what it says. Raises `Denied`."""
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=options.client_id,
            issuer=options.issuer,
            # Time is checked below, by our clock.
            options={
                "require": ["iss", "sub", "aud", "exp", "iat"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except (jwt.InvalidTokenError, UnicodeError, RecursionError) as error:
        raise Denied(f"the ID token is not to be believed: {str(error).lower()}") from None
    audience = claims["aud"]
    if claims.get("azp", options.client_id) != options.client_id or (
        isinstance(audience, list) and len(cast("list[Any]", audience)) > 1 and "azp" not in claims
    ):
        raise Denied("the ID token is for another client than this controller")
    _check_time(claims, now)
    if not isinstance(claims.get("nonce"), str) or not secrets.compare_digest(
        claims["nonce"].encode(errors="backslashreplace"), nonce.encode()
    ):
        raise Denied("the ID token is the answer to another sign-in")
    return _claimed(claims, options)


def _check_time(claims: Mapping[str, Any], now: float) -> None:
    moments = [claims["exp"], claims["iat"], claims.get("nbf", claims["iat"])]
    # NaN is later than nothing, and some integers are no floats.
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < LAST_S for one in moments):
        raise Denied("the ID token says no time that can be read")
    ends, issued, begins = (float(one) for one in moments)
    if ends + SLACK_S <= now:
        raise Denied("the ID token has expired")
    if issued - SLACK_S > now or begins - SLACK_S > now:
        raise Denied("the ID token is from the future; are the clocks right?")
    if issued + MOST_AGE_S + SLACK_S < now:
        raise Denied("the ID token is old; it was not made for this sign-in")


def _claimed(claims: Mapping[str, Any], options: OidcOptions) -> Claimed:
    name = claims.get(options.name)
    if not isinstance(name, str) or not name or not name.isprintable():
        raise Denied(f"the ID token has no `{options.name}`, by which people are named here")
    if options.name == "email" and claims.get("email_verified") is not True:
        raise Denied("the identity provider has not verified the mail address; name people by another claim")
    groups: Any = claims.get(options.groups, ())
    groups = [groups] if isinstance(groups, str) else groups
    found = [str(one) for one in cast("list[Any]", groups)] if isinstance(groups, list | tuple) else []
    # Of a mail address nobody tells upper case from lower: two names would be one person's.
    return Claimed(name.casefold() if options.name == "email" else name, tuple(found[:1000]))
