"""A fleet for a controller: a CA, a certificate for every agent, and a state that knows them all.

Keys are dear, so they are kept under build/ and used again; the state is written anew each time, by the controller's
own code.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cellwall.controller.store.sql import SqlState, open_state
from cellwall.controller.store.state import CertificateRow, LabelRow, LabelSource, WorkloadRow
from cellwall.controller.trust.ca import open_authority
from cellwall.wire import fingerprint

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "bench-fleet"
VERSION = "sim"
DAYS = 60
FRESH_S = 20 * 86_400.0
FIRST_ADDRESS = int(IPv4Address("10.128.0.0"))
ROLES = ("web", "web", "web", "api", "api", "api", "api", "db", "db", "monitor")


@dataclass(frozen=True, slots=True)
class Member:
    """One agent of the fleet: its name, its address, its labels, and the certificate that it has."""

    name: str
    address: IPv4Address
    labels: dict[str, str]
    serial: str
    key: str
    ends: float

    @property
    def file(self) -> str:
        """The name of the file with its key and its certificate."""
        return f"{self.name}.pem"


def labels_of(number: int) -> dict[str, str]:
    """Ten apps of ten roles' places: `app=a3,role=monitor` is one workload in a hundred, `app=a3` one in ten."""
    return {"app": f"a{number % 10}", "role": ROLES[number // 10 % 10], "env": "prod"}


def address_of(number: int) -> IPv4Address:
    """The address that an agent says it has; its connection comes from loopback."""
    return IPv4Address(FIRST_ADDRESS + number)


def make_fleet(count: int, folder: Path = KEPT) -> tuple[Member, ...]:
    """Give `count` agents, with their files in `folder`/agents and the CA in `folder`/keys; made where needed."""
    now = time.time()
    index = folder / "index.json"
    made: list[list[object]] = json.loads(index.read_text()) if index.exists() else []
    if made and index.stat().st_mtime < now - FRESH_S:
        shutil.rmtree(folder)
        made = []
    if len(made) < count:
        (folder / "agents").mkdir(parents=True, exist_ok=True)
        authority = open_authority(folder / "keys", now)
        for number in range(len(made), count):
            name = f"w{number:05}"
            key = ec.generate_private_key(ec.SECP256R1())
            request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
            issued = authority.issue(request.public_bytes(Encoding.PEM).decode(), name, DAYS, now)
            private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
            (folder / "agents" / f"{name}.pem").write_text(private + issued.pem)
            made.append([issued.serial, issued.key, issued.ends])
        index.write_text(json.dumps(made))
    return tuple(
        Member(f"w{number:05}", address_of(number), labels_of(number), str(one[0]), str(one[1]), float(str(one[2])))
        for number, one in enumerate(made[:count])
    )


def fill(store: SqlState, fleet: Sequence[Member], now: float) -> None:
    """Write into a state what enrolling the fleet would have."""
    with store.transaction():
        for one in fleet:
            store.put_workload(WorkloadRow(one.name, True, (one.address,), now, now, VERSION), now)
            store.add_certificate(CertificateRow(one.serial, one.name, one.key, now, one.ends))
            for key, value in one.labels.items():
                store.put_label(LabelRow(one.name, key, value, LabelSource.DECLARED, "bench", now))


def prepare(count: int, data: Path) -> tuple[Member, ...]:
    """Make `data` the folder of a controller that knows `count` agents."""
    fleet = make_fleet(count)
    data.mkdir(mode=0o700, parents=True)
    shutil.copytree(KEPT / "keys", data / "keys")
    store = open_state(data / "state.db")
    try:
        fill(store, fleet, time.time())
    finally:
        store.close()
    return fleet


def authority_fingerprint(folder: Path = KEPT) -> str:
    """The fingerprint of the CA, as in a token."""
    pem = (folder / "keys" / "ca.pem").read_bytes()
    return fingerprint(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))


if __name__ == "__main__":
    began = time.perf_counter()
    make_fleet(int(sys.argv[1]))
    print(f"{time.perf_counter() - began:.1f} s")
