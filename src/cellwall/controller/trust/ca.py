"""The controller's own certificate authority, and the key that signs bundles.

    folder/  ca.key ca.pem       P-256, ten years; its fingerprint is in every token
             bundle.key          Ed25519, raw, signs what agents enforce
             server.key/.pem     the TLS server, made anew at every start and before it expires

INVARIANT: a key file has mode 0600 from its first byte on, and is either whole or not there.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_p256
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cellwall.controller.errors import ControllerError
from cellwall.wire import fingerprint, spiffe_id

CA_DAYS, SERVER_DAYS = 3650, 90
CLOCK_SLACK = timedelta(minutes=10)
"""How far an agent's clock may be behind ours."""


@dataclass(frozen=True)
class Issued:
    """A certificate for an agent: PEM, its serial number as hexadecimal, and when it ends (seconds since the epoch).

    `key` is the SHA-256 of the agent's public key, as hexadecimal."""

    pem: str
    serial: str
    ends: float
    key: str


@dataclass(frozen=True)
class Authority:
    """The keys of one controller; see `open_authority`."""

    folder: Path
    key: EllipticCurvePrivateKey
    certificate: x509.Certificate
    bundle_key: Ed25519PrivateKey

    @property
    def pem(self) -> str:
        """The CA's certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the CA's certificate, hexadecimal."""
        return fingerprint(self.certificate.public_bytes(Encoding.DER))

    @property
    def verify_key(self) -> bytes:
        """The public half of the key that signs bundles: raw Ed25519, 32 bytes."""
        return self.bundle_key.public_key().public_bytes_raw()

    def server_context(self, hosts: tuple[str, ...], now: float) -> ssl.SSLContext:
        """Make a TLS server that answers to `hosts` (addresses or DNS names) and asks agents for certificates.

        A certificate is asked for, not demanded: who enrols has none. One that our CA did not sign ends the handshake.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.pem)
        self.renew_server(context, hosts, now)
        return context

    def renew_server(self, context: ssl.SSLContext, hosts: tuple[str, ...], now: float) -> None:
        """Give `context` a fresh certificate for `hosts`; connections that are open keep the old one."""
        key = generate_p256(SECP256R1())
        names = [_general_name(host) for host in dict.fromkeys((*hosts, "localhost", "127.0.0.1", "::1"))]
        certificate = self._certificate(
            key.public_key(), "cellwall controller", names, ExtendedKeyUsageOID.SERVER_AUTH, SERVER_DAYS, now
        )
        _write(self.folder / "server.key", _private(key))
        _write(self.folder / "server.pem", certificate.public_bytes(Encoding.PEM) + self.pem.encode())
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")

    def issue(self, request_pem: str, workload: str, days: int, now: float) -> Issued:
        """Sign an agent's request for `workload`; only its key is taken from it. Raises `ControllerError`."""
        try:
            request = x509.load_pem_x509_csr(request_pem.encode())
            key = request.public_key()
            proved = request.is_signature_valid
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ControllerError("this is not a certificate request in PEM") from None
        if not proved:
            raise ControllerError("the certificate request is not signed by its own key")
        if not (isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)):
            raise ControllerError("the certificate request has another kind of key; wanted P-256")
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(spiffe_id(workload))]
        certificate = self._certificate(key, workload, names, ExtendedKeyUsageOID.CLIENT_AUTH, days, now)
        return Issued(
            certificate.public_bytes(Encoding.PEM).decode(),
            f"{certificate.serial_number:x}",
            certificate.not_valid_after_utc.timestamp(),
            fingerprint(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        )

    def issue_controller(self, uri: str, days: int, now: float) -> bytes:
        """Make a key, and a certificate for a controller that asks another one as `uri`: both as PEM, in one."""
        key = generate_p256(SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = self._certificate(key.public_key(), "cellwall controller", names, usage, days, now)
        return _private(key) + certificate.public_bytes(Encoding.PEM)

    def _certificate(
        self,
        key: EllipticCurvePublicKey,
        subject: str,
        names: list[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        days: int,
        now: float,
    ) -> x509.Certificate:
        start = datetime.fromtimestamp(now, UTC)
        issuer = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(_subject(subject))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - CLOCK_SLACK)
            .not_valid_after(start + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .sign(self.key, hashes.SHA256())
        )


def open_authority(folder: Path, now: float) -> Authority:
    """Open the CA and the signing key under `folder`; what is not there is made. Raises `ControllerError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_file, certificate_file, bundle_file = folder / "ca.key", folder / "ca.pem", folder / "bundle.key"
    if not certificate_file.exists():
        # The certificate comes last: where it stands, its key does.
        key = generate_p256(SECP256R1())
        _write(key_file, _private(key))
        _write(certificate_file, _self_signed(key, now).public_bytes(Encoding.PEM))
    if not bundle_file.exists():
        _write(bundle_file, Ed25519PrivateKey.generate().private_bytes_raw())
    try:
        key = load_pem_private_key(key_file.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        bundle_key = Ed25519PrivateKey.from_private_bytes(bundle_file.read_bytes())
    except (ValueError, OSError) as error:
        raise ControllerError(f"the keys under `{folder}` cannot be read: {error}") from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ControllerError(f"`{key_file}` is not the key of `{certificate_file}`")
    return Authority(folder, key, certificate, bundle_key)


def _self_signed(key: EllipticCurvePrivateKey, now: float) -> x509.Certificate:
    start = datetime.fromtimestamp(now, UTC)
    name = _subject("cellwall authority")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - CLOCK_SLACK)
        .not_valid_after(start + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _subject(name: str) -> x509.Name:
    # RFC 5280, appendix A.1: a common name has at most 64 characters. The name that counts is the alternative one.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, wholly or not at all."""
    # mkstemp makes it with mode 0600.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
