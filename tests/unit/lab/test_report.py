"""Counting legitimate traffic, and the windows of it."""

from cellwall.lab.apps.spec import CallCount, CallSpec, SinkCount
from cellwall.lab.report import TrafficReport, call_report


def spec(kind: str = "http") -> CallSpec:
    return CallSpec(
        id="web/nginx.service>api/http/4/short",
        kind=kind,
        lifetime="short",
        host="10.0.0.1",
        port=80,
        every_s=0.5,
        start_s=0.0,
        names=[],
    )


def count(attempts: int, *failures: tuple[float, str]) -> CallCount:
    return CallCount(
        attempts=attempts,
        failed=len(failures),
        connects=attempts,
        slowest_ms=1.26,
        total_ms=1.0,
        failures=list(failures),
    )


def report(attempts: int, *failures: tuple[float, str]) -> TrafficReport:
    counts = {spec()["id"]: count(attempts, *failures)}
    return TrafficReport("lab", (call_report("web", "nginx.service", spec(), counts, {}),))


def syslog(attempts: int, sink: SinkCount | None) -> int:
    name = spec()["id"]
    counts, sinks = {name: count(attempts)}, {name: sink} if sink else {}
    return call_report("web", "nginx.service", spec("syslog"), counts, sinks).failed


def test_a_report_says_who_called_whom_and_what_became_of_it() -> None:
    (call,) = report(10, (5.0, "timed out")).calls
    assert (call.caller, call.unit, call.to, call.service, call.family, call.lifetime) == (
        "web", "nginx.service", "api", "http", 4, "short",
    )  # fmt: skip
    assert (call.attempts, call.failed, call.slowest_ms, call.failures) == (10, 1, 1.3, ((5.0, "timed out"),))
    assert call.id == spec()["id"]


def test_a_call_that_has_not_begun_counts_nothing() -> None:
    call = call_report("web", "nginx.service", spec(), {}, {})
    assert (call.attempts, call.failed) == (0, 0)


def test_a_window_holds_only_what_came_after_its_mark() -> None:
    window = report(30, (1.0, "refused"), (9.0, "reset")).since(report(10, (1.0, "refused")))
    assert (window.attempts, window.failed) == (20, 1)
    assert window.troubled()[0].failures == ((9.0, "reset"),)
    assert report(3).since(TrafficReport("lab", ())).attempts == 3


def test_lost_log_messages_are_failures_though_nobody_answers_them() -> None:
    assert syslog(100, SinkCount(received=100, missed=0, last=100)) == 0
    assert syslog(100, SinkCount(received=90, missed=5, last=95)) == 5
    assert syslog(100, SinkCount(received=50, missed=0, last=50)) == 38
    assert syslog(12, None) == 0, "messages of the last five seconds may be on their way"
    assert syslog(20, None) == 8
