"""The published schema and the reference page of the policy language say what the parser does."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from jsonschema import Draft202012Validator
from tests.property.example import EXAMPLE
from tests.property.worlds import documents

from cellwall.policy import Mode, PolicyError, document_schema, parse_policy
from cellwall.policy.parse import (
    APPLICATIONS,
    IDENTITY_FIELDS,
    LABEL_FIELDS,
    LIFELINE_FIELDS,
    MODE_FIELDS,
    NETWORK_FIELDS,
    RULE_FIELDS,
    SECTIONS,
    SERVICE_FIELDS,
    TEST_FIELDS,
    WHO_FIELDS,
    WORKLOAD_FIELDS,
)

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PUBLISHED = REFERENCE / "policy.schema.json"
PAGE = REFERENCE / "policy.md"
REWRITE = os.environ.get("CELLWALL_GOLDEN") == "rewrite"

VALIDATOR = Draft202012Validator(document_schema())
TABLES = [
    (SECTIONS, RULE_FIELDS, LIFELINE_FIELDS, TEST_FIELDS, MODE_FIELDS, LABEL_FIELDS, NETWORK_FIELDS),
    (WORKLOAD_FIELDS, WHO_FIELDS, IDENTITY_FIELDS, SERVICE_FIELDS, *APPLICATIONS.values(), tuple(Mode)),
]


class Editor(yaml.SafeLoader):
    """Reads scalars as the editors' YAML 1.2 does: no timestamps, and only `true` and `false` are flags."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012


for tag, pattern, first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?[0-9]+\.[0-9]+", "-+0123456789"),
    ("null", r"~|null|", ["~", "n", ""]),
):
    Editor.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]
        f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first)
    )


def as_an_editor(text: str) -> Any:
    return yaml.load(text, Loader=Editor)


def complaints(text: str) -> list[str]:
    document = as_an_editor(text)
    if document is None:
        return []
    errors: Any = VALIDATOR.iter_errors(document)  # pyright: ignore[reportUnknownMemberType]
    return [str(error.message) for error in errors]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_the_published_schema_is_the_generated_one() -> None:
    text = json.dumps(document_schema(), indent=2, ensure_ascii=False) + "\n"
    if REWRITE:
        PUBLISHED.write_text(text, "utf-8")
    assert PUBLISHED.read_text("utf-8") == text, f"{PUBLISHED.name} is stale; `make golden`"


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(document_schema())


def test_the_example_of_the_design_is_valid() -> None:
    assert complaints(EXAMPLE) == []


@settings(max_examples=settings().max_examples // 2)
@given(documents())
def test_what_the_parser_accepts_is_valid(text: str) -> None:
    parse_policy([("policy.yaml", text)])
    assert complaints(text) == []


ACCEPTED = [
    "",
    "rules:\nlabels:\nservices:\nnetworks:\nworkloads:\nlifelines:\nmodes:\ntests:\n",
    "labels: {app: , env: {values: [prod, 1, true, ]}, a.b/c: {}}",
    "services: {a: 47, b: [any, icmp/3/0-4], c: {ports: tcp/1, tls: }, d: {ports: [udp/1-2], http: {paths: /x}}}",
    "networks: {a: 10.0.0.1, b: ['::/0'], c: {names: x}, d: {addresses: [10.0.0.0/8], names: [a, b]}}",
    "workloads: {1: {addresses: 10.0.0.1}, w: {addresses: ['::1'], labels: {a: 1, b: , c.d/e: x}}}",
    "rules: [{id: 1, allow: [47, tcp/1], from: any, to: [a=b, {workloads: any, as: {unit: x}}], reason: , owner: 7}]",
    "rules: [{id: r, deny: any, from: '!a', to: {workloads: a}, same: [a, b], log: 'true', starts: 20260101T00:00+01}]",
    "rules: [{id: r, wall: tcp/1, from: {workloads: any, as: {user: x}}, to: any, side: egress}]",
    "networks: {n: 10.0.0.1}\nlifelines: [{id: l, allow: 6, from: any, to: [network:n, {workloads: network:n}]}]",
    "modes: [{where: '', mode: observe}, {where: any, mode: observe}, {where: 'a in (b,c)', mode: guard}]",
    "tests: [{id: a, only: any, may-reach: x, service: any}, {id: b, from: any, cannot: any, to: any, canary: false}]",
]
REFUSED = [
    "rule: []",
    "- rules",
    "labels: []",
    "labels: {a b: {}}",
    "labels: {a: {values: []}}",
    "labels: {a: {values: [a b]}}",
    "labels: {a: {vals: [a]}}",
    "services: {a b: tcp/1}",
    "services: {a: }",
    "services: {a: []}",
    "services: {a: tcp/x}",
    "services: {a: {http: {}}}",
    "services: {a: {ports: tcp/1, http: {}, tls: {}}}",
    "services: {a: {ports: tcp/1, http: {verbs: GET}}}",
    "networks: {a: x}",
    "networks: {a: {}}",
    "workloads: {a: {}}",
    "workloads: {a: {addresses: []}}",
    "workloads: {a: {addresses: 10.0.0.0/8}}",
    "rules: {}",
    "rules: [{id: r, from: any, to: any}]",
    "rules: [{id: r, allow: any, deny: any, from: any, to: any}]",
    "rules: [{allow: any, from: any, to: any}]",
    "rules: [{id: r, allow: any, to: any}]",
    "rules: [{id: a b, allow: any, from: any, to: any}]",
    "rules: [{id: r, allow: , from: any, to: any}]",
    "rules: [{id: r, allow: [], from: any, to: any}]",
    "rules: [{id: r, allow: any, from: '', to: any}]",
    "rules: [{id: r, allow: any, from: , to: any}]",
    "rules: [{id: r, allow: any, from: [], to: any}]",
    "rules: [{id: r, allow: any, from: {as: {user: x}}, to: any}]",
    "rules: [{id: r, allow: any, from: {workloads: x, as: {}}, to: any}]",
    "rules: [{id: r, allow: any, from: {workloads: x, as: {group: x}}, to: any}]",
    "rules: [{id: r, allow: any, from: {workloads: {workloads: x}}, to: any}]",
    "rules: [{id: r, allow: any, from: any, to: any, log: yes}]",
    "rules: [{id: r, allow: any, from: any, to: any, same: []}]",
    "rules: [{id: r, allow: any, from: any, to: any, side: both}]",
    "rules: [{id: r, allow: any, from: any, to: any, expires: 2026-12-01}]",
    "rules: [{id: r, allow: any, from: any, to: any, ownr: x}]",
    "lifelines: [{id: l, allow: any, from: any, to: any}]",
    "lifelines: [{id: l, from: network:n, to: any}]",
    "networks: {n: 10.0.0.1}\nlifelines: [{id: l, allow: any, from: network:n, to: {workloads: any, as: {user: x}}}]",
    "networks: {n: 10.0.0.1}\nlifelines: [{id: l, allow: any, from: network:n, to: any, log: true}]",
    "modes: [{where: any}]",
    "modes: [{where: , mode: enforce}]",
    "modes: [{where: any, mode: enforced}]",
    "tests: [{id: t, from: any, to: any}]",
    "tests: [{id: t, from: any, can: any}]",
    "tests: [{id: t, from: any, can: any, cannot: any, to: any}]",
    "tests: [{id: t, from: any, can: any, to: any, service: any}]",
    "tests: [{id: t, only: any, may-reach: any, to: any}]",
    "tests: [{id: t, from: any, cannot: any, to: any, canary: true}]",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_each_accepted_form_is_valid(text: str) -> None:
    parse_policy([("policy.yaml", text)])
    assert complaints(text) == []


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_schema_can_see_is_invalid_and_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        parse_policy([("policy.yaml", text)])
    assert complaints(text)


@pytest.mark.parametrize("number", range(len(blocks(PAGE)) if PAGE.exists() else 0))
def test_each_example_of_the_reference_is_a_policy(number: int) -> None:
    text = blocks(PAGE)[number]
    parse_policy([("policy.md", text)])
    assert complaints(text) == []


def test_the_reference_names_every_key_of_the_language() -> None:
    page = PAGE.read_text("utf-8")
    missing = sorted({word for table in TABLES for words in table for word in words if f"`{word}`" not in page})
    assert not missing, f"{PAGE.name} does not explain {missing}"
    assert len(blocks(PAGE)) >= 8
