import json
from pathlib import Path

import pytest
from tests.unit.analysis.village import POLICY
from tests.unit.cli.questions import ask, write

from cellwall.cli.output import Format
from cellwall.cli.prove import prove


def test_a_proof_says_what_was_looked_at_and_what_lets_the_allowed_ones_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = ask(capsys, prove, ["only role=api may-reach role=db on postgres"], hops="1", **write(tmp_path))
    assert code == 0
    assert "✔ pass only role=api may-reach role=db on postgres" in told
    assert "proven at once: " in told and "what it allows passes by `api-to-db`" in told
    code, told = ask(capsys, prove, ["env=dev cannot-reach env=prod"], **write(tmp_path))
    assert code == 0 and "proven in up to any number of hops" in told and "on all services" in told


def test_a_claim_that_fails_shows_its_shortest_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = ask(capsys, prove, ["shop-web cannot-reach shop-db"], **write(tmp_path))
    assert code == 1 and "✘ fail shop-web cannot-reach shop-db" in told
    assert "broken in 2 hops; at once it holds:" in told
    assert "  2. shop-api → shop-db tcp/5432: allow `api-to-db`" in told
    code, told = ask(
        capsys, prove, ["gate cannot-reach shop-db", "shop-web can-reach shop-api on 8080"], **write(tmp_path)
    )
    assert code == 1 and "broken at once:" in told and "✔ pass shop-web can-reach" in told


def test_what_cannot_be_reached_says_who_denies_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claims = ["blog-web can-reach shop-api on 8080", "shop-web can-reach shop-db on 5432"]
    code, told = ask(capsys, prove, claims, **write(tmp_path))
    assert code == 1
    assert "blog-web → shop-api tcp/8080 is denied: deny `no-dev`" in told
    assert "shop-web → shop-db tcp/5432 is denied: no rule allows it" in told


def test_a_wall_is_called_a_wall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walled = POLICY.replace("modes:", "  - {id: db-wall, wall: any, from: any, to: role=db}\nmodes:")
    _, told = ask(capsys, prove, ["shop-web can-reach shop-db on 5432"], **write(tmp_path, walled))
    assert "is denied: wall `db-wall`" in told


def test_a_claim_about_nobody_is_not_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = ask(capsys, prove, ["app=none cannot-reach role=db"], **write(tmp_path))
    assert code == 1 and "it speaks of nobody here" in told


def test_the_whole_proof_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = ask(capsys, prove, ["gate cannot-reach shop-db"], port=["tcp/22"], output=Format.JSON, **write(tmp_path))
    (item,) = json.loads(told)["items"]
    assert not item["holds"] and item["path"][0]["egress"][0]["id"] == "ssh" and item["ports"] == "tcp/22"
    assert ask(capsys, prove, ["gate reaches shop-db"], **write(tmp_path))[0] == 2
    without = ask(capsys, prove, ["gate cannot-reach shop-db"], without=["ssh"], hops="1", **write(tmp_path))
    assert without[0] == 0
