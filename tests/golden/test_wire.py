"""Every number of the protocol's history: its messages, byte for byte, are understood for as long as we speak it.

`wire/protocol_N.json` holds one message of every kind as protocol N has it, and what it says. Those of numbers before
the newest are never written again: they were sent by programs that still run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from tests.golden.test_nft import REWRITE, compare
from tests.golden.wire_examples import KEY, NAME, examples, plain

from cellwall.wire import (
    DIGESTS,
    HISTORY,
    NEWEST,
    OLDEST,
    Bundle,
    MemberChange,
    WireError,
    agree,
    decode_enrol,
    decode_enrolment_reply,
    decode_from_agent,
    decode_from_controller,
    decode_members,
    decode_ruleset,
    encode,
    verify,
)

FOLDER = Path(__file__).parent / "wire"
READERS = (decode_from_agent, decode_from_controller, decode_enrol, decode_enrolment_reply)
VERIFY_KEY = KEY.public_key().public_bytes_raw()


def golden(number: int) -> dict[str, dict[str, Any]]:
    return json.loads((FOLDER / f"protocol_{number}.json").read_text("utf-8"))


def read(data: bytes) -> Any:
    """Read a message by whichever reader takes it."""
    for reader in READERS:
        try:
            return reader(data)
        except WireError:
            continue
    raise AssertionError(f"nobody understands {data.hex()}")


def covers(found: Any, told: Any) -> bool:
    """Say whether `found` says all that `told` does, and perhaps more."""
    if isinstance(told, dict) and isinstance(found, dict):
        fields, wanted = cast("dict[str, Any]", found), cast("dict[str, Any]", told)
        return all(key in fields and covers(fields[key], one) for key, one in wanted.items())
    if isinstance(told, list) and isinstance(found, list):
        ones, others = cast("list[Any]", found), cast("list[Any]", told)
        return len(ones) == len(others) and all(map(covers, ones, others))
    return found == told


def test_there_is_a_golden_file_for_every_number_of_the_history() -> None:
    if REWRITE:
        told = {name: {"value": plain(one), "bytes": encode(one).hex()} for name, one in examples(NEWEST).items()}
        (FOLDER / f"protocol_{NEWEST}.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    assert {path.stem for path in FOLDER.glob("*.json")} == {f"protocol_{number}" for number in HISTORY}


@pytest.mark.parametrize("number", HISTORY)
def test_what_an_older_end_says_is_understood(number: int) -> None:
    for name, one in golden(number).items():
        assert covers(plain(read(bytes.fromhex(one["bytes"]))), one["value"]), name


@pytest.mark.parametrize("number", HISTORY)
def test_what_an_older_controller_signed_is_verified_and_opened(number: int) -> None:
    told = golden(number)
    bundle, change = (read(bytes.fromhex(told[name]["bytes"])) for name in ("bundle", "change"))
    assert isinstance(bundle, Bundle) and isinstance(change, MemberChange)
    assert verify(bundle, VERIFY_KEY, NAME) is bundle and verify(change, VERIFY_KEY, NAME) is change
    if number >= DIGESTS:
        one = read(bytes.fromhex(told["bundle digested"]["bytes"]))
        assert verify(one, VERIFY_KEY, NAME) is one
    assert decode_ruleset(bundle.ruleset).workload == NAME
    assert decode_members(bundle.members) and decode_members(change.added)


@pytest.mark.parametrize("number", HISTORY)
def test_what_we_say_to_an_older_end_has_all_that_it_knows_under_the_same_names(number: int) -> None:
    """An older end ignores names that it does not know; what it knows must be there, be of the same kind, and signed so
    that it can check it."""
    old, new = golden(number), examples(number)
    for name, one in old.items():
        # As it travels: what has its default may be left out, and is then filled in by whoever reads.
        raw_old, raw_new = (msgspec.msgpack.decode(data) for data in (bytes.fromhex(one["bytes"]), encode(new[name])))
        assert covers(_readable(raw_new), _readable(raw_old)), name
    for name in {"bundle", "bundle digested", "change"} & old.keys():
        assert encode(new[name]) == bytes.fromhex(old[name]["bytes"]), "an older agent checks the very bytes"
    receipts = {name for name in new if name.startswith("receipt ")}
    assert receipts == {name for name in old if name.startswith("receipt ")}, "it would not understand another state"


def _readable(value: Any) -> Any:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {key: _readable(one) for key, one in fields.items() if key not in ("newest", "protocol")}
    return [_readable(one) for one in cast("list[Any]", value)] if isinstance(value, list) else value


def test_ends_agree_on_the_newest_number_that_both_speak() -> None:
    for number in HISTORY:
        assert agree(OLDEST, number) == number
    assert agree(OLDEST, NEWEST + 5) == NEWEST
    with pytest.raises(WireError, match="upgrade this side"):
        agree(NEWEST + 1, NEWEST + 2)
    with pytest.raises(WireError, match="upgrade the peer"):
        agree(OLDEST - 1, OLDEST - 1)


def test_the_newest_messages_are_the_golden_ones() -> None:
    told = {name: {"value": plain(one), "bytes": encode(one).hex()} for name, one in examples(NEWEST).items()}
    compare(FOLDER / f"protocol_{NEWEST}.json", json.dumps(told, indent=1) + "\n")
