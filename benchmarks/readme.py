"""Make what the READMEs show of the shipped trace: tables and pictures.

python benchmarks/readme.py
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import swatsim
from swatsim.reports import differences, layer_bars, page_tables, tables
from swatsim.reports.roofline import roofline
from swatsim.reports.style import as_png
from swatsim.sweeps.spec import read_spec
from swatsim.tracefile import Step
from swatsim.workload.layer import OPERANDS_OF, OPS

ROOT = Path(__file__).parents[1]
TRACE = ROOT / "traces" / "resnet8-fashion-mnist-swat-u-80"
MACHINES = ROOT / "benchmarks" / "machines.toml"
PICTURED = "tensordash"
#: What is changed in its memory system.
MEMORIES: tuple[dict[str, Any], ...] = (
    {},
    {"format_weight": "dense", "format_act": "dense", "format_grad_out": "dense"},
    {"keep_on_chip": True},
    {"buffer_a_kib": 16, "buffer_b_kib": 16, "buffer_out_kib": 16},
    {"dtype": "bf16"},
    {"dram": "hbm2", "dram_channels": 8},
    {"dram": "ideal"},
)


def machines(presets: Container[str] | None = None) -> Iterator[str]:
    """Write one row a machine, of equal type, clock and bandwidth: a step, and speed-ups.

    `presets` are those to run; all by default.
    """
    yield (
        "| machine | multipliers | type, clock, DRAM | time of a step | fprop | dgrad | wgrad "
        "| all ops | compute cycles only | energy of a step | efficiency | of the ideal |"
    )
    yield "|---|---:|---|" + "---:|" * 9
    spec = read_spec(MACHINES)
    for point in spec.points():
        if presets is not None and point.preset not in presets:
            continue
        results = swatsim.simulate(TRACE, point.machine())
        summary, head = tables.summarise(results), page_tables.headline(results)
        rows = [*(row for row in summary.ops if row["op"] in OPS), summary.of_layers]
        own = differences.values_of(rows[-1])
        *shared, size = (what.word(own[what.column]) for what in differences.PROPERTIES)
        changed = (f"`{k}={v}`" for k, v in point.parameters.items() if k not in spec.common)
        cells = [f"`{point.preset}`, {', '.join(changed)}", size, ", ".join(shared)]
        cells += [f"{head['time_ms']:.3f} ms", *(f"{row['speed_up']:.2f}x" for row in rows)]
        cells += [f"{head['speed_up_compute_layers']:.2f}x", f"{head['energy_pj'] / 1e9:.2f} mJ"]
        cells += [f"{head['energy_efficiency']:.2f}x", f"{100 * head['of_ideal_layers']:.1f} %"]
        yield f"| {' | '.join(cells)} |"


def bandwidths(changes: Sequence[Mapping[str, Any]] = MEMORIES) -> Iterator[str]:
    """Write what a step takes on one machine as its memory changes."""
    yield "| `tensordash` with | cycles of a step | speed-up | DRAM bytes | energy |"
    yield "|---|---:|---:|---:|---:|"
    for change in changes:
        results = swatsim.simulate(TRACE, swatsim.machine(PICTURED, **change))
        step = page_tables.headline(results)
        words = ", ".join(f"`{name}={value}`" for name, value in change.items()) or "its preset"
        numbers = f"{step['cycles'] / 1e3:.1f} k | {step['speed_up']:.2f}x"
        moved = f"{step['dram_bytes'] / 2**20:.2f} MiB | {step['energy_pj'] / 1e9:.2f} mJ"
        yield f"| {words} | {numbers} | {moved} |"


def accuracy() -> Iterator[str]:
    """Write the test accuracy after each epoch, dense and sparse."""
    runs = json.loads(TRACE.with_suffix(".json").read_text())["test_accuracy_percent"]
    epochs = range(len(runs["dense"]))
    yield f"| epoch | {' | '.join(map(str, epochs))} |"
    yield "|---|" + "---:|" * len(epochs)
    for name, values in runs.items():
        yield f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |"


def densities() -> Iterator[str]:
    """Write the density of each operand in each step, over all layers but the first."""
    trace = swatsim.open_trace(TRACE)
    steps = [trace.step(number) for number in trace.steps]
    yield f"| op | operand | {' | '.join(map(str, trace.steps))} |"
    yield "|---|---|" + "---:|" * len(steps)
    for op in OPS:
        for operand in OPERANDS_OF[op]:
            row = (f"{_density(step, op, operand):.3f}" for step in steps)
            yield f"| {op} | {operand} | {' | '.join(row)} |"


def _density(step: Step, op: str, operand: str) -> float:
    stem = step.manifest.layers[0].name
    kinds = [r for r in step.records if (r.op, r.operand) == (op, operand) and r.layer != stem]
    return sum(record.ones for record in kinds) / sum(record.elements for record in kinds)


def machine() -> str:
    names = [
        text.split(":")[1].strip()
        for text in Path("/proc/cpuinfo").read_text().splitlines()
        if text.startswith("model name")
    ]
    where = f"{os.cpu_count()} cores ({names[0] if names else platform.machine()})"
    return f"{where}, Python {platform.python_version()}"


def replace(text: str, name: str, lines: Iterator[str]) -> str:
    """Put lines between the two comments that bear a name."""
    begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
    block = begin + "\n".join(lines) + "\n" + end
    return re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: block, text, flags=re.S)


#: Which block of which file holds what.
BLOCKS = {
    "README.md": {"machines": machines, "memories": bandwidths},
    "traces/README.md": {"accuracy": accuracy, "densities": densities},
}


def main() -> None:
    for file, blocks in BLOCKS.items():
        for name, lines in blocks.items():
            readme = ROOT / file
            readme.write_text(replace(readme.read_text(), name, lines()))
    results = swatsim.simulate(TRACE, PICTURED)
    for draw in (layer_bars.speed_up, layer_bars.pe_cycles, layer_bars.energy, roofline):
        picture = as_png(draw(results))
        (ROOT / "benchmarks" / "figures" / f"{draw.__name__}.png").write_bytes(picture)


if __name__ == "__main__":
    main()
