"""How every suite runs: the amount of generated examples, and which tests need root or much time."""

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.postgresql import Server, programs, running

COMPARED = "compared, none of them otherwise: "
"""How the name of a property begins that says how many verdicts a test compared."""
SOAK = os.environ.get("CELLWALL_SOAK") == "1"

# A test that must bound its examples writes `max_examples=settings().max_examples // 10`, so that soak
# scales it too. No deadline: the machines of a build are shared.
settings.register_profile("check", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", settings.get_profile("check"), max_examples=400)
settings.load_profile("soak" if SOAK else "check")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a PostgreSQL server for the tests of one file; each makes a database of its own."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed; scripts/setup.sh does it")
    with running() as server:
        yield server


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests marked `soak`, unless CELLWALL_SOAK=1."""
    if SOAK:
        return
    left_out = [item for item in items if item.get_closest_marker("soak")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many verdicts were compared, as tests recorded it by `record_property`, for the log of a build."""
    compared: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        compared.update({name: count for name, count in report.user_properties if name.startswith(COMPARED)})
    for name, count in sorted(compared.items()):
        terminalreporter.write_line(f"{name}: {count:,}")
