"""The flow store's process: it is started, asked, started again when it died, and it ends when its parent does.

    any thread ── FlowProcess ══ unix socket, one connection a thread ══ serve ─┬─ insert ── Spool ─┐ each second, and
                                                                               └─ the rest ── Engine ── chDB

The parent listens and hands the socket down, so that a request made while the worker starts again waits in the queue;
every call may be repeated, as an insert is known by its batch. Frames (`frames.py`) hold `[call, arguments]` one
way, `[fault or nil, result]` the other.

What is inserted is on disk when the call returns, and goes into the tables with all else that came about that time: an
insert into them costs the same for ten rows as for ten thousand. Whoever asks for flows has them put in first.
"""

from __future__ import annotations

import fcntl
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from cellwall.controller.store.flows.asker import ASKED, FlowAsker
from cellwall.controller.store.flows.columns import read_columns, to_columns
from cellwall.controller.store.flows.configure import configure
from cellwall.controller.store.flows.contract import DAY_S, FlowStoreError
from cellwall.controller.store.flows.engine import Engine
from cellwall.controller.store.flows.frames import receive_frame, send_frame
from cellwall.controller.store.flows.spool import PORTION_ROWS, Batch, Spool
from cellwall.flows import FlowRecord

CALLS = (*ASKED, "keys", "series", "count", "prune")
ANSWER_S = 120.0
START_S = 30.0
SETTLE_EVERY_S = 3.0
MOST_WAITING = 2_000_000
"""While so many rows wait for the tables, none are taken."""


def open_flows(folder: Path) -> FlowProcess:
    """Open the flow store under `folder`, made if it is not there. Raises `FlowStoreError`."""
    return FlowProcess(folder)


class FlowProcess(FlowAsker):
    """The flow store in a process of its own; see `FlowStore` for what each call does."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        # Beside the folder, where it is found and replaced after a crash; named by way of the open parent, because
        # the path of a socket is 107 bytes at most (unix(7)).
        self._parent = os.open(folder.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = f"/proc/self/fd/{self._parent}/{folder.absolute().name}.socket"
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        self._listener.listen(128)
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []
        self._closed = False
        self._process = self._start()
        try:
            self.count()
        except FlowStoreError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self._process.pid

    def insert(self, records: Sequence[FlowRecord], batch: str) -> None:
        """Keep `records` unless `batch` was kept before."""
        for why in self.insert_many([(records, batch)]).values():
            raise FlowStoreError(f"the flow store refused `insert`: {why}")

    def insert_many(self, batches: Sequence[tuple[Sequence[FlowRecord], str]]) -> Mapping[str, str]:
        """Keep many batches."""
        rows = [(batch, len(records), to_columns(records)) for records, batch in batches if records]
        return self._ask("insert", rows) if rows else {}

    def ping(self) -> None:
        """See that the worker answers."""
        self._ask("insert", ())

    def prune(self, before: float) -> int:
        """Drop the days that ended at or before `before`."""
        return int(self._ask("prune", math.floor(before / DAY_S)))

    def close(self) -> None:
        """End the worker; what was inserted stays."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for connection in self._idle:
                connection.close()
            self._idle.clear()
            self._listener.close()
            _end(self._process)
            with suppress(OSError):
                os.unlink(self._path)
            os.close(self._parent)

    # --- the worker ---

    def _start(self) -> subprocess.Popen[bytes]:
        handed = self._listener.fileno()
        # INVARIANT: the worker's standard input is held by us alone: it ends when we do, however that is.
        return subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()", str(self._folder), str(handed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(handed,),
            start_new_session=True,
        )

    def _start_again(self, died: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if self._closed:
                raise FlowStoreError("the flow store is closed")
            if self._process is not died:
                return
            for connection in self._idle:
                connection.close()
            self._idle.clear()
            try:
                died.wait(1.0)
            except subprocess.TimeoutExpired:
                return  # It lives: one connection was lost, no more.
            _end(died)
            self._process = self._start()

    def forward(self, request: bytes) -> bytes:
        """Have the worker answer a frame's content with one, both as it writes them. Raises `FlowStoreError`."""
        for last in (False, True):
            process = self._process
            try:
                return self._answer(request, process)
            except (OSError, EOFError) as error:
                if self._closed:
                    raise FlowStoreError("the flow store is closed") from None
                if isinstance(error, TimeoutError):
                    raise FlowStoreError(f"the flow store did not answer within {ANSWER_S:.0f} s") from None
                self._start_again(process)
                if last:
                    raise FlowStoreError("the flow store ended twice over one call; it is started again") from None
        raise AssertionError("unreachable")

    def _ask(self, call: str, *arguments: Any) -> Any:
        fault, result = msgspec.msgpack.decode(self.forward(msgspec.msgpack.encode((call, arguments))))
        if fault is not None:
            raise FlowStoreError(f"the flow store refused `{call}`: {fault}")
        return result

    def _answer(self, request: bytes, process: subprocess.Popen[bytes]) -> bytes:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            send_frame(connection, request)
            # A worker that cannot start never takes the connection from the queue: look at it while we wait.
            connection.settimeout(0.5)
            until = time.monotonic() + ANSWER_S
            while True:
                try:
                    first = connection.recv(1)
                    break
                except TimeoutError:
                    if process.poll() is not None:
                        raise EOFError from None
                    if time.monotonic() > until:
                        raise
            connection.settimeout(ANSWER_S)
            answer = receive_frame(connection, first)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_S)
        connection.connect(self._path)
        return connection


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- in the worker ---

_FRAME = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])
_BATCHES = msgspec.msgpack.Decoder(tuple[list[tuple[str, int, msgspec.Raw]]])


class _Store:
    """The spool and the tables behind it, for all threads of the worker."""

    def __init__(self, folder: Path) -> None:
        self._spool = Spool(folder / "spool.db")
        self._writing, self._settling = threading.Lock(), threading.Lock()
        self.full = threading.Event()

    def take(self, batches: Sequence[tuple[str, int, msgspec.Raw]]) -> dict[str, str]:
        """Keep batches on disk; gives those that the tables could not hold, and why."""
        good: list[Batch] = []
        refused: dict[str, str] = {}
        for name, rows, columns in batches:
            try:
                if not 1 <= len(name) <= 200 or len(read_columns(bytes(columns))[0]) != rows:
                    raise ValueError("a name of 1 to 200 characters, and as many rows as said, are wanted")
                good.append(Batch(name, rows, bytes(columns)))
            except (ValueError, msgspec.ValidationError) as error:
                refused[name] = str(error)
        with self._writing:
            if self._spool.rows >= MOST_WAITING:
                raise FlowStoreError(f"{self._spool.rows} flows wait for the tables; try later")
            self._spool.take(good)
            if self._spool.rows >= PORTION_ROWS:
                self.full.set()
        return refused

    def settle(self, engine: Engine) -> None:
        """Put what waits into the tables."""
        # INVARIANT: one at a time, so that a portion is in the tables before whoever waited here reads them.
        with self._settling:
            while True:
                with self._writing:
                    portion = self._spool.cut()
                if portion is None:
                    return
                parts = [read_columns(columns) for columns in portion.columns]
                engine.insert([list(chain.from_iterable(column)) for column in zip(*parts, strict=True)], portion.token)
                with self._writing:
                    self._spool.done(portion)

    def settle_often(self, engine: Engine) -> None:
        """Put what waits into the tables, for ever: once a second, or as soon as it is much."""
        while True:
            self.full.wait(SETTLE_EVERY_S)
            self.full.clear()
            try:
                self.settle(engine)
            except Exception as error:  # noqa: BLE001 - it is still on disk; whoever asks is told, and it is tried again
                print(f"cellwall flows: {_fault(error)}", file=sys.stderr, flush=True)
                time.sleep(SETTLE_EVERY_S)


def serve(folder: Path, listener: socket.socket) -> None:
    """Answer on `listener`, a thread and an engine for each connection, until standard input ends."""
    folder = folder.absolute()
    configure(folder)
    first = _open_engine(folder)
    first.prepare()
    store = _Store(folder)
    store.settle(first)
    _begin(_accept, folder, listener, store)
    _begin(store.settle_often, Engine(folder))
    while os.read(0, 4096):
        pass
    listener.close()
    store.settle(first)
    first.close()


def _begin(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def _open_engine(folder: Path) -> Engine:
    # A worker whose parent was killed a moment ago may still hold the folder. This lock, which ends with its holder, is
    # asked first: chDB would write an error each time.
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    until = time.monotonic() + START_S
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Engine(folder)
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _accept(folder: Path, listener: socket.socket, store: _Store) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        _begin(_talk, folder, connection, store)


def _talk(folder: Path, connection: socket.socket, store: _Store) -> None:
    engine = Engine(folder)
    with connection:
        while True:
            try:
                call, arguments = _FRAME.decode(receive_frame(connection))
            except (OSError, EOFError):
                break
            send_frame(connection, msgspec.msgpack.encode(_do(store, engine, call, arguments)))
    engine.close()


def _do(store: _Store, engine: Engine, call: str, arguments: msgspec.Raw) -> tuple[str | None, Any]:
    try:
        if call == "insert":
            return None, store.take(_BATCHES.decode(arguments)[0])
        if call not in CALLS:
            return f"there is no call `{call}`", None
        store.settle(engine)
        return None, getattr(engine, call)(*msgspec.msgpack.decode(arguments))
    except Exception as error:  # noqa: BLE001 - one bad request does not stop the others
        return _fault(error), None


def _fault(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def main() -> None:
    """Serve the folder and the listening socket that the command line names."""
    serve(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
    # Threads may be inside the engine: what was inserted is on the disk, so nothing is owed to them.
    os._exit(0)
