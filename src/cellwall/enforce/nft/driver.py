"""The table in the kernel of this network namespace: read back, applied, collected."""

from __future__ import annotations

import json
import math
import os
import pwd
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cellwall.clients import KernelError
from cellwall.compile import Members, OrderCard, Ruleset
from cellwall.enforce.nft.applied import PEERS, Applied, make_applied
from cellwall.enforce.nft.element import Add, Branch, Delete, Element, ElementChange, Fill, goto, jump
from cellwall.enforce.nft.elements import change, comments, describe, dump, open_link, table_exists
from cellwall.enforce.nft.keys import SEEN_SETS, as_marks, decode_seen, encode
from cellwall.enforce.nft.portions import portions, undone
from cellwall.enforce.nft.program import TABLE, Data, Goto, Jump, Key, MapShape, Program
from cellwall.enforce.nft.render import Local, Unit
from cellwall.enforce.nft.script import build_script, scripts, sweep_script, switch_script
from cellwall.enforce.nft.steps import Names, Steps, plan_steps
from cellwall.enforce.point import Drift, Held, Interim, Leave, Receipt, Refused, Seen, Spell
from cellwall.policy import Action, Mode, OrderKind

_ABOUT = re.compile(r"cellwall revision (\d+) mode (\w+) digest (\w*) workload (\S+)")
_KINDS = "|".join((*Action, *OrderKind))
_RULE_COMMENT = re.compile(rf"(?:(?:{_KINDS}) (\S+)|no rule matches)")
_SYSTEM_CGROUPS = Path("/sys/fs/cgroup")
NFT_TIMEOUT_S = 120
ENDING_S = 1.0
"""The kernel counts down on a clock of its own, which nobody sets: so far may it be from ours."""


class NftPoint:
    """The host point. One object owns the table; what it applied last is what it compares with.

    `cgroup_mount` is where the cgroup v2 tree is mounted (`cellwall.observe.cgroup_mount`); without it no unit can
    be told. `cgroup_root` is the folder below which the units of this workload are found; by default all of it.
    `clock` is the one by which what ends by itself is said to end.
    """

    def __init__(
        self,
        cgroup_mount: Path | None = None,
        cgroup_root: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._cgroup_mount = cgroup_mount
        self._cgroup_root = cgroup_root or cgroup_mount
        self._link = open_link()
        self._program: Program | None = None
        self._applied: Applied | None = None
        self._text = ""
        self._counts: dict[tuple[str, bytes], tuple[int, int]] = {}
        self._lost = 0
        self.transactions = 0
        """How many transactions this object has made; one that was refused is none."""

    # --- apply ---

    def prepare(self, ruleset: Ruleset, members: Members) -> None:
        """Have nft check the change without making it. Raises `Refused`."""
        applied = make_applied(ruleset, members, (), self._local(ruleset), self._applied)
        steps = self._plan(applied)
        # The steps build on each other, and a check leaves nothing behind: check them as one.
        _nft_script("".join(scripts(steps)), check=True)

    def apply(self, ruleset: Ruleset | None, members: Members, interims: tuple[Interim, ...] = ()) -> Receipt:
        """Make the table hold exactly this. Raises `Refused`; then packets meet what they met before.

        Three transactions (see `steps.py`); the second alone changes what happens to packets. What ends by itself
        does so by the kernel's own clock, counted from here.
        """
        rulesets = (ruleset, *(one.ruleset for one in interims))
        local = self._local(*(one for one in rulesets if one is not None))
        return self._hold(make_applied(ruleset, members, interims, local, self._applied))

    def _hold(self, applied: Applied) -> Receipt:
        if self._program is not None and not table_exists(TABLE, link=self._link):
            self.forget()
        if self._program is None:
            return self._apply(applied)
        try:
            return self._apply(applied)
        except Refused:
            # Somebody took away what we count on: write all of it anew, by nothing but the names that are there.
            self.forget()
            return self._apply(applied)

    def _apply(self, applied: Applied) -> Receipt:
        how = self._make(applied)
        self._applied = applied
        return Receipt(applied.top.digest, how)

    def _make(self, applied: Applied) -> str:
        """Make the table hold it, and say how. Raises `Refused`."""
        steps = self._plan(applied)
        if steps.switches:
            how = "refill"
            try:
                self._build(steps)
                self._in_turn(switch_script(steps))
            except Refused:
                # What was built and is not used goes with the next change that knows of it.
                self.forget()
                raise
            self._in_turn(sweep_script(steps))
        else:
            changes: list[ElementChange] = []
            for name, keys in steps.gone.items():
                changes += [Delete(name, encode(steps.program.shapes[name], key)[0]) for key in keys]
            for name in steps.come:
                changes += _additions(steps, name, self._clock())
            how = "elements" if changes else "none"
            self._send(changes)
        self._program = steps.program
        if how == "refill":
            self._text = self._listing()
        return how

    def _build(self, steps: Steps) -> None:
        """Put what is new beside what is there; single values may be a hundred thousand, so not as text.

        Nor what ends by itself, which goes first: so long as it takes to write it, it would last longer."""
        shapes = steps.program.shapes
        places = [name for name in steps.come if shapes[name].until is not None or not shapes[name].interval]
        places.sort(key=lambda name: shapes[name].until is None)
        self._in_turn(build_script(steps, leave_out=places))
        self._fill([one for name in places for one in _additions(steps, name, self._clock())])

    def _in_turn(self, *transactions: str) -> None:
        for script in transactions:
            if script:
                _nft_script(script)
                self.transactions += 1

    def _plan(self, applied: Applied) -> Steps:
        held = self._program if self._program is not None else self._names()
        return plan_steps(held, applied.parts[0].program, applied.layers)

    def apply_members(self, added: Mapping[bytes, int], removed: Iterable[bytes]) -> None:
        """Change who is where by element. Raises `Refused`; then the kernel is as it was."""
        if self._program is None or self._applied is None:
            raise Refused("members change before anything was applied")
        program, applied = self._program, self._applied
        members = applied.top.members
        gone = [packed for packed in removed if packed in members and packed not in added]
        moved = [packed for packed, number in added.items() if members.get(packed, number) != number]
        come = {packed: number for packed, number in added.items() if members.get(packed) != number}
        place = {size: program.names[name] for size, name in PEERS.items()}
        changes: list[ElementChange] = [Delete(place[len(packed)], packed) for packed in (*gone, *moved)]
        changes += [Add(place[len(packed)], packed, number) for packed, number in come.items()]
        try:
            if self._is_shared({len(packed) for packed in (*gone, *come)}):
                raise Refused("what lasts has the same members, and keeps them")
            self._send(changes)
        except Refused:
            wanted = {packed: number for packed, number in members.items() if packed not in gone} | come
            self._hold(self._with_members(applied, wanted))
            return
        for packed in (*gone, *moved):
            members.pop(packed, None)
        members.update(come)
        for size, name in place.items():
            held = {id(one): one for one in (program.elements[name], *(part.peers(size) for part in applied.sharing()))}
            for elements in held.values():
                assert isinstance(elements, dict)
                for packed in gone:
                    if len(packed) == size:
                        elements.pop(_peer_key(packed), None)
                for packed, number in come.items():
                    if len(packed) == size:
                        elements[_peer_key(packed)] = number

    def _is_shared(self, sizes: Iterable[int]) -> bool:
        """Say whether maps of these addresses are also those of a part that has members of its own."""
        program, applied = self._program, self._applied
        assert program is not None and applied is not None
        others = [
            names
            for names, part in zip((*program.spare, program.names), applied.parts, strict=True)
            if part.members is not applied.top.members
        ]
        return any(names.get(PEERS[size]) == program.names[PEERS[size]] for names in others for size in sizes)

    @staticmethod
    def _with_members(applied: Applied, wanted: dict[bytes, int]) -> Applied:
        """Give it anew with other members of what decides."""
        given = [wanted if one.members is applied.top.members else one.members for one in applied.parts]
        interims = [replace(one, members=of) for one, of in zip(applied.interims, given[1:], strict=True)]
        return make_applied(applied.parts[0].ruleset, given[0], interims, applied.local, applied)

    def apply_orders(self, orders: tuple[OrderCard, ...]) -> None:
        """Put these in place of the orders there are. Raises `Refused`; then the kernel is as it was."""
        if self._program is None or self._applied is None:
            raise Refused("orders change before anything was applied")
        after = self._applied.with_orders(orders)
        try:
            self._apply(after)
        except Refused:
            # Somebody took away what we count on.
            self._hold(after)

    def refresh_local(self) -> bool:
        """Look again for users and units, which come and go; apply where that changes anything, and say so."""
        applied = self._applied
        if applied is None:
            return False
        local = self._local(*(one.ruleset for one in applied.parts if one.ruleset is not None))
        if local == applied.local:
            return False
        lasting = applied.parts[0]
        after = make_applied(lasting.ruleset, lasting.members, applied.interims, local, applied)
        return self._hold(after).change != "none"

    def forget(self) -> None:
        """Forget what was applied: the next `apply` writes everything again, whatever the table holds."""
        self._program = None
        self._text = ""

    def _fill(self, additions: list[ElementChange]) -> None:
        """Put elements in, a portion at a time: no packet minds whether they come at once. All of them or none."""
        done: list[ElementChange] = []
        try:
            for portion in portions(additions):
                self._send(portion)
                done += portion
        except Refused:
            for portion in portions(undone(done)):
                self._send(portion)
            raise

    def _send(self, changes: list[ElementChange]) -> None:
        if not changes:
            return
        try:
            change(TABLE, changes, link=self._link)
        except KernelError as error:
            raise Refused(str(error)) from None
        self.transactions += 1

    def _names(self) -> Names | None:
        """Read the names of what the table holds, for an object without memory of it."""
        if not table_exists(TABLE, link=self._link):
            return None
        maps: dict[str, bool] = {}
        chains: set[str] = set()
        for kind, one in self._objects():
            if kind in {"map", "set"}:
                maps[one["name"]] = kind == "map"
            elif kind == "chain":
                chains.add(one["name"])
        return Names(maps, frozenset(chains))

    # --- what the host knows of itself ---

    def _local(self, *rulesets: Ruleset) -> Local:
        asked = [face.identity for ruleset in rulesets for face in ruleset.faces if face.identity]
        users: dict[str, int] = {}
        for user in {one.user for one in asked if one.user is not None}:
            try:
                users[user] = pwd.getpwnam(user).pw_uid
            except KeyError:
                continue
        units = {one.unit for one in asked if one.unit is not None}
        return Local(users, self._units(units) if units else {})

    def _units(self, names: set[str]) -> dict[str, Unit]:
        mount, root = self._cgroup_mount, self._cgroup_root
        if mount is None or root is None:
            return {}
        found: dict[str, Unit] = {}
        for folder, below, _ in os.walk(root):
            below.sort()
            for name in names.intersection(below):
                path = Path(folder) / name
                below_mount = path.relative_to(mount)
                system = path.relative_to(_SYSTEM_CGROUPS)
                found.setdefault(name, Unit(path.stat().st_ino, len(below_mount.parts), str(system)))
            if len(found) == len(names):
                break
        return found

    # --- read back ---

    def read_back(self) -> Held | None:
        """Say what the table holds, from its own words; None where there is no table of ours."""
        if not table_exists(TABLE, link=self._link):
            return None
        for chain in (*(f"about_{one}" for one in reversed(Spell) if self._lasts(one)), "about"):
            for comment in self._comments(chain):
                if about := _ABOUT.match(comment):
                    return Held(int(about[1]), Mode(about[2]), about[3], about[4])
        return Held(0, Mode.OBSERVE, "", "")

    def _lasts(self, why: Spell) -> bool:
        """Say whether packets are led to what is only for a while."""
        if not self._comments(f"about_{why}"):
            return False
        maps = self._program.shapes if self._program is not None else (self._names() or Names()).maps
        return any(self._dump(name) for name in maps if name.startswith(f"{why}_in"))

    def verify(self) -> tuple[Drift, ...]:
        """Compare the table with what was last applied, chains by nft's own listing, elements one by one."""
        program = self._program
        if program is None:
            return (Drift("table", "nothing was applied yet"),)
        if not table_exists(TABLE, link=self._link):
            return (Drift("table", "the table is gone"),)
        found: list[Drift] = []
        listing = self._listing()
        if listing != self._text:
            ours, theirs = self._text.splitlines(), listing.splitlines()
            changed = sorted(set(ours) ^ set(theirs))
            found.append(Drift("chains", changed[0].strip() if changed else "the rules are in another order"))
        now = self._clock()
        for name, shape in program.shapes.items():
            if not shape.data or name not in listing or _is_ending(shape, now):
                continue
            wanted = {(*encode(shape, key), _netlink(data)) for key, data in program.elements[name].items()}
            held = {(e.key, e.key_end, e.data) for e in self._dump(name)}
            if not shape.interval:
                held = {(key, None, data) for key, _, data in held}
            if held != wanted:
                found.append(
                    Drift(name, f"{len(wanted - held)} elements are missing, {len(held - wanted)} are foreign")
                )
        return tuple(found)

    def listing(self) -> str:
        """Give the whole table as nft lists it."""
        return _nft(["list", "table", "inet", TABLE], quiet=True)

    def _listing(self) -> str:
        # Asked for one table, nft 1.0.6 fetches every element of it, even if it is not to show any: a second and
        # more at 100,000. Asked for all tables it does not; but then a foreign one may be what makes it abort.
        _, found, rest = _nft(["-s", "-t", "list", "ruleset", "inet"], quiet=True).partition(f"table inet {TABLE} {{\n")
        ours, ended, _ = rest.partition("\n}\n")
        return found + ours + ended if ended else _nft(["-s", "-t", "list", "table", "inet", TABLE])

    def _objects(self, *, quiet: bool = False) -> Iterable[tuple[str, dict[str, Any]]]:
        """Give what the table holds as nft's JSON has it, without elements."""
        text = _nft(["-j", "-t", "list", "ruleset", "inet"], quiet=True)
        return _objects(text or _nft(["-j", "-t", "list", "table", "inet", TABLE], quiet=quiet))

    def _comments(self, chain: str) -> list[str]:
        try:
            return comments(TABLE, chain, link=self._link)
        except KernelError:
            return []

    def _dump(self, name: str) -> list[Element]:
        try:
            return dump(TABLE, name, link=self._link)
        except KernelError:
            return []

    # --- flows ---

    def collect(self) -> tuple[Seen, ...]:
        """Give the tuples that were counted since the last call, with how often; nothing is lost in between.

        A tuple's element lives for ten minutes after its last packet; one that came anew in the meantime counts
        from nothing, which its later expiry shows.
        """
        found: list[Seen] = []
        counts: dict[tuple[str, bytes], tuple[int, int]] = {}
        for name in SEEN_SETS:
            elements = self._dump(name)
            for element in elements:
                packets, expires = element.packets or 0, element.expires_ms or 0
                before, expired = self._counts.get((name, element.key), (0, 0))
                counts[name, element.key] = packets, expires
                anew = packets < before or (packets == before and expires > expired)
                more = packets if anew else packets - before
                if more:
                    seen = decode_seen(name, element.key, more)
                    if seen is not None:
                        found.append(seen)
            if elements:
                shape = describe(TABLE, name, link=self._link)
                self._lost += bool(shape.size and len(elements) >= shape.size)
        self._counts = counts
        return tuple(found)

    def losses(self) -> int:
        """Say in how many collections a counting set was full, so that tuples may be missing."""
        return self._lost

    def counters(self) -> dict[str, tuple[int, int]]:
        """Give packets and bytes by rule id, and `default`."""
        found: dict[str, tuple[int, int]] = {}
        program = self._program or Program()
        idle = {place for names in program.spare for place in names.values()} - set(program.names.values())
        for kind, one in self._objects(quiet=True):
            if kind != "rule":
                continue
            counter = next((part["counter"] for part in one["expr"] if "counter" in part), None)
            named = _RULE_COMMENT.match(one.get("comment", ""))
            # Orders are those of all that stands in the table; rules are those of what decides.
            if counter and named and (one["chain"] not in idle or named[0].split()[0] in set(OrderKind)):
                found[named[1] or "default"] = counter["packets"], counter["bytes"]
        return found

    # --- the end ---

    def remove(self, leave: Leave) -> None:
        """Leave the host: the rules stay, all go, or only lifelines pass."""
        if leave is Leave.OPEN:
            if table_exists(TABLE, link=self._link):
                _nft_script(f"delete table inet {TABLE}\n")
            self.forget()
        elif leave is Leave.CLOSE:
            held = self._applied.top.ruleset if self._applied else None
            lifelines = held.lifelines if held else ()
            self.apply(Ruleset("closed", 0, Mode.ENFORCE, lifelines=lifelines), {})

    def close(self) -> None:
        """Close the socket to the kernel; the table stays."""
        self._link.close()


def _peer_key(packed: bytes) -> Key:
    value = int.from_bytes(packed, "big")
    return ((value, value),)


def _additions(steps: Steps, name: str, now: float) -> Iterable[ElementChange]:
    shape = steps.program.shapes[name]
    marks = as_marks(shape, steps.come[name]) if shape.until is None else None
    if marks is not None:
        return (Fill(name, marks),)
    left_ms = None if shape.until is None else math.ceil((shape.until - now) * 1000)
    if left_ms is not None and left_ms <= 0:
        return ()
    return (Add(name, encode(shape, key)[0], _netlink(data), timeout_ms=left_ms) for key, data in steps.come[name])


def _is_ending(shape: MapShape, now: float) -> bool:
    """Say whether elements may be gone of themselves: that is no drift."""
    return shape.until is not None and now >= shape.until - ENDING_S


def _netlink(data: Data) -> int | Branch:
    match data:
        case Goto(chain):
            return goto(chain)
        case Jump(chain):
            return jump(chain)
        case _:
            return data


def _objects(text: str) -> Iterable[tuple[str, dict[str, Any]]]:
    if not text:
        return
    for entry in json.loads(text)["nftables"]:
        for kind, one in entry.items():
            if one.get("table") == TABLE:
                yield kind, one


def _nft(arguments: list[str], *, quiet: bool = False) -> str:
    """Run nft(8). Raises `Refused` with its first complaint; `quiet` gives an empty text instead."""
    done = _run(arguments)
    if done.returncode == 0:
        return done.stdout
    if quiet:
        return ""
    raise Refused(f"nft refused: {_complaint(done)}")


def _nft_script(script: str, *, check: bool = False) -> None:
    """Have nft(8) make the transaction `script`, or only check it. Raises `Refused`; then nothing was changed."""
    # Not by a pipe: were we killed halfway through writing, nft would take the half for the whole.
    with os.fdopen(os.memfd_create("nft"), "wb") as file:
        file.write(script.encode())
        file.flush()
        done = _run([*(["-c"] if check else []), "-f", f"/dev/fd/{file.fileno()}"], (file.fileno(),))
    if done.returncode == 0:
        return
    complaint = _complaint(done)
    place = re.match(r"/dev/fd/\d+:(\d+):[^ ]* ", complaint)
    if place is None:
        raise Refused(f"nft refused: {complaint}")
    line = script.splitlines()[int(place[1]) - 1][:160]
    raise Refused(f"nft refused: {complaint[place.end() :]} in `{line}`")


def _run(arguments: list[str], files: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["nft", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=NFT_TIMEOUT_S,
            pass_fds=files,
        )
    except FileNotFoundError:
        raise Refused("`nft` is not installed; install the package nftables") from None
    except subprocess.TimeoutExpired:
        raise Refused(f"nft did not answer within {NFT_TIMEOUT_S} s") from None


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    return next((line.strip() for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}")
