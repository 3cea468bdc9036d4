"""Requests to an identity provider: what it publishes of itself, its keys, and codes turned into ID tokens."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Any, cast
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from cellwall.controller.access.oidc import Claimed, OidcOptions, check_id_token, is_trusted_url, key_of
from cellwall.controller.errors import Denied, NotReady
from cellwall.controller.store.people import PendingSignIn

PATIENCE_S, LONGEST_ANSWER = 10.0, 1 << 20
DISCOVERED_FOR_S, KEYS_AGAIN_S = 3600.0, 30.0
"""What is published is asked for anew after so long; keys also when an unknown one is used, but not more often."""


class _Stay(HTTPRedirectHandler):
    """Follows no redirects: whom we trust does not hand us on."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Go nowhere."""


class Provider:
    """An identity provider. Its methods wait for the network: call them in a thread, one at a time."""

    def __init__(self, options: OidcOptions) -> None:
        self.options = options
        self._published: Mapping[str, Any] = {}
        self._keys: Sequence[Mapping[str, Any]] = ()
        self._published_at = self._keys_at = float("-inf")

    def endpoint(self, now: float) -> str:
        """Give where browsers are sent. Raises `NotReady` where the provider cannot be reached."""
        return self._url("authorization_endpoint", now)

    def redeem(self, pending: PendingSignIn, code: str, now: float) -> Claimed:
        """Turn a code into what its ID token says. Raises `Denied` and `NotReady`."""
        options = self.options
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": pending.redirect,
            "code_verifier": pending.verifier,
        }
        headers = {"Accept": "application/json"}
        if options.client_secret:
            # RFC 6749, 2.3.1: both parts are encoded as in a form.
            pair = f"{quote(options.client_id, safe='')}:{quote(options.client_secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = options.client_id
        answer = self._ask(self._url("token_endpoint", now), urlencode(form).encode(), headers)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise Denied("the identity provider gave no ID token")
        key = key_of(token, self._known_keys(now))
        if key is None and now - self._keys_at > KEYS_AGAIN_S:
            # Keys are rotated: the new one is published.
            self._keys_at = float("-inf")
            key = key_of(token, self._known_keys(now))
        if key is None:
            raise Denied("the ID token is signed with a key that the identity provider does not publish")
        return check_id_token(token, key, options, pending.nonce, now)

    def _known_keys(self, now: float) -> Sequence[Mapping[str, Any]]:
        if now - self._keys_at > DISCOVERED_FOR_S:
            keys = self._ask(self._url("jwks_uri", now)).get("keys")
            listed = cast("list[Any]", keys) if isinstance(keys, list) else []
            self._keys = [cast("dict[str, Any]", one) for one in listed if isinstance(one, dict)]
            self._keys_at = now
        return self._keys

    def _url(self, name: str, now: float) -> str:
        if now - self._published_at > DISCOVERED_FOR_S:
            issuer = self.options.issuer
            found = self._ask(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != issuer:
                raise NotReady(f"what answers at `{issuer}` calls itself `{str(found.get('issuer'))[:200]}`")
            self._published, self._published_at = found, now
        url = self._published.get(name)
        if not isinstance(url, str) or not is_trusted_url(url):
            raise NotReady(f"the identity provider `{self.options.issuer}` publishes no usable `{name}`")
        return url

    def _ask(self, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        try:
            with self._opener().open(Request(url, body, dict(headers or {})), timeout=PATIENCE_S) as answer:  # noqa: S310 - `is_trusted_url`
                content = answer.read(LONGEST_ANSWER + 1)
        except HTTPError as error:
            with error:
                said = _read(error.read(LONGEST_ANSWER))
            if body is not None and 400 <= error.code < 500:
                why = said.get("error_description") or said.get("error") or error.code
                raise Denied(f"the identity provider refused: {str(why)[:200]}") from None
            raise self._away(f"it answered {error.code}") from None
        except URLError as error:
            raise self._away(str(getattr(error.reason, "strerror", None) or error.reason).lower()) from None
        except (OSError, HTTPException, ValueError) as error:
            raise self._away(str(error).lower() or "it went away") from None
        answer = _read(content)
        if not answer:
            raise self._away("its answer is no JSON object")
        return answer

    def _opener(self) -> OpenerDirector:
        context = ssl.create_default_context(cafile=self.options.ca_file)
        return build_opener(_Stay(), HTTPSHandler(context=context))

    def _away(self, why: str) -> NotReady:
        return NotReady(
            f"the identity provider `{self.options.issuer}` cannot be asked: {why}; sessions that are open go on, and "
            "accounts of this controller can sign in"
        )


def _read(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
