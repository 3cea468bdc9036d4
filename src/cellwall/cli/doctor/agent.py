"""Checks of a host that is enrolled: its credentials, the way to its controller, and what its kernel holds."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from cellwall.cli.doctor.checks import NET_ADMIN, Check, capabilities, failed, good, warned
from cellwall.traffic import CellwallError

_PATIENCE_S = 3.0
_AGAIN = "`cellwall enroll --again`, with a new token; what is in force stays in force meanwhile"
_DAY_S, _SOON_DAYS = 86_400.0, 5


def agent_checks(state: Path) -> list[Check]:
    """Check the agent whose folder is `state`; a host that is not enrolled has one finding."""
    from cellwall.agent import Enrolment, NotEnrolled, load_enrolment

    try:
        enrolment: Enrolment = load_enrolment(state)
    except NotEnrolled:
        return [good("enrolment", "not enrolled yet; `cellwall enroll` does it"), *_policy()]
    except CellwallError as error:
        return [failed("enrolment", str(error), "enrol anew, in an empty folder", blocks=False), *_policy()]
    named = good("enrolment", f"workload `{enrolment.name}` of {enrolment.controller}")
    return [named, _credentials(enrolment.credentials), _controller(enrolment.controllers), _running(state), *_policy()]


def _credentials(path: Path) -> Check:
    from cryptography import x509

    try:
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError) as error:
        return failed("credentials", f"`{path}` cannot be used: {error}", _AGAIN, blocks=False)
    days = (ends - time.time()) / _DAY_S
    if days <= 0:
        return failed("credentials", "the certificate has expired", _AGAIN, blocks=False)
    says = f"the certificate is good for {days:.0f} days"
    if days < _SOON_DAYS:
        return warned("credentials", says, "let the agent reach its controller: it renews by itself")
    return good("credentials", says)


def _controller(urls: Sequence[str]) -> Check:
    """Look for one that answers: any of several will do."""
    said: list[str] = []
    for url in urls:
        parts = urlsplit(url)
        try:
            with socket.create_connection((parts.hostname or "", parts.port or 443), _PATIENCE_S):
                return good("controller", f"{url} answers" + (f", but not {', '.join(said)}" if said else ""))
        except OSError as error:
            said.append(f"{url} ({str(error.strerror or error).lower()})")
    advice = "what is in force stays in force; changes arrive when it can be reached"
    return warned("controller", f"cannot be reached: {', '.join(said)}", advice)


def _running(state: Path) -> Check:
    from cellwall.agent import AgentOptions, is_running

    try:
        runs = is_running(AgentOptions(state))
    except CellwallError as error:
        return warned("agent", f"whether it runs cannot be told: {error}", "run this as root")
    if runs:
        return good("agent", "it runs")
    advice = "start it, as by `systemctl start cellwall-agent`: until then nothing changes, and nothing is repaired"
    return warned("agent", "it does not run; what is in force stays in force", advice)


def _policy() -> list[Check]:
    if not capabilities() >> NET_ADMIN & 1:
        return []
    from cellwall.enforce import NftPoint

    try:
        point = NftPoint()
        try:
            held = point.read_back()
        finally:
            point.close()
    except (CellwallError, OSError) as error:
        return [warned("policy", f"cannot read our table: {error}", "see `nft list table inet cellwall`")]
    if held is None:
        return [good("policy", "nothing is in force here")]
    return [good("policy", f"revision {held.revision} is in force, in mode {held.mode}")]
