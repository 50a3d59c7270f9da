"""Machines: how each counts, from its README; its presets and parameters, from the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from from_code.markdown import code, sentence, table, terms, toctree, words
from swatsim.reports.labels import trimmed
from swatsim.simulator.area import area_of, peak_tops, why_unknown
from swatsim.simulator.energy.table import energy_table
from swatsim.simulator.energy.table import shipped as tables
from swatsim.simulator.machines import MACHINES, presets
from swatsim.simulator.mechanism import MachineConfig, Mechanism, Preset
from swatsim.simulator.parameters import allowed, schema_of
from swatsim.simulator.vector import SystemConfig

ROOT = Path(__file__).parents[2]
FOLDER = "swatsim/simulator/machines"


def pages() -> dict[str, str]:
    """Return how each machine counts, its parameters, and an index of each."""
    made = {"machines/index.md": _counting(), "reference/presets/index.md": _presets()}
    made["machines/memory.md"] = included("swatsim/simulator/memory/README.md")
    for mechanism in MACHINES:
        parameters = f"[{mechanism.name}](../reference/presets/{mechanism.name}.md)"
        made[f"machines/{mechanism.name}.md"] = included(
            f"{FOLDER}/{mechanism.name}/README.md", f"Its presets and parameters: {parameters}."
        )
        made[f"reference/presets/{mechanism.name}.md"] = "\n".join(_machine(mechanism))
    return made


def included(path: str, first: str = "") -> str:
    """Return a page of one of the project's files: its title, a line of our own, and the rest."""
    depth = 2  # of a page in docs/FOLDER/
    title = (ROOT / path).read_text().splitlines()[0]
    include = [f"```{{include}} {'../' * depth}{path}", ":start-line: 1", "```", ""]
    return "\n".join([title, "", *([first, ""] if first else []), *include])


def _counting() -> str:
    rows = [(f"[{it.name}]({it.name}.md)", words(it.summary), _names(it)) for it in MACHINES]
    return "\n".join(
        [
            "# How each machine counts\n",
            "What every cycle goes to, machine by machine: which rules are a paper's, which are "
            "ours, and what is not modelled. Each page is the README beside a machine's code, from "
            "which its second implementation was written. [The memory system](memory.md) is the "
            "same for all.\n",
            table(("machine", "what it is", "presets"), rows),
            toctree((*(it.name for it in MACHINES), "memory"), hidden=""),
        ]
    )


def _names(mechanism: Mechanism) -> str:
    return ", ".join(map(code, mechanism.config_type.presets))


def _presets() -> str:
    rows = []
    for name, preset, mechanism in presets():
        config = mechanism.config_type(**preset.parameters)
        of = f"[{mechanism.name}]({mechanism.name}.md)"
        speed = f"{config.dtype}, {config.clock_mhz} MHz, {config.dram}"
        rows.append((code(name), of, f"{config.multipliers:,}", speed, words(preset.citation)))
    head = ("preset", "machine", "multipliers", "type, clock, DRAM", "source")
    return "\n".join(
        [
            "# Machines and presets\n",
            "A preset is a published design. As it is, it has a type, a clock and a DRAM of its "
            "own: make machines alike before comparing their times. `swatsim machines NAME` prints "
            "the same.\n",
            table(head, rows, numbers=(2,)),
            toctree((it.name for it in MACHINES), hidden=""),
        ]
    )


def _machine(mechanism: Mechanism) -> Iterator[str]:
    known = mechanism.config_type.presets
    configs = {name: mechanism.config_type(**it.parameters) for name, it in known.items()}
    yield f"# {mechanism.name}: presets and parameters\n"
    how = f"[How it counts](../../machines/{mechanism.name}.md)"
    yield f"{words(sentence(mechanism.summary))} {how}.\n"
    shown = f"shows {mechanism.tile}" if mechanism.timeline else "is not there"
    yield f"Its timeline (`swatsim timeline`) {shown}.\n"
    yield "## Presets\n"
    for name, preset in known.items():
        yield f"### {name}\n"
        yield from _preset(preset, configs[name])
    schema = schema_of(mechanism.config_type)
    own = {key: it for key, it in schema.items() if key not in SystemConfig.model_fields}
    system = {key: it for key, it in schema.items() if key in SystemConfig.model_fields}
    yield "## Its own parameters\n"
    yield "Set one by `--set PARAMETER=VALUE`, or `swatsim.machine(PRESET, PARAMETER=VALUE)`.\n"
    yield terms(_parameters(own, configs))
    yield "## Memory, vector unit, energy\n"
    yield "All machines have these; the values are this one's presets'.\n"
    yield terms(_parameters(system, configs))


def _preset(preset: Preset, config: MachineConfig) -> Iterator[str]:
    yield f"{words(preset.citation)}\n"
    yield f"- Multipliers: {config.multipliers:,}: {config.pes:,} PEs of {config.lanes:,} lanes."
    yield f"- Peak: {trimmed(peak_tops(config))} TOPS, dense. Area: {_areas(config)}."
    yield f"- Memory: {words(preset.memory)}."
    yield f"- Vector unit: {config.vector_width:,} values a cycle ({words(preset.vector)})."
    for figure in preset.published:
        value = f"{figure.value:g}{figure.unit} {figure.what}"
        yield f"- Published: {words(value)} ({words(figure.source)})."
    yield ""


def _areas(config: MachineConfig) -> str:
    """Return a machine's area by each table that ships, or why it has none."""
    found = {name: area_of(config, energy_table(name)) for name in tables()}
    known = [f"{trimmed(area.mm2)} mm2 at {name}" for name, area in found.items() if area]
    if known:
        how = "[coarsely](../../machines/memory.md#area-and-leakage)"
        return f"{', '.join(known)}, of {config.dtype}, {how}"
    return f"none, for {why_unknown(config, energy_table(next(iter(found))))}"


def _parameters(
    schema: Mapping[str, Any], configs: Mapping[str, MachineConfig]
) -> Iterator[tuple[str, list[str]]]:
    for name, field in schema.items():
        values = {preset: _word(getattr(config, name)) for preset, config in configs.items()}
        unit = f" {field['unit']}" if field.get("unit", "-") != "-" else ""
        may = f"Allowed: {words(allowed(field))}{words(unit)}."
        yield (
            code(name),
            [words(sentence(field["description"])), f"{may} {_values(values)}"],
        )


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values(values: Mapping[str, str]) -> str:
    if len(set(values.values())) == 1:
        return f"Presets: {code(next(iter(values.values())))}."
    having: dict[str, list[str]] = {}
    for preset, value in values.items():
        having.setdefault(value, []).append(preset)
    parts = (f"{code(value)} in {', '.join(names)}" for value, names in having.items())
    return f"Presets: {'; '.join(parts)}."
