"""What an agent takes for the controller's time, whatever the clock of its host says."""

from __future__ import annotations

from cellwall.agent.clock import Clock


class World:
    """The true time, a wall clock that is off, and a counter that nobody sets."""

    def __init__(self, off: float = 0.0) -> None:
        self.time = 1_000_000.0
        self.off = off
        self.clock = Clock(lambda: self.time + self.off, lambda: self.time - 999_000.0)

    def error(self) -> float:
        """By how much the agent's idea of the time is wrong."""
        return self.clock.now() - self.time


def test_a_clock_that_is_right_is_left_alone() -> None:
    world = World(0.2)
    assert not world.clock.welcomed(world.time, 0.01)
    assert world.clock.ahead == 0.0
    assert world.clock.trouble == ""


def test_a_clock_that_is_ahead_or_behind_is_put_right_by_the_welcome_as_closely_as_that_took() -> None:
    for off in (-86_400.0, -3600.0, 3600.0, 86_400.0):
        world = World(off)
        assert world.clock.welcomed(world.time - 0.1, 0.2)
        assert abs(world.error()) <= 0.2 + 0.5
        assert "clock" in world.clock.trouble


def test_a_welcome_that_was_held_up_puts_no_right_clock_wrong() -> None:
    world = World()
    assert not world.clock.welcomed(world.time - 9.0, 9.0)
    assert world.error() == 0.0


def test_once_welcomed_nobody_sets_it_by_the_wall_clock() -> None:
    world = World()
    world.clock.welcomed(world.time, 0.0)
    world.off = 7200.0
    world.time += 10.0
    assert not world.clock.look()
    assert world.error() == 0.0


def test_before_any_welcome_it_follows_the_wall_clock_that_somebody_puts_right() -> None:
    world = World(-500_000.0)
    world.off = 0.0
    assert world.clock.look()
    assert world.error() == 0.0
    assert not world.clock.look()


def test_it_is_never_earlier_than_what_was_signed_and_goes_on_from_there() -> None:
    world = World(-500_000.0)
    assert world.clock.not_before(world.time - 30.0)
    world.time += 60.0
    assert not world.clock.look()
    assert world.error() == -30.0


def test_an_old_letter_played_again_moves_nothing_back() -> None:
    world = World()
    assert not world.clock.not_before(world.time - 86_400.0)
    world.clock.welcomed(world.time, 0.0)
    assert not world.clock.not_before(world.time - 86_400.0)
    assert world.error() == 0.0


def test_a_fresh_letter_corrects_what_has_drifted_since_the_welcome() -> None:
    for drift in (-3600.0, 3600.0):
        world = World()
        world.clock.welcomed(world.time, 0.0)
        world.clock.ahead = drift
        assert world.clock.fresh(world.time)
        assert -0.5 <= world.error() <= 60.5


def test_a_controller_of_before_that_names_no_time_changes_nothing() -> None:
    world = World(3600.0)
    assert not world.clock.welcomed(0.0, 0.1)
    assert not world.clock.fresh(0.0)
    assert world.error() == 3600.0
