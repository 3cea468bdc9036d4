"""Files that commands write: each is whole or as it was, and none that is there is replaced unasked."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO

from cellwall.cli.exits import Exit, Stop

PRIVATE = 0o600


def keep_others(files: Mapping[Path, str], *, replace: bool = False) -> None:
    """Stop before any of `files` is written where one is there and says something else, unless `replace`; and, even
    so, where one is no file. Raises `Stop`."""
    keep([file for file, text in files.items() if not _says(file, text)], replace=replace)


def keep(files: Iterable[Path], *, replace: bool = False) -> None:
    """Stop where one of `files` is there, unless `replace`; and, even so, where it is no file. Raises `Stop`."""
    there = [file for file in files if file.exists()]
    for file in there:
        if not file.is_file():
            raise Stop(Exit.USAGE, f"`{file}` is {_kind(file)}; wanted a file to write")
    if there and not replace:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise Stop(Exit.USAGE, f"`{there[0]}`{more} would be replaced; repeat with --yes, or write elsewhere")


def rewrite(file: Path, text: str, like: Path | None = None) -> None:
    """Put `text` in the place of what a file holds, whole or not at all, its lines ended as those of `like` are."""
    ended = like is not None and like.exists() and _ends_in_returns(like)
    with replaced(file) as out:
        out.write((text.replace("\n", "\r\n") if ended else text).encode("utf-8"))


@contextmanager
def replaced(file: Path, mode: int | None = None) -> Generator[BinaryIO]:
    """Give a stream; what is written to it is the file's content once all of it is on the disk. Till then, and where
    anything fails, the file is as it was.

    Its rights are `mode`; by default those of the file that it replaces, or what the umask leaves of 0666. Behind a
    symbolic link the file that it leads to is replaced. Raises `OSError`."""
    whole = file.resolve()
    try:
        handle, name = mkstemp(dir=whole.parent, prefix=f".{whole.name}.", suffix=".new")
    except OSError as error:
        error.filename = str(file)  # What was asked for, not the one beside it.
        raise
    try:
        with os.fdopen(handle, "wb") as out:
            _take_after(handle, whole, mode)
            yield out
            out.flush()
            os.fsync(handle)
        Path(name).replace(whole)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(whole.parent)


def _take_after(handle: int, file: Path, mode: int | None) -> None:
    there = file.stat() if file.exists() else None
    if there is not None:
        # Root may write a file of somebody else's, who has to be able to read it afterwards.
        with suppress(PermissionError):
            os.fchown(handle, there.st_uid, there.st_gid)
    os.fchmod(handle, mode if mode is not None else stat.S_IMODE(there.st_mode) if there else 0o666 & ~_umask())


def _umask() -> int:
    # It can only be read by setting it.
    held = os.umask(0o077)
    os.umask(held)
    return held


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _says(file: Path, text: str) -> bool:
    try:
        return file.is_file() and file.read_text("utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _kind(file: Path) -> str:
    return "a folder" if file.is_dir() else "no regular file"


def _ends_in_returns(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.readline().endswith(b"\r\n")
