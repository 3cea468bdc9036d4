"""The agent's certificate, and the next one: asked for in time, again when no answer came."""

from __future__ import annotations

import time

from cellwall.agent.enroll import make_request
from cellwall.agent.enrolment import Enrolment
from cellwall.wire import Renew

AGAIN_S = 3600.0


class Renewal:
    """Sees to the certificate of an enrolment. `before_s` is how long before its end a fresh one is asked for."""

    def __init__(self, enrolment: Enrolment) -> None:
        """Nothing is asked for yet."""
        self.before_s = 0.0
        self._enrolment = enrolment
        self._key = b""
        self._not_before = 0.0

    def due(self) -> Renew | None:
        """Give the request for a fresh certificate when the end of ours is near."""
        now, ends = time.time(), self._enrolment.ends()
        if not ends or now < ends - self.before_s or now < self._not_before:
            return None
        self._not_before = now + AGAIN_S
        self._key, request = make_request(self._enrolment.name)
        return Renew(request=request)

    def take(self, certificate: str) -> None:
        """Keep the fresh certificate."""
        self._enrolment.renew(certificate, self._key)
        self._not_before = 0.0
