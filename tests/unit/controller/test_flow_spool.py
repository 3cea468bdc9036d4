"""The spool keeps what it took until it is in the tables, and knows it again afterwards."""

from pathlib import Path

from cellwall.controller.store.flows.spool import PORTION_ROWS, REMEMBERED, REMEMBERED_EACH, Batch, Spool


def batch(name: str, rows: int = 1) -> Batch:
    return Batch(name, rows, f"columns of {name}".encode())


def test_what_waits_is_one_portion_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    assert spool.cut() is None
    spool.take([batch("a/1", 3), batch("b/1")])
    spool.take([batch("a/2")])
    assert spool.rows == 5
    portion = spool.cut()
    assert portion is not None
    assert portion.columns == (b"columns of a/1", b"columns of b/1", b"columns of a/2")
    spool.done(portion)
    assert (spool.rows, spool.cut()) == (0, None)


def test_a_portion_stays_the_same_until_it_is_done_whatever_comes_and_whoever_dies(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    spool.take([batch("a/1"), batch("a/2")])
    portion = spool.cut()
    spool.take([batch("a/3")])
    assert spool.cut() == portion
    spool.close()
    again = Spool(tmp_path / "spool.db")
    assert (again.cut(), again.rows) == (portion, 3)
    assert portion is not None
    again.done(portion)
    after = again.cut()
    assert after is not None
    assert (after.columns, after.token != portion.token) == ((b"columns of a/3",), True)


def test_a_batch_is_known_again_while_it_waits_and_afterwards(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    for _ in range(3):
        spool.take([batch("a/1"), batch("a/1")])
    assert spool.rows == 1
    portion = spool.cut()
    assert portion is not None
    spool.done(portion)
    spool.close()
    again = Spool(tmp_path / "spool.db")
    again.take([batch("a/1")])
    assert (again.rows, again.cut()) == (0, None)


def test_portions_are_bounded_but_a_large_batch_is_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    half = PORTION_ROWS // 2
    spool.take([batch("a/1", half), batch("a/2", half), batch("a/3", 3 * half), batch("a/4", 1)])
    sizes: list[int] = []
    while (portion := spool.cut()) is not None:
        sizes.append(len(portion.columns))
        spool.done(portion)
    assert sizes == [2, 1, 1]


def test_the_last_names_of_each_sender_stay_however_much_the_others_send(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    each, all_of_them = REMEMBERED_EACH, REMEMBERED
    spool.take([batch(f"quiet/{number}") for number in range(each + 1)])
    for start in range(0, 2 * all_of_them, all_of_them // 2):
        spool.take([batch(f"loud/{number}") for number in range(start, start + all_of_them // 2)])
        portion = spool.cut()
        assert portion is not None
        spool.done(portion)
    spool.take([batch(f"quiet/{number}") for number in range(each + 1)])
    assert spool.rows == 1
    spool.take([batch(f"loud/{number}") for number in range(2 * all_of_them)])
    assert 1 < spool.rows <= 1 + all_of_them


def test_two_spools_never_give_a_token_twice(tmp_path: Path) -> None:
    tokens: set[str] = set()
    for name in ("one.db", "two.db"):
        spool = Spool(tmp_path / name)
        for number in range(3):
            spool.take([batch(f"a/{number}")])
            portion = spool.cut()
            assert portion is not None
            tokens.add(portion.token)
            spool.done(portion)
    assert len(tokens) == 6
