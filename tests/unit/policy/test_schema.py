"""The schema of documents is made from the parser's tables, and is whole."""

from __future__ import annotations

import json
import re
from typing import cast

from cellwall.policy import document_schema
from cellwall.policy.parse import LIFELINE_FIELDS, RULE_FIELDS, SECTIONS


def test_the_schema_knows_the_sections_and_fields_of_the_parser() -> None:
    text = json.dumps(document_schema())
    schema = json.loads(text)
    assert tuple(schema["properties"]) == SECTIONS
    assert tuple(schema["properties"]["rules"]["items"]["properties"]) == RULE_FIELDS
    assert tuple(schema["properties"]["lifelines"]["items"]["properties"]) == LIFELINE_FIELDS


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(document_schema())
    assert set(re.findall(r"#/\$defs/([a-z-]+)", text)) == set(json.loads(text)["$defs"])


def test_every_mapping_is_closed() -> None:
    def mappings(node: object) -> int:
        if isinstance(node, list):
            return sum(map(mappings, cast("list[object]", node)))
        if not isinstance(node, dict):
            return 0
        found = cast("dict[str, object]", node)
        if "properties" in found and "type" in found and found != NETWORK_WHO:
            assert found["additionalProperties"] is False
        return 1 + sum(map(mappings, found.values()))

    assert mappings(document_schema()) > 50


NETWORK_WHO = {
    # Beside the closed form of the same mapping: it only says more of its one key.
    "type": "object",
    "properties": {"workloads": {"type": "string", "pattern": "^network:"}},
}
