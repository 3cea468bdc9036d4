"""How a command ends: the exit codes, and the one line that an error is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import IntEnum

from cellwall.cli.visible import visible
from cellwall.traffic import CellwallError


class Exit(IntEnum):
    """What the exit code of every command means."""

    OK = 0
    NO = 1
    USAGE = 2
    DOCUMENT = 3
    REFUSED = 4
    UNREACHABLE = 5
    UNABLE = 6

    @property
    def meaning(self) -> str:
        """The sentence of the reference page."""
        return _MEANINGS[self]


_MEANINGS = {
    Exit.OK: "done, or the answer is yes",
    Exit.NO: "the answer is no: a check failed, a flow is denied, there is nothing to do",
    Exit.USAGE: "the command line is wrong, or names what does not exist",
    Exit.DOCUMENT: "a document is wrong; the message begins with file, line and column",
    Exit.REFUSED: "an enforcement point or the controller refused; nothing was changed",
    Exit.UNREACHABLE: "the controller cannot be reached, or has no database at this moment: try later",
    Exit.UNABLE: "this machine cannot do it: no root, no kernel feature, no such package",
}
_INTERRUPTED = 130
UNAVAILABLE = 503
"""The HTTP status of what can be had later, not now (RFC 9110 §15.6.4)."""
_DOCUMENT_STATUS, _ABSENT_STATUS, _USAGE_STATUS = 422, 404, 400


class Stop(CellwallError):
    """The end of a command, with its exit code; an empty message prints nothing."""

    def __init__(self, code: Exit, message: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.code = code


def guarded(command: Callable[[], int]) -> int:
    """Run a command and give its exit code; whatever it raises becomes one line on standard error."""
    try:
        return command()
    except CellwallError as error:
        if str(error):
            complain(str(error))
        for other in getattr(error, "others", ()) or getattr(error, "problem", {}).get("others", ()):
            complain(str(other))
        return code_of(error)
    except KeyboardInterrupt:
        complain("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # Who read our output has gone. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except RecursionError:
        complain("a document is nested too deeply")
        return Exit.DOCUMENT
    except OSError as error:
        named = f"`{error.filename}`: " if error.filename else ""
        complain(f"{named}{(error.strerror or str(error)).lower()}")
        return Exit.UNABLE
    except Exception as error:  # The outermost turn: a mistake of ours is one line too.
        if os.environ.get("CELLWALL_TRACEBACK"):
            raise
        complain(
            f"this is a mistake in cellwall: {type(error).__name__}: {error}; see it whole with CELLWALL_TRACEBACK=1"
        )
        return Exit.UNABLE


def complain(message: str) -> None:
    """Say on standard error what is wrong, in one line."""
    print("cellwall: " + visible(" ".join(message.split())), file=sys.stderr)


def code_of(error: CellwallError) -> Exit:
    """Give the exit code for an error of any room."""
    if isinstance(error, Stop):
        return error.code
    # Here and not above: what has raised is loaded already, what has not need not be.
    from cellwall.clients import ApiRefused, Unreachable
    from cellwall.policy import PolicyError

    if isinstance(error, PolicyError):
        return Exit.DOCUMENT
    if isinstance(error, Unreachable):
        return Exit.UNREACHABLE
    if isinstance(error, ApiRefused):
        if error.status == _DOCUMENT_STATUS and "file" not in error.problem:
            return Exit.USAGE
        known = {_DOCUMENT_STATUS: Exit.DOCUMENT, _ABSENT_STATUS: Exit.USAGE, _USAGE_STATUS: Exit.USAGE}
        known[UNAVAILABLE] = Exit.UNREACHABLE
        return known.get(error.status, Exit.REFUSED)
    named = {kind.__name__ for kind in type(error).__mro__}
    if "ScenarioError" in named:
        return Exit.DOCUMENT
    if named & {"Unreachable", "StateError"}:
        return Exit.UNREACHABLE
    return Exit.REFUSED if "Refused" in named else Exit.UNABLE
