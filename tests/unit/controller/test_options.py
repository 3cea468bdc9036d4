"""How a controller is started is read once, and strictly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cellwall.controller import ControllerError, ControllerOptions
from cellwall.controller.options import Endpoint, parse_endpoint, parse_url


def test_both_families_and_the_usual_port_are_the_default() -> None:
    options = ControllerOptions(Path("data"))
    assert options.bound == Endpoint("::", 7443)
    assert options.socket_path == Path("data/api.sock")


def test_urls_are_read_with_and_without_a_port() -> None:
    options = ControllerOptions(Path("d"), advertise=("https://10.0.0.1", "https://[2001:db8::1]:8443/"))
    assert options.advertised == (Endpoint("10.0.0.1", 7443), Endpoint("2001:db8::1", 8443))


@pytest.mark.parametrize("text", ["7443", "localhost:7443", "[::]", "[::]:70000", "10.0.0.1:x", ":7443"])
def test_what_is_no_place_to_listen_is_refused(text: str) -> None:
    with pytest.raises(ControllerError, match="is not where one can listen"):
        parse_endpoint(text)


@pytest.mark.parametrize("text", ["http://10.0.0.1", "10.0.0.1:7443", "https://", "https://a/b", "https://a:x"])
def test_what_is_no_url_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ControllerError, match="is not where agents reach us"):
        parse_url(text)


def test_the_door_loads_no_framework_and_no_database() -> None:
    program = "import sys, cellwall.controller; print({'fastapi', 'sqlalchemy', 'chdb', 'numpy'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
