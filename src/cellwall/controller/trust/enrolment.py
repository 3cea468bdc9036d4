"""How agents are let in: tokens, certificates, renewal, and whose certificate still holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cellwall.controller.access.throttle import Bucket
from cellwall.controller.errors import Conflict, Denied
from cellwall.controller.store.state import CertificateRow, LabelRow, LabelSource, StateStore, WorkloadRow
from cellwall.controller.trust.ca import Authority
from cellwall.controller.trust.tokens import check_token, make_secret, make_token_row, secret_digest
from cellwall.labels import Labels
from cellwall.wire import Enrol, Enrolled, Renewed, Token

RENEWALS, RENEWALS_A_SECOND = 5, 1 / 3600
"""So many certificates an agent may have renewed at once, and so many in the long run: each stays in the audit log."""
CROWD = 50
"""When so many come within a second, the certificates that hold are looked up all at once."""


class Enrolment:
    """Lets agents in. `days` is how long a certificate lasts; `enrolled` hears of each that came, and when.

    `declared` says whether the policy's documents name a workload: to enrol as that is to get what they give it."""

    def __init__(
        self,
        store: StateStore,
        authority: Authority,
        days: int,
        enrolled: Callable[[str, float], None],
        declared: Callable[[str], bool],
    ) -> None:
        self._store, self._authority, self._days, self._enrolled = store, authority, days, enrolled
        self._declared = declared
        self._renewals: dict[str, Bucket] = {}
        self._second, self._asked = 0.0, 0
        self._certified: Mapping[str, str] | None = None

    def enrol(self, asked: Enrol, now: float) -> Enrolled:
        """Let a new agent in. Raises `Denied`, `ControllerError` and `InventoryError`; then nothing changed."""
        row = self._store.token(secret_digest(asked.secret))
        name = check_token(row, asked.secret, asked.name, now)
        assert row is not None
        known = self._store.workload(name)
        if known is not None and row.workload is None:
            raise Denied(f"workload `{name}` is there already; only a token made for it lets it enrol again")
        if row.workload is None and self._declared(name):
            raise Denied(f"workload `{name}` is in the policy's documents; only a token made for it lets it enrol")
        issued = self._authority.issue(asked.request, name, self._days, now)
        with self._store.transaction():
            if not self._store.use_token(row.id, issued.key, name, now):
                raise Denied("the token is unknown, used up or expired; ask for a new one")
            self._store.revoke(name)
            self.forget()
            self._store.add_certificate(CertificateRow(issued.serial, name, issued.key, now, issued.ends))
            # Its addresses come with its facts: those of whoever had the name before are not believed of it.
            self._store.put_workload(WorkloadRow(name, True, (), now, now, asked.version), now)
            for key, value in row.labels.items():
                self._store.put_label(LabelRow(name, key, value, LabelSource.DECLARED, f"token {row.id}", now))
            self._store.record(now, f"token {row.id}", "enrol", name, {"serial": issued.serial})
        self._enrolled(name, now)
        labels = {label.key: label.value for label in reversed(self._store.labels(name))}
        return Enrolled(
            name=name,
            certificate=issued.pem,
            authority=self._authority.pem,
            bundle_key=self._authority.verify_key,
            labels=labels,
        )

    def renew(self, name: str, request: str, now: float) -> Renewed:
        """Give an agent a fresh certificate; the one that it shows holds until it ends. Raises `ControllerError`."""
        if not self._renewals.setdefault(name, Bucket(RENEWALS, RENEWALS_A_SECOND)).admits(now):
            raise Denied(f"the certificate of `{name}` was renewed too often; one an hour is enough")
        issued = self._authority.issue(request, name, self._days, now)
        with self._store.transaction():
            self._store.add_certificate(CertificateRow(issued.serial, name, issued.key, now, issued.ends))
            self._store.record(now, name, "renew", name, {"serial": issued.serial})
        return Renewed(certificate=issued.pem)

    def admit(self, name: str, serial: str, now: float) -> None:
        """Say whether a certificate of ours still holds. Raises `Denied`."""
        if now - self._second >= 1.0 or now < self._second:
            self._second, self._asked, self._certified = now, 0, None
        self._asked += 1
        if self._asked == CROWD:
            # Thousands come at once: then one question is asked for all of them, and once a second.
            self._certified = self._store.certified()
        if self._certified is None or self._certified.get(serial) != name:
            row = self._store.certificate(serial)
            holder = None if row is None else row.workload
        else:
            holder = name
        if holder != name:
            raise Denied(f"the certificate of `{name}` was revoked; enrol again with a new token")

    def forget(self) -> None:
        """Look certificates up anew: one was revoked."""
        self._certified = None

    def mint(self, labels: Labels, uses: int, ttl_s: float, workload: str | None, author: str, now: float) -> Token:
        """Make an enrolment token."""
        secret = make_secret()
        row = make_token_row(secret, labels, uses, ttl_s, workload, author, now)
        with self._store.transaction():
            self._store.add_token(row)
            self._store.record(
                now, author, "make token", row.id,
                {"workload": workload, "labels": dict(labels), "uses": uses, "ttl_s": ttl_s},
            )  # fmt: skip
        return Token(self._authority.fingerprint, secret)

    def revoke_token(self, token: str, author: str, now: float) -> None:
        """Let a token end at once; whoever enrolled with it stays. Raises `Conflict` where it has ended before."""
        with self._store.transaction():
            if not self._store.end_token(token, now):
                raise Conflict(f"token `{token}` has ended already")
            self._store.record(now, author, "revoke token", token, {})
