"""What can be wrong with what somebody asks of the controller."""

from __future__ import annotations

from cellwall.traffic import CellwallError


class ControllerError(CellwallError):
    """The controller cannot do what was asked; `status` is the HTTP status that says so (RFC 9110 §15)."""

    status = 400


class NotFound(ControllerError):
    """There is no such thing."""

    status = 404


class Conflict(ControllerError):
    """It contradicts what is there; read again, and decide again."""

    status = 409


class Denied(ControllerError):
    """Whoever asks may not have it."""

    status = 403


class NotSignedIn(ControllerError):
    """Nobody knows who asks."""

    status = 401


class TooOften(ControllerError):
    """It failed too often: the same may be tried again in `wait_s` seconds."""

    status = 429

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"signing in failed too often; try again in {wait_s} s")
        self.wait_s = wait_s


class NotReady(ControllerError):
    """It cannot be had at this moment; try later."""

    status = 503


class StateError(CellwallError):
    """The store of the controller's state cannot be used."""
