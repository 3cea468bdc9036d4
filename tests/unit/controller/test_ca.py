"""Keys are made once and whole, and certificates say what they should."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import PolicyBuilder, Store

from cellwall.controller.errors import ControllerError
from cellwall.controller.trust.ca import open_authority

NOW = 1_790_000_000.0
KEY = ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY) -> str:
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_the_same_authority_is_there_after_a_restart(tmp_path: Path) -> None:
    first, second = open_authority(tmp_path, NOW), open_authority(tmp_path, NOW + 9)
    assert (first.fingerprint, first.verify_key) == (second.fingerprint, second.verify_key)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


def test_a_crash_before_the_certificate_was_written_starts_anew(tmp_path: Path) -> None:
    open_authority(tmp_path, NOW)
    (tmp_path / "ca.pem").unlink()
    open_authority(tmp_path, NOW).issue(request(), "web-1", 30, NOW)


def test_keys_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    open_authority(tmp_path / "a", NOW)
    open_authority(tmp_path / "b", NOW)
    (tmp_path / "a" / "ca.key").write_bytes((tmp_path / "b" / "ca.key").read_bytes())
    with pytest.raises(ControllerError, match="is not the key of"):
        open_authority(tmp_path / "a", NOW)
    (tmp_path / "b" / "bundle.key").write_bytes(b"short")
    with pytest.raises(ControllerError, match="cannot be read"):
        open_authority(tmp_path / "b", NOW)


def test_an_agent_certificate_names_its_workload_and_ends(tmp_path: Path) -> None:
    authority = open_authority(tmp_path, NOW)
    issued = authority.issue(request(), "web-1", 30, NOW)
    assert issued.ends == NOW + 30 * 86_400
    certificate = x509.load_pem_x509_certificate(issued.pem.encode())
    assert f"{certificate.serial_number:x}" == issued.serial
    store = Store([authority.certificate])
    verifier = PolicyBuilder().store(store).time(datetime.fromtimestamp(NOW, UTC)).build_client_verifier()
    subjects = verifier.verify(certificate, []).subjects
    assert subjects is not None
    assert [name.value for name in subjects] == ["spiffe://cellwall/workload/web-1"]


def test_what_a_request_asks_for_is_not_believed(tmp_path: Path) -> None:
    wish = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://cellwall/workload/db-1")])
    made = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(wish, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(KEY, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    issued = x509.load_pem_x509_certificate(open_authority(tmp_path, NOW).issue(pem, "web-1", 1, NOW).pem.encode())
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://cellwall/workload/web-1"]
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("kind", ["rsa", "garbage", "forged"])
def test_a_bad_request_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "rsa":
        pem = request(rsa.generate_private_key(65537, 2048))
    elif kind == "garbage":
        pem = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
    else:
        lines = request().splitlines()
        lines[-2] = lines[-2][:-4] + ("AAA=" if lines[-2].endswith("=") else "AAAA")
        pem = "\n".join(lines)
    with pytest.raises(ControllerError):
        open_authority(tmp_path, NOW).issue(pem, "web-1", 1, NOW)


def test_a_server_certificate_names_addresses_and_hosts(tmp_path: Path) -> None:
    authority = open_authority(tmp_path, NOW)
    authority.server_context(("10.0.0.5", "2001:db8::5", "cellwall.example"), NOW)
    pem = (tmp_path / "server.pem").read_bytes()
    names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(one) for one in names.get_values_for_type(x509.IPAddress)} >= {"10.0.0.5", "2001:db8::5"}
    assert "cellwall.example" in names.get_values_for_type(x509.DNSName)
