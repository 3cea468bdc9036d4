"""The rules of who may import whom, and what a file may look like; each is a test, each bend is named here.

To bend a rule, add to one of the tables of exceptions below, with the reason, and say why in the commit.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "cellwall"

# A room imports only rooms of earlier lines; rooms of one line do not import each other.
ORDER = (
    ("traffic",),
    ("labels",),
    ("inventory",),
    ("flows",),
    ("policy",),
    ("classify", "compile", "events", "translate"),
    ("analysis", "wire"),
    ("compliance",),
    ("clients",),
    ("observe", "enforce", "siem"),
    ("agent", "controller"),
    ("cli", "web", "lab"),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
PURE_ROOMS = frozenset(room for room, rank in RANK.items() if rank < RANK["clients"])
PURE_FILES = frozenset({"core.py", "render.py"})
IMPURE_MODULES = frozenset(
    {
        "asyncio",
        "http",
        "logging",
        "os",
        "pathlib",
        "random",
        "socket",
        "sqlite3",
        "subprocess",
        "threading",
        "time",
        "urllib",
    }
)
IMPURE_CALLS = frozenset({"open", "print", "input"})
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})
CONCURRENT_MODULES = frozenset({"asyncio", "threading", "_thread", "concurrent", "anyio", "trio"})
CONCURRENT_ROOMS = frozenset({"clients", "siem"})
VAGUE_NAMES = frozenset({"utils", "util", "common", "manager", "base", "helpers", "misc"})
COPYLEFT = frozenset(
    {
        "nftables",
        "libnftables",
        "scapy",
        "igraph",
        "python-igraph",
        "leidenalg",
        "pyroute2",
        "psycopg",
        "psycopg2",
        "psycopg2-binary",
        "portion",
        "paramiko",
        "netfilterqueue",
        "unidecode",
    }
)
AGENT_PACKAGES = frozenset({"cellwall", "websockets", "msgspec", "cryptography", "cffi", "_cffi_backend", "pycparser"})
LONGEST, LONG, DEEPEST = 600, 300, 3

# (room, room it imports against the order): why.
ORDER_EXCEPTIONS = {
    ("cli", "lab"): "`cellwall lab` and `cellwall demo` are commands; the lab itself knows no command line",
}
# folder under src/cellwall: why its files are one level deeper.
DEPTH_EXCEPTIONS = {
    "controller/store/flows": "the flow store is one store of many files, beside those of one each",
}
# file under src/cellwall: why it may hold `async` or threads.
CONCURRENCY_EXCEPTIONS: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, absolute, with the names taken from it (none for a plain `import`)."""

    module: str
    names: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file; `path` is relative to src/cellwall."""

    path: PurePosixPath
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The room that holds the file, or "" for a file beside the rooms."""
        return self.path.parts[0] if len(self.path.parts) > 1 else ""

    @property
    def pure(self) -> bool:
        """Whether the file must compute only."""
        return self.room in PURE_ROOMS or self.path.name in PURE_FILES

    def at(self, line: int) -> str:
        """Where `line` is, as an editor and a terminal understand it."""
        return f"src/cellwall/{self.path}:{line}"

    def imports(self) -> Iterator[Import]:
        """Every import of the file, those inside functions too."""
        package = ("cellwall", *self.path.parts[:-1])
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, (), node.lineno)
            elif isinstance(node, ast.ImportFrom):
                outer = package[: len(package) - node.level + 1] if node.level else ()
                module = ".".join((*outer, *filter(None, [node.module])))
                yield Import(module, tuple(alias.name for alias in node.names), node.lineno)

    def rooms_entered(self) -> Iterator[tuple[str, Import]]:
        """The rooms that the file imports from, its own included."""
        for found in self.imports():
            parts = found.module.split(".")
            if parts[0] == "cellwall":
                for room in parts[1:2] or found.names:
                    if room in RANK:
                        yield room, found


def source(path: str, text: str) -> Source:
    """Make a source of `text`, as if it stood at `path` under src/cellwall."""
    return Source(PurePosixPath(path), text, ast.parse(text, path))


SOURCES = tuple(
    source(file.relative_to(PACKAGE).as_posix(), file.read_text("utf-8")) for file in sorted(PACKAGE.rglob("*.py"))
)


def unknown_rooms(sources: tuple[Source, ...]) -> Iterator[str]:
    """Files that stand in no room."""
    for one in sources:
        if one.room not in RANK and str(one.path) not in ("__init__.py", "__main__.py"):
            yield f"{one.at(1)}: stands in no room; the rooms are {', '.join(RANK)}"


def imports_to_the_right(sources: tuple[Source, ...]) -> Iterator[str]:
    """Imports of a room that is not to the left of the importing one."""
    for one in sources:
        for room, found in one.rooms_entered():
            if one.room == "":
                if not (one.path.name == "__main__.py" and room == "cli"):
                    yield f"{one.at(found.line)}: imports `{room}`; only __main__.py may import, and only cli"
            elif room == one.room or (one.room, room) in ORDER_EXCEPTIONS:
                continue
            elif RANK.get(one.room, -1) <= RANK[room]:
                yield f"{one.at(found.line)}: `{one.room}` may not import `{room}`; move the code to the left"


def imports_past_the_door(sources: tuple[Source, ...]) -> Iterator[str]:
    """Imports of another room's inner modules."""
    files = {one.path for one in sources}
    doors = {one.room: one for one in sources if one.path == PurePosixPath(one.room, "__init__.py")}
    for one in sources:
        for room, found in one.rooms_entered():
            if room == one.room:
                continue
            inner = found.module.split(".")[2:]
            if not inner and found.module != "cellwall":
                exported = exported_names(doors[room]) if room in doors else frozenset[str]()
                inner = [
                    name
                    for name in found.names
                    if name not in exported
                    and {PurePosixPath(room, f"{name}.py"), PurePosixPath(room, name, "__init__.py")} & files
                ]
            if inner:
                yield (
                    f"{one.at(found.line)}: goes past the door of `{room}` to `{inner[0]}`; "
                    f"re-export what you need in src/cellwall/{room}/__init__.py and import that"
                )


def exported_names(door: Source) -> frozenset[str]:
    """The names that a door lists in `__all__`."""
    for node in door.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return frozenset(ast.literal_eval(value))
            case _:
                pass
    return frozenset()


def impure_imports(sources: tuple[Source, ...]) -> Iterator[str]:
    """Modules that do I/O, imported where only computing is allowed."""
    for one in sources:
        for found in one.imports() if one.pure else ():
            if (top := found.module.split(".")[0]) in IMPURE_MODULES:
                yield f"{one.at(found.line)}: imports `{top}` in pure code; do the I/O at an edge"


def impure_calls(sources: tuple[Source, ...]) -> Iterator[str]:
    """Files opened, text printed and clocks asked where only computing is allowed."""
    for one in sources:
        for node in ast.walk(one.tree) if one.pure else ():
            match node:
                case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                    yield f"{one.at(node.lineno)}: calls `{name}` in pure code; do the I/O at an edge"
                case ast.Call(func=ast.Attribute(attr=name, value=ast.Name(id="datetime" | "date"))) if (
                    name in CLOCK_CALLS
                ):
                    yield f"{one.at(node.lineno)}: asks the clock in pure code; take `now` as an argument"
                case _:
                    pass


def stray_concurrency(sources: tuple[Source, ...]) -> Iterator[str]:
    """`async` and threads outside the places made for them."""
    for one in sources:
        if (
            one.path.name == "loop.py"
            or "api" in one.path.parts[1:-1]
            or one.room in CONCURRENT_ROOMS
            or str(one.path) in CONCURRENCY_EXCEPTIONS
        ):
            continue
        advice = "move it to a loop.py, to api/, clients/ or siem/"
        for node in ast.walk(one.tree):
            if isinstance(node, ast.AsyncFunctionDef):
                yield f"{one.at(node.lineno)}: `async def {node.name}`; {advice}"
        for found in one.imports():
            if (top := found.module.split(".")[0]) in CONCURRENT_MODULES:
                yield f"{one.at(found.line)}: imports `{top}`; {advice}"


def doors_without_a_sentence(sources: tuple[Source, ...]) -> Iterator[str]:
    """Folders without an `__init__.py` whose docstring is one sentence."""
    files = {one.path: one for one in sources}
    for folder in sorted({parent for path in files for parent in path.parents}):
        door = files.get(folder / "__init__.py")
        if door is None:
            yield f"src/cellwall/{folder}:1: has no __init__.py; add one that says what it is for"
            continue
        sentence = ast.get_docstring(door.tree) or ""
        if not sentence.endswith(".") or "\n\n" in sentence or re.search(r"[.!?]\s+[A-Z]", sentence):
            yield f"{door.at(1)}: the docstring of a door is one sentence, with a full stop"


def deep_files(sources: tuple[Source, ...]) -> Iterator[str]:
    """Files more than three levels down."""
    for one in sources:
        allowed = DEEPEST + (str(one.path.parent) in DEPTH_EXCEPTIONS)
        if len(one.path.parts) > allowed:
            yield f"{one.at(1)}: is {len(one.path.parts)} levels deep; bring it to {allowed}"


def vague_names(sources: tuple[Source, ...]) -> Iterator[str]:
    """Modules and folders whose name says nothing."""
    for one in sources:
        for part in one.path.with_suffix("").parts:
            if part in VAGUE_NAMES:
                yield f"{one.at(1)}: `{part}` names nothing; name the thing, or put it where it is used"


def overlong_files(sources: tuple[Source, ...]) -> Iterator[str]:
    """Files of 600 lines and more."""
    for one in sources:
        if (lines := one.text.count("\n")) >= LONGEST:
            yield f"{one.at(lines)}: has {lines} lines; split it below {LONGEST}"


def too_many_long_files(sources: tuple[Source, ...]) -> Iterator[str]:
    """The files of 300 lines and more, when they are more than one in five."""
    long = [one for one in sources if one.text.count("\n") >= LONG]
    if len(long) * 5 > len(sources):
        for one in long:
            yield f"{one.at(LONG)}: one of {len(long)} in {len(sources)} that reach {LONG} lines; split some"


def copyleft_imports(sources: tuple[Source, ...]) -> Iterator[str]:
    """Imports of packages under a licence that would become ours."""
    for one in sources:
        for found in one.imports():
            if (top := found.module.split(".")[0].lower()) in COPYLEFT:
                yield f"{one.at(found.line)}: imports `{top}`, which is copyleft; do without it"


def must_be_empty(breaches: Iterator[str]) -> None:
    """Fail with one line per breach."""
    if found := sorted(set(breaches)):
        pytest.fail("\n".join(found), pytrace=False)


def test_every_file_stands_in_a_known_room() -> None:
    must_be_empty(unknown_rooms(SOURCES))


def test_a_room_imports_only_rooms_to_its_left() -> None:
    must_be_empty(imports_to_the_right(SOURCES))


def test_other_rooms_are_entered_by_the_door() -> None:
    must_be_empty(imports_past_the_door(SOURCES))


def test_pure_code_imports_nothing_that_does_io() -> None:
    must_be_empty(impure_imports(SOURCES))


def test_pure_code_opens_prints_and_asks_no_clock() -> None:
    must_be_empty(impure_calls(SOURCES))


def test_async_and_threads_live_where_they_may() -> None:
    must_be_empty(stray_concurrency(SOURCES))


def test_every_door_says_what_its_room_is_for() -> None:
    must_be_empty(doors_without_a_sentence(SOURCES))


def test_no_file_is_more_than_three_levels_deep() -> None:
    must_be_empty(deep_files(SOURCES))


def test_no_module_has_a_name_that_says_nothing() -> None:
    must_be_empty(vague_names(SOURCES))


def test_no_file_reaches_600_lines() -> None:
    must_be_empty(overlong_files(SOURCES))


def test_four_files_of_five_are_under_300_lines() -> None:
    must_be_empty(too_many_long_files(SOURCES))


def test_nothing_copyleft_is_imported() -> None:
    must_be_empty(copyleft_imports(SOURCES))


Rule = Callable[[tuple[Source, ...]], Iterator[str]]

PLANTED: tuple[tuple[Rule, str, str], ...] = (
    (unknown_rooms, "attic/box.py", ""),
    (imports_to_the_right, "policy/decide.py", "from cellwall.enforce import Point"),
    (imports_to_the_right, "agent/loop.py", "def late():\n    from cellwall.controller import Server"),
    (imports_to_the_right, "labels/index.py", "from ..policy import decide"),
    (imports_to_the_right, "labels/index.py", "from cellwall import policy"),
    (imports_to_the_right, "__main__.py", "import cellwall.lab"),
    (imports_past_the_door, "compile/full.py", "from cellwall.policy.parse import parse"),
    (imports_past_the_door, "compile/full.py", "import cellwall.policy.parse"),
    (impure_imports, "traffic/ports.py", "import os.path"),
    (impure_imports, "enforce/nft/render.py", "from time import monotonic"),
    (impure_calls, "policy/parse.py", "open('x')"),
    (impure_calls, "agent/core.py", "from datetime import datetime\ndatetime.now()"),
    (stray_concurrency, "controller/store/sql.py", "async def load(): ..."),
    (stray_concurrency, "observe/conntrack.py", "import threading"),
    (doors_without_a_sentence, "traffic/__init__.py", '"""One. Two."""'),
    (deep_files, "enforce/nft/wire/netlink.py", ""),
    (vague_names, "agent/utils.py", ""),
    (overlong_files, "agent/core.py", "x = 1\n" * 600),
    (too_many_long_files, "agent/core.py", "x = 1\n" * 300),
    (copyleft_imports, "enforce/nft/driver.py", "import nftables"),
)


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_breach_is_found(rule: Rule, path: str, text: str) -> None:
    found = list(rule((source(path, text),)))
    assert found
    assert all(re.match(r"src/cellwall/\S+:\d+: ", breach) for breach in found)


def third_party_modules(statement: str) -> set[str]:
    """The packages outside the standard library that `statement` loads in a fresh interpreter."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, f"`{statement}` fails:\n{ran.stderr}"
    return {name.split(".")[0] for name in ran.stdout.split()} - sys.stdlib_module_names


@pytest.mark.parametrize("room", ["agent", "cli"])
def test_the_agent_needs_nothing_beyond_its_own_lock(room: str) -> None:
    # The agent's install has the same `cellwall` command, so cli must load without typer and rich.
    if not (PACKAGE / room / "__init__.py").exists():
        pytest.skip(f"src/cellwall/{room} is not there yet")
    foreign = {name for name in third_party_modules(f"import cellwall.{room}") if name not in AGENT_PACKAGES}
    # `_openssl` is a part of cryptography; msgspec takes typing_extensions where it happens to be installed.
    foreign = {name for name in foreign if not name.startswith("_cffi")} - {"_openssl", "typing_extensions"}
    assert not foreign, f"src/cellwall/{room}/__init__.py:1: loads {sorted(foreign)}; import it where it is used"


def locked(name: str) -> dict[str, set[str]]:
    """The versions in requirements/`name`.txt: two where they differ by version of Python."""
    pins: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / f"{name}.txt").read_text("utf-8").splitlines():
        if pin := re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line):
            pins.setdefault(pin[1].lower().replace("_", "-"), set()).add(pin[2])
    return pins


def test_every_dependency_is_pinned_and_the_lock_agrees() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras: dict[str, list[str]] = project["project"]["optional-dependencies"]
    wanted: list[str] = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for extra in extras.values():
        wanted += extra
    dev = locked("dev")
    for requirement in wanted:
        name, _, version = re.sub(r"\[.*\]", "", requirement).partition("==")
        if name != "cellwall":
            assert version, f"pyproject.toml:1: `{requirement}` is not pinned; write `{name}==` and its version"
            assert dev.get(name.lower()) == {version}, f"pyproject.toml:1: `{requirement}` is not locked; `make lock`"


@pytest.mark.parametrize("name", ["agent", "controller", "analysis", "docs"])
def test_a_lock_differs_from_the_tested_one_only_in_length(name: str) -> None:
    dev = locked("dev")
    other = {package: versions for package, versions in locked(name).items() if dev.get(package, versions) != versions}
    assert not other, f"requirements/{name}.txt:1: {other} are not the tested versions; `make lock`"


def test_nothing_copyleft_is_locked() -> None:
    found = {name: sorted(locked(name).keys() & COPYLEFT) for name in ("dev", "docs")}
    assert not any(found.values()), f"requirements/dev.txt:1: {found} are under a copyleft licence; do without"


def test_no_file_names_a_path_of_one_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git work tree, so there is no list of files")
    # Put together here, or this file would be its own first finding.
    needles = [b"/" + word + b"/" for word in (b"work", b"root", b"opt/wheels")]
    needles += [b"pypi" + b".org", b"python" + b"hosted", b"npm" + b"js."]
    for name in filter(None, listed.stdout.split(b"\0")):
        path = ROOT / name.decode()
        for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else (), 1):
            for needle in needles:
                assert needle not in line, f"{name.decode()}:{number}: names `{needle.decode()}`; say it without"
