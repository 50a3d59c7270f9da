"""Make the blocks and pictures of pages that take no more than a minute or two, all in one go.

    python benchmarks/readme.py

What the first command prints, what machines and memories make of the shipped trace, and what other
scripts here make of figures that they keep as CSV. What has to be measured is made by the scripts
that the pages name.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import area
from pages import ROOT, TRACE, put
from paper import gpu_time, swat
from paper import machines as alike

import swatsim
from swatsim.reports import differences, layer_bars, page_tables, tables
from swatsim.reports import verdict as bounds
from swatsim.reports.roofline import roofline
from swatsim.reports.style import as_png
from swatsim.sweeps.spec import read_spec
from swatsim.tracefile import Step
from swatsim.workload.layer import OPERANDS_OF, OPS

MACHINES = ROOT / "benchmarks" / "machines.toml"
PICTURED = "tensordash"
#: Of the terminal that the first command is shown in.
COLUMNS = 84
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


def first() -> Iterator[str]:
    """Write what the first command prints down to its totals."""
    yield from _fenced(printed().partition("\n\nWhat costs most")[0])


def verdict() -> Iterator[str]:
    """Write its first lines: what a step takes, and what bounds it."""
    yield from _fenced(printed().partition("\n\n")[0])


def _fenced(text: str) -> Iterator[str]:
    yield "```text"
    yield from (line.rstrip() for line in text.splitlines())
    yield "```"


@cache
def printed() -> str:
    """Return what the first command prints, from `swatsim` on."""
    # plots change nothing of what is used here, and take a process
    return shown([f"simulate {TRACE.relative_to(ROOT)} -m {PICTURED} -o results --plots none"])


def compared() -> Iterator[str]:
    """Write what `compare` prints in the tutorial."""
    yield from _fenced(_of_tutorial("compare"))


def estimated() -> Iterator[str]:
    """Write the head of what `estimate` prints in the tutorial."""
    yield from _fenced(_of_tutorial("estimate").partition("\n\n")[0])


def _of_tutorial(verb: str) -> str:
    """Return what a verb of the tutorial prints, the simulations before it done."""
    tutorial = (ROOT / "docs" / "tutorial.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"^swatsim ((?:simulate|compare|estimate) .*)$", tutorial, flags=re.M)
    at = next(i for i, line in enumerate(lines) if line.startswith(verb))
    before = [f"{line} --plots none" for line in lines[:at] if line.startswith("simulate")]
    return shown([*before, lines[at]])


def shown(commands: Sequence[str]) -> str:
    """Return what the last of some commands prints in a terminal of `COLUMNS` columns.

    They run in a folder that has the shipped trace at its place.
    """
    terminal = {"COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "traces").symlink_to(TRACE.parent)
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", "swatsim", *shlex.split(command)],
                env={**os.environ, **terminal, "PYTHONPATH": str(ROOT)},
                cwd=folder,
                check=True,
                capture_output=True,
                text=True,
            )
    return done.stdout


def machines(presets: Container[str] | None = None) -> Iterator[str]:
    """Write one row a machine, of equal type, clock and bandwidth: a step, and speed-ups.

    `presets` are those to run; all by default.
    """
    yield (
        "| machine | multipliers | ms a step | ms, layers | fprop | dgrad | wgrad | layers "
        "| compute cycles | whole step | mJ a step | energy | of the ideal |"
    )
    yield "|---|" + "---:|" * 12
    spec = read_spec(MACHINES)
    for point in spec.points():
        if presets is None or point.preset in presets:
            changed = (f"`{k}={v}`" for k, v in point.parameters.items() if k not in spec.common)
            results = swatsim.simulate(TRACE, point.machine())
            yield f"| `{point.preset}`, {', '.join(changed)} | {' | '.join(_cells(results))} |"


def _cells(results: swatsim.Results) -> Iterator[str]:
    summary, head = tables.summarise(results), page_tables.headline(results)
    layers = summary.of_layers
    yield str(layers["pes"] * layers["lanes"])
    yield f"{head['time_ms']:.3f}"
    yield f"{layers['cycles'] / layers['steps'] / layers['clock_mhz'] / 1e3:.3f}"
    ops = [row for row in summary.ops if row["op"] in OPS]
    yield from (f"{row['speed_up']:.2f}x" for row in (*ops, layers))
    yield f"{head['speed_up_compute_layers']:.2f}x"
    yield f"{head['speed_up']:.2f}x"
    yield f"{head['energy_pj'] / 1e9:.2f}"
    yield f"{head['energy_efficiency']:.2f}x"
    yield f"{100 * head['of_ideal_layers']:.1f} %"


def bandwidths(changes: Sequence[Mapping[str, Any]] = MEMORIES) -> Iterator[str]:
    """Write what a step takes on one machine as its memory changes."""
    yield "| `tensordash` with | ms a step | ms, layers | layers | whole step | MiB | mJ |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for change in changes:
        results = swatsim.simulate(TRACE, swatsim.machine(PICTURED, **change))
        step, layers = page_tables.headline(results), tables.summarise(results).of_layers
        words = ", ".join(f"`{name}={value}`" for name, value in change.items()) or "its preset"
        own = layers["cycles"] / layers["steps"] / layers["clock_mhz"] / 1e3
        times = f"{step['time_ms']:.3f} | {own:.3f}"
        speed_ups = f"{step['speed_up_layers']:.2f}x | {step['speed_up']:.2f}x"
        moved = f"{step['dram_bytes'] / 2**20:.2f} | {step['energy_pj'] / 1e9:.2f}"
        yield f"| {words} | {times} | {speed_ups} | {moved} |"


def dense_layer() -> Iterator[str]:
    """Write what of the forward pass's speed-ups zeros make, layer by layer."""
    yield "| layer, forward | with no zero | zeros add | speed-up |"
    yield "|---|---:|---:|---:|"
    for row in page_tables.layers(results_of(PICTURED)):
        if row["op"] == "fprop":
            names = ("speed_up_dense_operands", "speed_up_zeros", "speed_up")
            yield f"| `{row['layer']}` | {' | '.join(f'{row[name]:.2f}x' for name in names)} |"


def speed_ups() -> Iterator[str]:
    """Write what may be called the speed-up of one run on one machine."""
    results = results_of(PICTURED)
    head, found = page_tables.headline(results), bounds.verdict(results)
    layers, dense = page_tables.layers(results), results_of("dadiannao")
    best = max(layers, key=lambda row: row["speed_up_compute"])
    other = page_tables.headline(dense)["time_ms"] / head["time_ms"]
    yield "| what | figure |"
    yield "|---|---:|"
    name = f"`{best['layer']}`, {best['op']}"
    yield f"| the best of all ops ({name}), compute cycles only | {best['speed_up_compute']:.2f}x |"
    yield f"| all layers, compute cycles only | {head['speed_up_compute_layers']:.2f}x |"
    yield f"| all layers, with the memory | {head['speed_up_layers']:.2f}x |"
    yield f"| the whole step, were DRAM never waited for | {found.speed_up_no_dram_wait:.2f}x |"
    yield f"| the whole step | {head['speed_up']:.2f}x |"
    own = differences.values_of(tables.summarise(dense).of_layers)
    alike = ", ".join(what.word(own[what.column]) for what in differences.PROPERTIES)
    yield f"| the whole step, over `dadiannao` as it is ({alike} multipliers) | {other:.2f}x |"
    yield f"| of the ideal, the layers | {100 * head['of_ideal_layers']:.1f} % |"


@cache
def results_of(preset: str) -> swatsim.Results:
    """Return the shipped trace's results on a preset as it is."""
    return swatsim.simulate(TRACE, preset)


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


#: Block -> what writes it.
BLOCKS: Mapping[str, Callable[[], Iterator[str]]] = {
    "first": first,
    "verdict": verdict,
    "compared": compared,
    "estimated": estimated,
    "dense-layer": dense_layer,
    "speed-ups": speed_ups,
    "steps": alike.steps_of_methods,
    "of-ideal": alike.of_ideal,
    "machines": machines,
    "memories": bandwidths,
    "swat": swat.chosen,
    "area": area.lines,
    "accuracy": accuracy,
    "densities": densities,
}


def main() -> None:
    for name, lines in BLOCKS.items():
        put(name, lines())
    gpu_time.main()
    results = results_of(PICTURED)
    for draw in (layer_bars.speed_up, layer_bars.pe_cycles, layer_bars.energy, roofline):
        picture = as_png(draw(results))
        (ROOT / "benchmarks" / "figures" / f"{draw.__name__}.png").write_bytes(picture)


if __name__ == "__main__":
    main()
