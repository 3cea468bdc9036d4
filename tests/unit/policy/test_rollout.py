from __future__ import annotations

import pytest

from cellwall.labels import parse_selector
from cellwall.policy import Approval, Check, OnFailure, PolicyError, Rollout, Wave, WaveError, parse_policy, parse_waves
from cellwall.policy.rollout import ALL

WHOLE = """
rollout:
  waves: [canary, {where: env=staging}, 25%, all]
  settle_s: 30
  unexpected_denials: 3
  on_failure: halt
  checks:
    - {id: front, http: "https://10.0.0.5:8443/health", status: 204}
    - {id: db, tcp: "[2001:db8::5]:5432"}
approvals:
  - {where: pci=cde, reviewers: 2}
  - {where: ""}
"""


def read(text: str) -> Rollout:
    return parse_policy([("a.yaml", text)]).rollout


def test_everything_about_a_rollout_is_read() -> None:
    policy = parse_policy([("a.yaml", WHOLE)])
    staging = parse_selector("env=staging")
    assert policy.rollout == Rollout(
        (Wave("canary", 0.01), Wave("env=staging", where=staging), Wave("25%", 0.25), ALL),
        30.0,
        3,
        OnFailure.HALT,
        (Check("front", "https://10.0.0.5:8443/health", 204), Check("db", tcp=("2001:db8::5", 5432))),
    )
    assert policy.approvals == (Approval(parse_selector("")), Approval(parse_selector("pci=cde"), 2))


def test_without_a_word_a_revision_goes_everywhere_at_once_and_nobody_is_asked() -> None:
    assert read("rules: []") == read("rollout:") == Rollout((ALL,))
    assert parse_policy([("a.yaml", "approvals:")]).approvals == ()


@pytest.mark.parametrize("waves", ["tenth", "[tenth]", "[tenth, all]", "[tenth, 100%]"])
def test_the_last_wave_is_all(waves: str) -> None:
    assert read(f"rollout: {{waves: {waves}}}").waves == (Wave("tenth", 0.1), ALL) == parse_waves(["tenth"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rollout: {waves: []}", "a.yaml:1:18: the list is empty; wanted at least one"),
        ("rollout: {waves: [all, tenth]}", "after the wave `all` there is nothing left to do"),
        ("rollout: {waves: [canaries]}", "a.yaml:1:19: unknown wave `canaries`; wanted `canary`"),
        ("rollout: {waves: [0%]}", "`0%` is no share of the points; wanted `1%` to `100%`"),
        ("rollout: {waves: [101%]}", "`101%` is no share"),
        ("rollout: {waves: ['']}", "a wave is empty"),
        ("rollout: {waves: [{}]}", "`where` is missing"),
        (f"rollout: {{waves: [{', '.join(['1%'] * 21)}]}}", "21 waves; wanted 20 at most"),
        ("rollout: {settle_s: -1}", "`-1` is not a number from 0 to 86400"),
        ("rollout: {settle_s: nan}", "`nan` is not a number"),
        ("rollout: {unexpected_denials: 1.5}", "`1.5` is not a whole number from 0 to"),
        ("rollout: {on_failure: pray}", "`pray` is not one of `revert`, `halt`"),
        ("rollout: {checks: [{http: 'http://x/'}]}", "`id` is missing"),
        ("rollout: {checks: [{id: a}]}", "a check has one of `http`, `tcp`"),
        ("rollout: {checks: [{id: a, tcp: 'x:1', http: 'http://x'}]}", "a check has one of `http`, `tcp`"),
        ("rollout: {checks: [{id: a, tcp: 'x:0'}]}", "`x:0` is nowhere to connect to"),
        ("rollout: {checks: [{id: a, tcp: '5432'}]}", "`5432` is nowhere to connect to"),
        ("rollout: {checks: [{id: a, tcp: 'x:1', status: 200}]}", "`status` has no meaning beside `tcp`"),
        ("rollout: {checks: [{id: a, http: 'file:///etc/passwd'}]}", "is no URL to ask"),
        ("rollout: {checks: [{id: a, http: 'http://u:p@x/'}]}", "is no URL to ask"),
        ("rollout: {checks: [{id: a, http: 'http://[x/'}]}", "is no URL to ask"),
        ("rollout: {checks: [{id: a, http: 'http://x/', status: 42}]}", "`42` is no HTTP status"),
        ("rollout: {checks: [{id: a, tcp: 'x:1'}, {id: a, tcp: 'x:2'}]}", "the check `a` is there twice"),
        ("approvals: [{reviewers: 1}]", "`where` is missing"),
        ("approvals: [{where: a=b, reviewers: 0}]", "`0` reviewers; wanted at least one"),
        ("approvals: [{where: a=b, reviewers: 11}]", "`11` is not a whole number from 0 to 10"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy([("a.yaml", text)])
    assert said in str(caught.value) and str(caught.value).startswith("a.yaml:1:")


def test_too_many_checks_are_refused() -> None:
    checks = ", ".join(f"{{id: c{number}, tcp: 'x:1'}}" for number in range(101))
    with pytest.raises(PolicyError, match="101 checks"):
        read(f"rollout: {{checks: [{checks}]}}")


def test_how_to_roll_out_is_said_once() -> None:
    with pytest.raises(PolicyError, match=r"b.yaml:1:10: how to roll out is said twice, first at a.yaml:1:10"):
        parse_policy([("a.yaml", "rollout: {settle_s: 1}"), ("b.yaml", "rollout: {settle_s: 2}")])


def test_waves_as_words_are_as_strict_as_those_of_documents() -> None:
    assert parse_waves(["env=staging,tier in (web,api)"])[0].name == "env=staging,tier in (api,web)"
    for words in (["all", "canary"], ["x" * 3], [""], ["1%"] * 20):
        with pytest.raises(WaveError):
            parse_waves(words)
