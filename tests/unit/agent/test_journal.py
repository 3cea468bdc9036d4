"""What the agent keeps on disk, cut short and spoilt at every byte."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from tests.unit.agent.bundles import WORKLOAD, bundle, change, public_key

from cellwall.agent.bundle import Bundle, amend
from cellwall.agent.events import SaveJournal, Started
from cellwall.agent.journal import Journal, JournalError
from cellwall.wire import encode


def journal(folder: Path) -> Journal:
    return Journal(folder, WORKLOAD, public_key())


def keys(started: Started) -> tuple[str | None, str | None, float]:
    good, trial = started.good, started.trial
    return good and good.holding.digest, trial and trial.holding.digest, started.until


def test_nothing_saved_is_nothing_loaded(tmp_path: Path) -> None:
    assert journal(tmp_path).load() == Started()


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    good, trial = bundle(1), bundle(2, 30.0)
    journal(tmp_path).save(SaveJournal(good, trial, 1234.5, 7))
    assert journal(tmp_path).load() == Started(good, trial, 1234.5, 7, issued=trial.issued_at)


def test_it_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    one = journal(tmp_path)
    one.save(SaveJournal(bundle(1), None, 0.0, 1))
    assert stat.S_IMODE(one.path.stat().st_mode) == 0o600


def with_changes(folder: Path, good: Bundle, count: int) -> tuple[Journal, list[Bundle]]:
    one, states = journal(folder), [good]
    one.save(SaveJournal(good, None, 0.0, good.generation))
    for number in range(count):
        told = change(states[-1], {b"\x0a\0\1" + bytes((number,)): 7})
        one.append(encode(told))
        states.append(amend(states[-1], (told,)))
    return one, states


def test_changes_are_added_to_what_was_saved(tmp_path: Path) -> None:
    _, states = with_changes(tmp_path, bundle(1), 5)
    loaded = journal(tmp_path).load()
    assert loaded.good == states[-1] and loaded.highest == 6


def test_changes_belong_to_the_trial_where_there_is_one(tmp_path: Path) -> None:
    good, trial = bundle(1), bundle(2, 30.0)
    one = journal(tmp_path)
    one.save(SaveJournal(good, trial, 99.0, 2))
    told = change(trial, {b"\x0a\0\1\1": 7})
    one.append(encode(told))
    loaded = journal(tmp_path).load()
    assert loaded.good == good and loaded.trial == amend(trial, (told,))


def test_amended_members_survive_a_save(tmp_path: Path) -> None:
    one, states = with_changes(tmp_path, bundle(1), 3)
    one.save(SaveJournal(states[-1], None, 0.0, 4))
    assert journal(tmp_path).load().good == states[-1]


def test_it_goes_on_after_a_load(tmp_path: Path) -> None:
    _, states = with_changes(tmp_path, bundle(1), 2)
    again = journal(tmp_path)
    again.load()
    told = change(states[-1], {b"\x0a\0\2\1": 7})
    again.append(encode(told))
    assert journal(tmp_path).load().good == amend(states[-1], (told,))


def test_cut_short_at_any_byte_it_gives_a_state_that_was_saved(tmp_path: Path) -> None:
    one, states = with_changes(tmp_path, bundle(1), 3)
    whole = one.path.read_bytes()
    saved = {state.holding.digest for state in states}
    base = len(whole_base(tmp_path, states[0]))
    for size in range(len(whole)):
        one.path.write_bytes(whole[:size])
        started = journal(tmp_path).load()
        digest = started.good and started.good.holding.digest
        assert digest is None or digest in saved
        if size >= base:
            assert digest is not None and not started.damage, "an append that was cut short counts as not made"
        else:
            assert started.damage, "a save that was cut short cannot be: it is renamed into place"
            assert (tmp_path / "journal.damaged").read_bytes() == whole[:size]


def whole_base(folder: Path, good: Bundle) -> bytes:
    beside = folder / "beside"
    beside.mkdir()
    one = journal(beside)
    one.save(SaveJournal(good, None, 0.0, good.generation))
    return one.path.read_bytes()


def test_spoilt_at_any_byte_it_is_set_aside_and_said_and_never_believed(tmp_path: Path) -> None:
    one, states = with_changes(tmp_path, bundle(1), 2)
    whole = one.path.read_bytes()
    saved = {state.holding.digest for state in states}
    base = len(whole_base(tmp_path, states[0]))
    for at in range(len(whole)):
        one.path.write_bytes(whole[:at] + bytes((whole[at] ^ 0x41,)) + whole[at + 1 :])
        started = journal(tmp_path).load()
        assert started.good is None or started.good.holding.digest in saved
        assert started.damage or at >= base, "a change with a wrong length looks like one that was cut short"
        # What was saved in its place is whole.
        assert not journal(tmp_path).load().damage


def test_an_append_after_a_torn_one_is_whole(tmp_path: Path) -> None:
    one, states = with_changes(tmp_path, bundle(1), 1)
    with one.path.open("ab") as file:
        file.write(b"\0\0\0\x40half a record")
    told = change(states[-1], {b"\x0a\0\2\1": 7})
    one.append(encode(told))
    assert journal(tmp_path).load().good == amend(states[-1], (told,))


def test_what_another_key_signed_is_not_believed(tmp_path: Path) -> None:
    one = journal(tmp_path)
    one.save(SaveJournal(bundle(1), None, 0.0, 1))
    started = Journal(tmp_path, WORKLOAD, bytes(32)).load()
    assert started.good is None and "not signed" in started.damage


def test_what_is_for_another_workload_is_not_believed(tmp_path: Path) -> None:
    journal(tmp_path).save(SaveJournal(bundle(1), None, 0.0, 1))
    started = Journal(tmp_path, "db", public_key()).load()
    assert started.good is None and "`web`" in started.damage


def test_a_file_that_is_none_of_ours_is_said(tmp_path: Path) -> None:
    journal(tmp_path).path.write_bytes(b"what is this")
    assert "begin" in journal(tmp_path).load().damage


def test_a_folder_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    one = journal(tmp_path / "missing")
    with pytest.raises(JournalError, match="no such file"):
        one.save(SaveJournal(None, None, 0.0, 0))
    with pytest.raises(JournalError, match="no such file"):
        one.append(b"x")


def test_a_full_disk_leaves_what_was_saved(tmp_path: Path) -> None:
    one, states = with_changes(tmp_path, bundle(1), 1)
    (tmp_path / "journal.new").mkdir()
    with pytest.raises(JournalError):
        one.save(SaveJournal(bundle(5), None, 0.0, 5))
    assert journal(tmp_path).load().good == states[-1]


def test_it_says_when_it_has_grown(tmp_path: Path) -> None:
    one, _ = with_changes(tmp_path, bundle(1), 1)
    assert not one.grown
    for _ in range(9):
        one.append(bytes(1 << 17))
    assert one.grown
    one.save(SaveJournal(bundle(1), None, 0.0, 1))
    assert not one.grown


def test_erased_it_is_gone(tmp_path: Path) -> None:
    one, _ = with_changes(tmp_path, bundle(1), 1)
    one.erase()
    one.erase()
    assert journal(tmp_path).load() == Started()
