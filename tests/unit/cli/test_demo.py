from pathlib import Path

import pytest
from rich.console import Console

from cellwall.cli.demo.stage import Broken, Stage, last_page
from cellwall.cli.demo.story import _renamed  # pyright: ignore[reportPrivateUsage]


def stage(folder: Path) -> Stage:
    return Stage(folder, Console(width=100, color_system=None, quiet=True))


def test_a_kept_promise_goes_on_the_last_page(tmp_path: Path) -> None:
    played = stage(tmp_path)
    played.step("It is enforced")
    played.promise("every point has it", True, "18 of 18")
    played.number("points", 18)
    page = last_page(played, "")
    assert "Every promise was kept." in page
    assert "| every point has it | yes | 18 of 18 |" in page and "| points | 18 |" in page


def test_a_broken_promise_ends_the_story_and_is_named(tmp_path: Path) -> None:
    played = stage(tmp_path)
    with pytest.raises(Broken, match="no legitimate request failed: 7 failed"):
        played.promise("no legitimate request failed", False, "7 failed")
    page = last_page(played, "broken promise")
    assert "**It failed.** broken promise" in page and "| **no** | 7 failed |" in page


def test_the_last_page_names_the_files_beside_it(tmp_path: Path) -> None:
    played = stage(tmp_path)
    played.write("map.svg", "<svg/>")
    assert "`map.svg`" in last_page(played, "")


def test_the_demonstration_has_a_lab_of_its_own() -> None:
    assert _renamed("# x\nlab: shop\nworkloads: {}\n") == "# x\nlab: cwdemo\nworkloads: {}\n"
