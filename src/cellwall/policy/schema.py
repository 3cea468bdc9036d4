"""The JSON Schema of policy documents, made from the tables that the parser reads by.

It is for editors: it knows the form of a document, not what names mean in it. Whatever the parser accepts is valid;
what is valid may still be refused (an unknown service, a selector that cannot be read, two modes that tie).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cellwall.flows import Side
from cellwall.policy.modes import Mode
from cellwall.policy.parse import (
    APPLICATIONS,
    IDENTITY_FIELDS,
    LABEL_FIELDS,
    LIFELINE_FIELDS,
    MODE_FIELDS,
    MOST_HOPS,
    NETWORK_FIELDS,
    RULE_FIELDS,
    SECTIONS,
    SERVICE_FIELDS,
    TEST_FIELDS,
    WHO_FIELDS,
    WORD,
    WORKLOAD_FIELDS,
)
from cellwall.policy.rollout import (
    APPROVAL_FIELDS,
    CHECK_FIELDS,
    LONGEST_SETTLE_S,
    MOST_REVIEWERS,
    ROLLOUT_FIELDS,
    WAVE_FIELDS,
    OnFailure,
)
from cellwall.policy.types import Claim

Schema = dict[str, object]

_KEY = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
_VALUE = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
_WORKLOAD = r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$"
_PORTS = r"^(any|([a-z][a-z0-9]*|[0-9]{1,3})(/[0-9]+(-[0-9]+)?(/[0-9]+(-[0-9]+)?)?)?)$"
_ADDRESS = r"^[0-9A-Fa-f:.]+$"
_PREFIX = r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"
_WORD = f"^{WORD}$"


def document_schema() -> Schema:
    """Give the JSON Schema (draft 2020-12) of one document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:cellwall:policy",
        "title": "Cellwall policy document",
        **_mapping(SECTIONS, _SECTIONS, "Any mix of sections; all documents of a folder are one policy.", empty=True),
        "$defs": _DEFS,
    }


# --- small words ---


def _named(name: str, about: str = "") -> Schema:
    return {"$ref": f"#/$defs/{name}", **({"description": about} if about else {})}


def _scalar(pattern: str, about: str, *, empty: bool = False) -> Schema:
    # The parser reads every scalar as its text; an editor reads 47 as a number, and nothing as null.
    kinds = ["string", "number", "boolean", *(["null"] if empty else [])]
    return {"type": kinds, **({"pattern": pattern} if pattern else {}), "description": about}


def _filled(about: str) -> Schema:
    return {"type": ["string", "number", "boolean"], "minLength": 1, "description": about}


def _free(about: str) -> Schema:
    return _scalar("", about, empty=True)


def _flag(about: str) -> Schema:
    return {"enum": [True, False, "true", "false"], "description": about}


def _several(one: Schema, about: str) -> Schema:
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}], "description": about}


def _mapping(
    fields: Iterable[str],
    known: Mapping[str, Schema],
    about: str = "",
    required: Iterable[str] = (),
    *,
    empty: bool = False,
    **more: object,
) -> Schema:
    return {
        "type": ["object", "null"] if empty else "object",
        **({"description": about} if about else {}),
        "properties": {name: known[name] for name in fields},
        "additionalProperties": False,
        **({"required": list(required)} if required else {}),
        **more,
    }


def _by_name(pattern: str, one: Schema, about: str) -> Schema:
    return {
        "type": ["object", "null"],
        "description": about,
        "propertyNames": {"pattern": pattern},
        "additionalProperties": one,
    }


def _list(one: Schema, about: str) -> Schema:
    return {"type": ["array", "null"], "description": about, "items": one}


def _whole(about: str, most: float) -> Schema:
    return {"type": ["number", "string"], "minimum": 0, "maximum": most, "description": about}


# --- sections ---

_ID = _scalar(_WORD, "unique among rules, lifelines and tests; counters, records and reports name it")
_ENDS = {
    "from": _several(_named("who"), "who opens the connection: one, or a list of alternatives"),
    "to": _several(_named("who"), "who is called: one, or a list of alternatives"),
}
_SERVICES = _several(_named("service"), "a service by name, or ports: one, or a list")
_ABOUT = {
    "owner": _free("who answers for it"),
    "reason": _free("why it is there"),
    "ticket": _free("where it was decided"),
}
_RULE: dict[str, Schema] = {
    "id": _ID,
    "allow": {**_SERVICES, "description": "let these pass"},
    "deny": {**_SERVICES, "description": "refuse these, whatever allows them"},
    "wall": {**_SERVICES, "description": "refuse these unless something allows them, in mode `guard` too"},
    **_ENDS,
    "same": _several(_named("key"), "label keys whose value both ends must share"),
    "side": {"enum": list(Side), "description": "only the source's point (`egress`) or the destination's (`ingress`)"},
    **_ABOUT,
    "starts": _named("moment", "in force from this moment on"),
    "expires": _named("moment", "in force until just before this moment"),
    "log": _flag("send samples of what is allowed, too"),
    "staged": _flag("evaluated and reported, never enforced"),
}
_LIFELINE_END = _several(_named("plain-who"), "one, or a list of alternatives")
_LIFELINE: dict[str, Schema] = {
    "id": _ID,
    "allow": {**_SERVICES, "description": "let these pass, before any rule"},
    "from": _LIFELINE_END,
    "to": _LIFELINE_END,
    **_ABOUT,
}
_SCOPED = _several(_named("network-who"), "networks only")
_TEST: dict[str, Schema] = {
    "id": _ID,
    **_ENDS,
    "can": {**_SERVICES, "description": "every one of `from` reaches every one of `to` on all of these"},
    "cannot": {**_SERVICES, "description": "none of `from` reaches any of `to` on any of these"},
    "only": _several(_named("who"), "nobody else reaches `may-reach`"),
    "may-reach": _several(_named("who"), "what nobody but `only` reaches"),
    "service": {**_SERVICES, "description": "on these; any, where it is not said"},
    "hops": {
        "type": ["integer", "string"],
        "minimum": 1,
        "maximum": MOST_HOPS,
        "pattern": "^([1-9][0-9]?|all)$",
        "description": "so many connections one after the other; 1 where it is not said",
    },
    "canary": _flag("agents of `from` try it for real before they confirm a change"),
}
_CLAIMS = {
    Claim.CAN: (("id", "from", "can", "to", "canary"), ("id", "from", "can", "to")),
    Claim.CANNOT: (("id", "from", "cannot", "to", "hops", "canary"), ("id", "from", "cannot", "to")),
    Claim.ONLY: (("id", "only", "may-reach", "service", "hops", "canary"), ("id", "only", "may-reach")),
}


def _test(claim: Claim) -> Schema:
    fields, required = _CLAIMS[claim]
    known = dict(_TEST)
    if claim is not Claim.CAN:
        known["canary"] = {"enum": [False, "false"]}
    return _mapping([name for name in TEST_FIELDS if name in fields], known, f"a claim with `{claim}`", required)


def _service() -> Schema:
    terms = {
        kind: _mapping(
            names,
            {name: _several(_filled(""), f"only these {name}") for name in names},
            f"only what {kind} asks for; no point can look into it yet",
            empty=True,
        )
        for kind, names in APPLICATIONS.items()
    }
    ports = _several(_named("ports"), "ports: one, or a list")
    kinds = [{"required": [kind]} for kind in APPLICATIONS]
    narrowed = _mapping(
        SERVICE_FIELDS,
        {"ports": ports, **terms},
        "ports, perhaps narrowed to some content",
        ["ports"],
        oneOf=[*kinds, {"not": {"anyOf": kinds}}],
    )
    return {"anyOf": [ports, narrowed]}


_SECTIONS: dict[str, Schema] = {
    "labels": _by_name(
        _KEY,
        _mapping(
            LABEL_FIELDS,
            {"values": {"type": "array", "minItems": 1, "items": _named("value"), "description": "the only values"}},
            empty=True,
        ),
        "the vocabulary: other keys are refused everywhere; without this section any key may be used",
    ),
    "services": _by_name(_WORD, _service(), "names for ports"),
    "networks": _by_name(
        _WORD,
        {
            "anyOf": [
                _several(_named("prefix"), "prefixes: one, or a list"),
                _mapping(
                    NETWORK_FIELDS,
                    {
                        "addresses": _several(_named("prefix"), "prefixes: one, or a list"),
                        "names": _several(_filled(""), "DNS names; no point can follow them yet"),
                    },
                    minProperties=1,
                ),
            ]
        },
        "names for addresses",
    ),
    "workloads": _by_name(
        _WORKLOAD,
        _mapping(
            WORKLOAD_FIELDS,
            {
                "addresses": _several(_scalar(_ADDRESS, "an address"), "its addresses: one, or a list"),
                "labels": _by_name(_KEY, _named("value"), "its labels"),
            },
            required=["addresses"],
        ),
        "workloads without an agent",
    ),
    "rules": _list(
        _mapping(
            RULE_FIELDS,
            _RULE,
            "one sentence of the policy; rules have no order",
            ["id", "from", "to"],
            oneOf=[{"required": [action]} for action in ("allow", "deny", "wall")],
        ),
        "what may pass and what may not",
    ),
    "lifelines": _list(
        _mapping(
            LIFELINE_FIELDS,
            _LIFELINE,
            "passes before any rule; one of its ends is given by address",
            ["id", "allow", "from", "to"],
            anyOf=[{"properties": {end: _SCOPED}} for end in ("from", "to")],
        ),
        "what must always pass",
    ),
    "modes": _list(
        _mapping(
            MODE_FIELDS,
            {
                "where": {
                    "type": ["string", "number", "boolean"],
                    "description": "a selector; `any` or an empty text for all workloads; the most specific wins",
                },
                "mode": {"enum": list(Mode), "description": "how far points enforce"},
            },
            required=MODE_FIELDS,
        ),
        "how far the points of which workloads enforce; `observe` where nothing is said",
    ),
    "tests": _list(
        {"oneOf": [_test(claim) for claim in Claim]}, "claims about the policy under full enforcement, always checked"
    ),
}
_SECTIONS.update(
    {
        "rollout": _mapping(
            ROLLOUT_FIELDS,
            {
                "waves": _several(
                    {
                        "anyOf": [
                            _filled("`canary` (one in a hundred), `tenth`, `all`, such as `25%`, or a selector"),
                            _mapping(WAVE_FIELDS, {"where": _filled("a selector")}, required=WAVE_FIELDS),
                        ]
                    },
                    "the points that get a revision first, and those after them; the last wave is all",
                ),
                "settle_s": _whole(
                    "seconds for which a wave has to be well before the next one begins", LONGEST_SETTLE_S
                ),
                "unexpected_denials": _whole(
                    "over so many distinct flows denied that nobody foresaw, it is not well", 1e6
                ),
                "on_failure": {"enum": list(OnFailure), "description": "go back to the last good one, or halt"},
                "checks": _list(
                    _mapping(
                        CHECK_FIELDS,
                        {
                            "id": _filled("its name"),
                            "http": _filled("a URL that the controller asks"),
                            "status": _whole("the HTTP status that it answers with; 200 where it is not said", 599),
                            "tcp": _filled("an address and port that the controller connects to"),
                        },
                        "an application's own check",
                        ["id"],
                        oneOf=[{"required": ["http"]}, {"required": ["tcp"]}],
                    ),
                    "what has to work during a rollout",
                ),
            },
            "how revisions come into force; to all points at once where nothing is said",
            empty=True,
        ),
        "approvals": _list(
            _mapping(
                APPROVAL_FIELDS,
                {
                    "where": {
                        "type": ["string", "number", "boolean"],
                        "description": "a selector; `any` or an empty text for all workloads",
                    },
                    "reviewers": _whole("so many others have to agree; 1 where it is not said", MOST_REVIEWERS),
                },
                "changes at the points of these workloads need the consent of others",
                ["where"],
            ),
            "whose changes need a second person",
        ),
    }
)
_IDENTITY = _mapping(
    IDENTITY_FIELDS,
    {
        "user": _filled("the user that the process runs as"),
        "unit": _filled("its systemd unit"),
        "exe": _filled("the path of its program; the host point cannot tell"),
    },
    "a local identity at this end",
    minProperties=1,
)
_WHERE = _filled("a selector, `any`, or `network:` and its name")
_DEFS: dict[str, Schema] = {
    "key": _scalar(_KEY, "a label key"),
    "value": _scalar(_VALUE, "a label value", empty=True),
    "ports": _scalar(_PORTS, "`tcp/443`, `udp/5000-5010`, `icmp/8`, `icmp/3/4`, a protocol, or `any`"),
    "service": {
        "anyOf": [_scalar(_PORTS, "ports"), _scalar(_WORD, "a service")],
    },
    "prefix": _scalar(_PREFIX, "an address or a prefix such as 10.20.0.0/16"),
    "moment": {
        "type": "string",
        "pattern": r"^\S{8,10}.[0-9:.,]+(Z|[+-][0-9:.]+)$",
        "description": "RFC 3339 with a time zone, such as 2026-12-01T00:00:00Z",
    },
    "who": {"anyOf": [_WHERE, _mapping(WHO_FIELDS, {"workloads": _WHERE, "as": _IDENTITY}, required=["workloads"])]},
    "plain-who": {"anyOf": [_WHERE, _mapping(["workloads"], {"workloads": _WHERE}, required=["workloads"])]},
    "network-who": {
        "anyOf": [
            {"type": "string", "pattern": "^network:"},
            {"type": "object", "properties": {"workloads": {"type": "string", "pattern": "^network:"}}},
        ]
    },
}
