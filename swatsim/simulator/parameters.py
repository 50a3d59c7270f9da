"""What a machine's parameters are, by the schema of its configuration, and what they may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swatsim.simulator.mechanism import MachineConfig


def schema_of(config: type[MachineConfig]) -> dict[str, Any]:
    """Return each parameter's JSON schema; an enumeration's stands in the parameter's own."""
    whole = config.model_json_schema()
    fields = {}
    for name, field in whole["properties"].items():
        named = [field, *field.get("allOf", ())]  # pydantic before 2.9 wraps a reference
        reference = next((each["$ref"] for each in named if "$ref" in each), "")
        fields[name] = {**whole.get("$defs", {}).get(reference.rpartition("/")[2], {}), **field}
    return fields


def choices(field: Mapping[str, Any]) -> list[str]:
    """Return the names among the values that a parameter of such a schema takes."""
    if "anyOf" in field:
        return [name for choice in field["anyOf"] for name in choices(choice)]
    if field.get("type") == "boolean":
        return ["true", "false"]
    return [str(field["const"])] if "const" in field else list(field.get("enum", ()))


def allowed(field: Mapping[str, Any]) -> str:
    """Return in words which values a parameter of such a schema takes."""
    if "anyOf" in field:
        return ", ".join(allowed(choice) for choice in field["anyOf"])
    if names := choices(field):
        return ", ".join(names)
    if field["type"] == "string":
        return ", ".join(field.get("examples", ["see meaning"]))
    return f"{field['minimum']}..{field['maximum']}"
