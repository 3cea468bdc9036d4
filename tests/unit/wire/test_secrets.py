"""Secrets are hidden wherever they stand, and nothing else is."""

import pytest

from cellwall.wire import Token, redact, redacted

SECRET = "Zm9vYmFyYmF6cXV4-secret_0123456789"
KEY = f"-----BEGIN EC PRIVATE KEY-----\n{SECRET}\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        str(Token("a" * 64, SECRET)),
        f"token `{Token('0f' * 32, SECRET)}` is used up",
        f"Authorization: Bearer {SECRET}",
        f"authorization: basic {SECRET}=",
        KEY,
        KEY.replace("EC ", ""),
        KEY.partition("-----END")[0],
        f"postgresql://cellwall:{SECRET}@db.internal:5432/cellwall",
        f"cwt_{SECRET}",
        f"use cws_{SECRET} for it",
    ],
)
def test_a_secret_is_hidden_by_its_form(text: str) -> None:
    assert SECRET not in redact(text)
    assert "[hidden]" in redact(text)


@pytest.mark.parametrize(
    "name", ["secret", "password", "db_password", "token", "api-token", "authorization", "client_secret", "private_key"]
)
def test_a_secret_is_hidden_by_its_name(name: str) -> None:
    assert redacted({"deep": [{name: SECRET}]}) == {"deep": [{name: "[hidden]"}]}


def test_what_is_no_secret_stays() -> None:
    plain = {
        "token_count": 3,
        "tokens": 4,
        "key": "app",
        "workload": "web-1",
        "service": "tcp/5432",
        "why": "the token is unknown, used up or expired; ask for a new one",
        "file": "cwd_notes.yaml",
        "url": "https://10.0.0.1:7443/v1/ca",
        "certificate": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "none": None,
        "yes": True,
    }
    assert redacted(plain) == plain


def test_the_end_of_a_key_does_not_hide_what_follows() -> None:
    assert redact(f"{KEY}\nand then {KEY} done") == (
        "-----BEGIN EC PRIVATE KEY-----[hidden]\nand then -----BEGIN EC PRIVATE KEY-----[hidden] done"
    )
