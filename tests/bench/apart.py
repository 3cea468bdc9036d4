"""Work in a process of its own, with an end to its time, whose memory can be told from ours."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Generic, ParamSpec, TypeVar

from cellwall.cli import collect_seldom

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """What came of it, and how many bytes of memory the process held more at its peak than at its start."""

    value: R
    memory: int


def apart(limit_s: float, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Done[R] | None:
    """Do `work`, a function of a module, in a child; None when it took longer than `limit_s`."""
    # A fresh process: a forked one has our memory to work in, so that its own would not show.
    context = get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(writer, work, args, kwargs), daemon=True)
    child.start()
    writer.close()
    try:
        if not reader.poll(limit_s):
            return None
        told: Done[R] | BaseException = reader.recv()
    except EOFError:
        raise RuntimeError("the child of a bench died") from None
    finally:
        child.kill()
        child.join()
    if isinstance(told, BaseException):
        raise told
    return told


def _work(writer: Connection, work: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    # As the programs do.
    collect_seldom()
    before = _peak()
    try:
        value = work(*args, **kwargs)
        told: object = Done(value, _peak() - before)
    except BaseException as error:
        told = error
    with suppress(BrokenPipeError):
        writer.send(told)


def _peak() -> int:
    # Not getrusage(2): its peak is that of our parent's memory too, which was ours until we were executed.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
