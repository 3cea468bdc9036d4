"""Checks of the way to a controller, before a host is enrolled with it: everything but handing over the token."""

from __future__ import annotations

import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from cellwall.cli.doctor.checks import Check, failed, good, warned
from cellwall.traffic import CellwallError
from cellwall.wire import AUTHORITY_PATH, MOST_ENROLMENT, Token, WireError, der_of, fingerprint, parse_token

_PATIENCE_S = 5.0
_SKEW_S, _MOST_SKEW_S = 30.0, 300.0


def controller_checks(url: str, token: str = "") -> list[Check]:
    """Check the controller at `url` (`https://host:port`); `token` is what it will be enrolled with, if it is there."""
    from cellwall.agent import check_controller

    try:
        url = check_controller(url)
        known = parse_token(token.strip()) if token else None
    except CellwallError as error:
        return [_failed("controller", str(error), "see `cellwall enroll --help`")]
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    try:
        with socket.create_connection((host, port), _PATIENCE_S):
            pass
    except OSError as error:
        says = f"no connection to {host} port {port}: {str(error.strerror or error).lower()}"
        advice = f"let this host reach {host} on tcp/{port}, through every firewall between, and see that it runs"
        return [_failed("controller", says, advice)]
    return [good("controller", f"{url} answers"), *_authority(host, port, known)]


def _authority(host: str, port: int, token: Token | None) -> list[Check]:
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    before = time.time()
    try:
        status, body, date = _get(host, port, blind)
        pem = body.decode("ascii")
        shown = fingerprint(der_of(pem))
    except (OSError, HTTPException, ValueError, WireError) as error:
        says = f"it does not answer as a controller does: {str(error).lower()}"
        return [_failed("authority", says, "see that the address is that of `cellwall controller run --listen`")]
    if status != 200:
        return [_failed("authority", f"it does not answer as a controller does: status {status}", "see the address")]
    return [_known(shown, token), _named(host, port, pem), _clock(date, (before + time.time()) / 2)]


def _known(shown: str, token: Token | None) -> Check:
    if token is None:
        advice = "give the token with --token-file to have it compared"
        return good("authority", f"its fingerprint is {shown}; {advice}")
    if shown != token.authority:
        advice = "make a new token at this very controller; if this was it, somebody stands in between"
        return _failed("authority", f"its fingerprint is {shown}, the token's is {token.authority}", advice)
    return good("authority", "it is the one that the token names")


def _named(host: str, port: int, pem: str) -> Check:
    try:
        _get(host, port, ssl.create_default_context(cadata=pem))
    except ssl.SSLCertVerificationError as error:
        advice = f"start the controller with `--advertise https://{host}:{port}`, or use an address that it advertises"
        return _failed("certificate", f"it is not for `{host}`: {error.verify_message}", advice)
    except (OSError, HTTPException) as error:
        return _failed("certificate", f"it cannot be checked: {str(error).lower()}", "try again")
    return good("certificate", f"it is for `{host}`")


def _clock(date: str, now: float) -> Check:
    try:
        skew = now - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return warned("clocks", "the controller does not tell its time", "make sure that NTP runs at both ends")
    says = f"this host is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} its controller"
    advice = "run an NTP client at both ends: certificates and the expiry of rules depend on the time"
    if abs(skew) > _MOST_SKEW_S:
        return _failed("clocks", says, advice)
    return warned("clocks", says, advice) if abs(skew) > _SKEW_S else good("clocks", "they agree")


def _get(host: str, port: int, context: ssl.SSLContext) -> tuple[int, bytes, str]:
    connection = HTTPSConnection(host, port, timeout=_PATIENCE_S, context=context)
    try:
        connection.request("GET", AUTHORITY_PATH)
        answer = connection.getresponse()
        return answer.status, answer.read(MOST_ENROLMENT), answer.getheader("Date") or ""
    finally:
        connection.close()


def _failed(name: str, says: str, advice: str) -> Check:
    # It keeps nobody from enforcing what is in force: only from enrolling.
    return failed(name, says, advice, blocks=False)
