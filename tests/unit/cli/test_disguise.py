"""A bundle without names tells neither names nor addresses, and can still be read."""

import json
import re

import pytest

from cellwall.cli.bundle import DOCTOR, Bundle
from cellwall.cli.disguise import Disguise

STATUS = {"advertise": ["https://ctl.example.com:7443", "https://10.86.0.2:7443"], "workload": "web-1"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://10.86.0.2:7443", "at https://address-1:7443"),
        ("from ::ffff:10.86.0.2 and 10.86.0.2", "from address-1 and address-1"),
        ("to [fd86::2]:7443, fd86::2", "to [address-1]:7443, address-1"),
        ("10.86.0.2.", "address-1."),
        ("at 21:57:24, version 1.2.3", "at 21:57:24, version 1.2.3"),
        ("127.0.0.1:7443 and ::1", "127.0.0.1:7443 and ::1"),
    ],
)
def test_an_address_is_replaced_by_the_same_wherever_it_stands(text: str, shown: str) -> None:
    assert Disguise().over(text) == shown


def test_names_are_replaced_and_the_words_of_urls_are_not() -> None:
    disguise = Disguise()
    disguise.learn(json.dumps(STATUS))
    shown = disguise.over("https://ctl.example.com:7443 and https://10.86.0.2:7443 know `web-1`, on tcp/80")
    assert shown == "https://name-1:7443 and https://address-1:7443 know `name-2`, on tcp/80"


def test_the_checks_of_doctor_keep_their_names() -> None:
    bundle = Bundle()
    bundle.take("controller/status.json", lambda: STATUS)
    bundle.take(DOCTOR, lambda: [{"name": "kernel", "says": "the kernel of web-1 is new enough"}])
    bundle.disguise()
    (check,) = json.loads(bundle.files[DOCTOR])
    assert check["name"] == "kernel"
    assert re.fullmatch(r"the kernel of name-\d+ is new enough", check["says"])
