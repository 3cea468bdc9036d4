"""Trade a token for a certificate: how a host becomes a workload."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from cellwall.agent.enrolment import AgentError, Enrolment, NotEnrolled, check_controller, load_enrolment
from cellwall.agent.options import VERSION, EnrollOptions
from cellwall.inventory import check_name
from cellwall.traffic import CellwallError
from cellwall.wire import (
    AUTHORITY_PATH,
    ENROL_PATH,
    MOST_ENROLMENT,
    Enrol,
    Enrolled,
    Token,
    WireError,
    decode_enrolment_reply,
    der_of,
    encode,
    fingerprint,
    parse_token,
)

_PATIENCE_S = 15.0


class Refused(AgentError):
    """The controller does not take us; trying again with the same token does not help."""


def enroll(options: EnrollOptions) -> str:
    """Make this host a workload of a controller, and give the workload's name.

    The token's secret is sent only after the controller has shown the authority that the token names. A host that is
    enrolled already gets a fresh certificate with `again`, under its name and of its own controller alone: what it
    enforces is left as it is, and its agent takes the certificate up when it connects next. Raises `Unreachable`,
    `Refused`, or `AgentError`; then nothing was written.
    """
    token = parse_token(options.token)
    controller = check_controller(options.controller)
    name = check_name(options.name)
    held = _held(options, name, token)
    authority = _authority(controller, token)
    key, request = make_request(name)
    asked = encode(Enrol(secret=token.secret, request=request, name=name, version=VERSION))
    context = ssl.create_default_context(cadata=authority)
    status, body = _call(controller, context, "POST", ENROL_PATH, asked)
    if status >= 500:
        raise _unreachable(f"the controller at `{controller}` cannot enrol at the moment: status {status}")
    reply = decode_enrolment_reply(body)
    if not isinstance(reply, Enrolled):
        raise Refused(f"the controller refused: {reply.reason}")
    if fingerprint(_der(reply.authority)) != token.authority:
        raise Refused("the controller named another authority than the token does")
    if held is not None and reply.bundle_key != held.bundle_key:
        raise Refused("the controller signs with another key than this host's; enrol in an empty folder")
    Enrolment(options.state, reply.name, controller, reply.bundle_key).save(reply.certificate, key, reply.authority)
    return reply.name


def _held(options: EnrollOptions, name: str, token: Token) -> Enrolment | None:
    try:
        held = load_enrolment(options.state)
    except NotEnrolled:
        return None
    if not options.again:
        raise AgentError(
            f"`{options.state}` holds an enrolment already, as `{held.name}`; with --again it is made anew"
        )
    if name != held.name:
        raise AgentError(f"this host is `{held.name}`; it can be enrolled again under this name alone, not as `{name}`")
    try:
        ours = held.authority.read_text("ascii")
    except (OSError, ValueError):
        raise AgentError(f"`{held.authority}` cannot be read; enrol in an empty folder") from None
    if fingerprint(_der(ours)) != token.authority:
        raise AgentError(
            "the token is of another controller than this host's; to change over, `cellwall agent remove`, then delete "
            f"`{options.state}`, then enrol"
        )
    return held


def make_request(name: str) -> tuple[bytes, str]:
    """Make a key (P-256, PEM) and the request for its certificate (PEM), which names the workload."""
    # Here, and not above: an agent that runs needs them once a month.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    from cellwall.wire import spiffe_id

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id(name))])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _authority(controller: str, token: Token) -> str:
    """Fetch the authority's certificate from whoever answers, and believe it only if the token names it."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    status, body = _call(controller, blind, "GET", AUTHORITY_PATH, None)
    if status != 200:
        raise _unreachable(f"`{controller}` does not answer as a controller does: status {status}")
    text = body.decode("ascii", "replace")
    if fingerprint(_der(text)) != token.authority:
        raise Refused(f"`{controller}` is not the controller that the token is for: it has another authority")
    return text


def _der(pem: str) -> bytes:
    try:
        return der_of(pem)
    except WireError:
        raise Refused("the controller's authority is no certificate") from None


def _call(controller: str, context: ssl.SSLContext, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    # Here, and not above: an agent that runs does not enrol.
    from http.client import HTTPException, HTTPSConnection

    parts = urlsplit(controller)
    connection = HTTPSConnection(parts.hostname or "", parts.port or 443, timeout=_PATIENCE_S, context=context)
    try:
        connection.request(method, path, body, {"Content-Type": "application/msgpack"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read(MOST_ENROLMENT)
    except ssl.SSLCertVerificationError as error:
        raise Refused(f"`{controller}` shows a certificate that is not its own: {error.verify_message}") from None
    except (OSError, HTTPException) as error:
        raise _unreachable(f"the controller at `{controller}` cannot be reached: {str(error).lower()}") from None
    finally:
        connection.close()


def _unreachable(why: str) -> CellwallError:
    from cellwall.clients import Unreachable

    return Unreachable(why)
