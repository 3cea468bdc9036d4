"""Policies whose rules are close to each other: they hold each other, and can become one."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hypothesis import strategies as st

from tests.property.worlds import NETWORKS, VALUES


def dense() -> st.SearchStrategy[str]:
    """Documents of few words in many rules, so that they often hold each other, in part or in whole."""
    selected = ("any", "any", "role=web", "role=db", "role", "!role", "role!=web", "env=prod", "env!=prod")
    networks = ("network:one", "network:low", "network:high", "network:four", "network:looped")
    where = st.sampled_from([*selected, *networks])
    asked = st.sampled_from([{"user": "a"}, {"unit": "u"}, {"user": "a", "unit": "u"}])
    who = st.one_of(where, where, where, st.fixed_dictionaries({"workloads": where, "as": asked}))
    ends = st.lists(who, min_size=1, max_size=3)
    ports = st.lists(st.sampled_from(["tcp/1", "tcp/2", "tcp/1-2", "tcp/1-3", "any", "icmp/3"]), min_size=1, max_size=2)
    rule = st.fixed_dictionaries(
        {"from": ends, "to": ends},
        optional={
            "same": st.sampled_from(["role", "env", ["env", "role"]]),
            "starts": st.just("2035-01-01T00:00:00Z"),
            "expires": st.sampled_from(["2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z"]),
        },
    )
    acted = st.tuples(st.sampled_from(["allow", "allow", "deny", "wall"]), ports, rule).map(
        lambda made: {made[0]: made[1], **{key: value for key, value in made[2].items() if not _ended(key, made[2])}}
    )
    return st.lists(acted, min_size=3, max_size=9).map(
        lambda rules: json.dumps(
            {
                "labels": {"role": {"values": ["web", "db"]}, "env": {}},
                "networks": {
                    "one": ["10.0.0.1"],
                    "low": ["10.0.0.0/25", "fd00::/65"],
                    "high": ["10.0.0.128/25", "fd00:0:0:0:8000::/65"],
                    "four": ["0.0.0.0/0"],
                    "looped": ["127.0.0.0/8", "10.0.0.1"],
                },
                "rules": [{"id": f"r{number}", **rule} for number, rule in enumerate(rules)],
            },
            indent=1,
        )
    )


def _ended(key: str, rule: Mapping[str, object]) -> bool:
    """Whether a rule that starts later than it expires is to lose its start."""
    return key == "starts" and rule.get("expires") == "2020-01-01T00:00:00Z"


def mergeable() -> st.SearchStrategy[str]:
    """Documents of many rules that are like each other."""
    ports = st.lists(st.sampled_from(["tcp/80", "tcp/81", "tcp/80-90", "web", "dns", "udp/53"]), min_size=1, max_size=2)
    selected = "role=web|role=db|role in (web,db)|app=shop|app=blog|app=shop,role=web|app=blog,role=web|env=prod|!env"
    ends = st.sampled_from([*selected.split("|"), "any", "network:some", "network:out"])
    rule = st.fixed_dictionaries(
        {"from": st.lists(ends, min_size=1, max_size=2), "to": ends},
        optional={
            "same": st.sampled_from([["env"], ["app"]]),
            "side": st.sampled_from(["egress", "ingress"]),
            "owner": st.sampled_from(["me", "you"]),
            "reason": st.sampled_from(["because: so", "why not"]),
            "log": st.just("true"),
            "staged": st.just("true"),
            "expires": st.sampled_from(["2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z"]),
        },
    )
    acted = st.tuples(rule, st.sampled_from(["allow", "allow", "allow", "allow", "deny", "wall"]), ports).map(
        lambda made: {made[1]: made[2], **made[0]}
    )
    return st.lists(acted, min_size=2, max_size=14).map(
        lambda rules: json.dumps(
            {
                "labels": {key: {"values": values} for key, values in VALUES.items()},
                "services": {"web": ["tcp/80", "tcp/443"], "dns": "udp/53"},
                "networks": NETWORKS,
                "rules": [{"id": f"r{number}", **rule} for number, rule in enumerate(rules)],
            },
            indent=1,
        )
    )
