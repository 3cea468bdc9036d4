"""What enrolment leaves on disk, and what of it is believed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cellwall.agent.enrolment import AgentError, Enrolment, NotEnrolled, channel_of, check_controller, load_enrolment
from cellwall.agent.folder import locked
from cellwall.controller.trust.ca import open_authority
from cellwall.traffic import CellwallError

NOW = 1_800_000_000.0


def enrolled(folder: Path) -> Enrolment:
    from cellwall.agent.enroll import make_request

    authority = open_authority(folder / "ca", NOW)
    key, request = make_request("web")
    made = Enrolment(folder / "state", "web", "https://10.0.0.5:7443", authority.verify_key)
    made.save(authority.issue(request, "web", 30, NOW).pem, key, authority.pem)
    return made


def test_what_was_saved_is_loaded_and_is_ours_alone(tmp_path: Path) -> None:
    made = enrolled(tmp_path)
    assert load_enrolment(tmp_path / "state") == made
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "state").iterdir()} == {0o600}
    assert channel_of(made.controller) == "wss://10.0.0.5:7443/v1/agent"
    made.context()


def test_the_end_of_the_certificate_is_noted_beside_it(tmp_path: Path) -> None:
    made = enrolled(tmp_path)
    assert made.ends() == NOW + 30 * 86_400
    made.credentials.write_text("nothing\n")
    assert made.ends() == 0.0


def test_a_renewal_changes_certificate_and_key_at_once(tmp_path: Path) -> None:
    from cellwall.agent.enroll import make_request

    made = enrolled(tmp_path)
    key, request = make_request("web")
    authority = open_authority(tmp_path / "ca", NOW)
    made.renew(authority.issue(request, "web", 60, NOW).pem, key)
    assert made.ends() == NOW + 60 * 86_400
    made.context()
    with pytest.raises(AgentError, match="no certificate"):
        made.renew("rubbish", key)
    made.context()


def test_without_enrolment_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotEnrolled, match="cellwall enroll"):
        load_enrolment(tmp_path)


@pytest.mark.parametrize("spoilt", ["", "{}", '{"name": 1}', "\x00"])
def test_a_damaged_enrolment_is_an_error_of_one_line(tmp_path: Path, spoilt: str) -> None:
    enrolled(tmp_path)
    (tmp_path / "state" / "enrolment.json").write_text(spoilt)
    with pytest.raises(CellwallError, match="damaged"):
        load_enrolment(tmp_path / "state")


def test_credentials_that_cannot_be_used_are_an_error_of_one_line(tmp_path: Path) -> None:
    made = enrolled(tmp_path)
    made.credentials.write_text("rubbish")
    with pytest.raises(AgentError, match="cannot be used"):
        made.context()


@pytest.mark.parametrize(("given", "taken"), [("https://a:1", "https://a:1"), ("https://[::1]:7/", "https://[::1]:7")])
def test_a_controllers_address_is_taken_without_a_closing_slash(given: str, taken: str) -> None:
    assert check_controller(given) == taken


@pytest.mark.parametrize("given", ["http://a:1", "a:1", "https://", "https://a:x", "https://a/b", "https://a:1?b"])
def test_what_is_no_controllers_address_is_refused(given: str) -> None:
    with pytest.raises(AgentError, match="wanted `https://"):
        check_controller(given)


def test_two_agents_cannot_hold_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(AgentError, match="another agent"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
    with pytest.raises(AgentError, match="no such file"), locked(tmp_path / "missing"):
        pass


def test_the_controllers_that_one_names_are_remembered_after_the_one_of_the_enrolment(tmp_path: Path) -> None:
    made = enrolled(tmp_path)
    assert made.controllers == ("https://10.0.0.5:7443",)
    made.remember(("https://10.0.0.6:7443", "https://10.0.0.5:7443/"))
    assert made.controllers == ("https://10.0.0.5:7443", "https://10.0.0.6:7443")
    made.remember(())
    assert len(made.controllers) == 2
    with pytest.raises(AgentError):
        made.remember(("http://10.0.0.7",))
    (tmp_path / "state" / "controllers.json").write_text('["ftp://nonsense"]')
    assert made.controllers == ("https://10.0.0.5:7443",)
