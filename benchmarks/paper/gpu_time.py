"""Fit the estimate for real GPUs to published times, and say how far off it is on others.

    python benchmarks/paper/gpu_time.py [--simulate]

The times are in tests/data/gpu_2to4. Of each measured product the columns that the estimate reads
are in gpu_time_ops.csv beside this script; --simulate makes them anew. Fitted, for each GPU, are
two efficiencies and a launch, to the rows marked ``fit``: least squares of the logarithms of
estimated by measured times. Writes swatsim/reports/gpu_time.toml, gpu_time.md beside this script,
and the table of a page.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pages import ROOT, put

import swatsim
from swatsim.counters import OP_BYTES
from swatsim.reports.gpu_time import FITTED, Compared, Model
from swatsim.simulator.energy.table import energy_table
from swatsim.simulator.runnable import ConfiguredMachine
from swatsim.simulator.systems import NOTHING_ON_CHIP, system_of
from swatsim.workload.layer import OPS, Operand

HERE = Path(__file__).parent
MEASURED = ROOT / "tests" / "data" / "gpu_2to4" / "measured.csv"
COUNTED = HERE / "gpu_time_ops.csv"
REPORT = HERE / "gpu_time.md"
#: What was pruned: column of the measured times.
SERIES = {"dense": "dense_us", "w24": "w24_us", "act24": "act24_us"}
#: What a product is, in the words of the measured times, as a value type.
DTYPES = {"fp16": "fp16", "fp8": "fp8_e4m3"}
#: Multiplications of a core and cycle: cores x this x 2 x clock are the data sheets' TFLOP/s.
RATES = {
    "a100": {"fp16": 1024, "bf16": 1024},
    "h100": {"fp8_e4m3": 4096, "fp8_e5m2": 4096, "fp16": 2048, "bf16": 2048},
}
#: Where the search begins: both efficiencies, and launch in microseconds, with the reach of each.
BEGIN, REACH = (0.5, 0.5, 50.0), (0.5, 0.5, 50.0)
#: Points of a grid on each axis, and how often it is drawn anew, smaller, around the best of them.
POINTS, ROUNDS, SHRINK = 5, 20, 0.6
#: Digits behind the point that are kept.
DIGITS = 3


class Measured(NamedTuple):
    """A measured time: a row of the data, and which of its columns."""

    use: str
    gpu: str
    kind: str
    dtype: str
    sizes: tuple[int, ...]
    series: str
    us: float
    source: str

    @property
    def what(self) -> str:
        """Kind, sizes, and what is pruned, in words."""
        pruned = {"dense": "dense", "w24": "2:4 weights", "act24": "2:4 activations"}
        sizes = "x".join(map(str, self.sizes))
        return f"{self.kind} {sizes}, {self.dtype}, {pruned[self.series]}"

    @property
    def machine(self) -> ConfiguredMachine:
        """The preset, for the values that were multiplied."""
        dtype = DTYPES[self.dtype]
        changed = {"dtype": dtype, "macs": RATES[self.gpu][dtype]}
        return swatsim.machine(self.gpu, **changed, prune_each_step=self.kind != "gemm")


Columns = dict[str, Any]
Counted = dict[Measured, list[Columns]]


def measured() -> list[Measured]:
    """Read the measured times."""
    found = []
    with MEASURED.open(newline="") as file:
        for row in csv.DictReader(file):
            sizes = tuple(int(row[n]) for n in ("rows", "in", "hidden", "out") if row[n])
            own = row["use"], row["gpu"], row["kind"], row["dtype"], sizes
            found += [
                Measured(*own, series, float(row[column]), row["source"])
                for series, column in SERIES.items()
                if row[column]
            ]
    return found


# ---- what was multiplied -------------------------------------------------------------------------


def ops_of(one: Measured) -> Iterator[swatsim.Op]:
    """Yield the products of a measured time: of a layer all three, but of a `gemm`."""
    samples, *features = one.sizes
    for i, (inputs, outputs) in enumerate(pairwise(features)):
        layer = swatsim.Layer(name=f"layer {i + 1}", kind="linear", C=inputs, K=outputs)
        for name in OPS[:1] if one.kind == "gemm" else OPS:
            op = swatsim.Op.dense(layer, name, samples)
            pruned = pruned_of(one, last=i == len(features) - 2)
            masks = {it: two_of_four(m.shape) for it, m in op.operands.items() if it == pruned}
            yield replace(op, **masks, known={}) if masks else op


def pruned_of(one: Measured, last: bool) -> Operand | None:
    """Return which operand of a layer's ops is pruned; gradients have the zeros of activations."""
    pruned: dict[str, Operand | None] = {
        "dense": None,
        "w24": "weight",
        "act24": "act" if last else "grad_out",
    }
    return pruned[one.series]


def two_of_four(shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask that is 2:4 along both of its axes."""
    rows, columns = (np.arange(size) for size in shape)
    return (rows[:, None] + columns) % 4 < 2


def counted(one: Measured) -> Iterator[Columns]:
    """Yield what the estimate reads of each product, simulated."""
    machine = one.machine
    system = system_of(machine, energy_table("45nm"))
    for op in ops_of(one):
        lowered = swatsim.lower(op)
        counters = machine.simulate_op(lowered)
        memory = system.simulate_memory(lowered, counters, False, NOTHING_ON_CHIP)
        moved = {name: getattr(memory, name) for name in OP_BYTES}
        own = {"layer": op.layer.name, "op": op.name, "compressed": counters.compressed}
        yield {**own, "cycles_compute": counters.cycles_compute, **moved}


def store(everything: Counted) -> None:
    """Write the columns of all products."""
    rows = [
        {"what": one.what, "gpu": one.gpu, **columns}
        for one, products in everything.items()
        for columns in products
    ]
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    COUNTED.write_text(sink.getvalue())


def load() -> Counted:
    """Read the columns of all products."""
    by_name = {(one.gpu, one.what): one for one in measured()}
    found: Counted = {one: [] for one in by_name.values()}
    with COUNTED.open(newline="") as file:
        for row in csv.DictReader(file):
            one = by_name[row.pop("gpu"), row.pop("what")]
            found[one].append({n: int(v) if v.isdigit() else v for n, v in row.items()})
    return found


# ---- the fit -------------------------------------------------------------------------------------


def unfitted(gpu: str) -> Model:
    """Return the hardware of a preset, with nothing lost."""
    config = swatsim.machine(gpu).config
    of_it = [one for one in measured() if one.gpu == gpu]
    hardware = config.pes, config.clock_mhz, config.bandwidth_mb_per_s
    return Model(gpu.upper(), of_it[0].dtype, *hardware, RATES[gpu], 1.0, 1.0, 0.0)


def fitted(gpu: str, everything: Counted) -> Model:
    """Return a GPU's model, fitted, with its errors."""
    own = {one: products for one, products in everything.items() if one.gpu == gpu}
    model, parameters = unfitted(gpu), np.array(BEGIN)
    reach = np.array(REACH)
    chosen = {one: products for one, products in own.items() if one.use == "fit"}
    for _ in range(ROUNDS):
        parameters = best(model, chosen, grid(parameters, reach))
        reach = reach * SHRINK
    model = with_parameters(model, [round(float(it), DIGITS) for it in parameters])
    errors = {
        use: tuple(
            Compared(one.what, one.us, round(time_us(model, products), 1))
            for one, products in own.items()
            if one.use == use
        )
        for use in ("fit", "test")
    }
    return replace(model, **errors)


def grid(centre: np.ndarray, reach: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the points of a grid: efficiencies above 0, at most 1; launch at least 0."""
    least, most = np.array([0.01, 0.01, 0.0]), np.array([1.0, 1.0, np.inf])
    low, high = np.maximum(centre - reach, least), np.minimum(centre + reach, most)
    axes = (np.linspace(a, b, POINTS) for a, b in zip(low, high, strict=True))
    yield from map(np.array, product(*axes))


def best(model: Model, chosen: Counted, points: Iterator[np.ndarray]) -> np.ndarray:
    """Return the point of least squares; the first of several."""
    return min(points, key=lambda point: squares(with_parameters(model, point), chosen))


def with_parameters(model: Model, values: Sequence[float]) -> Model:
    """Return a model with other parameters."""
    names = ("efficiency_dense", "efficiency_sparse", "launch_us")
    return replace(model, **dict(zip(names, values, strict=True)))


def squares(model: Model, chosen: Counted) -> float:
    """Return the sum of squares of the logarithms of estimated by measured."""
    ratios = [time_us(model, products) / one.us for one, products in chosen.items()]
    return float(np.sum(np.log(ratios) ** 2))


def time_us(model: Model, products: Sequence[Columns]) -> float:
    """Return what all products of a measured time take."""
    return sum(map(model.time_us, products))


# ---- what is written -----------------------------------------------------------------------------


def toml(models: dict[str, Model]) -> str:
    """Return the models as the package reads them."""
    lines = ["# Made by benchmarks/paper/gpu_time.py, which fits it to published times."]
    for preset, model in models.items():
        lines += ["", f"[{preset}]", *settings(model)]
        rates = ", ".join(f"{dtype} = {rate}" for dtype, rate in model.rates.items())
        lines.append(f"rates = {{ {rates} }}")
        for use in ("fit", "test"):
            lines += [line for one in getattr(model, use) for line in entry(preset, use, one)]
    return "\n".join(lines) + "\n"


def settings(model: Model) -> Iterator[str]:
    """Yield the model's own lines."""
    yield f'gpu = "{model.gpu}"'
    yield f'values = "{model.values}"'
    for name in ("pes", "clock_mhz", "dram_mb_per_s"):
        yield f"{name} = {getattr(model, name)}"
    yield f"# fitted to the {len(model.fit)} times under [[..fit]]"
    for name in ("efficiency_dense", "efficiency_sparse", "launch_us"):
        yield f"{name} = {getattr(model, name)}"


def entry(preset: str, use: str, one: Compared) -> Iterator[str]:
    """Yield the lines of a time and its estimate."""
    yield from ("", f"[[{preset}.{use}]]", f'what = "{one.what}"')
    yield f"measured_us = {one.measured_us}"
    yield f"estimated_us = {one.estimated_us}"


def report(models: dict[str, Model]) -> Iterator[str]:
    """Yield the page: parameters, and each time beside its estimate."""
    yield "# Real GPUs: measured beside estimated\n"
    yield "Made by `python benchmarks/paper/gpu_time.py`, which fits; the formula is in"
    yield "[gpu_time.py](../../swatsim/reports/gpu_time.py), the times in"
    yield "[tests/data/gpu_2to4](../../tests/data/gpu_2to4/README.md).\n"
    yield from parameters(models)
    yield "\nA launch of 0 us is the end of what is allowed: none of the times that it is fitted to"
    yield "is short enough to show one. No measured product is a convolution's."
    yield "\n| | time | source | measured | estimated | estimated by measured |"
    yield "|---|---|---|---:|---:|---:|"
    for one, found in beside(models):
        ratio = found.estimated_us / found.measured_us
        numbers = f"{found.measured_us:.0f} us | {found.estimated_us:.0f} us | {ratio:.2f}"
        used = "fitted" if one.use == "fit" else "kept apart"
        yield f"| {used} | {models[one.gpu].gpu}, {found.what} | {one.source} | {numbers} |"


def parameters(models: dict[str, Model]) -> Iterator[str]:
    """Yield what was fitted, and the error where it was not."""
    yield "| GPU | fitted to | reached of the peak rate, dense | 2:4 | launch of an op | error |"
    yield "|---|---|---:|---:|---:|---|"
    for model in models.values():
        times = f"{len(model.fit)} times of {model.values}"
        shares = f"{model.efficiency_dense:.1%} | {model.efficiency_sparse:.1%}"
        yield f"| {model.gpu} | {times} | {shares} | {model.launch_us:g} us | {model.error} |"


def beside(models: dict[str, Model]) -> Iterator[tuple[Measured, Compared]]:
    """Yield each measured time with its estimate."""
    for one in measured():
        model = models[one.gpu]
        yield one, next(it for it in (*model.fit, *model.test) if it.what == one.what)


def main() -> None:
    if "--simulate" in sys.argv[1:]:
        store({one: list(counted(one)) for one in measured()})
    everything = load()
    models = {gpu: fitted(gpu, everything) for gpu in RATES}
    FITTED.write_text(toml(models))
    REPORT.write_text("\n".join(report(models)) + "\n")
    put("gpu-time", parameters(models))
    for one, found in beside(models):
        times = f"{found.measured_us:.0f} us measured, {found.estimated_us:.0f} us estimated"
        print(f"{one.use:4} {one.gpu}, {found.what}: {times}, factor {found.factor:.2f}")


if __name__ == "__main__":
    main()
