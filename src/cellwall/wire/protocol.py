"""The numbered history of the protocol, and how two ends agree on a number.

A number is added, with a line that says what it brings, whenever an end may no longer assume that the other one
understands something. Messages are maps with named fields: an end ignores fields that it does not know and takes the
default for those that are missing, so adding a field with a default needs no number.
"""

from __future__ import annotations

from cellwall.wire.errors import WireError

HISTORY: dict[int, str] = {
    1: "hello, facts, columnar flows, denials, receipts, live questions; signed bundles, changes of members, renewal",
    2: "orders of an emergency: in a bundle, and in a change of members, where they travel alone",
    3: "a bundle may be signed over digests of its ruleset and members",
}
"""What each number brought."""

ORDERS = 2
"""From this number on an agent understands orders; one that does not is never sent any."""

DIGESTS = 3
"""From this number on an agent verifies bundles that are signed over digests (`cellwall.wire.signing`)."""

AUTHORITY_PATH = "/v1/ca"
"""Where a plain HTTPS GET gives the controller's CA as PEM: check it against the token's fingerprint before use."""

ENROL_PATH = "/v1/enroll"
"""Where a new agent, without a client certificate, makes one HTTPS POST: `Enrol` there, an `EnrolmentReply` back."""

HEALTH_PATH = "/v1/health"
"""Where a plain HTTPS GET, by a load balancer for one, gives 200 while the controller is ready, else 503."""

AGENT_PATH = "/v1/agent"
"""The WebSocket (client certificate of our CA) of an enrolled agent, which speaks first: `Hello`."""

OLDEST = 1
"""The oldest protocol that we still speak."""

NEWEST = max(HISTORY)
"""The newest protocol that we speak."""


def agree(oldest: int, newest: int) -> int:
    """Give the newest protocol that we and a peer speaking `oldest` to `newest` share.

    Raises `WireError` that says whose move it is where there is none.
    """
    if oldest > newest:
        raise WireError(f"protocols `{oldest}` to `{newest}` run backwards")
    if newest < OLDEST:
        raise WireError(f"the peer speaks protocols up to `{newest}` and we from `{OLDEST}`; upgrade the peer")
    if oldest > NEWEST:
        raise WireError(f"the peer speaks protocols from `{oldest}` and we up to `{NEWEST}`; upgrade this side")
    return min(newest, NEWEST)
