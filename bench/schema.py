"""Checks a result against schema.json: the part of JSON Schema that it uses, and `values` for maps with free keys."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

SCHEMA = json.loads(Path(__file__).with_name("schema.json").read_text())
_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}


def problems(value: Any, schema: dict[str, Any] = SCHEMA, at: str = "result") -> list[str]:
    """What is wrong with value, one line each; empty where nothing is."""
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{at}: {value!r} is none of {schema['enum']}"]
    kind = schema["type"]
    if not isinstance(value, _TYPES[kind]) or (kind in ("integer", "number") and isinstance(value, bool)):
        return [f"{at}: {type(value).__name__} where {kind} is due"]
    if kind in ("integer", "number"):
        fine = math.isfinite(value) and value >= schema.get("minimum", -math.inf)
        return [] if fine else [f"{at}: {value} is out of range"]
    if kind == "array":
        found = [] if len(value) >= schema.get("minItems", 0) else [f"{at}: too short"]
        return found + [p for i, item in enumerate(value) for p in problems(item, schema["items"], f"{at}[{i}]")]
    if kind != "object":
        return []
    known = schema.get("properties", {})
    found = [f"{at}: {key} is missing" for key in schema.get("required", []) if key not in value]
    if schema.get("additionalProperties") is False:
        found += [f"{at}: {key} is unknown" for key in value if key not in known]
    for key, item in value.items():
        rule = known.get(key, schema.get("values"))
        if rule is not None:
            found += problems(item, rule, f"{at}.{key}")
    return found
