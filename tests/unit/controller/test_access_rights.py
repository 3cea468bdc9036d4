"""The table of rights: complete, monotone, and the same for the door and for the route."""

import pytest

from cellwall.controller.access import READING, RIGHTS, ROUTES, Binding, Need, Person, Right, Role, Way, need_of
from cellwall.controller.access.person import ADMIN, EVERYWHERE, may_everywhere, may_see, may_touch, parse_binding
from cellwall.controller.api.door import ROOT, matched
from cellwall.controller.api.rest import create_app
from cellwall.controller.errors import ControllerError, Denied
from cellwall.inventory import Workload
from cellwall.labels import Labels, parse_selector

SAFE = ("GET", "HEAD")
ASKING = frozenset({"/policy/check", "/policy/plan", "/policy/suggest", "/replay", "/ground"})
"""Routes that take a body and change nothing."""


def person(*roles: str) -> Person:
    return Person("ann", tuple(parse_binding(text) for text in roles), Way.PASSWORD)


def routes() -> set[tuple[str, str]]:
    app = create_app(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    paths = app.openapi()["paths"]
    return {(method.upper(), path.removeprefix(ROOT)) for path, methods in paths.items() for method in methods}


def test_every_route_has_its_right_and_every_right_its_route() -> None:
    assert routes() - ROUTES.keys() == set(), "add them to controller/access/rights.py"
    assert ROUTES.keys() - routes() - {("GET", "/openapi.json")} == set(), "take them from controller/access/rights.py"


def test_what_writes_asks_for_a_right_that_readers_do_not_have() -> None:
    for (method, path), need in ROUTES.items():
        if method not in SAFE and not path.startswith("/session") and path not in ASKING:
            assert need.right not in READING, (method, path)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.AUDITOR])
def test_who_only_reads_can_change_nothing(role: Role) -> None:
    assert RIGHTS[role] <= READING
    found = person(role)
    for (method, path), need in ROUTES.items():
        if method not in SAFE and need.right is not Right.OPEN and found.meets(need):
            assert path.startswith("/session") or path in ASKING, (method, path)


def test_a_role_more_takes_nothing_away_and_a_narrower_scope_gives_nothing() -> None:
    for role in Role:
        for other in Role:
            for need in ROUTES.values():
                both, narrow = person(role, other), person(f"{role}@app=shop")
                assert both.meets(need) >= person(role).meets(need)
                assert person(role).meets(need) >= narrow.meets(need)
                assert not (need.everywhere and narrow.meets(need))


def test_everybody_who_has_a_role_may_what_an_administrator_may_and_not_more() -> None:
    assert frozenset().union(*RIGHTS.values()) == RIGHTS[Role.ADMIN] == frozenset(Right) - {Right.OPEN}


def test_only_few_routes_are_open() -> None:
    opened = {path for (_, path), need in ROUTES.items() if need.right is Right.OPEN}
    assert all(path == "/authority" or path.startswith(("/session", "/health/")) for path in opened)


def test_a_path_is_matched_as_the_application_matches_it() -> None:
    assert matched("GET", "/api/v1/workloads/web-1") == ("/workloads/{name}", need_of("GET", "/workloads/{name}"))
    assert matched("HEAD", "/api/v1/status")[1] == Need(Right.READ)
    assert matched("POST", "/api/v1/label-proposals/accept")[0] == "/label-proposals/accept"
    assert matched("GET", "/health/live") == ("/health/live", Need(Right.OPEN))
    for path in ("/api/v1/workloads/a/b", "/api/v1/nothing", "/api/v2/status", "/", "//", "/api/v1/workloads/"):
        assert matched("GET", path)[1] is None or path.endswith("workloads/"), path
    assert matched("PATCH", "/api/v1/status") == ("", None)


def test_a_binding_is_read_and_written_alike() -> None:
    for text in ("viewer", "author@app=shop", "operator@app in (a,b),env!=prod"):
        assert str(parse_binding(text)) == text
    assert parse_binding("viewer") == Binding(Role.VIEWER, EVERYWHERE)
    for wrong in ("boss", "viewer@", "", "author@=shop"):
        with pytest.raises(ControllerError):
            parse_binding(wrong)


def test_a_scope_holds_for_the_workloads_that_it_matches() -> None:
    found = person("author@app=shop", "viewer")
    assert found.may(Right.AUTHOR, Labels({"app": "shop"}))
    assert not found.may(Right.AUTHOR, Labels({"app": "till"}))
    assert not found.may(Right.AUTHOR)
    assert found.may(Right.READ)
    assert found.may_within(Right.AUTHOR, parse_selector("app=shop,env=prod"))
    assert not found.may_within(Right.AUTHOR, parse_selector("env=prod"))
    assert Person("root", ADMIN, Way.SOCKET).may(Right.PEOPLE)


def test_the_first_workload_outside_is_named() -> None:
    shop = Workload("web-1", Labels({"app": "shop"}))
    others = [Workload(name, Labels({"app": "till"})) for name in ("till-2", "till-1")]
    found = person("author@app=shop")
    may_touch(found, Right.AUTHOR, [shop])
    with pytest.raises(Denied, match="workload `till-1` is outside of where `ann` may write policy: `app=shop`"):
        may_touch(found, Right.AUTHOR, [*others, shop])
    with pytest.raises(Denied, match="whole fleet"):
        may_everywhere(found, Right.AUTHOR, "the vocabulary")
    may_everywhere(person("admin"), Right.AUTHOR, "the vocabulary")
    assert may_see(found, None, shop)
    assert not may_see(found, None, others[0])
    assert may_see(person("viewer"), None)
