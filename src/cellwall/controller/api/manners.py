"""How much an agent may say: who talks without end is listened to more slowly, and nobody else waits for it."""

from __future__ import annotations

from collections import defaultdict

from cellwall.controller.access.throttle import Bucket
from cellwall.wire import Denials, Facts, FromAgent

BURST, A_SECOND = 2000, 50
"""So many messages an agent may send at once, and so many a second in the long run; then it is not read for a while."""
FACTS, FACTS_A_SECOND = 10, 0.2
"""So many facts are taken at once, and so many a second in the long run; of the others the latest, later. Each that
brings other addresses is written down for ever, and the fleet is looked at anew."""
SAMPLES, SAMPLES_A_SECOND = 20_000, 20
"""So many samples of denied packets are kept; the flows have the counts."""
LONGEST_S = 10.0


class Manners:
    """What each agent has said lately, by its workload's name: another connection is no other agent."""

    def __init__(self) -> None:
        self._messages: defaultdict[str, Bucket] = defaultdict(lambda: Bucket(BURST, A_SECOND))
        self._facts: defaultdict[str, Bucket] = defaultdict(lambda: Bucket(FACTS, FACTS_A_SECOND))
        self._samples: defaultdict[str, Bucket] = defaultdict(lambda: Bucket(SAMPLES, SAMPLES_A_SECOND))

    def wait_s(self, name: str, message: FromAgent, now: float) -> float:
        """Count a message, and say for how many seconds nothing more is read of who sent it."""
        bucket = self._messages[name]
        cost = 1 + len(message.samples) // 100 if isinstance(message, Denials) else 1
        return 0.0 if bucket.admits(now, cost) else min(max(bucket.room_s(now, BURST / 10), 0.1), LONGEST_S)

    def delay_s(self, name: str, _facts: Facts, now: float) -> float:
        """Say in how many seconds facts are taken: 0 is at once, and then they are counted."""
        bucket = self._facts[name]
        return 0.0 if bucket.admits(now) else max(bucket.room_s(now), 0.1)

    def keeps(self, name: str, denials: Denials, now: float) -> bool:
        """Say whether samples of denied packets are kept."""
        return self._samples[name].admits(now, len(denials.samples))

    def forget(self, name: str, now: float) -> None:
        """Forget an agent that has said nothing for long enough."""
        for some, most in ((self._messages, BURST), (self._facts, FACTS), (self._samples, SAMPLES)):
            if name in some and not some[name].room_s(now, most):
                del some[name]
