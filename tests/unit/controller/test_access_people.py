"""Accounts, sessions and tokens, on a real store in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from cellwall.controller.access.passwords import check_password, is_password, keep_password
from cellwall.controller.access.people import DAY_S, IDLE_S, LONGEST_S, People, digest_of
from cellwall.controller.access.person import Binding, Person, Way, parse_binding
from cellwall.controller.access.throttle import FORGOTTEN_AFTER_S, LONGEST_WAIT_S, Bucket, wait_s
from cellwall.controller.errors import Conflict, ControllerError, NotFound, NotSignedIn, TooOften
from cellwall.controller.store.people import PeopleStore
from cellwall.controller.store.sql import SqlState, open_state

KEPT = "kept"


@dataclass
class World:
    state: SqlState
    now: float = 1_000_000.0
    groups: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"admins": ("admin",)})

    def __post_init__(self) -> None:
        self.people = People(PeopleStore(self.state.database), self.state, lambda: self.now, self.grants)

    def grants(self, groups: Sequence[str]) -> tuple[Binding, ...]:
        return tuple(parse_binding(text) for group in groups for text in self.groups.get(group, ()))

    def actions(self) -> list[tuple[str, str, str]]:
        return [(one.author, one.action, one.subject) for one in self.state.audit(100)]

    def who(self, secret: str) -> Person | None:
        return self.people.person_of(secret, "10.0.0.9")


@pytest.fixture
def world() -> Iterator[World]:
    state = open_state(None)
    yield World(state)
    state.close()


# --- passwords ---


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "elevenchars",
        "aaaaaaaaaaaaaaaa",
        "password1234",
        "Passwordpassword",
        "123456789012",
        "abcdefghijklmnop",
        "aliceALICEalice1",
        "x" * 300,
    ],
)
def test_what_is_easily_guessed_is_refused(password: str) -> None:
    with pytest.raises(ControllerError):
        check_password(password, "alice")


@pytest.mark.parametrize("password", ["correct horse battery", "ÄÖÜäöüß§$%&/()", "只是一个很长的密码而已对不对"])
def test_no_mix_of_characters_is_asked_for(password: str) -> None:
    check_password(password, "alice")


def test_a_password_is_kept_as_a_digest_with_salt() -> None:
    one, other = keep_password("correct horse battery"), keep_password("correct horse battery")
    assert one != other
    assert "correct" not in one
    assert is_password("correct horse battery", one)
    assert not is_password("correct horse batterz", one)
    for broken in ("", "scrypt$1$2", "plain$1$1$1$YQ==$YQ=="):
        assert not is_password("correct horse battery", broken)


def test_the_same_letters_typed_otherwise_are_the_same_password() -> None:
    assert is_password("Ångström rules", keep_password("Ångström rules"))


# --- accounts ---


def test_an_account_is_made_changed_and_forgotten(world: World) -> None:
    world.people.add("alice", ["author@app=shop", "viewer"], KEPT, "root")
    with pytest.raises(Conflict):
        world.people.add("alice", ["viewer"], KEPT, "root")
    secret = world.people.sign_in("alice", Way.PASSWORD, "10.0.0.9").secret
    assert world.people.change("alice", "root", roles=["operator"]).roles == ("operator",)
    # What somebody may is what their account says at this moment, also in a session from before.
    found = world.who(secret)
    assert found is not None
    assert [str(one) for one in found.bindings] == ["operator"]
    assert world.people.change("alice", "root", disabled=True, dry_run=True).disabled
    assert world.who(secret) is not None
    world.people.change("alice", "root", disabled=True)
    assert world.who(secret) is None
    world.people.change("alice", "root", disabled=False)
    assert world.who(secret) is None, "who was closed has to sign in again"
    world.people.remove("alice", "root")
    with pytest.raises(NotFound):
        world.people.find("alice")
    assert [action for _, action, _ in world.actions()][::-1] == [
        "add person",
        "sign in",
        "change person",
        "change person",
        "change person",
        "remove person",
    ]


@pytest.mark.parametrize("name", ["", "token:ci", "controller", "a b", "-x", "x" * 200, "a\n", "nobody else"])
def test_a_name_is_plain(world: World, name: str) -> None:
    with pytest.raises(ControllerError):
        world.people.add(name, ["viewer"], KEPT, "root")


def test_a_new_password_ends_the_other_sessions(world: World) -> None:
    world.people.add("alice", ["viewer"], KEPT, "root")
    one, other = (world.people.sign_in("alice", Way.PASSWORD, "10.0.0.9").secret for _ in range(2))
    me = world.who(one)
    assert me is not None
    world.people.set_own_password(me, "other", "10.0.0.9")
    assert world.who(one) is not None
    assert world.who(other) is None
    world.people.change("alice", "root", kept="third")
    assert world.who(one) is None


# --- sessions ---


def test_a_session_ends_when_idle_and_in_any_case_after_half_a_day(world: World) -> None:
    world.people.add("alice", ["viewer"], KEPT, "root")
    begun = world.people.sign_in("alice", Way.PASSWORD, "10.0.0.9")
    assert begun.ends == world.now + LONGEST_S
    idle = world.people.sign_in("alice", Way.PASSWORD, "10.0.0.9")
    world.now += IDLE_S - 1
    assert world.who(begun.secret) is not None
    world.now += 2
    assert world.who(begun.secret) is not None, "it was used meanwhile"
    assert world.who(idle.secret) is None
    for _ in range(4):
        world.now += IDLE_S - 1
        world.who(begun.secret)
    assert world.who(begun.secret) is None
    world.people.prune()
    assert world.people.store.sessions() == ()


def test_a_secret_is_kept_nowhere(world: World) -> None:
    world.people.add("alice", ["viewer"], KEPT, "root")
    session = world.people.sign_in("alice", Way.PASSWORD, "10.0.0.9").secret
    token, _ = world.people.mint("ci", ["viewer"], 1, "root")
    assert (session[:4], token[:4]) == ("cws_", "cwp_")
    kept = f"{world.people.store.sessions()} {world.people.store.tokens()} {world.state.audit(99)}"
    assert session not in kept
    assert token not in kept
    assert digest_of(session) in kept


def test_groups_give_what_they_give_at_this_moment(world: World) -> None:
    secret = world.people.sign_in("ann@example.com", Way.OIDC, "10.0.0.9", ["admins"]).secret
    assert world.who(secret) is not None
    world.groups.clear()
    assert world.who(secret) is None, "grants follow their source"
    with pytest.raises(NotSignedIn):
        world.people.sign_in("ann@example.com", Way.OIDC, "10.0.0.9", ["admins"])


def test_a_closed_account_is_closed_for_whoever_the_provider_lets_in(world: World) -> None:
    world.people.add("ann@example.com", ["viewer"], "", "root")
    world.people.change("ann@example.com", "root", disabled=True)
    with pytest.raises(NotSignedIn):
        world.people.sign_in("ann@example.com", Way.OIDC, "10.0.0.9", ["admins"])


@pytest.mark.parametrize("secret", ["", "cws_", "cwp_x", "cws_x", "nothing", "cws_\ud800"])
def test_what_is_no_secret_is_nobody(world: World, secret: str) -> None:
    assert world.who(secret) is None


# --- tokens ---


def test_a_token_ends_and_is_revoked(world: World) -> None:
    secret, token = world.people.mint("ci", ["viewer", "author@app=shop"], 90, "root")
    found = world.who(secret)
    assert found is not None
    assert (found.name, found.owner, found.way) == ("token:ci", "root", Way.TOKEN)
    assert world.people.store.tokens()[0].used == world.now
    with pytest.raises(Conflict):
        world.people.mint("ci", ["viewer"], 90, "root")
    for days in (0, -1, 367, float("nan"), float("inf")):
        with pytest.raises(ControllerError):
            world.people.mint("other", ["viewer"], days, "root")
    world.now = token.ends - 1
    assert world.who(secret) is not None
    world.now += 1
    assert world.who(secret) is None
    world.now -= DAY_S
    world.people.revoke("ci", "root", dry_run=True)
    assert world.who(secret) is not None
    world.people.revoke("ci", "root")
    assert world.who(secret) is None
    with pytest.raises(NotFound):
        world.people.revoke("ci", "root")


# --- failing ---


def test_whoever_fails_has_to_wait_longer_and_longer(world: World) -> None:
    world.people.add("alice", ["viewer"], KEPT, "root")
    for _ in range(5):
        assert world.people.begin_sign_in("alice", "10.0.0.9") == KEPT
    with pytest.raises(TooOften) as caught:
        world.people.begin_sign_in("alice", "10.0.0.9")
    assert caught.value.wait_s == 1
    world.now += 1
    world.people.begin_sign_in("alice", "10.0.0.9")
    world.now += 1
    with pytest.raises(TooOften, match="again in 1 s"):
        world.people.begin_sign_in("alice", "10.0.0.9")
    # Others may, and from there too.
    world.people.add("bob", ["viewer"], KEPT, "root")
    assert world.people.begin_sign_in("bob", "10.0.0.9") == KEPT
    world.now += 1
    world.people.begin_sign_in("alice", "10.0.0.9")
    world.people.sign_in("alice", Way.PASSWORD, "10.0.0.9")
    for _ in range(5):
        world.people.begin_sign_in("alice", "10.0.0.9")


def test_one_address_cannot_try_all_accounts(world: World) -> None:
    for number in range(20):
        assert world.people.begin_sign_in(f"nobody-{number}", "10.0.0.9") == ""
    with pytest.raises(TooOften):
        world.people.begin_sign_in("nobody-20", "10.0.0.9")
    world.people.begin_sign_in("nobody-20", "10.0.0.10")


def test_a_subnet_of_ipv6_is_one_address(world: World) -> None:
    for number in range(20):
        world.people.begin_sign_in(f"nobody-{number}", f"2001:db8::{number:x}")
    with pytest.raises(TooOften):
        world.people.begin_sign_in("nobody-20", "2001:db8::ffff:0:1")
    world.people.begin_sign_in("nobody-20", "2001:db8:0:1::1")
    world.people.begin_sign_in("nobody-20", "::ffff:10.0.0.9")


@pytest.mark.parametrize("name", ["token:ci", "controller", "a b", "x" * 200])
def test_a_provider_cannot_give_somebody_a_name_of_ours(world: World, name: str) -> None:
    with pytest.raises(NotSignedIn):
        world.people.sign_in(name, Way.OIDC, "10.0.0.9", ["admins"])


def test_an_attempt_that_never_ends_counts_as_failed(world: World) -> None:
    world.people.add("alice", ["viewer"], KEPT, "root")
    for _ in range(5):
        world.people.begin_sign_in("alice", "10.0.0.9")
    with pytest.raises(TooOften):
        world.people.begin_sign_in("alice", "10.0.0.9")


def test_what_is_no_account_is_not_written_down(world: World) -> None:
    world.people.begin_sign_in("my secret password typed here", "10.0.0.9")
    world.people.refused("my secret password typed here")
    assert world.actions() == [("nobody", "sign in refused", "unknown account")]


def test_the_wait_doubles_and_has_an_end() -> None:
    assert [wait_s(count, 0, 5) for count in (4, 5, 6, 7)] == [0, 1, 2, 4]
    assert wait_s(1000, 0, 5) == LONGEST_WAIT_S
    assert wait_s(1000, FORGOTTEN_AFTER_S, 5) == 0
    assert wait_s(6, 1.5, 5) == 0.5


def test_a_bucket_lets_through_what_it_may() -> None:
    bucket = Bucket(3, 1.0)
    assert [bucket.admits(10.0) for _ in range(5)] == [True, True, True, False, False]
    assert bucket.take_held_back() == 2
    assert bucket.take_held_back() == 0
    assert bucket.admits(11.0)
    assert not bucket.admits(11.0)
