"""The API's own description (OpenAPI 3.1): whatever is not an answer is a problem (RFC 9457), and says so."""

from __future__ import annotations

from typing import Any, cast

from fastapi import FastAPI

PROBLEM = "application/problem+json"
_REF = {"$ref": "#/components/schemas/Problem"}
_PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "What is wrong, in words; some kinds have more fields (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "faults": {"type": "array", "items": {"type": "object"}},
        "file": {"type": "string"},
        "line": {"type": "integer"},
        "column": {"type": "integer"},
        "others": {"type": "array", "items": {"type": "string"}},
        "request": {"type": "string"},
    },
}


def describe(app: FastAPI) -> None:
    """Have `app` describe its problems too, where it describes itself."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = with_problems(plain())
        return app.openapi_schema

    app.openapi = described


def with_problems(description: dict[str, Any]) -> dict[str, Any]:
    """Give an OpenAPI description in which every operation may answer with a problem."""
    schemas = description.setdefault("components", {}).setdefault("schemas", {})
    # What FastAPI itself would answer to what is malformed: we answer otherwise.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    problem = {"description": "What is wrong.", "content": {PROBLEM: {"schema": _REF}}}
    paths = cast("dict[str, dict[str, dict[str, Any]]]", description["paths"])
    for operations in paths.values():
        for operation in operations.values():
            responses = operation["responses"]
            for status in [one for one in responses if one[0] in "45"]:
                del responses[status]
            responses["default"] = problem
    return description
