"""Labels that workloads seem to deserve, proposed from their names, their programs and their behaviour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cellwall.classify.apps import Group, find_apps, find_words, name_groups
from cellwall.classify.behaviour import Behaviour, observe_behaviour
from cellwall.classify.community import communities
from cellwall.classify.facts import Facts, Proposal
from cellwall.classify.hints import Hint, Spelling, Verdict, proposal, weigh
from cellwall.classify.knowledge import ENVIRONMENTS, INFRASTRUCTURE, ROLES, TIERS
from cellwall.classify.names import Name, read_host_name
from cellwall.classify.roles import find_roles
from cellwall.flows import FlowRecord
from cellwall.inventory import Fleet


def propose(
    fleet: Fleet,
    facts: Mapping[str, Facts],
    records: Iterable[FlowRecord],
    vocabulary: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Proposal, ...]:
    """Propose `app`, `role`, `env`, `tier` and, by hand only, `pci` for the workloads of `fleet`.

    `facts` are by name of workload, as far as known; `records` what was observed, of any window; `vocabulary` the
    declared label keys with their values (none: any value), None when no policy declares any. A label that is there
    is never proposed again, whatever its value. The same input gives the same proposals, in order of workload and
    key.
    """
    names = _names(fleet, facts)
    labels = {workload.name: workload.labels for workload in fleet.workloads}
    behaviour = observe_behaviour(fleet, facts, records)
    given: dict[str, dict[str, str]] = {
        key: {name: own[key] for name, own in labels.items() if key in own} for key in ("app", "role", "env")
    }
    used = {key: tuple(values.values()) for key, values in given.items()}
    spelling = Spelling(vocabulary, used, {"env": ENVIRONMENTS, "role": ROLES})

    found_roles = find_roles(names, facts, behaviour, {n: ROLES.get(r.lower(), r) for n, r in given["role"].items()})
    roles = {**{name: found.value for name, found in found_roles.items()}, **given["role"]}
    shared = frozenset(
        name for name in names if name in behaviour.hubs or ROLES.get(roles.get(name, ""), "") in INFRASTRUCTURE
    )
    cut = communities(behaviour.graph(shared))
    words = find_words(names, facts, behaviour)
    groups = name_groups(cut, words, given["app"], roles)
    helpers = _infrastructure(shared, behaviour, roles, given["app"])
    found_apps = find_apps(names, groups, words, helpers, given["app"])
    found_envs = _find_envs(names, groups, given["env"])

    proposals: list[Proposal | None] = []
    for name in names:
        for key, found in (("app", found_apps), ("env", found_envs), ("role", found_roles)):
            if name in found and key not in labels[name]:
                proposals.append(proposal(name, key, found[name], spelling))
        role = roles.get(name, "")
        tier = TIERS.get(ROLES.get(role, role))
        if tier and "tier" not in labels[name]:
            sure = found_roles[name].confidence if name in found_roles else 1.0
            verdict = Verdict(tier, round(0.9 * sure, 3), (f"its role is `{role}`",))
            proposals.append(proposal(name, "tier", verdict, spelling))
        if ROLES.get(role, role) == "payment" and "pci" not in labels[name]:
            verdict = Verdict("cde", 0.3, ("its role is `payment`: it may hold card data",))
            proposals.append(proposal(name, "pci", verdict, spelling, by_hand=True))
    return tuple(sorted(one for one in proposals if one is not None))


def _names(fleet: Fleet, facts: Mapping[str, Facts]) -> dict[str, Name]:
    """Read the name of each workload, and with it the host name that no other workload has."""
    hosts = Counter(one.hostname for one in facts.values())
    names: dict[str, Name] = {}
    for workload in fleet.workloads:
        host = facts[workload.name].hostname if workload.name in facts else ""
        text = workload.name if not host or hosts[host] > 1 or host == workload.name else f"{workload.name} {host}"
        names[workload.name] = read_host_name(text)
    return names


def _infrastructure(
    shared: frozenset[str], behaviour: Behaviour, roles: Mapping[str, str], apps: Mapping[str, str]
) -> dict[str, Hint]:
    """Give a hint for what serves many applications: the app that others of its kind are in, or `infra`."""
    seeds = Counter(apps[name] for name in shared if name in apps)
    app = min(((-count, value) for value, count in seeds.items()), default=(0, "infra"))[1]
    like = ", ".join(f"`{name}`" for name in sorted(shared) if apps.get(name) == app)
    hints: dict[str, Hint] = {}
    for name in shared:
        what = f"talks with {len(behaviour.peers[name])} workloads"
        if name not in behaviour.hubs:
            what = f"its role `{roles[name]}` serves many applications"
        hints[name] = Hint(app, 0.7 if like else 0.5, "company", f"{what}, as {like}" if like else what)
    return hints


def _find_envs(names: Mapping[str, Name], groups: tuple[Group, ...], known: Mapping[str, str]) -> dict[str, Verdict]:
    """Give the likely environment: from the name, from those it talks with, and from what unmarked names mean here."""
    told = {name: own.environments[-1] for name, own in names.items() if own.environments}
    sure = {**told, **{name: ENVIRONMENTS.get(env.lower(), env) for name, env in known.items()}}
    hints: dict[str, list[Hint]] = {name: [] for name in names}
    for name, env in told.items():
        hints[name].append(Hint(env, 0.8, "name", f"`{env}` is in its name"))
    for group in groups:
        envs = {member: sure[member] for member in group.members if member in sure}
        if len(set(envs.values())) == 1:
            env = next(iter(envs.values()))
            for member in group.members:
                if others := sorted(envs.keys() - {member}):
                    weight = 0.5 + 0.3 * len(others) / len(group.members)
                    reason = f"talks with `{others[0]}`, which is in `{env}`"
                    hints[member].append(Hint(env, round(weight, 3), "company", reason))
    unmarked = {name: sure[name] for name in names if name in sure and name not in told}
    values = set(unmarked.values())
    if len(values) == 1:
        env, example = next(iter(values)), min(unmarked)
        reason = f"its name says no environment, as that of `{example}`, which is in `{env}`"
        usual = Hint(env, 0.55, "unmarked", reason)
    elif not values and told and "prod" not in told.values():
        usual = Hint("prod", 0.4, "unmarked", "its name says no environment, and others say one that is not `prod`")
    else:
        usual = None
    verdicts: dict[str, Verdict] = {}
    for name, own in hints.items():
        if usual is not None and name not in told:
            own.append(usual)
        verdict = weigh(own)
        if verdict is not None and name not in known:
            verdicts[name] = verdict
    return verdicts
