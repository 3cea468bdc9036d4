"""What happens to an agent, and what it then wants done. Values only; `core.step` turns the one into the other.

Times are seconds, on a clock that begins as the epoch's (UTC) and does not jump while the agent runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cellwall.agent.bundle import Bundle
from cellwall.compile import Canary
from cellwall.wire import MemberChange, Receipt


class Result(StrEnum):
    """What came of writing to the kernel: done; refused for good; failed, to be tried again."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


# ---- what happens


@dataclass(frozen=True, slots=True)
class Started:
    """The journal was read: `good` was in force, `trial` was on its way, `highest` the newest accepted.

    The trial ends at `until`; 0 means that it needs no confirmation, only the kernel. `damage` says what of the journal
    could not be read; `issued` is when the newest of it was signed, by the controller's clock.
    """

    good: Bundle | None = None
    trial: Bundle | None = None
    until: float = 0.0
    highest: int = 0
    damage: str = ""
    issued: float = 0.0


@dataclass(frozen=True, slots=True)
class Connected:
    """The controller welcomed us on a connection whose making began at `began`."""

    began: float


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection to the controller is gone."""


@dataclass(frozen=True, slots=True)
class Desired:
    """The controller wants `bundle` held; it is signed by it and for us."""

    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Forgery:
    """Something came as `generation` that is not signed by our controller, not for us, or cannot be read."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """Members or orders change; `change` is signed by our controller and for us, `signed` are its bytes."""

    change: MemberChange
    signed: bytes = b""


@dataclass(frozen=True, slots=True)
class Applied:
    """The answer to `Apply`, `Restore`, `Repair` or `ApplyMembers`; `generation` is None when our table went.

    Of what was done, `reason` says what is not in force all the same: orders that are over by this host's clock."""

    generation: int | None
    result: Result
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """A canary was tried once, for the provisional `generation`."""

    generation: int
    id: str
    passed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The controller says that it heard of the provisional `generation`, and nothing speaks against it."""

    generation: int


@dataclass(frozen=True, slots=True)
class ForeignChange:
    """Somebody else changed our table."""

    by: str


@dataclass(frozen=True, slots=True)
class Verified:
    """The kernel was read back and compared with what it should hold of `generation`."""

    generation: int
    drifts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """The host has other addresses than before."""


@dataclass(frozen=True, slots=True)
class JournalFailed:
    """The journal could not be written."""

    reason: str


@dataclass(frozen=True, slots=True)
class Suspended:
    """The host only observes from here on, for this `reason`; an empty one is the end of that."""

    reason: str


@dataclass(frozen=True, slots=True)
class ClockSet:
    """What has an end has it at another moment than was thought: the controller's time became known, or another."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """The agent is asked to end: what is on trial would have nobody who judges it."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Some time has passed."""


Event = (
    Started
    | Connected
    | Disconnected
    | Desired
    | Forgery
    | MembersChanged
    | Applied
    | CanaryResult
    | Confirmed
    | ForeignChange
    | Verified
    | AddressesChanged
    | JournalFailed
    | Suspended
    | ClockSet
    | Stopping
    | Tick
)


# ---- what is to be done


@dataclass(frozen=True, slots=True)
class Apply:
    """Make the kernel hold `bundle`; `Applied` answers.

    With `left_s` it is on trial: so many seconds from here the kernel itself goes back to `back`, None for nothing of
    ours."""

    bundle: Bundle
    left_s: float | None = None
    back: Bundle | None = None


@dataclass(frozen=True, slots=True)
class Restore:
    """Put back what was before a change, None for nothing of ours; `Applied` answers."""

    bundle: Bundle | None


@dataclass(frozen=True, slots=True)
class Repair:
    """Undo what others did to our table: make the kernel hold `bundle` again, on trial as with `Apply`; `Applied`
    answers."""

    bundle: Bundle
    left_s: float | None = None
    back: Bundle | None = None


@dataclass(frozen=True, slots=True)
class ApplyMembers:
    """Change members by element, and with `orders` all orders, which makes what the kernel holds `bundle`; `Applied`
    answers."""

    bundle: Bundle
    added: Mapping[bytes, int]
    removed: tuple[bytes, ...]
    orders: bool = False


@dataclass(frozen=True, slots=True)
class SaveJournal:
    """Write anew: the last good bundle, and the one on trial with its end (0: it has none)."""

    good: Bundle | None
    trial: Bundle | None
    until: float
    highest: int


@dataclass(frozen=True, slots=True)
class SaveChange:
    """Append one signed change of members or orders."""

    signed: bytes


@dataclass(frozen=True, slots=True)
class TryCanaries:
    """Open these connections, once each; `CanaryResult` answers for each."""

    generation: int
    canaries: tuple[Canary, ...]


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Leave the connection to the controller and make a new one."""


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the controller if it is there; `Connected` reports the last one anew. `alarm`: somebody should look."""

    receipt: Receipt
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class Verify:
    """Compare the kernel with `bundle`; `Verified` answers."""

    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Collect:
    """Fetch what the kernel has counted since the last time."""


@dataclass(frozen=True, slots=True)
class SendFacts:
    """Tell the controller what this host is."""


Command = (
    Apply
    | Restore
    | Repair
    | ApplyMembers
    | SaveJournal
    | SaveChange
    | TryCanaries
    | Reconnect
    | Report
    | Verify
    | Collect
    | SendFacts
)
