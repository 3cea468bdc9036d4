import pytest

from cellwall.analysis.linting.edits import apply_edits, difference_of
from cellwall.analysis.linting.findings import Edit, EditKind
from cellwall.policy import Place

BLOCK = """\
# the head stays
services:
  web: tcp/80   # gone with its line
  db: tcp/5432
rules:
  # about the first
  - id: a
    allow: web
    from:
      - role=x
      - role=y
    to: role=db  # why

  # about the second
  - id: b
    allow: db
    from: any
    to: any
    reason: >
      two
      lines
  -
    id: c
    allow: db
    reason:
    from: any
    to: any
modes: [{where: any, mode: guard}, {where: role=x, mode: enforce}]
"""


def edited(*edits: Edit, text: str = BLOCK) -> str:
    return apply_edits({"a.yaml": text}, edits)["a.yaml"]


def at(line: int, column: int) -> Place:
    return Place("a.yaml", line, column)


def remove(line: int, column: int) -> Edit:
    return Edit(EditKind.REMOVE, at(line, column))


def put(line: int, column: int, field: str, text: str) -> Edit:
    return Edit(EditKind.SET, at(line, column), field, text)


def test_an_item_goes_with_the_comments_right_above_it() -> None:
    told = edited(remove(7, 5))
    assert told == BLOCK[: BLOCK.index("  # about the first")] + BLOCK[BLOCK.index("\n  # about the second") :]


def test_an_item_that_ends_in_a_block_text_goes_whole() -> None:
    told = edited(remove(15, 5))
    assert told == BLOCK[: BLOCK.index("  # about the second")] + BLOCK[BLOCK.index("  -\n") :]


def test_an_item_whose_dash_stands_alone_goes_with_its_dash() -> None:
    told = edited(remove(23, 5))
    assert told == BLOCK[: BLOCK.index("  -\n")] + BLOCK[BLOCK.index("modes:") :]


def test_the_first_entry_of_a_mapping_goes_alone() -> None:
    assert edited(remove(3, 3)) == BLOCK.replace("  web: tcp/80   # gone with its line\n", "")


def test_a_list_below_its_key_becomes_text_beside_it() -> None:
    told = edited(put(7, 5, "from", "role=z"), put(7, 5, "to", "[a, b]"))
    assert "    from: role=z\n    to: [a, b]  # why\n" in told


def test_a_field_that_is_not_there_is_added_and_an_empty_text_takes_one_away() -> None:
    told = edited(put(7, 5, "same", "[app]"), put(15, 5, "reason", ""), put(23, 5, "reason", "yes"))
    assert "    to: role=db  # why\n    same: [app]\n" in told
    assert "two" not in told
    assert "    reason: yes\n" in told


def test_items_of_a_list_on_one_line_go_with_their_commas() -> None:
    text = "rules: [{id: a}, {id: b}, {id: c}]\n"
    assert edited(remove(1, 9), text=text) == "rules: [{id: b}, {id: c}]\n"
    assert edited(remove(1, 18), text=text) == "rules: [{id: a}, {id: c}]\n"
    assert edited(remove(1, 27), text=text) == "rules: [{id: a}, {id: b}]\n"
    assert edited(remove(1, 9), remove(1, 18), text=text) == "rules: [{id: c}]\n"
    assert edited(remove(1, 18), remove(1, 27), text=text) == "rules: [{id: a}]\n"
    assert edited(*(remove(1, column) for column in (9, 18, 27)), text=text) == "rules: []\n"
    assert edited(put(1, 9, "to", "any"), text=text) == "rules: [{id: a, to: any}, {id: b}, {id: c}]\n"


def test_all_items_of_a_list_in_lines_may_go() -> None:
    assert edited(remove(2, 5), remove(3, 5), text="rules:\n  - id: a\n  - id: b\nmodes: []\n") == "rules:\nmodes: []\n"


def test_a_value_is_replaced_where_it_stands() -> None:
    told = edited(Edit(EditKind.REPLACE, at(28, 17), text="role=z"))
    assert told.endswith("modes: [{where: role=z, mode: guard}, {where: role=x, mode: enforce}]\n")


def test_an_edit_inside_of_what_goes_is_not_made_and_the_first_of_two_is() -> None:
    assert edited(remove(7, 5), put(7, 5, "from", "x")) == edited(remove(7, 5))
    assert edited(put(7, 5, "from", "x"), put(7, 5, "from", "y")) == edited(put(7, 5, "from", "x"))


def test_an_edit_whose_place_is_not_there_is_left_out() -> None:
    elsewhere = Edit(EditKind.REMOVE, Place("b.yaml", 1, 1))
    edits = [remove(1, 1), put(90, 1, "from", "x"), Edit(EditKind.REPLACE, at(90, 1)), elsewhere]
    assert edited(*edits) == BLOCK
    assert edited(remove(1, 1), text="") == ""
    assert edited(put(1, 4, "x", "y"), text="a: [b]\n") == "a: [b]\n"
    assert edited(put(1, 5, "x", "y"), text="a: [b]\n") == "a: [b]\n"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\u2028"])
def test_lines_may_end_in_any_way(newline: str) -> None:
    text = newline.join(["rules:", "- id: a", "- id: b  # ä", "- id: c", ""])
    assert edited(remove(3, 3), text=text) == text.replace(f"- id: b  # ä{newline}", "")


def test_the_difference_is_a_unified_diff() -> None:
    told = difference_of({"a.yaml": "x\ny\n", "b.yaml": "z"}, {"a.yaml": "x\n", "b.yaml": "w"})
    assert told == (
        "--- a/a.yaml\n+++ b/a.yaml\n@@ -1,2 +1 @@\n x\n-y\n"
        "--- a/b.yaml\n+++ b/b.yaml\n@@ -1 +1 @@\n-z\n\\ No newline at end of file\n+w\n\\ No newline at end of file\n"
    )
