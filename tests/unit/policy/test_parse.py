"""Every form of the language is read; every slip is refused with file, line, column, and what was wanted."""

from __future__ import annotations

import textwrap
from ipaddress import ip_address, ip_network

import pytest
from tests.property.example import EXAMPLE

from cellwall.flows import Side
from cellwall.labels import Labels, parse_selector
from cellwall.policy import Action, Application, Claim, Identity, Mode, Policy, PolicyError, Who, parse_policy
from cellwall.policy.parse import MOST_FAULTS
from cellwall.traffic import EVERYTHING, parse_ports


def read(text: str) -> Policy:
    return parse_policy([("web.yaml", textwrap.dedent(text))])


def complaint(text: str) -> str:
    with pytest.raises(PolicyError) as caught:
        read(text)
    return str(caught.value)


# --- what is read ---


def test_the_example_of_the_design_is_read_whole() -> None:
    policy = parse_policy([("example.yaml", EXAMPLE)])
    assert [label.key for label in policy.labels] == ["app", "env", "pci", "role"]
    assert [service.name for service in policy.services] == ["plc-read", "postgres", "read-api", "web"]
    assert [network.name for network in policy.networks] == ["github", "office"]
    assert [workload.name for workload in policy.workloads] == ["plc-7"]
    assert [rule.id for rule in policy.rules] == ["app-to-db", "no-dev-in-prod", "smb-wall", "web-as-www-data"]
    assert [rule.id for rule in policy.lifelines] == ["ssh-from-office"]
    assert [test.id for test in policy.tests] == ["cardholder-data", "dashboard-works", "dev-stays-out"]
    assert policy.mode_of(Labels({"app": "shop", "env": "prod"})) is Mode.ENFORCE


def test_a_rule_is_read_with_all_its_fields() -> None:
    rule = parse_policy([("example.yaml", EXAMPLE)]).by_id["web-as-www-data"]
    assert rule.action is Action.ALLOW
    assert rule.ports == parse_ports("tcp/80") | parse_ports("tcp/443")
    assert rule.services == ("web",)
    assert rule.source == (Who(parse_selector("role=web"), identity=Identity(user="www-data")),)
    office = rule.destination[0].network
    assert office is not None
    assert office.prefixes == (ip_network("10.20.0.0/16"), ip_network("2001:db8:20::/48"))
    assert rule.destination[1] == Who(parse_selector("role=proxy"))
    assert (rule.starts, rule.expires) == (1_767_225_600.0, 2_237_929_200.0)
    assert (rule.ticket, rule.log, rule.staged, rule.refused) == ("4711", True, False, "")
    assert str(rule.place) == "example.yaml:36:5"
    assert rule.sides == frozenset(Side)


def test_a_rule_is_in_force_from_its_start_until_just_before_its_end() -> None:
    rule = parse_policy([("example.yaml", EXAMPLE)]).by_id["web-as-www-data"]
    assert rule.starts is not None and rule.expires is not None
    assert [rule.in_time(at) for at in (rule.starts - 1, rule.starts, rule.expires - 1, rule.expires)] == [
        False,
        True,
        True,
        False,
    ]


def test_same_is_a_set_of_keys() -> None:
    assert parse_policy([("example.yaml", EXAMPLE)]).same_keys == ("app", "env")


def test_a_workload_without_agent_is_declared() -> None:
    (plc,) = parse_policy([("example.yaml", EXAMPLE)]).workloads
    assert plc.addresses == (ip_address("10.9.0.11"),)
    assert plc.labels == Labels({"role": "plc", "app": "press"})


def test_each_claim_is_read() -> None:
    only, can, cannot = parse_policy([("example.yaml", EXAMPLE)]).tests
    assert (only.claim, only.source, only.ports, only.services, only.canary) == (
        Claim.ONLY,
        (Who(parse_selector("role=payment")),),
        EVERYTHING,
        ("any",),
        False,
    )
    assert (can.claim, can.services, can.canary) == (Claim.CAN, ("postgres",), True)
    assert (cannot.claim, cannot.ports) == (Claim.CANNOT, EVERYTHING)


def test_an_only_test_may_name_a_service() -> None:
    text = "tests: [{id: t, only: role=payment, may-reach: pci=cde, service: tcp/5432}]"
    assert read(text).tests[0].ports == parse_ports("tcp/5432")


def test_services_ports_and_protocols_mix_in_one_rule() -> None:
    allow = "[web, udp/53, gre, 47, icmp/8]"
    (rule,) = read(
        f"services: {{web: [tcp/80, tcp/443]}}\nrules: [{{id: r, allow: {allow}, from: any, to: any}}]"
    ).rules
    assert str(rule.ports) == "icmp/8, tcp/80, tcp/443, udp/53, gre"
    assert rule.services == ("web", "udp/53", "gre", "47", "icmp/8")


def test_content_and_names_that_no_point_can_follow_refuse_the_whole_rule() -> None:
    policy = read("""
        services:
          api: {ports: tcp/80, http: {methods: GET}}
          plain: {ports: tcp/81}
          tls: {ports: tcp/443, tls: {names: x}}
        networks: {github: {names: "*.github.com"}, both: {addresses: 10.0.0.0/8, names: [b, a, b]}}
        rules:
          - {id: a, allow: [plain, api, tls], from: any, to: any}
          - {id: b, allow: plain, from: any, to: "network:github"}
          - {id: c, deny: plain, from: "network:both", to: any}
          - {id: d, allow: plain, from: any, to: any}
        """)
    assert policy.services[0].application == Application("http", (("methods", ("GET",)),))
    assert policy.networks[0].names == ("a", "b")
    assert [rule.refused for rule in policy.rules] == [
        "no point can look into http yet",
        "no point can follow the DNS names of `network:github` yet",
        "no point can follow the DNS names of `network:both` yet",
        "",
    ]


def test_without_a_vocabulary_any_label_may_be_used() -> None:
    read("""
        workloads: {a: {addresses: 10.0.0.1, labels: {x: y}}}
        rules: [{id: r, allow: any, from: a=b, to: any, same: z}]
        """)


def test_a_label_without_listed_values_takes_any() -> None:
    read("labels: {app: }\nrules: [{id: r, allow: any, from: app=whatever, to: any}]")


def test_a_mapping_of_workloads_alone_is_the_selector() -> None:
    text = "rules: [{id: r, allow: any, from: {workloads: app=a}, to: {workloads: any, as: {unit: x, exe: /bin/x}}}]"
    (rule,) = read(text).rules
    assert rule.source == (Who(parse_selector("app=a")),)
    assert rule.destination == (Who(identity=Identity(unit="x", exe="/bin/x")),)


@pytest.mark.parametrize("where", ['""', "any", "''"])
def test_a_mode_for_everywhere_is_written_out(where: str) -> None:
    assert read(f"modes: [{{where: {where}, mode: enforce}}]").mode_of(Labels()) is Mode.ENFORCE


@pytest.mark.parametrize(
    "section", ["labels", "services", "networks", "workloads", "rules", "lifelines", "modes", "tests"]
)
def test_an_empty_section_is_an_empty_one(section: str) -> None:
    assert read(f"{section}:\n") == Policy()


def test_a_file_without_content_is_passed_over() -> None:
    assert parse_policy([("empty.yaml", ""), ("example.yaml", EXAMPLE)]) == parse_policy([("example.yaml", EXAMPLE)])


def test_the_moment_a_rule_starts_is_read_in_any_zone() -> None:
    text = "rules: [{id: r, allow: any, from: any, to: any, starts: 2026-01-01 02:00:00+02:00}]"
    assert read(text).rules[0].starts == 1_767_225_600.0


# --- what is refused ---

# The mark ▸ stands where the error must point.
REFUSED = [
    (
        "services: {https: tcp/443}\nrules:\n  - {id: r, from: any, to: any, allow: ▸htps}",
        "unknown service `htps`; did you mean `https`?",
    ),
    ("▸rule: []", "unknown key `rule`; did you mean `rules`?"),
    ("rules: ▸{}", "wanted a list, found a mapping"),
    (
        "rules: [{id: r, allow: any, from: any, to: any, side: ▸both}]",
        "`both` is not one of `egress`, `ingress`; known are `egress`, `ingress`",
    ),
    (
        "rules: [{id: r, allow: any, from: {workloads: any, as: {user: x}}, to: any, side: ▸ingress}]",
        "with `side: ingress` nobody would check the identity under `from`",
    ),
    (
        "rules: [{id: r, deny: any, from: any, to: {workloads: any, as: {unit: x}}, side: ▸egress}]",
        "with `side: egress` nobody would check the identity under `to`",
    ),
    ("labels: ▸[]", "wanted a mapping, found a list"),
    ("▸- rules", "wanted a mapping, found a list"),
    ("labels: {▸a b: {}}", "`a b` is not a label key: letters, digits, `-`, `_`, `.`, at most 63"),
    ("labels: {app: ▸x}", "wanted a mapping, found a text"),
    ("labels: {app: {▸value: [a]}}", "unknown key `value`; did you mean `values`?"),
    ("labels: {app: {values: ▸[]}}", "no value is listed; leave `values` out to take any"),
    ("labels: {app: {values: ▸a}}", "wanted a list, found a text"),
    ("labels: {app: {values: [▸a b]}}", "`a b` is not a label value: letters, digits, `-`, `_`, `.`, at most 63"),
    ("labels: {app: {}, ▸app: {}}", "`app` is given twice, first on line 1"),
    ("services: {▸tcp: tcp/1}", "`tcp` cannot name a service: it reads as ports or as a protocol"),
    ("services: {▸any: tcp/1}", "`any` cannot name a service: it reads as ports or as a protocol"),
    ("services: {▸47: tcp/1}", "`47` cannot name a service: it reads as ports or as a protocol"),
    ("services: {▸a/b: tcp/1}", "`a/b` cannot name a service: it reads as ports or as a protocol"),
    ("services: {▸a b: tcp/1}", "`a b` cannot name a service: letters, digits, `-`, `_`, `.`, at most 63"),
    ("services: {▸'': tcp/1}", "`` cannot name a service: letters, digits, `-`, `_`, `.`, at most 63"),
    ("services: {web: ▸[]}", "the list is empty; wanted at least one"),
    ("services: {web: ▸tcp/99999}", "`tcp/99999`: `99999` is over 65535"),
    ("services: {web: ▸{http: {}}}", "`ports` is missing"),
    ("services: {web: {ports: tcp/1, ▸htp: {}}}", "unknown key `htp`; did you mean `http`?"),
    ("services: {web: {ports: tcp/1, http: {}, tls: ▸{}}}", "`tls` and `http` cannot both narrow one service"),
    (
        "services: {web: {ports: tcp/1, http: {▸verbs: GET}}}",
        "unknown key `verbs`; known are `methods`, `paths`, `hosts`",
    ),
    ("services: {web: {ports: tcp/1, http: {paths: [▸'']}}}", "nothing is written here; wanted a text"),
    ("networks: {▸a b: 10.0.0.0/8}", "`a b` cannot name a network: letters, digits, `-`, `_`, `.`, at most 63"),
    ("networks: {a: ▸{}}", "wanted `addresses` or `names`"),
    ("networks: {a: ▸10.0.0.1/8}", "`10.0.0.1/8` is not a network; did you mean `10.0.0.0/8`?"),
    ("networks: {a: ▸}", "`` is not a network; wanted an address or a prefix such as `10.20.0.0/16`"),
    ("networks: {a: {addresses: ▸[]}}", "the list is empty; wanted at least one"),
    ("networks: {a: {▸prefix: 10.0.0.0/8}}", "unknown key `prefix`; known are `addresses`, `names`"),
    ("workloads: {a: ▸{labels: {}}}", "`addresses` of `a` is missing"),
    ("workloads: {a: {addresses: ▸10.0.0.300}}", "`10.0.0.300` is not an IPv4 or IPv6 address"),
    (
        "workloads: {▸-a: {addresses: 10.0.0.3}}",
        "`-a` cannot name a workload: letters, digits, `-`, `_`, `.`, at most 253",
    ),
    (
        "labels: {app: {}}\nworkloads: {a: {addresses: 10.0.0.3, labels: {▸ap: x}}}",
        "unknown label `ap`; did you mean `app`?",
    ),
    (
        "labels: {env: {values: [prod]}}\nworkloads: {a: {addresses: 10.0.0.3, labels: {env: ▸prd}}}",
        "`prd` is not a value of `env`; did you mean `prod`?",
    ),
    (
        "workloads: {a: {addresses: 10.0.0.3, labels: {▸a b: x}}}",
        "`a b` is not a label key: letters, digits, `-`, `_`, `.`, at most 63",
    ),
    ("rules: [▸{id: r, from: any, to: any}]", "a rule has one of `allow`, `deny`, `wall`; found none"),
    (
        "rules:\n  - ▸{id: r, from: any, to: any, allow: any, wall: any}",
        "a rule has one of `allow`, `deny`, `wall`; found `allow` and `wall`",
    ),
    ("rules: [▸{allow: any, from: any, to: any}]", "`id` is missing"),
    ("rules: [▸{id: r, allow: any, to: any}]", "`from` is missing"),
    ("rules: [▸{id: r, allow: any, from: any}]", "`to` is missing"),
    ("rules: [▸r]", "wanted a mapping, found a text"),
    ("rules:\n  - {id: r, from: any, to: any, allow: any, ▸ownr: me}", "unknown key `ownr`; did you mean `owner`?"),
    ("rules:\n  - {id: r, from: any, to: any, allow: ▸}", "nothing is written here; wanted a text"),
    ("rules:\n  - {id: r, from: any, to: any, allow: ▸[]}", "the list is empty; wanted at least one"),
    ("rules:\n  - {id: r, from: any, to: any, allow: ▸ssh}", "unknown service `ssh`"),
    (
        "rules:\n  - {id: r, from: any, to: any, allow: ▸tcp/x}",
        "`tcp/x`: `x` is not a number or a range such as `8000-8100`",
    ),
    ("rules:\n  - {id: r, from: any, to: any, allow: any, log: ▸yes}", "`yes` is not `true` or `false`"),
    ("rules:\n  - {id: r, from: any, to: any, allow: any, owner: ▸[a]}", "wanted a text, found a list"),
    ("rules:\n  - {id: r, from: any, to: any, allow: any, same: ▸[]}", "the list is empty; wanted at least one"),
    (
        "rules:\n  - {id: r, from: any, to: any, allow: any, same: ▸a=b}",
        "`a=b` is not a label key: letters, digits, `-`, `_`, `.`, at most 63",
    ),
    (
        "labels: {app: {}}\nrules:\n  - {id: r, from: any, to: any, allow: any, same: ▸ap}",
        "unknown label `ap`; did you mean `app`?",
    ),
    (
        "rules:\n  - {id: r, from: any, to: any, allow: any, starts: ▸tomorrow}",
        "`tomorrow` is not a time; wanted RFC 3339, such as `2026-12-01T00:00:00Z`",
    ),
    (
        "rules:\n  - {id: r, from: any, to: any, allow: any, expires: ▸2026-12-01}",
        "`2026-12-01` has no time zone; did you mean `2026-12-01T00:00:00Z`?",
    ),
    (
        "rules:\n  - {id: r, from: any, to: any, allow: any, starts: 2027-01-01T00:00:00Z, "
        "expires: ▸2026-01-01T00:00:00Z}",
        "the rule expires before it starts",
    ),
    (
        "rules: [{id: ▸a b, allow: any, from: any, to: any}]",
        "`a b` cannot name a rule or a test: letters, digits, `-`, `_`, `.`, at most 63",
    ),
    (
        "rules: [{id: ▸" + "x" * 64 + ", allow: any, from: any, to: any}]",
        "`" + "x" * 64 + "` cannot name a rule or a test: letters, digits, `-`, `_`, `.`, at most 63",
    ),
    ("rules: [{id: ▸default, allow: any, from: any, to: any}]", "`default` is the id of something built in"),
    ("rules: [{id: ▸icmp-errors, allow: any, from: any, to: any}]", "`icmp-errors` is the id of something built in"),
    (
        "rules: [{id: r, allow: any, from: any, to: any}]\ntests: [{id: ▸r, from: any, can: any, to: any}]",
        "the id `r` is given twice, first at web.yaml:1:14",
    ),
    (
        'rules: [{id: r, allow: any, from: ▸"", to: any}]',
        "an empty selector would match everything; write `any` if that is meant",
    ),
    (
        "rules: [{id: r, allow: any, from: any, to: ▸}]",
        "an empty selector would match everything; write `any` if that is meant",
    ),
    ("rules: [{id: r, allow: any, from: ▸[], to: any}]", "the list is empty; wanted at least one"),
    ("rules: [{id: r, allow: any, from: [▸[any]], to: any}]", "wanted a text, found a list"),
    (
        "networks: {office: 10.0.0.0/8}\nrules: [{id: r, allow: any, from: ▸'network:ofice', to: any}]",
        "unknown network `ofice`; did you mean `office`?",
    ),
    (
        "labels: {role: {values: [db]}}\nrules: [{id: r, allow: any, from: ▸roel=db, to: any}]",
        "unknown label `roel`; did you mean `role`?",
    ),
    (
        "labels: {role: {values: [web]}}\nrules: [{id: r, allow: any, from: ▸role!=wbe, to: any}]",
        "`wbe` is not a value of `role`; did you mean `web`?",
    ),
    ("rules: [{id: r, allow: any, from: ▸role=web db, to: any}]", "`role=web db`: wanted `,` before `db`"),
    ("rules: [{id: r, allow: any, from: ▸{as: {user: x}}, to: any}]", "`workloads` is missing"),
    ("rules: [{id: r, allow: any, from: {workloads: a=b, as: ▸{}}, to: any}]", "wanted `user`, `unit` or `exe`"),
    (
        "rules: [{id: r, allow: any, from: {workloads: a=b, as: {▸group: x}}, to: any}]",
        "unknown key `group`; known are `user`, `unit`, `exe`",
    ),
    (
        "rules: [{id: r, allow: any, from: {workloads: a=b, as: {user: ▸''}}, to: any}]",
        "nothing is written here; wanted a text",
    ),
    (
        "rules: [{id: r, allow: any, from: {workloads: ▸{workloads: a, as: {user: x}}, as: {user: y}}, to: any}]",
        "wanted a text, found a mapping",
    ),
    ("lifelines: [▸{id: l, from: any, to: any}]", "`allow` is missing"),
    (
        "lifelines: [▸{id: l, allow: tcp/22, from: any, to: role=db}]",
        "a lifeline is scoped by address; write `network:…` in `from` or in `to`",
    ),
    (
        "networks: {a: 10.0.0.1}\nlifelines: [▸{id: l, allow: tcp/22, from: ['network:a', any], to: any}]",
        "a lifeline is scoped by address; write `network:…` in `from` or in `to`",
    ),
    (
        "networks: {a: 10.0.0.1}\n"
        "lifelines: [▸{id: l, allow: tcp/22, from: 'network:a', to: {workloads: any, as: {user: x}}}]",
        "a lifeline cannot ask for a local identity",
    ),
    (
        "networks: {a: 10.0.0.1}\nlifelines: [{id: l, allow: tcp/22, from: 'network:a', to: any, ▸staged: true}]",
        "unknown key `staged`; known are `id`, `allow`, `from`, `to`, `owner`, `reason`, `ticket`",
    ),
    ("modes: [▸{mode: enforce}]", "`where` is missing"),
    ("modes: [▸{where: app=a}]", "`mode` is missing"),
    ("modes: [{where: ▸, mode: enforce}]", "an empty selector would match everything; write `any` if that is meant"),
    ("modes: [{where: ▸' ', mode: enforce}]", "an empty selector would match everything; write `any` if that is meant"),
    (
        "modes: [{where: app=a, mode: ▸enforced}]",
        "`enforced` is not one of `observe`, `guard`, `enforce`; did you mean `enforce`?",
    ),
    ("tests: [▸{from: any, can: any, to: any}]", "`id` is missing"),
    ("tests: [▸{id: t, from: any, to: any}]", "a test has one of `can`, `cannot`, `only`"),
    ("tests: [▸{id: t, from: any, can: any, cannot: any, to: any}]", "a test has one of `can`, `cannot`, `only`"),
    ("tests: [▸{id: t, can: any, to: any}]", "`from` is missing"),
    ("tests: [▸{id: t, only: any}]", "`may-reach` is missing"),
    ("tests: [{id: t, only: any, may-reach: any, to: ▸any}]", "`to` has no meaning beside `only`"),
    ("tests: [{id: t, from: any, can: any, to: any, service: ▸any}]", "`service` has no meaning beside `can`"),
    ("tests: [{id: t, from: any, can: any, to: any, hops: ▸2}]", "`hops` has no meaning beside `can`"),
    ("tests: [{id: t, only: any, may-reach: any, hops: ▸0}]", "`0` is no number of hops; wanted 1 to 99, or `all`"),
    (
        "tests: [{id: t, only: any, may-reach: any, hops: ▸some}]",
        "`some` is no number of hops; wanted 1 to 99, or `all`",
    ),
    (
        "tests: [{id: t, from: {workloads: any, as: {user: x}}, cannot: any, to: any, hops: ▸all}]",
        "a test about local identities is about one hop",
    ),
    ("tests: [{id: t, from: any, cannot: any, to: any, canary: ▸true}]", "only a test with `can` can be a canary"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_slip_is_refused_in_the_users_words(text: str, message: str) -> None:
    before = text.partition("▸")[0]
    place = f"web.yaml:{before.count(chr(10)) + 1}:{len(before.rpartition(chr(10))[2]) + 1}"
    assert complaint(text.replace("▸", "")) == f"{place}: {message}"


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_at_the_ends_of_time_is_a_number_or_refused(moment: str) -> None:
    text = f"rules: [{{id: r, allow: any, from: any, to: any, expires: {moment}}}]"
    assert isinstance(read(text).rules[0].expires, float)


@pytest.mark.parametrize("section", ["labels: {x: {}}", "services: {x: tcp/1}", "networks: {x: 10.0.0.1}"])
def test_a_name_declared_in_two_files_is_refused_with_both_places(section: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy([("b.yaml", section), ("a.yaml", section)])
    column = section.index("x") + 1
    assert str(caught.value) == f"b.yaml:1:{column}: `x` is declared twice, first at a.yaml:1:{column}"


def test_a_workload_declared_in_two_files_is_refused_with_both_places() -> None:
    text = "workloads: {x: {addresses: 10.0.0.1}}"
    with pytest.raises(PolicyError, match=r"^b\.yaml:1:13: `x` is declared twice, first at a\.yaml:1:13$"):
        parse_policy([("a.yaml", text), ("b.yaml", text)])


def test_the_order_of_the_documents_does_not_matter_even_for_what_they_declare() -> None:
    rules = "rules: [{id: r, allow: web, from: 'network:n', to: app=a}]"
    names = "services: {web: tcp/80}\nnetworks: {n: 10.0.0.0/8}\nlabels: {app: {}}"
    assert parse_policy([("a.yaml", rules), ("z.yaml", names)]) == parse_policy([("a.yaml", names), ("z.yaml", rules)])


def test_a_test_is_about_one_hop_where_it_does_not_say_how_many() -> None:
    ends = "from: role=a, cannot: any, to: role=b"
    texts = (ends, f"{ends}, hops: 1", f"{ends}, hops: 99", f"{ends}, hops: all")
    assert [parse_policy([("p.yaml", f"tests: [{{id: t, {text}}}]")]).tests[0].hops for text in texts] == [
        1,
        1,
        99,
        None,
    ]


def test_all_that_is_wrong_is_told_at_once_but_not_what_follows_from_it() -> None:
    documents = {
        "a.yaml": "rules:\n  - {id: x, allow: htps, from: any, to: any}\n  - {id: y, from: any, to: any}\n",
        "b.yaml": "tests: [{id: t, from: any, can: nowhere, to: any}]\nservices: {https: tcp/443}\n",
    }
    with pytest.raises(PolicyError, match=r"^a.yaml:2:20: unknown service `htps`; did you mean `https`\?$") as caught:
        parse_policy(documents.items())
    assert [str(one.place) for one in caught.value.others] == ["a.yaml:3:5", "b.yaml:1:33"]
    with pytest.raises(PolicyError) as caught:
        parse_policy([*documents.items(), ("c.yaml", "services: {https: tcp/0x}"), ("d.yaml", "rules: [")])
    assert [one.place.file for one in (caught.value, *caught.value.others)] == ["d.yaml"]
    with pytest.raises(PolicyError) as caught:
        parse_policy([("a.yaml", "rules: [" + "{}, " * 1_000 + "]")])
    assert len(caught.value.others) == MOST_FAULTS - 1
