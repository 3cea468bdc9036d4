"""A real OpenID provider (npm's `oidc-provider`) on loopback, and a person who signs in to it with a browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from tests.ports import free_port

HERE = Path(__file__).resolve().parent
INSTALLED = HERE.parent.parent / "build" / "oidc"
MISSING = (
    ""
    if (INSTALLED / "node_modules" / "oidc-provider").exists()
    else "no `oidc-provider`: `scripts/setup.sh --root` installs it with npm"
)


def make_keys(*names: str) -> str:
    """Make RSA keys, as a JWK Set."""
    made: list[dict[str, Any]] = []
    for name in names:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        made.append({**RSAAlgorithm.to_jwk(key, as_dict=True), "kid": name, "use": "sig"})
    return json.dumps({"keys": made})


@dataclass
class RealProvider:
    """The provider's program, which can be stopped and started again with other keys."""

    port: int
    redirects: Sequence[str] = ()
    program: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, keys: str) -> None:
        script = (HERE / "oidc" / "provider.mjs").open("rb")
        env = {**os.environ, "PORT": str(self.port), "KEYS": keys, "REDIRECTS": " ".join(self.redirects)}
        with script:
            self.program = subprocess.Popen(
                ["node", "--input-type=module"],
                cwd=INSTALLED,
                env=env,
                stdin=script,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"{self.issuer}/.well-known/openid-configuration", timeout=2)
                return
            except httpx.TransportError:
                assert self.program.poll() is None and time.monotonic() < deadline, "the provider does not start"
                time.sleep(0.05)

    def stop(self) -> None:
        if self.program is not None:
            self.program.kill()
            self.program.wait()
            self.program = None


@contextmanager
def real_provider(redirects: Sequence[str] = ()) -> Generator[RealProvider]:
    """Run a provider until the block ends."""
    provider = RealProvider(free_port(), redirects)
    provider.start(make_keys("one"))
    try:
        yield provider
    finally:
        provider.stop()


def browse(url: str, login: str) -> str:
    """Sign in as a person does with a browser, and agree; give the address to which the browser is sent back."""
    with httpx.Client(timeout=10) as browser:
        for _ in range(20):
            answer = browser.get(url)
            if answer.is_redirect:
                url = urljoin(url, answer.headers["location"])
                if "code=" in url or "error=" in url:
                    return url
                continue
            form = re.search(r'action="([^"]+)"', answer.text)
            prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
            assert form and prompt, answer.text
            answer = browser.post(urljoin(url, form[1]), data={"prompt": prompt[1], "login": login, "password": "x"})
            url = urljoin(url, answer.headers["location"])
            if "code=" in url or "error=" in url:
                return url
    raise AssertionError("the browser goes round and round")


def brought(url: str) -> dict[str, str]:
    """Give what stands behind the `?` of an address."""
    return {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
