"""`nft list ruleset`, as text and as JSON, to policy documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cellwall.policy import PolicyError, parse_policy
from cellwall.traffic import parse_network
from cellwall.translate.firewalls.documents import ImportedHosts
from cellwall.translate.firewalls.nftables import import_nft
from cellwall.translate.firewalls.order_free import Effect
from cellwall.translate.firewalls.rule import HostFacts, SavedRules

NOBODY = HostFacts()
SETS = """\
	set office {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8, 192.0.2.1-192.0.2.6,
				198.51.100.1 comment "them" }
	}

	set pairs {
		type ipv4_addr . inet_service
		flags interval
		elements = { 10.0.0.1 . 22, 10.1.0.0/16 . 80-90 }
	}

	set guests {
		type ipv4_addr
		flags dynamic,timeout
		elements = { 10.0.0.1 timeout 1h expires 59m59s996ms }
	}

	set odd {
		type ipv4_addr
		elements = { & }
	}

	map doors {
		type inet_service : verdict
		elements = { 22 : accept, 80 : jump web, 25 : drop }
	}

	map marks {
		type inet_service : mark
		elements = { 22 : 0x1 }
	}

	counter hits {
		packets 0 bytes 0
	}
"""


def ruleset(*rules: str, policy: str = "drop", web: str = "accept") -> str:
    lines = "\n".join(f"\t\t{rule}" for rule in rules)
    return (
        f"table inet filter {{\n{SETS}\n\tchain web {{\n\t\t{web}\n\t}}\n\n\tchain input {{\n"
        f"\t\ttype filter hook input priority filter; policy {policy};\n{lines}\n\t}}\n}}\n"
    )


def imported(*rules: str, known: HostFacts = NOBODY, **more: str) -> ImportedHosts:
    return import_nft([SavedRules("web1.nft", ruleset(*rules, **more), "web1")], known)


def input_of(made: ImportedHosts) -> list[str]:
    """Each rule of the input in one line."""
    return [
        f"{one.action} {one.ports} {' '.join(map(str, one.source)).replace('network:web1.', '')}"
        + ("" if str(one.destination[0]) == "host=web1" else f" > {one.destination[0]}")
        for one in parse_policy(made.documents.items()).rules
        if "input" in one.id or "web-" in one.id
    ]


def remarks_of(made: ImportedHosts) -> list[tuple[str, str]]:
    return [(one.effect.value, one.reason) for one in made.remarks if one.place.line > 40]


@pytest.mark.parametrize(
    ("match", "rules"),
    [
        ("ip saddr 10.0.0.0/8 tcp dport 22", ["allow tcp/22 net-10.0.0.0-8"]),
        ("ip saddr != 10.0.0.0/8 tcp dport 22", ["allow tcp/22 ipv4-but-10.0.0.0-8"]),
        ("ip6 saddr fd00::/8", ["allow any net-fd00---8"]),
        ("ip saddr 10.0.0.4-10.0.0.7", ["allow any net-10.0.0.4-30"]),
        ("ip saddr @office", ["allow any office"]),
        ("ip saddr { 10.0.0.0/9, 10.128.0.0/9 }", ["allow any net-10.0.0.0-8"]),
        ("tcp dport { 22, 80-90 }", ["allow tcp/22, tcp/80-90 any"]),
        ("tcp dport != 22", ["allow tcp/0-21, tcp/23-65535 any"]),
        ("tcp dport > 1024", ["allow tcp/1025-65535 any"]),
        ("tcp dport >= 1024", ["allow tcp/1024-65535 any"]),
        ("tcp dport < 1024", ["allow tcp/0-1023 any"]),
        ("tcp dport le 1024", ["allow tcp/0-1024 any"]),
        ("meta l4proto { tcp, udp } th dport 53", ["allow tcp/53, udp/53 any"]),
        ("meta l4proto . th dport { tcp . 53, udp . 54 }", ["allow tcp/53, udp/54 any"]),
        ("ip saddr . tcp dport @pairs", ["allow tcp/22 net-10.0.0.1", "allow tcp/80-90 net-10.1.0.0-16"]),
        ("ip saddr . tcp dport { 10.0.0.1 . 22 }", ["allow tcp/22 net-10.0.0.1"]),
        ("tcp dport vmap @doors", ["allow tcp/22 any", "allow tcp/80 any"]),
        ("ip protocol gre", ["allow gre ipv4"]),
        ("ip6 nexthdr ipv6-icmp icmpv6 type { echo-request, 135 }", ["allow icmpv6/128, icmpv6/135 ipv6"]),
        ("icmp type echo-request icmp code 0", ["allow icmp/8/0 ipv4"]),
        ("icmp type 8-9", ["allow icmp/8-9 ipv4"]),
        ("meta nfproto ipv6 tcp dport 1", ["allow tcp/1 ipv6"]),
        ("meta protocol ip tcp dport 1", ["allow tcp/1 ipv4"]),
        ("meta l4proto 6-7 tcp dport 1", ["allow tcp/1 any"]),
        ("ct state new", ["allow any any"]),
        ("ct state { established, new }", ["allow any any"]),
        ("ct state established,related", []),
        ("ct state != established", ["allow any any"]),
        ('iifname "lo"', []),
        ('iif != "lo"', ["allow any any"]),
        ('oifname "eth0"', []),
        ("tcp flags syn / fin,syn,rst,ack tcp dport 1", ["allow tcp/1 any"]),
        ("tcp flags & (fin | syn | rst | ack) == syn tcp dport 1", ["allow tcp/1 any"]),
        ("tcp flags != syn / fin,syn,rst,ack tcp dport 1", []),
        ("tcp flags & (fin | syn) == 0x0 tcp dport 1", []),
        ("fib daddr type local", ["allow any any"]),
        ("fib daddr type != local", []),
        ("meta pkttype host", ["allow any any"]),
        ("meta pkttype multicast", []),
        ("counter packets 0 bytes 0", ["allow any any"]),
        ('counter name "hits"', ["allow any any"]),
        ('log prefix "x" group 5 flags tcp sequence,options', ["allow any any"]),
        ("meta mark set 0x1", ["allow any any"]),
        ("add @guests { ip saddr timeout 1m }", ["allow any any"]),
        ("notrack", ["allow any any"]),
        ("meta mark 0x1 meta mark set 0x2", []),
        ('iifname { "eth1", "eth2" }', ["allow any input-1-from"]),
        ('iifname != { "lo", "eth1" }', ["allow any all-but-10.0.0.0-8"]),
        ("ip saddr . tcp dport { 10.0.0.1 . * }", ["allow tcp net-10.0.0.1"]),
        ("log", ["allow any any"]),
        ("counter", ["allow any any"]),
        ("ip saddr . tcp dport 10.0.0.1 . 22", ["allow tcp/22 net-10.0.0.1"]),
    ],
)
def test_what_a_rule_matches_is_allowed(match: str, rules: list[str]) -> None:
    networks = {"eth1": "10.0.0.0/8", "eth2": "192.0.2.0/24"}
    known = HostFacts(interfaces={name: (parse_network(text),) for name, text in networks.items()})
    made = imported(f"{match} accept" if "vmap" not in match else match, known=known)
    assert [one.startswith(two) for one, two in zip(sorted(input_of(made)), sorted(rules), strict=True)] == (
        [True] * len(rules)
    )


def test_interfaces_and_loopback_in_one_set_are_in_doubt() -> None:
    known = HostFacts(interfaces={"eth1": (parse_network("10.0.0.0/8"),)})
    made = imported('iifname { "lo", "eth1" } accept', known=known)
    told = [text for effect, text in remarks_of(made) if effect == "closes"]
    assert told[0].startswith("loopback and other interfaces in one set")


def test_users_are_carried_over_on_the_way_out() -> None:
    text = (
        ruleset()
        .replace("hook input", "hook output")
        .replace("policy drop;", "policy drop; meta skuid { 33, 1 } accept")
    )
    made = import_nft([SavedRules("x", text, "web1")], HostFacts(users={"33": "www-data", "1": "daemon"}))
    users = {who.identity.user for one in parse_policy(made.documents.items()).rules for who in one.source}
    assert users == {None, "www-data", "daemon"}


@pytest.mark.parametrize("file", ["a\nb", "x"])
def test_names_and_texts_beyond_reason_are_refused(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellwall.translate.firewalls import nftables

    monkeypatch.setattr(nftables, "MOST_CHARACTERS", 5)
    with pytest.raises(PolicyError):
        import_nft([SavedRules(file, ruleset(), "web1")])


def test_a_family_that_only_a_lesser_chain_covers_is_still_asked() -> None:
    text = """table ip main {
	chain c {
		type filter hook input priority 0; policy drop;
		tcp dport 22 accept
		tcp dport 23 accept
		jump d
	}
	chain d {
		jump e
	}
	chain e {
		tcp dport 24 accept
	}
}
table inet bans {
	chain c {
		type filter hook input priority -5; policy accept;
		tcp dport 23 drop
	}
}
"""
    made = import_nft([SavedRules("x", text, "web1")])
    found = [f"{one.action} {one.ports} {one.source[0]}" for one in parse_policy(made.documents.items()).rules]
    assert sorted(found) == [
        "allow any host=web1",
        "allow any network:web1.ipv6",
        "allow tcp/22 network:web1.ipv4",
        "allow tcp/23 network:web1.ipv4",
        "allow tcp/24 network:web1.ipv4",
        "deny tcp/23 any",
    ]


@pytest.mark.parametrize(
    ("match", "reason"),
    [
        ("tcp sport 53", "`tcp sport` is not a thing a policy speaks of"),
        ("limit rate 5/second burst 5 packets", "a limit of rate is not a thing a policy speaks of"),
        ("ip saddr & 255.255.0.255 == 10.0.0.1", "`ip saddr` is not a thing a policy speaks of"),
        ("ct status dnat", "`ct status` is not a thing a policy speaks of"),
        ("fib saddr . iif oif missing", "`fib saddr` is not a thing a policy speaks of"),
        ("fib saddr type local", "`fib saddr type local` is known to the host alone"),
        ("th dport 53", "`th` without a protocol that has ports"),
        ('iifname "eth0"', "interface `eth0` is no address"),
        ('iifname { "lo", "eth0" }', "interface `eth0` is no address"),
        ('iifname . ip saddr { "eth0" . 10.0.0.1 }', "`meta iifname` is not a thing a policy speaks of"),
        ("meta skuid 33", "the user of a process is known for what it sends only"),
        ("meta skuid != 33", "everyone but one user is not a thing a policy speaks of"),
        ("ip saddr @absent", "set `@absent` is not in its table"),
        ("ip saddr @odd", "an element of `odd` is not understood"),
        ("ip saddr fd00::1", "`fd00::1` is not an IPv4 address"),
        ("ip saddr > 10.0.0.1", "`ip saddr >` is not a thing a policy speaks of"),
        ("tcp dport > { 1, 2 }", "relation `>` to several values is not a thing a policy speaks of"),
        ("tcp dport > 65535", "`tcp dport > 65535` is no port"),
        ("tcp dport 90-80", "`90-80` runs backwards"),
        ("tcp dport ssh", "`ssh` is not a port"),
        ("ip saddr . tcp dport { 10.0.0.1 }", "`10.0.0.1` has not as many parts as there are fields"),
        ("ct state odd", "the state `odd` is not a thing a policy speaks of"),
        ("meta l4proto nonsense", "`nonsense` is not a protocol"),
        ("meta nfproto odd", "`odd` is neither IPv4 nor IPv6"),
        ("icmp type nonsense", "`nonsense` is no ICMP type"),
        ("icmp type 9-8", "`9-8` is no ICMP type"),
        ("icmp code echo-request", "`echo-request` is no ICMP code"),
        ("iifname > 5", "`meta iifname >` is not a thing a policy speaks of"),
        ("update @guests { ip saddr limit rate over 10/minute }", "an element that is added within a limit"),
        ("jhash ip saddr mod 2 0", "`jhash ip` is not a thing a policy speaks of"),
        ("tcp flags odd / syn", "these flags of TCP are not known"),
        ("tcp flags syn", "`tcp flags` is not a thing a policy speaks of"),
        ("tcp flags & syn", "`tcp flags` is not a thing a policy speaks of"),
        ("tcp flags & (syn ack == syn", "`tcp flags` is not a thing a policy speaks of"),
        ("tcp dport { 22 : accept }", "`tcp dport` is not a thing a policy speaks of"),
    ],
)
def test_an_accept_in_doubt_is_left_out_and_closes(match: str, reason: str) -> None:
    made = imported(f"{match} accept")
    assert input_of(made) == []
    found = [text for effect, text in remarks_of(made) if effect == "closes"]
    assert len(found) == 1
    assert found[0].startswith(reason)


def test_a_drop_in_doubt_opens_where_a_later_rule_accepts() -> None:
    made = imported("tcp dport 22 ct count over 20 drop", "tcp dport 1-100 accept")
    assert made.opens
    assert input_of(made) == ["allow tcp/1-100 any"]


def test_a_map_of_verdicts_is_a_rule_for_each_element() -> None:
    made = imported(
        "tcp dport vmap { 22 : drop, 26-30 : goto web }",
        "ip saddr vmap { 10.0.0.1 : accept }",
        "tcp dport 1-100 accept",
    )
    assert input_of(made) == [
        "deny tcp/22 any",
        "allow any net-10.0.0.1",
        "allow tcp/1-100 any",
        "allow tcp/26-30 any",
    ]


@pytest.mark.parametrize(
    "rule",
    [
        "queue num 1",
        "meta mark vmap { 0x1 : accept }",
        "tcp dport vmap @marks",
        "tcp dport vmap @absent",
        "tcp dport vmap { 22 : 0x1 }",
        "tcp dport vmap",
        "tcp dport vmap 5",
    ],
)
def test_what_an_unknown_verdict_may_drop_is_denied(rule: str) -> None:
    made = imported(rule, "accept")
    assert any(effect == "closes" and "what it decides is not known" in text for effect, text in remarks_of(made))
    assert not any(one.startswith("allow any any") for one in input_of(made))


def test_a_map_with_keys_in_doubt_leaves_its_verdicts_in_doubt() -> None:
    made = imported('iifname vmap { "lo" : accept, "eth0" : jump web }', web="tcp dport 22 accept")
    assert input_of(made) == []
    assert any(effect == "closes" and text.startswith("interface `eth0`") for effect, text in remarks_of(made))


def test_a_statement_in_doubt_without_a_verdict_is_only_listed() -> None:
    made = imported("tcp option maxseg size set rt mtu")
    told = "`tcp option` is not a thing a policy speaks of; it has no verdict of its own, and is left out"
    assert ("check", told) in remarks_of(made)


def test_sets_that_come_and_go_are_said() -> None:
    made = imported("ip saddr @guests accept")
    assert input_of(made) == ["allow any net-10.0.0.1"]
    assert ("check", "elements of set `guests` come and go; those that it has are carried over") in remarks_of(made)


def test_rules_are_named_after_their_comments_and_quote_their_lines() -> None:
    made = imported('tcp dport 22 counter packets 5 bytes 300 accept comment "ssh for us"')
    rule = next(one for one in parse_policy(made.documents.items()).rules if "ssh" in one.id)
    assert rule.id == "web1-ssh-for-us"
    assert rule.reason.startswith("web1.nft:46: tcp dport 22 counter")


def test_all_base_chains_must_accept() -> None:
    text = (
        "table ip bans {\n\tchain c {\n\t\ttype filter hook input priority -10; policy accept;\n"
        "\t\tip saddr 192.0.2.0/24 accept\n\t\tip saddr 192.0.0.0/16 drop\n\t\tmeta mark 1 accept\n\t}\n}\n"
    ) + ruleset("tcp dport 22 accept", "ip saddr 192.0.2.1 accept")
    made = import_nft([SavedRules("web1.nft", text, "web1")])
    lines = input_of(made)
    assert "allow tcp/22 any" in lines
    assert "allow any net-192.0.2.1" in lines
    denies = [one for one in parse_policy(made.documents.items()).rules if one.action == "deny"]
    assert [str(one.ports) for one in denies] == ["any"]
    assert str(denies[0].reason).endswith("ip saddr 192.0.0.0/16 drop")


def test_where_no_base_chain_is_everything_passes() -> None:
    made = import_nft([SavedRules("web1.nft", "table ip x {\n}\n", "web1")])
    rules = parse_policy(made.documents.items()).rules
    assert [f"{one.id} {one.action} {one.ports} {one.source[0]} {one.destination[0]}" for one in rules] == [
        "web1-input-all allow any any host=web1",
        "web1-output-all allow any host=web1 any",
    ]


def test_what_is_not_at_input_or_output_is_listed() -> None:
    text = """\
table inet x {
	chain pre {
		type filter hook prerouting priority raw; policy accept;
		jump more
	}
	chain more {
		ip saddr vmap { 10.0.0.1 : drop }
	}
	chain early {
		type filter hook prerouting priority raw; policy drop;
	}
	chain marks {
		type filter hook prerouting priority mangle; policy accept;
		ip saddr vmap @seen
	}
	chain dnat {
		type nat hook prerouting priority dstnat; policy accept;
		tcp dport 80 redirect to :8080
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
	}
	chain post {
		type nat hook postrouting priority srcnat; policy accept;
	}
	map seen {
		type ipv4_addr : verdict
		elements = { 10.0.0.1 : accept }
	}
}
table arp a {
	chain c {
		type filter hook input priority filter; policy drop;
	}
}
table bridge b {
}
"""
    made = import_nft([SavedRules("x.nft", text, "web1")])
    told = [(one.effect, one.place.line) for one in made.remarks if one.place.line]
    assert told == [
        (Effect.OPENS, 2),
        (Effect.OPENS, 9),
        (Effect.CHECK, 12),
        (Effect.CHECK, 16),
        (Effect.CHECK, 20),
        (Effect.OPENS, 31),
        (Effect.CHECK, 36),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x:1:1: there is no table; wanted what `nft list ruleset` writes"),
        ("*filter\n", "x:1:1: found `*filter`; wanted `table`, as `nft list ruleset` writes it"),
        ("table inet x {\n", "x:2:1: the text ends in the middle; wanted what `nft list ruleset` writes"),
        ("table inet x {\n odd\n}", "x:2:2: found `odd`; wanted `chain`, `set`, `map` or `}`"),
        ("table inet {\n}", "x:1:12: found `{`; wanted a name"),
        ("table inet x y", "x:1:14: found `y`; wanted `{`"),
        ('table inet x {\n chain c {\n "open\n', "x:3:2: a quote is open, or a sign is not understood"),
        ("table inet x {\n chain c {\n }\n chain c {\n }\n}", "x:4:2: chain `c` is there twice"),
        (
            "table inet x {\n chain c {\n type filter hook input priority 0; policy maybe;\n }\n}",
            "x:3:44: `maybe` is no policy; wanted `accept` or `drop`",
        ),
        (
            "table inet x {\n chain c {\n type filter hook input priority 0; policy drop;\n jump nowhere\n }\n}",
            "x:4:2: there is no chain `nowhere` to jump to",
        ),
        ('{"nftables": ', "x:1:14: not JSON: expecting value"),
        ('{"other": 1}', "x:1:1: there is no list `nftables`; wanted what `nft -j list ruleset` writes"),
        ('{"nftables": []}', "x:1:1: there is no table; wanted what `nft -j list ruleset` writes"),
        ('{"nftables": [{"table": {"family": "ip"}}]}', "x:1:1: `name` is missing, or no text"),
        (
            '{"nftables": [{"chain": {"family": "ip", "table": "t", "name": "c"}}]}',
            "x:1:1: a chain stands before its table",
        ),
        (
            '{"nftables": [{"table": {"family": "ip", "name": "t"}}, '
            '{"rule": {"family": "ip", "table": "t", "chain": "c"}}]}',
            "x:1:1: a rule stands before its chain",
        ),
        ('{"a":' * 100000, "x:1:1: not JSON that can be read"),
    ],
)
def test_what_is_no_ruleset_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        import_nft([SavedRules("x", text, "web1")])
    assert str(caught.value) == message


def test_one_host_has_one_ruleset() -> None:
    with pytest.raises(PolicyError, match="the ruleset of `web1` is a already"):
        import_nft([SavedRules("a", ruleset(), "web1"), SavedRules("b", ruleset(), "web1")])


def test_flush_comments_and_other_objects_are_passed_over() -> None:
    text = (
        '#!/usr/sbin/nft -f\nflush ruleset\ntable inet x { # handle 3\n\tcomment "mine"\n\tflags dormant\n'
        '\tct helper ftp {\n\t\ttype "ftp" protocol tcp\n\t}\n\tquota q {\n\t\tover 5 mbytes\n\t}\n'
        '\tchain c {\n\t\tcomment "of a chain"\n\t\ttype filter hook input priority -150; policy drop;\n'
        "\t\ttcp dport 22 accept # handle 4\n\t}\n}\n"
    )
    made = import_nft([SavedRules("x", text, "web1")])
    assert [f"{one.action} {one.ports}" for one in parse_policy(made.documents.items()).rules] == [
        "allow tcp/22",
        "allow any",
    ]


def objects(*expressions: list[dict[str, Any]], **more: object) -> str:
    chain = {
        "family": "inet",
        "table": "t",
        "name": "c",
        "type": "filter",
        "hook": "input",
        "prio": 0,
        "policy": "drop",
    }
    made: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "t", "handle": 1}},
        *({kind: {"family": "inet", "table": "t", **one}} for kind, one in more.items() if isinstance(one, dict)),
        {"chain": {"family": "inet", "table": "t", "name": "web"}},
        {"chain": chain},
        *(
            {"rule": {"family": "inet", "table": "t", "chain": "c", "handle": n, "expr": expression}}
            for n, expression in enumerate(expressions, 1)
        ),
    ]
    return json.dumps({"nftables": made})


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def match(left: object, right: object, how: str = "==") -> dict[str, Any]:
    return {"match": {"op": how, "left": left, "right": right}}


ACCEPT: dict[str, Any] = {"accept": None}


def test_json_says_the_same() -> None:
    dport, saddr = payload("tcp", "dport"), payload("ip", "saddr")
    text = objects(
        [
            match(saddr, {"prefix": {"addr": "10.0.0.0", "len": 8}}),
            match(dport, {"set": [22, {"range": [80, 90]}]}),
            ACCEPT,
        ],
        [match({"concat": [saddr, dport]}, {"set": [{"concat": ["10.0.0.1", 5]}]}), {"counter": {}}, ACCEPT],
        [match(saddr, "@office", "!="), match(dport, 23), {"log": {}}, ACCEPT],
        [
            {
                "vmap": {
                    "key": dport,
                    "data": {"set": [[24, ACCEPT], [25, {"drop": None}], [26, {"jump": {"target": "web"}}]]},
                }
            }
        ],
        [match({"&": [payload("tcp", "flags"), ["fin", "syn"]]}, "syn"), match(dport, 27), ACCEPT],
        [match({"ct": {"key": "state"}}, ["established", "new"], "in"), match(dport, 28), ACCEPT],
        [match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), match(dport, 29), ACCEPT],
        [match({"meta": {"key": "iifname"}}, "lo", "!="), match(dport, 30), {"reject": {"type": "tcp reset"}}],
        [{"set": {"op": "add", "elem": saddr, "set": "@office"}}, match(dport, 31), ACCEPT],
        set={
            "name": "office",
            "flags": ["timeout"],
            "elem": [{"elem": {"val": "10.0.0.1", "timeout": 5}}, {"range": ["10.0.0.2", "10.0.0.3"]}],
        },
    )
    made = import_nft([SavedRules("x.json", text, "web1")])
    found = [f"{one.id} {one.action} {one.ports} {one.source[0]}" for one in parse_policy(made.documents.items()).rules]
    assert found == [
        "web1-c-1 allow tcp/22, tcp/80-90 network:web1.net-10.0.0.0-8",
        "web1-c-2 allow tcp/5 network:web1.net-10.0.0.1",
        "web1-c-3 allow tcp/23 network:web1.c-3-from",
        "web1-c-4 allow tcp/24 any",
        "web1-c-5 allow tcp/27 any",
        "web1-c-6 allow tcp/28 any",
        "web1-c-7 allow tcp/29 any",
        "web1-c-9 allow tcp/31 any",
        "web1-output-all allow any host=web1",
    ]
    assert "inet t c handle 3" in made.documents["web1.yaml"]


IN_DOUBT: list[tuple[Any, str]] = [
    ({"limit": {"rate": 5, "per": "second"}}, "`limit` is not a thing a policy speaks of"),
    (match(payload("tcp", "sport"), 53, "~"), "relation `~` is not a thing a policy speaks of"),
    (match(payload("ether", "saddr"), "x"), "`ether saddr` is not a thing a policy speaks of"),
    (match({"ct": {"key": "state", "dir": "reply"}}, "new"), "`ct` is not a thing a policy speaks of"),
    (match("odd", 5), "`this` is not a thing a policy speaks of"),
    (match(payload("tcp", "dport"), {"odd": 1}), "a value is not understood"),
    (match(payload("tcp", "dport"), True), "a value is not understood"),
    ({"set": {"op": "add", "stmt": [{"limit": {}}]}}, "`set` is not a thing a policy speaks of"),
    ({"a": 1, "b": 2}, "a statement is not understood"),
    ("odd", "a statement is not understood"),
]


@pytest.mark.parametrize(("expression", "reason"), IN_DOUBT)
def test_json_in_doubt_is_left_out(expression: Any, reason: str) -> None:
    made = import_nft([SavedRules("x.json", objects([expression, ACCEPT]), "web1")])
    assert [one.reason.partition(":")[0] for one in made.remarks if one.effect is Effect.CLOSES] == [reason]
    assert "web1-c-1" not in made.documents["web1.yaml"]


@pytest.mark.parametrize(
    "expression",
    [
        {"queue": {"num": 1}},
        {"vmap": {"key": {"meta": {"key": "mark"}}, "data": {"set": []}}},
        {"vmap": {"key": payload("tcp", "dport"), "data": {"set": [[1, {"odd": None}]]}}},
        {"vmap": {"key": payload("tcp", "dport"), "data": {"set": [[1]]}}},
        {"vmap": {"key": payload("tcp", "dport"), "data": "@absent"}},
        {"vmap": {"key": payload("tcp", "dport"), "data": "@odd"}},
        {"jump": {}},
    ],
)
def test_an_unknown_verdict_in_json_denies_what_it_may_drop(expression: Any) -> None:
    text = objects([expression], [ACCEPT], map={"name": "odd", "map": "verdict", "elem": [[22, {"odd": None}]]})
    made = import_nft([SavedRules("x.json", text, "web1")])
    assert any(one.effect is Effect.CLOSES for one in made.remarks)
    assert "web1-c-2" not in made.documents["web1.yaml"]


def test_a_zone_of_an_interface_that_is_the_zone_of_all_others_too_needs_no_interface() -> None:
    # As firewalld writes it: the zone of `eth0`, then the same for what is left.
    made = imported('iifname "eth0" goto web', 'iifname "eth1" goto web', "goto web", web="tcp dport 80 accept")
    assert input_of(made) == ["allow tcp/80 any"]
    told = [one for one in made.remarks if "eth" in one.reason]
    assert [one.effect for one in told] == [Effect.SAME, Effect.SAME]
    assert told[0].reason.endswith("left out; the rule after it goes to `web` too")


@pytest.mark.parametrize(
    "rules",
    [
        ('iifname "eth0" goto web', "tcp dport 22 accept", "goto web"),
        ('iifname "eth0" goto web', "jump web", "tcp dport 22 accept"),
        ('iifname "eth0" goto web', "ip saddr 10.0.0.0/8 goto web"),
    ],
)
def test_a_jump_in_doubt_stays_in_doubt_where_the_next_rule_goes_elsewhere(rules: tuple[str, ...]) -> None:
    made = imported(*rules, web="tcp dport 80 accept")
    (told,) = [one for one in made.remarks if "eth0" in one.reason]
    assert told.effect is Effect.CLOSES and "accepted by none of the rules after it there" in told.reason
