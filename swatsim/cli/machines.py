"""``swatsim machines``: what there is to simulate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from swatsim.cli.show import console, table
from swatsim.simulator.machines import MACHINES
from swatsim.simulator.mechanism import MachineConfig, Mechanism
from swatsim.simulator.memory.config import MemoryConfig
from swatsim.simulator.memory.dram import Dram, dram, shipped


@click.command()
def machines() -> None:
    """List machines, presets, parameters.

    Presets come with their citations and what their papers published, each on its own workloads;
    parameters with their units.
    """
    out = console()
    for mechanism in MACHINES:
        out.print(f"{mechanism.name}: {mechanism.summary}\n")
        presets = mechanism.config_type.presets
        for name, preset in presets.items():
            out.print(f"  {name}: {preset.citation}")
            out.print(f"    memory: {preset.memory}")
            for figure in preset.published:
                out.print(f"    published: {figure.value:g}x {figure.what} ({figure.source})")
        headings = ("parameter", "unit", "allowed", "meaning", *presets)
        title = "Parameters and presets; change one with --set parameter=value"
        out.print()
        out.print(table(title, headings, _parameters(mechanism), left=4))
    for name in shipped():
        out.print(_device(dram(name)))


def _parameters(mechanism: Mechanism) -> Iterator[list[str]]:
    presets = mechanism.config_type.presets.values()
    schema = _schema(mechanism.config_type)
    memory = [name for name in schema if name in MemoryConfig.model_fields]
    for name in (*(name for name in schema if name not in memory), *memory):
        field = schema[name]
        values = [str(preset.parameters.get(name, field.get("default"))) for preset in presets]
        unit = field.get("unit", "-")
        yield [name, unit, _allowed(field), field["description"], *values]


def _schema(config: type[MachineConfig]) -> dict[str, Any]:
    """Return each field's JSON schema; an enumeration's stands in the field's own."""
    whole = config.model_json_schema()
    fields = {}
    for name, field in whole["properties"].items():
        named = [field, *field.get("allOf", ())]  # pydantic before 2.9 wraps a reference
        reference = next((each["$ref"] for each in named if "$ref" in each), "")
        fields[name] = {**whole.get("$defs", {}).get(reference.rpartition("/")[2], {}), **field}
    return fields


def _device(kind: Dram) -> str:
    """Return a kind of DRAM in words, each figure with its source."""
    if kind.ideal:
        return f"dram={kind}: transfers take neither time nor energy"
    speed, wait = kind.bandwidth, kind.latency
    energies = (
        f"{kind.pj_of_bit(node):.3g} pJ a bit at {node} ({entry.source})"
        for node, entry in kind.energy.items()
    )
    figures = f"{speed.mb_per_s} MB/s a channel ({speed.source})", f"{wait.ns} ns ({wait.source})"
    return f"dram={kind}: {'; '.join([*figures, *energies])}"


def _allowed(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return ", ".join(_allowed(choice) for choice in field["anyOf"])
    if "const" in field:
        return str(field["const"])
    if "enum" in field:
        return ", ".join(field["enum"])
    if field["type"] == "boolean":
        return "true, false"
    if field["type"] == "string":
        return "see meaning"
    return f"{field['minimum']}..{field['maximum']}"
