"""iptables-save text to policy documents, option by option."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from cellwall.labels import LabelError
from cellwall.policy import Action, Policy, PolicyError, parse_policy
from cellwall.translate.firewalls.documents import ImportedHosts
from cellwall.translate.firewalls.iptables import import_iptables
from cellwall.translate.firewalls.order_free import Effect
from cellwall.translate.firewalls.rule import HostFacts, SavedRules

HEAD = ["*filter", ":INPUT DROP [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT DROP [0:0]", ":web - [0:0]"]
NOBODY = HostFacts()


def saved(*rules: str, head: list[str] = HEAD) -> str:
    return "\n".join([*head, *rules, "COMMIT", ""])


def imported(*rules: str, known: HostFacts = NOBODY, file: str = "rules.v4", sets: str = "") -> ImportedHosts:
    sources = [SavedRules(file, saved(*rules), "web1")]
    if sets:
        sources.append(SavedRules("sets", sets, "web1"))
    return import_iptables(sources, known)


def policy_of(made: ImportedHosts) -> Policy:
    return parse_policy(made.documents.items())


def rules_of(made: ImportedHosts) -> list[str]:
    """Each rule in one line."""
    return [
        f"{one.id} {one.action} {one.ports} {_ends(one.source)} > {_ends(one.destination)}"
        for one in policy_of(made).rules
    ]


def _ends(ends: tuple[object, ...]) -> str:
    return " ".join(str(end) for end in ends).replace("network:web1.", "")


def remarks_of(made: ImportedHosts) -> list[tuple[str, int, str]]:
    """What is said of single lines."""
    return [(one.effect.value, one.place.line, one.reason) for one in made.remarks if one.place.line]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ("-s 10.0.0.0/8 -p tcp -m tcp --dport 22", "tcp/22 net-10.0.0.0-8"),
        ("-s 10.0.0.0/255.0.0.0", "any net-10.0.0.0-8"),
        ("-s 10.0.0.1", "any net-10.0.0.1"),
        ("-s 10.0.0.0/8,192.0.2.0/24", "any input-1-from"),
        ("! -s 10.0.0.0/8 -p udp", "udp ipv4-but-10.0.0.0-8"),
        ("-p 47", "gre ipv4"),
        ("-p all", "any ipv4"),
        ("-p tcp -m multiport --dports 22,80:90", "tcp/22, tcp/80-90 ipv4"),
        ("-p tcp ! --dport 1:", "tcp/0 ipv4"),
        ("-p tcp --dport :1024", "tcp/0-1024 ipv4"),
        ("-p icmp -m icmp --icmp-type echo-request", "icmp/8 ipv4"),
        ("-p icmp --icmp-type 3/4", "icmp/3/4 ipv4"),
        ("-p icmp --icmp-type any", "icmp ipv4"),
        ("-p icmp --icmp-type 255", "icmp ipv4"),
        ("-p tcp --syn --dport 80", "tcp/80 ipv4"),
        ("-p tcp -m tcp --tcp-flags ALL SYN --dport 80", "tcp/80 ipv4"),
        ("-p tcp -m tcp ! --tcp-flags ALL NONE --dport 80", "tcp/80 ipv4"),
        ("-p tcp --sport 0:65535 --dport 80", "tcp/80 ipv4"),
        ("-m iprange --src-range 10.0.0.4-10.0.0.7", "any net-10.0.0.4-30"),
        ("-m addrtype --dst-type LOCAL", "any ipv4"),
        ("-m pkttype --pkt-type unicast", "any ipv4"),
        ("-m conntrack --ctstate NEW,ESTABLISHED", "any ipv4"),
        ("-m state ! --state INVALID", "any ipv4"),
        ("! -i lo -p tcp --dport 1", "tcp/1 ipv4"),
        ("-i + -p tcp --dport 1", "tcp/1 ipv4"),
        ("! -o eth0 -p tcp --dport 1", "tcp/1 ipv4"),
        ("! -f -p tcp --dport 1", "tcp/1 ipv4"),
        ("-m addrtype ! --dst-type MULTICAST -p tcp --dport 1", "tcp/1 ipv4"),
    ],
)
def test_what_an_option_matches_is_allowed(options: str, rule: str) -> None:
    made = imported(f"-A INPUT {options} -j ACCEPT")
    ports, _, network = rule.rpartition(" ")
    assert rules_of(made) == [f"web1-input-1 allow {ports} {network} > host=web1"]
    assert not [one for one in made.remarks if one.place.line == 6]


@pytest.mark.parametrize("options", ["! -p all", "! -i +", "-o eth0", "-m addrtype ! --dst-type LOCAL", "-d 127.0.0.1"])
def test_what_can_match_nothing_allows_nothing(options: str) -> None:
    assert rules_of(imported(f"-A INPUT {options} -j ACCEPT")) == []


def test_long_lists_of_ports_become_services() -> None:
    odd = ",".join(str(port) for port in range(1, 29, 2))
    made = imported(
        f"-A INPUT -s 10.0.0.1 -p tcp -m multiport --dports {odd} -j ACCEPT",
        "-A INPUT -s 10.0.0.1 -p tcp -m multiport --dports 31,33,35 -j ACCEPT",
        "-A INPUT -s 10.0.0.2 -j ACCEPT",
        "-A INPUT -p tcp --dport 25 -j DROP",
        "-A INPUT -p udp -m multiport --dports 25,27 -j DROP",
        "-A INPUT -s 10.0.0.0/8 -j ACCEPT",
        "-A INPUT -s 11.0.0.2 -p udp --dport 1:2000 -j ACCEPT",
        f"-A INPUT -p udp -m multiport --dports {odd} -j DROP",
        "-A INPUT -s 11.0.0.0/8 -j ACCEPT",
        "-A INPUT -s 12.0.0.0/8 -p udp -j ACCEPT",
    )
    policy = policy_of(made)
    assert [one.name for one in policy.services] == ["web1.all-but-tcp-25-udp-25-udp-27", "web1.input-9-ports"]
    assert "allow: web1.all-but-tcp-25-udp-25-udp-27" in made.documents["web1.yaml"]


def test_ipv4_in_ipv6_is_on_no_wire() -> None:
    text = saved("-A INPUT -s ::ffff:10.0.0.0/104 -j ACCEPT", "-A INPUT -s ::ffff:0:0/95 -j ACCEPT")
    made = import_iptables([SavedRules("rules.v6", text, "web1")])
    assert rules_of(made) == ["web1-input6-2 allow any net---fffe-0-0-95 > host=web1"]


@pytest.mark.parametrize(
    ("options", "column", "reason"),
    [
        ("-p tcp --sport 53", 17, "source port `53` is not a thing a policy speaks of"),
        ("-p udp -m multiport --sports 1,2", 30, "source port `1,2` is not a thing a policy speaks of"),
        ("-m limit --limit 5/min", 10, "match `limit` is not a thing a policy speaks of"),
        ("--foo bar", 10, "unknown option `--foo`"),
        ("--dport 80", 10, "unknown option `--dport`"),
        ("-p tcp --dport 80 --dports 1,2", 28, "unknown option `--dports`"),
        ("-p tcp --dport ssh", 17, "`ssh` is not a port"),
        ("-p tcp --dport 90:80", 17, "`90:80` runs backwards"),
        ("-p nonsense", 10, "`nonsense` is not a protocol"),
        ("! -p tcp -m tcp --dport 80", 26, "ports without a protocol that has them"),
        ("-m icmp --icmp-type 8", 18, "an ICMP type without its protocol"),
        ("-p icmp --icmp-type nonsense", 18, "`nonsense` is no ICMP type"),
        ("-p icmp --icmp-type 300", 18, "`300` is no ICMP type"),
        ("-s example.org", 10, "`example.org` is not an address"),
        ("-s fd00::1", 10, "`fd00::1` is not an IPv4 address"),
        ("-s 10.0.0.0/33", 10, "`10.0.0.0/33` has more than 32 bits"),
        ("-s 10.0.0.1/255.0.0.255", 10, "the mask of `10.0.0.1/255.0.0.255` has holes, so it is no network"),
        ("-m iprange --src-range 10.0.0.9-10.0.0.1", 21, "`10.0.0.9-10.0.0.1` runs backwards"),
        ("-i eth0", 10, "interface `eth0` is no address; say what is behind it with --interface eth0=NETWORK"),
        ("-m conntrack --ctstate DNAT", 23, "state `DNAT` is not a thing a policy speaks of"),
        ("-p tcp --tcp-flags SYN,ODD SYN", 17, "`SYN,ODD` are no flags of TCP"),
        ("-m addrtype --src-type LOCAL", 22, "the kind of address `LOCAL` is known to the host's routes only"),
        ("-m pkttype --pkt-type odd", 21, "the kind of packet `odd` is not a thing a policy speaks of"),
        ("-m set --match-set office src", 17, "set `office` is not known; give the text of `ipset save` too"),
        ("-m owner --uid-owner 33", 19, "the user of a process is known for what it sends only"),
        ("-f", 10, "later fragments are not a thing a policy speaks of"),
        ("! ! -p tcp", 12, "`!` twice"),
        ("-p tcp --dport", 17, "`--dport` lacks a value"),
    ],
)
def test_an_accept_in_doubt_is_left_out_and_closes(options: str, column: int, reason: str) -> None:
    made = imported(f"-A INPUT {options} -j ACCEPT")
    assert rules_of(made) == []
    found = [one for one in made.remarks if one.place.line == 6]
    assert [(one.effect, one.place.column, one.reason, one.text) for one in found] == [
        (
            Effect.CLOSES,
            column,
            f"{reason}: left out, so what it alone accepts is denied",
            f"-A INPUT {options} -j ACCEPT",
        )
    ]
    assert not made.opens


def test_a_drop_in_doubt_opens_only_where_a_later_rule_accepts() -> None:
    drop = "-A INPUT -p tcp -m tcp --dport 22 -m recent --rcheck --seconds 60 --name x --rsource -j DROP"
    opened = imported(drop, "-A INPUT -p tcp --dport 1:100 -j ACCEPT")
    assert ("opens", 6) in [(effect, line) for effect, line, _ in remarks_of(opened)]
    assert opened.opens
    alone = imported(drop, "-A INPUT -p udp --dport 1:100 -j ACCEPT")
    assert ("same", 6) in [(effect, line) for effect, line, _ in remarks_of(alone)]


def test_an_accept_in_doubt_is_nothing_where_another_accepts_the_same() -> None:
    made = imported("-A INPUT -p tcp --dport 22 --sport 5 -j ACCEPT", "-A INPUT -p tcp --dport 1:100 -j ACCEPT")
    assert ("same", 6, "source port `5` is not a thing a policy speaks of: left out; other rules accept the same") in (
        remarks_of(made)
    )


def test_a_drop_becomes_a_deny_where_no_earlier_rule_accepts_what_it_drops() -> None:
    made = imported(
        "-A INPUT -s 10.9.0.0/16 -j DROP",
        "-A INPUT -p tcp --dport 80 -j ACCEPT",
        "-A INPUT -s 192.0.2.0/24 -j REJECT --reject-with icmp-port-unreachable",
    )
    assert rules_of(made) == [
        "web1-input-1 deny any net-10.9.0.0-16 > host=web1",
        "web1-input-2 allow tcp/80 ipv4 > host=web1",
    ]


def test_a_drop_after_an_accept_is_taken_out_of_later_rules() -> None:
    made = imported(
        "-A INPUT -s 10.9.0.0/16 -p tcp --dport 80 -j ACCEPT",
        "-A INPUT -p tcp --dport 80 -j DROP",
        "-A INPUT -p tcp --dport 79:81 -j ACCEPT",
    )
    assert rules_of(made) == [
        "web1-input-1 allow tcp/80 net-10.9.0.0-16 > host=web1",
        "web1-input-3 allow tcp/79, tcp/81 ipv4 > host=web1",
    ]


def test_a_rule_that_earlier_drops_cover_is_said_to_be_never_reached() -> None:
    made = imported(
        "-A INPUT -s 10.9.0.1 -p tcp --dport 80 -j ACCEPT",
        "-A INPUT -s 10.9.0.0/16 -j DROP",
        "-A INPUT -s 10.9.3.0/24 -j ACCEPT",
        "-A INPUT -j DROP",
        "-A INPUT -j ACCEPT",
    )
    assert ("same", 8, "never reached: earlier rules drop all that it matches") in remarks_of(made)
    assert ("same", 10, "never reached: earlier rules decide all that it matches") in remarks_of(made)


def test_chains_are_followed_with_returns_and_gotos() -> None:
    made = imported(
        "-A INPUT -p tcp -m tcp --dport 80 -g web",
        "-A INPUT -p tcp -m tcp --dport 81 -j web",
        "-A INPUT -p tcp -j ACCEPT",
        "-A web -s 192.0.2.0/24 -j RETURN",
        "-A web -s 10.0.0.0/8 -j ACCEPT",
        "-A web -s 11.0.0.0/8 -j DROP",
    )
    policy = policy_of(made)
    text = "\n".join(rules_of(made))
    assert "web1-web-2 allow tcp/80-81 net-10.0.0.0-8" in text
    # What goes to `web` by goto and falls off its end meets the policy, not the rest of INPUT.
    third = next(one for one in policy.rules if one.id == "web1-input-3")
    assert str(third.ports) == "tcp/0-79, tcp/81-65535"
    assert [str(one.ports) for one in policy.rules if one.action is Action.DENY] == ["tcp/81"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (["-A INPUT -j web", "-A web -j web"], "rules.v4:7:1: chain `web` leads back to itself"),
        (["-A nowhere -j ACCEPT"], "rules.v4:6:1: chain `nowhere` is not declared in table `filter`"),
        (["-D INPUT -j ACCEPT"], "rules.v4:6:1: `-D` is no command of `iptables-save`; wanted `-A CHAIN …`"),
        (['-A INPUT -m comment --comment "open'], "rules.v4:6:31: a quote is open or stands within a word"),
        (["-P INPUT MAYBE"], "rules.v4:6:1: the policy of `INPUT` is not `ACCEPT` or `DROP`"),
        (["-I INPUT 5 -j ACCEPT"], "rules.v4:6:1: chain `INPUT` has no rule 5"),
        ([":INPUT ACCEPT"], "rules.v4:6:1: chain `INPUT` is declared twice"),
        ([":odd"], "rules.v4:6:1: `:odd` declares no chain; wanted `:NAME ACCEPT`, `DROP` or `-`"),
        (["[0:0]"], "rules.v4:6:1: `` is no command of `iptables-save`; wanted `-A CHAIN …`"),
        (["*nat"], "rules.v4:6:1: table `filter` has no `COMMIT` before this"),
        (["COMMIT", "*filter"], "rules.v4:7:1: table `filter` is there twice, first on line 1"),
        (["COMMIT", "hello"], "rules.v4:7:1: `hello` stands in no table; wanted what `iptables-save` writes"),
    ],
)
def test_what_is_no_saved_firewall_is_refused_with_its_place(rules: list[str], message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        imported(*rules)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rules.v4:1:1: there is no table; wanted what `iptables-save` writes"),
        ("*filter\n:INPUT DROP", "rules.v4:1:1: table `filter` has no `COMMIT`: the file is cut short"),
    ],
)
def test_a_file_that_is_cut_short_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        import_iptables([SavedRules("rules.v4", text, "web1")])
    assert str(caught.value) == message


def test_chains_that_never_end_are_refused() -> None:
    chains = [f":c{n} - [0:0]" for n in range(40)]
    rules = [f"-A c{n} -j c{n + 1}" for n in range(39) for _ in range(2)]
    with pytest.raises(PolicyError, match="has no end in sight"):
        imported(*chains, "-A INPUT -j c0", *rules)


def test_chains_are_followed_to_a_depth() -> None:
    chains = [f":c{n} - [0:0]" for n in range(80)]
    rules = [f"-A c{n} -j c{n + 1}" for n in range(79)]
    with pytest.raises(PolicyError, match="jumps more than 64 deep"):
        imported(*chains, "-A INPUT -j c0", *rules)


def test_rules_are_named_after_their_comments_and_quote_their_lines() -> None:
    made = imported('-A INPUT -p tcp --dport 22 -m comment --comment "ssh for \\"us\\"" -j ACCEPT')
    rule = policy_of(made).rules[0]
    assert rule.id == "web1-ssh-for-us"
    assert rule.reason.startswith("rules.v4:6: -A INPUT -p tcp --dport 22 -m comment")


def test_inserted_rules_and_counters_and_new_chains_are_read() -> None:
    made = imported(
        "-N extra",
        "-P OUTPUT ACCEPT",
        "[5:300] -A INPUT -p tcp --dport 22 -j DROP",
        "-I INPUT -p tcp --dport 22 -j ACCEPT",
        "-I INPUT 2 -p tcp --dport 23 -j extra",
        "-A extra -j ACCEPT",
    )
    assert rules_of(made) == [
        "web1-extra-1 allow tcp/23 ipv4 > host=web1",
        "web1-input-1 allow tcp/22 ipv4 > host=web1",
        "web1-output-policy allow any host=web1 > ipv4",
    ]


def test_both_families_make_one_rule_where_they_say_the_same() -> None:
    four = SavedRules("web1.v4", saved("-A INPUT -p tcp --dport 22 -j ACCEPT", "-A INPUT -p icmp -j ACCEPT"), "web1")
    six = SavedRules(
        "web1.v6", saved("-A INPUT -p tcp --dport 22 -j ACCEPT", "-A INPUT -p ipv6-icmp -j ACCEPT"), "web1"
    )
    made = import_iptables([four, six])
    assert rules_of(made) == [
        "web1-input-1 allow tcp/22 any > host=web1",
        "web1-input-2 allow icmp ipv4 > host=web1",
        "web1-input6-2 allow icmpv6 ipv6 > host=web1",
    ]
    assert policy_of(made).by_id["web1-input-1"].reason.count("--dport 22") == 2


def test_a_family_that_is_not_given_is_denied_and_said() -> None:
    made = imported("-A INPUT -j ACCEPT")
    told = [(one.effect, one.reason) for one in made.remarks if not one.place.line]
    assert (Effect.CLOSES, "nothing of `ip6tables-save` is given, so everything over IPv6 is denied") in told


@pytest.mark.parametrize(
    ("file", "text", "family"),
    [
        ("x", "# Generated by ip6tables-save v1.8.9\n", 6),
        ("rules.v6", "# Generated by iptables-save v1.8.9\n", 4),
        ("rules.v6", "", 6),
        ("iptables.rules", "", 4),
        ("x", "-A INPUT -s fd00::/8 -j ACCEPT", 6),
        ("x", "-A INPUT -s 10.0.0.0/8 -j ACCEPT", 4),
    ],
)
def test_the_family_is_known_from_text_or_name(file: str, text: str, family: int) -> None:
    from cellwall.translate.firewalls.iptables_text import family_of

    assert family_of(file, text) == family


def test_two_files_of_one_family_need_two_hosts() -> None:
    with pytest.raises(PolicyError, match="of the same family as a"):
        import_iptables([SavedRules("a", saved(), "web1"), SavedRules("b", saved(), "web1")])


def test_a_host_needs_a_name_that_a_label_can_have() -> None:
    with pytest.raises(LabelError):
        import_iptables([SavedRules("a", saved(), "x" * 64)])


def test_hosts_share_networks() -> None:
    rule = "-A INPUT -s 10.0.0.0/8,192.0.2.0/24 -p tcp --dport 22 -j ACCEPT"
    made = import_iptables([SavedRules("a.v4", saved(rule), "a"), SavedRules("b.v4", saved(rule), "b")])
    assert sorted(made.documents) == ["a.yaml", "b.yaml", "imported-networks.yaml"]
    policy = policy_of(made)
    assert [one.name for one in policy.networks] == ["a-input-1-from"]
    assert len(policy.rules) == 2
    assert "imported from b.v4" in made.documents["b.yaml"]


def test_the_users_of_processes_are_carried_over_where_they_have_names() -> None:
    rules = (
        "-A OUTPUT -p tcp --dport 25 -m owner --uid-owner 33 -j ACCEPT",
        "-A OUTPUT -p tcp --dport 26 -m owner --uid-owner 34 -j ACCEPT",
        "-A OUTPUT -p tcp --dport 27 -m owner ! --uid-owner 33 -j ACCEPT",
        "-A OUTPUT -p tcp --dport 28 -m owner --uid-owner postfix -j ACCEPT",
        "-A OUTPUT -p tcp --dport 29 -m owner --uid-owner 0 -j ACCEPT",
    )
    made = imported(*rules, known=HostFacts(users={"33": "www-data"}))
    assert rules_of(made) == [
        "web1-output-1 allow tcp/25 host=web1 as user=www-data > ipv4",
        "web1-output-4 allow tcp/28 host=web1 as user=postfix > ipv4",
        "web1-output-5 allow tcp/29 host=web1 as user=root > ipv4",
    ]
    closed = [(line, reason.partition(":")[0]) for effect, line, reason in remarks_of(made) if effect == "closes"]
    assert closed == [
        (7, "user `34` has no name; give the host's users with --passwd FILE"),
        (8, "everyone but one user is not a thing a policy speaks of"),
    ]


def test_what_cannot_be_said_of_one_user_is_said_to_open_or_to_close() -> None:
    known = HostFacts(users={"33": "www-data"})
    opened = imported(
        "-A OUTPUT -d 10.0.0.1 -j ACCEPT",
        "-A OUTPUT -m owner --uid-owner 33 -j DROP",
        "-A OUTPUT -p tcp --dport 25 -j ACCEPT",
        known=known,
    )
    assert opened.opens
    closed = imported("-A OUTPUT -m owner --uid-owner 33 -j RETURN", "-A OUTPUT -j ACCEPT", known=known)
    assert ("closes", 6, "one user's connections cannot be taken out of a chain alone: all users' are") in (
        remarks_of(closed)
    )


def test_interfaces_are_the_networks_behind_them() -> None:
    from cellwall.traffic import parse_network

    known = HostFacts(interfaces={"eth1": (parse_network("10.20.0.0/16"),)})
    made = imported(
        "-A INPUT -i eth1 -p tcp --dport 22 -j ACCEPT",
        "-A INPUT ! -i eth1 -p tcp --dport 80 -j ACCEPT",
        "-A INPUT -i lo -j ACCEPT",
        "-A INPUT -o eth1 -j ACCEPT",
        "-A OUTPUT -o eth1 -j ACCEPT",
        known=known,
    )
    assert rules_of(made) == [
        "web1-input-1 allow tcp/22 net-10.20.0.0-16 > host=web1",
        "web1-input-2 allow tcp/80 ipv4-but-10.20.0.0-16 > host=web1",
        "web1-output-1 allow any host=web1 > net-10.20.0.0-16",
    ]
    assert ("same", 8, "speaks of loopback alone, which always passes") in remarks_of(made)


def test_addresses_of_the_host_make_it_the_host() -> None:
    rules = (
        "-A INPUT -d 10.0.0.1 -p tcp --dport 1 -j ACCEPT",
        "-A INPUT -d 10.0.0.0/8 -p tcp --dport 2 -j ACCEPT",
        "-A INPUT -d 192.0.2.1 -p tcp --dport 3 -j ACCEPT",
        "-A INPUT -d 224.0.0.251 -p udp --dport 5353 -j ACCEPT",
    )
    known = HostFacts(addresses={"web1": (ip_address("10.0.0.1"), ip_address("10.0.0.2"))})
    made = imported(*rules, known=known)
    assert rules_of(made) == [
        "web1-input-1 allow tcp/1 ipv4 > net-10.0.0.1",
        "web1-input-2 allow tcp/2 ipv4 > host=web1",
    ]
    assert ("same", 8, "about addresses that are not the host's") in remarks_of(made)
    closes = "multicast, broadcast or loopback addresses are no workload's, so it is denied"
    assert ("closes", 9, closes) in remarks_of(made)
    unknown = imported(*rules)
    told = "the rule speaks of all workloads within these addresses; give the host's own with --address"
    assert [one for one in remarks_of(unknown) if one[2] == told] == [("opens", 7, told)]


def test_targets_that_decide_nothing_are_said_and_those_nobody_knows_are_denied() -> None:
    made = imported(
        '-A INPUT -m limit --limit 5/min -j LOG --log-prefix "x " --log-level 7',
        "-A INPUT -j NFLOG --nflog-group 5",
        "-A INPUT -j CONNMARK --save-mark --nfmask 0xff",
        "-A INPUT -p tcp --dport 22",
        "-A INPUT -p tcp --dport 81 -m limit --limit 5/min -j NFQUEUE --queue-num 1",
        "-A INPUT -p tcp --dport 80:90 -j ACCEPT",
    )
    assert rules_of(made) == [
        "web1-input-5 deny tcp/81 ipv4 > host=web1",
        "web1-input-6 allow tcp/80-90 ipv4 > host=web1",
    ]
    told = remarks_of(made)
    assert [one for one in told if one[1] in (6, 7, 8, 9)] == [
        ("same", 6, "`LOG` decides nothing"),
        ("same", 7, "`NFLOG` decides nothing"),
        ("same", 8, "`CONNMARK` decides nothing"),
        ("same", 9, "a rule without a target decides nothing"),
    ]
    unknown = next(reason for effect, line, reason in told if line == 10 and effect == "closes")
    assert unknown.startswith("what `NFQUEUE` decides is not known; match `limit`")


def test_other_tables_and_forward_are_listed() -> None:
    other = (
        "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080\nCOMMIT\n"
        "*raw\n:PREROUTING DROP [0:0]\n-A PREROUTING -s 10.0.0.0/8 -j DROP\n-A PREROUTING -j CT --notrack\nCOMMIT\n"
    )
    text = other + saved("-A FORWARD -j DROP", "-A INPUT -j ACCEPT")
    made = import_iptables([SavedRules("rules.v4", text, "web1")])
    told = [(effect, line, reason) for effect, line, reason in remarks_of(made) if line < 13]
    assert [(effect, line) for effect, line, _ in told] == [
        ("check", 1),
        ("check", 3),
        ("check", 5),
        ("opens", 6),
        ("opens", 7),
        ("check", 12),
    ]


def test_a_table_of_filters_that_is_not_there_lets_everything_pass() -> None:
    made = import_iptables([SavedRules("rules.v4", "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n", "web1")])
    assert rules_of(made) == [
        "web1-input-policy allow any ipv4 > host=web1",
        "web1-output-policy allow any host=web1 > ipv4",
    ]


def test_what_the_original_drops_and_cellwall_always_passes_is_said() -> None:
    made = imported("-A INPUT -p tcp --dport 22 -j ACCEPT", "-A OUTPUT -j ACCEPT")
    whole = [one.reason for one in made.remarks if one.effect is Effect.CHECK]
    assert any("whatever is written (icmp-errors, neighbour-discovery, dhcp-answer)" in one for one in whole)
    assert any("always lets loopback through; here input" in one for one in whole)
    answers = [one for one in made.remarks if "drops answers" in one.reason]
    assert [(one.effect, one.text) for one in answers] == [(Effect.OPENS, ":INPUT DROP")]


SETS = """\
# saved
create office hash:net family inet hashsize 1024 maxelem 65536 timeout 600
add office 10.0.0.0/8 timeout 5
add office 10.1.0.0/16 nomatch
add office 10.1.2.0/24
create pairs hash:ip,port family inet
add pairs 10.0.0.1,tcp:80-81
add pairs 10.0.0.2,53
add pairs 10.0.0.3,icmp:8/0
add pairs 10.0.0.4,gre:0
create ports bitmap:port range 0-1024
add ports 22
add ports 80-90
create macs hash:mac
add macs 00:11:22:33:44:55
create odd hash:ip family inet
add odd nonsense
create six hash:ip family inet6
add six fd00::1
create e1 hash:ip,port family inet
add e1 10.0.0.1
create e2 hash:ip,port family inet
add e2 10.0.0.1,nonsense:5
create e3 hash:ip,port family inet
add e3 10.0.0.1,icmp:x
create e4 hash:net family inet
add e4 10.0.0.0/255.0.0.0
create e5 hash:net family inet
add e5 10.0.0.1-10.0.0.4
"""


def test_sets_are_read_and_their_names_kept() -> None:
    made = imported(
        "-A INPUT -m set --match-set office src -p tcp --dport 22 -j ACCEPT",
        "-A INPUT -m set --match-set pairs src,dst -j ACCEPT",
        "-A INPUT -p tcp -m set --match-set ports dst -j ACCEPT",
        "-A INPUT -p tcp -m set ! --match-set ports dst -s 192.0.2.1 -j ACCEPT",
        sets=SETS,
    )
    lines = rules_of(made)
    assert lines[0] == "web1-input-1 allow tcp/22 office > host=web1"
    assert sorted(one.partition("allow ")[2] for one in lines if "input-2" in one) == [
        "gre net-10.0.0.4 > host=web1",
        "icmp/8/0 net-10.0.0.3 > host=web1",
        "tcp/53 net-10.0.0.2 > host=web1",
        "tcp/80-81 net-10.0.0.1 > host=web1",
    ]
    assert "web1-input-3 allow tcp/22, tcp/80-90 ipv4 > host=web1" in lines
    assert "web1-input-4 allow tcp/0-21, tcp/23-79, tcp/91-65535 net-192.0.2.1 > host=web1" in lines
    office = next(one for one in policy_of(made).networks if one.name == "web1.office")
    assert ip_address("10.1.2.3") in office
    assert ip_address("10.1.3.3") not in office
    assert ("check", 2, "elements of set `office` come and go; those that it has are carried over") in remarks_of(made)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--match-set macs src", "sets of type `hash:mac` are not carried over"),
        ("--match-set odd src", "`nonsense` is not an address (sets:17:1)"),
        ("--match-set six src", "set `six` is of the other family"),
        ("--match-set pairs src", "set `pairs` needs `src` or `dst` 2 times"),
        ("--match-set e1 src,dst", "`10.0.0.1` is no element of its set (sets:21:1)"),
        ("--match-set e2 src,dst", "`nonsense` is not a protocol (sets:23:1)"),
        ("--match-set e3 src,dst", "`x` is no ICMP type (sets:25:1)"),
        ("--match-set e4 src", "`10.0.0.0/255.0.0.0` has a mask; wanted a length (sets:27:1)"),
        ("--match-set pairs src,src", "source ports are not a thing a policy speaks of"),
    ],
)
def test_a_set_that_cannot_be_carried_over_puts_its_rule_in_doubt(options: str, reason: str) -> None:
    made = imported(f"-A INPUT -m set {options} -j ACCEPT", sets=SETS)
    assert rules_of(made) == []
    assert any(one[2].startswith(reason) for one in remarks_of(made))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("create a hash:ip\ncreate a hash:ip\n", "sets:2:1: set `a` is created twice, first on line 1"),
        ("add a 1.2.3.4\n", "sets:1:1: set `a` has not been created"),
        ("create a hash:ip\nflush a\n", "sets:2:1: `flush a` is no line of `ipset save`; wanted `create` or `add`"),
    ],
)
def test_what_is_no_saved_set_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        imported(sets=text)
    assert str(caught.value) == message


def test_sets_alone_are_no_firewall() -> None:
    with pytest.raises(PolicyError, match="sets alone"):
        import_iptables([SavedRules("sets", SETS, "web1")])


def test_a_return_in_doubt_takes_out_of_the_chain_what_it_may_match() -> None:
    made = imported(
        "-A INPUT -p tcp -j web",
        "-A INPUT -p tcp --dport 1:10 -j ACCEPT",
        "-A web -p tcp --dport 1:100 -m limit --limit 5/min -j RETURN",
        "-A web -p tcp --dport 5 -j DROP",
        "-A web -p tcp --dport 90:110 -j ACCEPT",
        "-A web -j RETURN",
        "-A web -j ACCEPT",
    )
    assert rules_of(made) == [
        "web1-input-2 allow tcp/1-10 ipv4 > host=web1",
        "web1-web-2 deny tcp/5 ipv4 > host=web1",
        "web1-web-3 allow tcp/101-110 ipv4 > host=web1",
    ]
    told = "what it may take out of the chain is accepted by none of the rules after it there"
    assert ("closes", 8, f"match `limit` is not a thing a policy speaks of: {told}") in remarks_of(made)


def test_answers_that_are_accepted_bit_by_bit_are_left_to_the_policy() -> None:
    bits = [f"-A INPUT -s 10.0.{n}.0/24 -p tcp --dport {n * 7}:60000 -j ACCEPT" for n in range(1, 120)]
    made = imported(*bits, "-P OUTPUT ACCEPT")
    assert any("drops answers on input" in one.reason and one.text == ":INPUT DROP" for one in made.remarks)
    assert not any("drops answers on input" in one.reason for one in imported(*bits, "-P INPUT ACCEPT").remarks)


@pytest.mark.parametrize("file", ["a\nb", "x"])
def test_names_and_texts_beyond_reason_are_refused(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellwall.translate.firewalls import iptables_text

    monkeypatch.setattr(iptables_text, "MOST_CHARACTERS", 5)
    with pytest.raises(PolicyError):
        import_iptables([SavedRules(file, saved(), "web1")])


def test_the_text_is_the_same_each_time() -> None:
    rules = ("-A INPUT -s 10.0.0.0/8 -p tcp --dport 22 -j ACCEPT", "-A INPUT -p udp -j ACCEPT")
    assert imported(*rules).documents == imported(*rules).documents


def test_a_jump_in_doubt_may_open_and_close_and_both_are_said() -> None:
    text = """\
*filter
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:b - [0:0]
-A INPUT -p tcp --dport 85 -m recent --rcheck --name x --rsource -j b
-A INPUT -s 10.0.0.0/8 -p tcp -j DROP
-A b -s 10.0.0.0/8 -j ACCEPT
-A b -j DROP
COMMIT
"""
    made = import_iptables([SavedRules("web1.v4", text, "web1")], HostFacts())
    told = {one.effect for one in made.remarks if "recent" in one.reason}
    assert told == {Effect.OPENS, Effect.CLOSES}
