"""The demonstration's story, from the fleet that comes up to the last file that is swept.

fleet up ─▶ traffic ─▶ labels ─▶ map ─▶ proposal ─▶ replay ─▶ attack ─▶ enforce ─▶ attack again
  ─▶ nobody noticed ─▶ why ─▶ a bad policy takes itself back ─▶ a policy that denies all ─▶ down
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cellwall.cli.demo import attack, policy, sight
from cellwall.cli.demo.stage import LAST_PAGE, Broken, Stage, last_page
from cellwall.cli.labs import lab_errors
from cellwall.cli.output import console
from cellwall.lab import Scenario, down, names, parse_scenario, status
from cellwall.traffic import CellwallError

LAB_NAME = "cwdemo"


def perform(path: Path, folder: Path, *, keep: bool) -> str:
    """Perform the story on the scenario at `path`, and give what went wrong; nothing, where all of it is true.

    Whatever happens, everything is taken down again (unless `keep`), and the last page is written."""
    with lab_errors():
        played = parse_scenario(_renamed(path.read_text("utf-8")), str(path))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "logs", ignore_errors=True)
    stage = Stage(folder, console())
    # From here on the folder is known as ours, also where we are killed.
    stage.write(LAST_PAGE, last_page(stage, "it has not ended"))
    ended = "it was interrupted"
    with _signals_as_exceptions():
        try:
            _sweep(stage)
            play(stage, played)
            ended = ""
        except (Broken, KeyboardInterrupt) as error:
            ended = str(error) or ended
        except CellwallError as error:
            ended = f"it could not go on: {error}"
        finally:
            if ended:
                _keep_logs(stage)
            if not keep:
                ended = _take_down(stage) or ended
            _close(stage, ended)
    return ended


def play(stage: Stage, scenario: Scenario) -> None:
    """Play the story. Raises `Broken` at the first promise that is not kept."""
    world = sight.bring_up(stage, scenario)
    sight.see_traffic(stage, world)
    sight.accept_labels(stage, world)
    sight.draw_the_map(stage, world)
    draft = policy.propose(stage, world)
    policy.replay_draft(stage, world, draft)
    before = attack.attack_open(stage, world)
    policy.enforce(stage, world, draft)
    attack.attack_walled(stage, world, draft, before)
    sight.nobody_noticed(stage, world)
    attack.explain_denial(stage, world, before)
    sight.redraw_the_map(stage, world)
    policy.bad_policy_takes_itself_back(stage, world, draft)
    policy.lifeline_holds(stage, world)


def _renamed(text: str) -> str:
    """Give the scenario's text with a lab name of our own, so that a lab of the user's is left alone."""
    lines = text.splitlines(keepends=True)
    return "".join(f"lab: {LAB_NAME}\n" if line.startswith("lab:") else line for line in lines)


def _sweep(stage: Stage) -> None:
    if LAB_NAME in names():
        stage.say("an earlier demonstration was left behind: taking it down")
        down(LAB_NAME)


def _take_down(stage: Stage) -> str:
    """Take the lab down and say what is wrong with that, if anything is."""
    stage.step("Everything is taken down")
    try:
        down(LAB_NAME)
        left = [path.name for path in Path("/run/netns").glob(f"cw-{LAB_NAME}-*")]
        stage.promise("nothing is left behind", not left and LAB_NAME not in names(), ", ".join(left) or "nothing is")
    except CellwallError as error:
        return str(error)
    return ""


def _close(stage: Stage, ended: str) -> None:
    page = last_page(stage, ended)
    path = stage.write(LAST_PAGE, page)
    stage.console.print()
    stage.console.print(page, markup=False, soft_wrap=True)
    stage.console.print(f"also in {path}", markup=False)


def _keep_logs(stage: Stage) -> None:
    """Copy the logs of the lab's programs, so that they outlive it."""
    try:
        logs = status(LAB_NAME).folder / "log"
    except CellwallError:
        return
    shutil.copytree(logs, stage.folder / "logs", dirs_exist_ok=True)


@contextmanager
def _signals_as_exceptions() -> Generator[None]:
    """Let whoever ends us be heard as an exception, so that everything is still taken down."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
