"""Every parser of bytes that others write: from the network, from the kernel, from files of other programs.

Each has what it is given when all is well, and the only errors that may come out of it.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6
from tempfile import TemporaryDirectory

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import ECAlgorithm

from cellwall.agent.bundle import open_bundle
from cellwall.agent.enroll import make_request
from cellwall.clients import KernelError, attribute, attributes, be32, be64, every_attribute, messages, nested, text
from cellwall.compile import AddressSpan, OrderCard, Way, compile_fleet
from cellwall.controller.access.oidc import OidcOptions, check_id_token, key_of
from cellwall.controller.api.desk import addresses, from_cursor, moment, networks, ports
from cellwall.controller.api.door import cookie_of
from cellwall.controller.api.frames import Frames, Nonsense
from cellwall.controller.api.posted import posted
from cellwall.controller.errors import ControllerError, Denied, StateError
from cellwall.controller.store.engines import parse_place
from cellwall.controller.trust.ca import open_authority
from cellwall.enforce.nft.element import parse_comment, parse_elements, parse_shape
from cellwall.enforce.nft.watch import digest as digest_of_notices
from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.lab.parse import parse_scenario
from cellwall.lab.scenario import ScenarioError
from cellwall.labels import LabelError, Labels, parse_labels, parse_selector
from cellwall.observe import parse_packet
from cellwall.observe.connections import Ends, parse_connection, parse_ends, write_ends
from cellwall.observe.conntrack import parse_events
from cellwall.observe.host import parse_os_release
from cellwall.observe.processes import parse_users
from cellwall.observe.routes import parse_default_routes, parse_host_address, parse_interface
from cellwall.observe.samples import parse_sample
from cellwall.observe.sockets import parse_socket
from cellwall.policy import OrderKind, PolicyError, parse_policy
from cellwall.traffic import AddressError, ServiceError, parse_address, parse_network, parse_ports
from cellwall.translate import SavedRules, import_iptables, import_kubernetes, import_nft
from cellwall.wire import (
    Answer,
    Ask,
    Bundle,
    Confirmed,
    Counters,
    Denial,
    Denials,
    Enrol,
    Enrolled,
    Facts,
    Flows,
    Hello,
    Holding,
    Holds,
    Listening,
    MemberChange,
    PointState,
    Receipt,
    Rejected,
    Renew,
    Renewed,
    ShowTable,
    TableText,
    Taken,
    Trouble,
    Welcome,
    WireError,
    decode_enrol,
    decode_enrolment_reply,
    decode_from_agent,
    decode_from_controller,
    decode_members,
    decode_orders,
    decode_ruleset,
    digested,
    encode,
    encode_members,
    encode_orders,
    encode_ruleset,
    pack_flows,
    parse_token,
    sign,
    unpack_flows,
    verify,
    workload_of,
)

Errors = tuple[type[Exception], ...]
HERE, THERE = ip_address("10.0.0.1"), ip_address("fd00::2")
TOKEN = f"cw1.{'a' * 64}.{'b' * 43}"
POLICY = """\
labels: {app: {values: [web, db]}}
services: {pg: tcp/5432}
networks: {office: [192.0.2.0/24, "2001:db8::/32"]}
rules:
  - {id: web-db, allow: [pg, udp/53-60], from: app=web, to: app=db, log: true}
  - {id: office, allow: tcp/443, from: network:office, to: "app in (web, db)", expires: 2027-01-01T00:00:00Z}
  - {id: never, deny: any, from: any, to: app=db, reason: closed}
modes: [{where: app=db, mode: enforce}]
tests: [{id: t, from: app=web, can: pg, to: app=db}]
rollout:
  waves: [canary, {where: app=web}, tenth, all]
  settle_s: 30
  checks: [{id: front, http: "http://10.0.0.5:8080/health", status: 200}]
approvals: [{where: app=db, reviewers: 2}]
"""


@dataclass(frozen=True)
class Target:
    """A parser, what it is given when all is well, and what may come out of it instead of a value."""

    name: str
    parse: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    errors: Errors

    def __str__(self) -> str:
        return self.name


def _texts(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    """Make a parser of text one of bytes: surrogates stand for what is not UTF-8, as JSON and files may bring them."""
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


def _all(parse: Callable[[bytes], Iterable[object]]) -> Callable[[bytes], object]:
    return lambda data: list(parse(data))


# --- the wire ---

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
REQUEST = make_request("web-1")[1]
FLEET = Fleet(
    (Workload("web-1", Labels({"app": "web"}), (HERE,)), Workload("db-1", Labels({"app": "db"}), (THERE,))),
    (Listener(ip_address("10.0.0.9"), 7443),),
)
PARSED = parse_policy([("p.yaml", POLICY)])
POINT = compile_fleet(PARSED, FLEET, 3, 1000.0).points["db-1"]
RECORD = FlowRecord(
    FlowKey(HERE, THERE, 6, 5432), "w", Side.EGRESS, Outcome.ALLOWED, Outcome.DENIED, ("web-db",), 3, 2, 1.0, 2.0
)
FLOWS = pack_flows([RECORD, RECORD], batch="b-1", start=1.0, end=2.0, lost=1)
BUNDLE = sign(
    Bundle(
        workload="db-1",
        generation=7,
        revision=3,
        ruleset=encode_ruleset(POINT.ruleset),
        members=encode_members(POINT.members),
        issued_at=1000.0,
        confirm_s=30.0,
    ),
    KEY,
)
DIGESTED = digested(BUNDLE, KEY)
CHANGE = sign(
    MemberChange(
        workload="db-1",
        base=7,
        generation=8,
        revision=3,
        added=encode_members({HERE.packed: 1}),
        removed=(THERE.packed,),
        digest="a" * 64,
        issued_at=1000.0,
    ),
    KEY,
)
_DENIAL = Denial(at=1.0, source=HERE.packed, destination=HERE.packed, protocol=6, port=22, side=Side.INGRESS)
_HOLDS = Holds(source=HERE.packed, destination=HERE.packed, protocol=6, port=22, side=Side.EGRESS)
FROM_AGENT = tuple(
    encode(one)
    for one in (
        Hello(name="web-1", version="1", holding=Holding(generation=3, revision=2, digest="ab")),
        Facts(addresses=(HERE.packed, THERE.packed), listening=(Listening(protocol=6, port=80),), hostname="h"),
        FLOWS,
        Denials(samples=(_DENIAL,), skipped=3),
        Receipt(generation=7, state=PointState.REVERTED, reason="no word"),
        Answer(id=1, answer=TableText(text="table inet cellwall {}")),
        Answer(id=2, answer=Counters(rules={"web-db": (1, 2)})),
        Answer(id=3, answer=Trouble(reason="no")),
        Renew(request=REQUEST),
    )
)
FROM_CONTROLLER = tuple(
    encode(one)
    for one in (
        Welcome(protocol=1, controller="c", now=1.0),
        BUNDLE,
        DIGESTED,
        CHANGE,
        Confirmed(generation=7),
        Taken(batch="b-1"),
        Ask(id=1, question=_HOLDS),
        Ask(id=2, question=ShowTable()),
        Renewed(certificate="-----BEGIN CERTIFICATE-----"),
        Rejected(reason="no", again=True),
    )
)
REPLIES = (
    encode(Enrolled(name="web-1", certificate="c", authority="a", bundle_key=PUBLIC, labels={"app": "web"})),
    encode(Rejected(reason="no")),
)
ENROL = encode(Enrol(secret="s" * 43, request=REQUEST, name="web-1", version="1"))


def _flows(data: bytes) -> object:
    message = decode_from_agent(data)
    return unpack_flows(message, "w") if isinstance(message, Flows) else message


def _signed(data: bytes) -> object:
    """What an agent does with a message: nothing of one that is not signed is read."""
    message = decode_from_controller(data)
    if not isinstance(message, Bundle | MemberChange):
        return message
    verified = verify(message, PUBLIC, "db-1")
    assert verified in (BUNDLE, DIGESTED, CHANGE), "a message that nobody signed was believed"
    return open_bundle(verified, data) if isinstance(verified, Bundle) else verified


def _post(data: bytes) -> object:
    def answer(body: bytes) -> tuple[HTTPStatus, bytes]:
        decode_enrol(body)
        return HTTPStatus.OK, b""

    return posted(data, "/v1/enroll", answer)


def _masked(kind: int, data: bytes, *, last: bool = True) -> bytes:
    """Write a client's frame (RFC 6455, 5.2)."""
    size = bytes((0x80 | len(data),)) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    mask = b"\1\2\3\4"
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
    return bytes((0x80 * last | kind,)) + size + mask + masked


def _framed(data: bytes) -> object:
    """Read frames as they come: all at once, or in pieces of three bytes; both give the same messages."""
    at_once = Frames(1 << 20).feed(data)
    slowly = Frames(1 << 20)
    assert [one for start in range(0, len(data), 3) for one in slowly.feed(data[start : start + 3])] == at_once
    return at_once


HEAD = b"POST /v1/enroll HTTP/1.1\r\nHost: c\r\nContent-Length: %d\r\n\r\n" % len(ENROL)
_FOLDER = TemporaryDirectory()
AUTHORITY = open_authority(Path(_FOLDER.name), 1e9)
_SPAN = AddressSpan(4, int(HERE), int(HERE) + 3)
ORDERS = encode_orders(
    (
        OrderCard(
            1 << 20,
            "contain-1",
            OrderKind.CONTAIN,
            (Way((_SPAN,), (_SPAN,)),),
            ((6 << 16 | 22, 6 << 16 | 23),),
            ((HERE.packed, HERE.packed),),
            2e9,
        ),
    )
)

# --- an identity provider ---

OIDC = OidcOptions("https://idp.example", "cellwall", roles={})
JWK = {**json.loads(ECAlgorithm.to_jwk(AUTHORITY.key.public_key())), "kid": "k", "alg": "ES256"}
CLAIMS = (
    b'{"iss": "https://idp.example", "aud": "cellwall", "sub": "7", "exp": 1000000300, "iat": 1000000000,'
    b' "nbf": 999999999, "nonce": "n", "email": "ann@example.org", "email_verified": true, "groups": ["a", "b"],'
    b' "azp": "cellwall"}'
)

ODD_CLAIMS = tuple(
    CLAIMS.replace(usual, odd)
    for usual, odd in (
        (b"1000000300", b"1" + b"0" * 400),
        (b"1000000300", b"NaN"),
        (b'"n"', b'"\\ud800"'),
        (b"ann@example.org", b"\\ud800"),
        (b'["a"', b"[" * 3000),
    )
)


def _id_token(data: bytes) -> str:
    return jwt.PyJWS().encode(data, AUTHORITY.key, "ES256", headers={"kid": "k"})


def _believed(token: str) -> object:
    key = key_of(token, [JWK])
    return None if key is None else check_id_token(token, key, OIDC, "n", 1e9)


WIRE = (
    Target("messages of agents", decode_from_agent, FROM_AGENT, (WireError,)),
    Target("messages of controllers", decode_from_controller, FROM_CONTROLLER, (WireError,)),
    Target("columns of flows", _flows, (encode(FLOWS),), (WireError,)),
    Target("signed messages", _signed, (encode(BUNDLE), encode(DIGESTED), encode(CHANGE)), (WireError,)),
    Target("rulesets", decode_ruleset, (encode_ruleset(POINT.ruleset),), (WireError,)),
    Target("members", decode_members, (encode_members({HERE.packed: 1, THERE.packed: 2}),), (WireError,)),
    Target("requests to enrol", decode_enrol, (ENROL,), (WireError,)),
    Target("answers to enrolment", decode_enrolment_reply, REPLIES, (WireError,)),
    Target("the posted enrolment", _post, (HEAD + ENROL, b"POST / HTTP/1.1\r\n\r\n"), (WireError,)),
    Target("orders", decode_orders, (ORDERS,), (WireError,)),
    Target(
        "requests for certificates",
        _texts(lambda said: AUTHORITY.issue(said, "w", 1, 1e9)),
        (REQUEST.encode(),),
        (ControllerError,),
    ),
    Target("ID tokens", _texts(_believed), (_id_token(CLAIMS).encode(),), (Denied,)),
    Target("claims of ID tokens", lambda data: _believed(_id_token(data)), (CLAIMS, *ODD_CLAIMS), (Denied,)),
    Target("cookies", _texts(lambda said: cookie_of({"cookie": said}, "a")), (b"a=b; c=d",), ()),
    Target("URLs of databases", _texts(parse_place), (b"postgresql://u:p@h:5432/d?sslmode=require",), (StateError,)),
    Target(
        "frames of agents",
        _framed,
        (
            _masked(2, FROM_AGENT[0]) + _masked(9, b"ping"),
            _masked(2, b"be", last=False) + _masked(9, b"") + _masked(0, b"gun") + _masked(8, b"\3\xe8"),
        ),
        (Nonsense,),
    ),
    Target("tokens", _texts(parse_token), (TOKEN.encode(),), (WireError,)),
    Target("names in certificates", _texts(workload_of), (b"spiffe://cellwall/workload/web-1",), (WireError,)),
)

# --- the kernel ---

_ENDS = Ends(HERE.packed, ip_address("10.0.0.2").packed, 6, 40000, 443)
_CONNECTION = b"".join(
    (
        bytes(4),
        write_ends(1, _ENDS),
        write_ends(2, _ENDS.reversed()),
        be32(3, 10),
        be32(7, 120),
        nested(9, be64(1, 10), be64(2, 1000)),
        nested(20, be64(1, 5), be64(2, 6)),
        nested(4, nested(1, attribute(1, b"\3"))),
        attribute(18, b"\0\4"),
    )
)


def _message(kind: int, body: bytes, flags: int = 0x400) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 2) + body + bytes(-len(body) % 4)


_TCP = struct.pack(">HHIIBBHHH", 40000, 22, 1, 0, 5 << 4, 2, 1000, 0, 0)
_IP4 = struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + _ENDS.source + _ENDS.target + _TCP
_IP6 = struct.pack(">IHBB", 6 << 28, 28, 0, 64) + THERE.packed * 2 + b"\6\0" + bytes(6) + _TCP
_SAMPLE = b"".join(
    (
        bytes(4) + attribute(1, struct.pack(">HBx", 0x800, 3)) + text(10, "cw:denied:x") + attribute(9, _IP4),
        attribute(3, struct.pack(">QQ", 1, 2)) + be32(4, 2) + be32(11, 1000),
    )
)
_SOCKET = b"".join(
    (
        struct.pack("=BBBB", AF_INET, 1, 0, 0) + struct.pack(">HH", 5432, 40000) + HERE.packed.ljust(16, b"\0") * 2,
        struct.pack("=I8xIIIII", 3, 0, 0, 0, 1000, 77) + attribute(21, bytes(8)) + attribute(11, b"\1"),
    )
)
_HOST = struct.pack("=BBBBI", AF_INET6, 64, 0, 0, 2) + attribute(1, THERE.packed) + attribute(8, bytes(4))
_LINK = struct.pack("=BxHiII", 0, 1, 2, 0, 0) + text(3, "eth0")
_HOP = struct.pack("=HBBi", 16, 0, 0, 2) + attribute(5, HERE.packed)
_ROUTE = b"".join(
    (
        struct.pack("=BBBBBBBBI", AF_INET, 0, 0, 0, 254, 3, 0, 1, 0) + attribute(4, struct.pack("=I", 2)),
        attribute(5, HERE.packed) + attribute(6, struct.pack("=I", 100)) + attribute(9, _HOP),
    )
)
_ELEMENT = (
    bytes(4)
    + text(1, "cellwall")
    + text(2, "m")
    + nested(
        3,
        nested(1, nested(1, attribute(1, HERE.packed)), nested(2, attribute(1, bytes(4))), attribute(6, b"\0\4who\0")),
        nested(1, nested(1, attribute(1, THERE.packed)), nested(2, nested(2, be32(1, 0xFFFFFFFD), text(2, "rule_1")))),
    )
)
_SHAPE = bytes(4) + text(1, "cellwall") + text(2, "m") + be32(3, 8) + be32(4, 7) + be32(5, 4) + be32(6, 1) + be32(7, 4)


_NOTICES = (_message(256, _CONNECTION), _message(258, _CONNECTION))


def _watched(data: bytes) -> object:
    return digest_of_notices(messages(data), Counter())


KERNEL = (
    Target("netlink messages", _all(messages), (_message(256, _CONNECTION),), (KernelError,)),
    Target("attributes", attributes, (_CONNECTION[4:],), (KernelError,)),
    Target("lists of attributes", _all(every_attribute), (_CONNECTION[4:],), (KernelError,)),
    Target("ends of connections", parse_ends, (write_ends(1, _ENDS)[4:],), (KernelError,)),
    Target("connections", parse_connection, (_CONNECTION,), (KernelError,)),
    Target(
        "conntrack's notices",
        _all(parse_events),
        (_message(256, _CONNECTION), _message(258, _CONNECTION)),
        (KernelError,),
    ),
    Target("samples of packets", lambda data: parse_sample(data, {2: "eth0"}), (_SAMPLE,), (KernelError,)),
    Target("packets", parse_packet, (_IP4, _IP6), ()),
    Target("sockets", lambda data: parse_socket(data, 6), (_SOCKET,), (KernelError,)),
    Target("interfaces", parse_interface, (_LINK,), (KernelError,)),
    Target("addresses of hosts", lambda data: parse_host_address(data, {2: "e"}), (_HOST,), (KernelError,)),
    Target("routes", _all(lambda data: parse_default_routes(data, {2: "e"})), (_ROUTE,), (KernelError,)),
    Target("elements of sets", _all(parse_elements), (_ELEMENT,), (KernelError,)),
    Target("shapes of sets", parse_shape, (_SHAPE,), (KernelError,)),
    Target("comments", parse_comment, (b"\0\4who\0", b"\1\2ab"), ()),
    Target("notices of changes", _watched, (_message(0xA0C, _ELEMENT), _message(0xA0F, bytes(4))), (KernelError,)),
    Target("os-release", _texts(parse_os_release), (b'ID=debian\nNAME="Debian"\n',), ()),
    Target("passwd", _texts(parse_users), (b"root:x:0:0:root:/root:/bin/sh\n",), ()),
)

# --- documents, other programs' files, and words of people ---

MANIFESTS = b"""\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, ports: [{containerPort: 80, name: http}]}]}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}}]
      ports: [{port: http}]
  egress:
    - to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
      ports: [{protocol: UDP, port: 53, endPort: 60}]
"""
IPTABLES = b"""\
# Generated by iptables-save
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:WEB - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -s 10.0.0.0/8 -p tcp -m multiport --dports 22,80:90 -m comment --comment "a \\"b\\"" -j WEB
-A INPUT -p udp -m set --match-set good src -j ACCEPT
-A WEB ! -d 192.0.2.1/32 -p tcp -m tcp --dport 443 --tcp-flags SYN,ACK SYN -j RETURN
-A OUTPUT -m owner --uid-owner 1000 -j REJECT --reject-with icmp-port-unreachable
COMMIT
"""
IPSET = b"""\
create good hash:net family inet hashsize 1024 maxelem 65536
add good 10.0.0.0/24
add good 10.1.0.0/24 nomatch
"""
NFT = b"""\
table inet filter {
  set good { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.1-192.0.2.9 } }
  map v { type inet_service : verdict; elements = { 22 : accept, 80 : jump web } }
  chain web { tcp dport { 80, 443 } counter packets 0 bytes 0 accept }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state vmap { established : accept, related : accept, invalid : drop }
    ip saddr @good tcp dport != 22 accept comment "x"
    tcp dport vmap @v
    meta skuid 1000 reject with icmpx type port-unreachable
  }
}
"""
NFT_JSON = (
    b'{"nftables":[{"metainfo":{"json_schema_version":1}},{"table":{"family":"inet","name":"f","handle":1}},'
    b'{"chain":{"family":"inet","table":"f","name":"in","handle":1,'
    b'"type":"filter","hook":"input","prio":0,"policy":"drop"}},'
    b'{"rule":{"family":"inet","table":"f","chain":"in","handle":2,"expr":[{"match":{"op":"==","left":{"payload":'
    b'{"protocol":"tcp","field":"dport"}},"right":{"set":[22,{"range":[80,90]}]}}},{"accept":null}]}}]}'
)
MOMENTS, PORTS = (b"15m", b"1.5h", b"2026-12-01T00:00:00Z"), (b"tcp/80", b"pg,443", b"udp/5-9")
ENDS = (b"web-1", b"10.0.0.1", b"db-1")


def _rules(parse: Callable[[list[SavedRules]], object]) -> Callable[[bytes], object]:
    return _texts(lambda said: parse([SavedRules("f", said, "host")]))


def _with_sets(said: str) -> object:
    return import_iptables([SavedRules("rules", IPTABLES.decode(), "host"), SavedRules("sets", said, "host")])


def _scenarios() -> tuple[bytes, ...]:
    root = Path(__file__).resolve().parents[2]
    return tuple(path.read_bytes() for path in sorted(root.glob("**/scenarios/*.yaml"))[:3]) or (b"workloads: {}\n",)


WORDS = (
    Target("policies", lambda data: parse_policy([("p.yaml", data)]), (POLICY.encode(),), (PolicyError,)),
    Target("manifests", lambda data: import_kubernetes([("m.yaml", data)]), (MANIFESTS,), ()),
    Target("iptables-save", _rules(import_iptables), (IPTABLES,), (PolicyError,)),
    Target("ipset save", _texts(_with_sets), (IPSET,), (PolicyError,)),
    Target("nft list ruleset", _rules(import_nft), (NFT,), (PolicyError,)),
    Target("nft -j list ruleset", _rules(import_nft), (NFT_JSON,), (PolicyError,)),
    Target("scenarios of labs", _texts(parse_scenario), _scenarios(), (ScenarioError,)),
    Target("cursors", _texts(lambda said: from_cursor(said, 2)), (b"WzEsICJhIl0=", b"bnVsbA=="), (ControllerError,)),
    Target("moments", _texts(lambda said: moment(said, 1e9, 0.0)), MOMENTS, (ControllerError,)),
    Target("ports of people", _texts(lambda said: ports(said, PARSED)), PORTS, (ControllerError,)),
    Target(
        "ends of people",
        _texts(lambda said: networks(said, PARSED, FLEET)),
        (b"web-1", b"10.0.0.0/8", b"network:office", b"app in (web, db)", b"any"),
        (ControllerError,),
    ),
    Target("an end of people", _texts(lambda said: addresses(said, FLEET)), ENDS, (ControllerError,)),
    Target("selectors", _texts(parse_selector), (b"app=web,team in (a, b),!x", b"app!=db"), (LabelError,)),
    Target("labels", _texts(parse_labels), (b"app=web,team=a",), (LabelError,)),
    Target("ports", _texts(parse_ports), (b"tcp/80-90", b"icmp/8", b"any"), (ServiceError,)),
    Target("addresses", _texts(parse_address), (b"10.0.0.1", b"fd00::1"), (AddressError,)),
    Target("networks", _texts(parse_network), (b"10.0.0.0/8", b"fd00::/8"), (AddressError,)),
)  # fmt: skip
TARGETS = (*WIRE, *KERNEL, *WORDS)
