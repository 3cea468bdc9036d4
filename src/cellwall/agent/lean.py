"""Keeps an agent small: what libraries import and it does not use is not loaded, what only its start needed goes.

`websockets` imports `importlib.metadata` (with it `email`, `zipfile` and `csv`) to find out its version when it is not
a release, and `urllib.request` to find proxies, which the agent's channel does not use.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from importlib import import_module
from types import ModuleType

SELDOM = ("importlib.metadata", "urllib.request")
"""Modules that are imported and then, as a rule, not used."""

_MADV_DONTNEED = 4  # madvise(2)


class _Later(ModuleType):
    """Stands for a module until something of it is asked for; then that is loaded and takes the place."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            # The import system looks at these: that is no use of it yet.
            raise AttributeError(f"module `{self.__name__}` has no attribute `{name}`")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def put_off(names: tuple[str, ...] = SELDOM) -> None:
    """Let the modules `names` be loaded when something of them is used; what is loaded already stays."""
    for name in names:
        if name not in sys.modules:
            package, _, last = name.rpartition(".")
            sys.modules[name] = later = _Later(name)
            if package:
                setattr(import_module(package), last, later)


def give_back() -> int:
    """Unmap the pages of programs and libraries that were touched so far; give how many bytes of them there are.

    Most were needed to start and never again. What is still used comes back from the page cache at its next use. Only
    what is mapped to be run is touched: nothing of that is ever written, so nothing is lost.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes, libc.madvise.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    given = 0
    with suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            # proc_pid_maps(5): range, rights, offset, device, inode, path.
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[1] == "r-xp" and fields[5].startswith("/"):
                start, end = (int(one, 16) for one in fields[0].split("-"))
                if libc.madvise(start, end - start, _MADV_DONTNEED) == 0:
                    given += end - start
    return given
