"""``swatsim machines``: what there is to simulate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from swatsim.cli import as_json
from swatsim.cli.as_json import JSON
from swatsim.cli.lazy import completing
from swatsim.cli.show import Words, console, padded, size
from swatsim.errors import ConfigError, unknown
from swatsim.simulator.area import PARTS, Area, area_of, peak_tops, why_unknown
from swatsim.simulator.energy.table import energy_table
from swatsim.simulator.energy.table import shipped as tables
from swatsim.simulator.machines import MACHINES, find_preset, presets
from swatsim.simulator.mechanism import MachineConfig, Mechanism, Preset
from swatsim.simulator.memory.config import BUFFERS
from swatsim.simulator.memory.dram import Dram, dram, shipped
from swatsim.simulator.parameters import allowed, schema_of
from swatsim.simulator.vector import SystemConfig


def _names() -> Iterable[str]:
    return (*(it.name for it in MACHINES), *(name for name, _, _ in presets()))


@click.command()
@click.argument("name", required=False, **completing(_names))
@JSON
def machines(name: str | None, as_json: bool) -> None:
    """List machines, presets, parameters.

    Machines with their presets, which are published designs, and kinds of DRAM. Of NAME, a machine
    or a preset: which zeros it skips, its multipliers, its peak, buffers and DRAM, where they come
    from, and what papers published, each on its own workloads; and each parameter with its value,
    unit, what is allowed and what it means.
    """
    if as_json:
        _print_json(name)
        return
    out = console()
    for words in _of(name) if name else _every():
        out.words(words)


def _every() -> Iterator[Words]:
    """Yield all machines and presets, a line each, and the kinds of DRAM."""
    yield Words("Machines and, below each, its presets; all of one: swatsim machines NAME")
    for mechanism in MACHINES:
        yield Words(f"\n{mechanism.name}: {mechanism.summary}")
        for name, preset in mechanism.config_type.presets.items():
            yield Words(f"  {name}: {preset.citation}", cut=True)
    yield Words("\nKinds of DRAM")
    for name in shipped():
        yield Words(_device(dram(name)), indent=2)


def _of(name: str) -> Iterator[Words]:
    """Yield what there is to know of a machine with all its presets, or of one preset."""
    found, mechanism = _found(name)
    yield Words(f"{mechanism.name}: {mechanism.summary}")
    yield Words(f"timeline: {mechanism.tile if mechanism.timeline else 'none'}", indent=2)
    configs = {it: mechanism.config_type(**preset.parameters) for it, preset in found.items()}
    for preset, config in configs.items():
        yield from _preset(preset, found[preset], config)
    title = "\nParameters of its own; change one with --set PARAMETER=VALUE"
    for parameter, field in _own_first(schema_of(mechanism.config_type)):
        if title and parameter in SystemConfig.model_fields:
            title = "\nParameters of memory, vector unit and energy, which all machines have"
        if title:
            yield Words(title)
            title = ""
        unit = field["unit"] + ", " if "unit" in field else ""
        values = {it: _word(getattr(config, parameter)) for it, config in configs.items()}
        yield Words(f"{parameter}: {_values(values)} ({unit}{allowed(field)})", indent=2)
        yield Words(field["description"], indent=6)


def _found(name: str) -> tuple[Mapping[str, Preset], Mechanism]:
    """Return a machine's presets, or the one of that name, and the machine.

    Raises
    ------
    ConfigError
        If there is no such machine or preset.
    """
    for mechanism in MACHINES:
        if mechanism.name == name:
            return mechanism.config_type.presets, mechanism
    if ":" not in name and name not in (known := [preset for preset, _, _ in presets()]):
        every = [*(mechanism.name for mechanism in MACHINES), *known]
        raise ConfigError(unknown("machine or preset", name, every))
    preset, mechanism = find_preset(name)
    return {name: preset}, mechanism


def _preset(name: str, preset: Preset, config: MachineConfig) -> Iterator[Words]:
    yield Words(f"\n{name}: {preset.citation}", indent=2)
    facts = _facts(config)
    for line in _in_words(config, facts):
        yield Words(line, indent=6)
    yield Words(f"memory: {preset.memory}", indent=6)
    lanes = f"{config.vector_width} values a cycle"
    yield Words(f"vector unit: {lanes} ({preset.vector})", indent=6)
    for figure in preset.published:
        words = f"published: {figure.value:g}{figure.unit} {figure.what} ({figure.source})"
        yield Words(words, indent=6)


def _facts(config: MachineConfig) -> dict[str, Any]:
    """Return what a configured machine has: multipliers, its peak, buffers, DRAM, its areas."""
    areas = {table: area_of(config, energy_table(table)) for table in tables()}
    return {
        "multipliers": config.multipliers,
        "pes": config.pes,
        "lanes": config.lanes,
        "dtype": config.dtype,
        "clock_mhz": config.clock_mhz,
        "peak_tops": peak_tops(config),
        **{name: getattr(config, name) for name in (f"buffer_{it}_kib" for it in BUFFERS)},
        "dram": str(config.dram),
        "dram_mb_per_s": config.finite_mb_per_s or None,
        "vector_width": config.vector_width,
        "areas": {table: None if area is None else _area(area) for table, area in areas.items()},
    }


def _area(area: Area) -> dict[str, float | None]:
    """Return an area as columns of results call it, and its parts."""
    parts = {f"{part}_mm2": getattr(area, part) for part in PARTS}
    return {"area_mm2": area.mm2, "leakage_mw": area.leakage_mw, **parts}


def _in_words(config: MachineConfig, facts: Mapping[str, Any]) -> Iterator[str]:
    pes = f"{config.pes} PE{'s' * (config.pes != 1)}"
    yield f"multipliers: {config.multipliers} ({pes} of {config.lanes}), {config.dtype}"
    yield (
        f"peak: {padded(facts['peak_tops'])} TOPS at {config.clock_mhz} MHz, two operations a "
        "product; products that are skipped come on top"
    )
    yield from _areas(config)
    if config.memory == "none":
        yield "buffers and DRAM: none; operands are always there"
        return
    kib = {name: facts[f"buffer_{name}_kib"] for name in BUFFERS}
    sizes = ", ".join(f"{name} {size(1024 * it)}" for name, it in kib.items())
    yield f"buffers: {size(1024 * sum(kib.values()))} ({sizes})"
    speed = facts["dram_mb_per_s"]
    yield f"DRAM: {config.dram}" + (f", {speed / 1000:g} GB/s" if speed else "")


def _areas(config: MachineConfig) -> Iterator[str]:
    """Yield a line for each table of energies and areas that ships; or why there is no area."""
    for name in tables():
        table = energy_table(name)
        area = area_of(config, table)
        if area is None:
            yield f"area: not known, {why_unknown(config, table)}"
            return
        parts = ", ".join(
            f"{part.replace('_', ' ')} {padded(getattr(area, part))}"
            for part in PARTS
            if getattr(area, part)
        )
        parts += ", front end not known" * (area.front_end is None)
        leaks = "" if area.leakage_mw is None else f"; leaks {padded(area.leakage_mw / 1000)} W"
        yield f"area at {name}: {padded(area.mm2)} mm2 of {config.dtype} ({parts}){leaks}"


def _print_json(name: str | None) -> None:
    """Print machines with presets and parameters; without a name, kinds of DRAM too."""
    chosen = [_found(name)] if name else [(it.config_type.presets, it) for it in MACHINES]
    found: dict[str, Any] = {"machines": [_as_json(*one) for one in chosen]}
    if not name:
        found["drams"] = [dram(kind).model_dump(mode="json") for kind in shipped()]
    as_json.write("machines", found)


def _as_json(found: Mapping[str, Preset], mechanism: Mechanism) -> dict[str, Any]:
    presets = []
    for name, preset in found.items():
        config = mechanism.config_type(**preset.parameters)
        presets.append(
            {
                "name": name,
                "citation": preset.citation,
                **_facts(config),
                "memory_source": preset.memory,
                "vector_source": preset.vector,
                "published": [figure._asdict() for figure in preset.published],
                "parameters": config.model_dump(mode="json"),
            }
        )
    fields = _own_first(schema_of(mechanism.config_type))
    return {
        "name": mechanism.name,
        "summary": mechanism.summary,
        "timeline": mechanism.tile if mechanism.timeline else None,
        "presets": presets,
        "parameters": [
            {
                "name": parameter,
                "of_every_machine": parameter in SystemConfig.model_fields,
                "unit": field.get("unit"),
                "allowed": allowed(field),
                "meaning": field["description"],
            }
            for parameter, field in fields
        ],
    }


def _own_first(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield a machine's own parameters, and after them those that all machines have."""
    yield from sorted(schema.items(), key=lambda item: item[0] in SystemConfig.model_fields)


def _word(value: object) -> str:
    """Return a value as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values(values: Mapping[str, str]) -> str:
    """Return what presets have, by name where they differ."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    having = {
        value: ", ".join(name for name in values if values[name] == value)
        for value in values.values()
    }
    return "; ".join(f"{value} in {names}" for value, names in having.items())


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
