"""How near `swatsim estimate TRACE -m MACHINE --run-steps TOTAL` comes to runs recorded in full.

    python benchmarks/whole_run.py

Made-up runs of 20 steps of batches of 16 images, of a small network with all kinds of layers; every
image, layer and step has a density of its own. Simulated are all of a run's images, memory system
included, and then it is estimated from some images of some steps: the first step, the last, and
evenly spaced ones; images drawn at random, others in each step. Prints a table and puts it into its
page: of the time, how far the estimates are off in the mean, how often the 95 % intervals hold the
truth, and how wide they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from statistics import fmean, median

import numpy as np
from pages import put

import swatsim
from swatsim.reports.run_estimate import RunEstimate
from swatsim.tracefile import Trace
from swatsim.workload.layer import OPERANDS_OF, Layer

#: Of a run, and of each batch.
STEPS, BATCH = 20, 16
#: Recorded steps, and images of each.
RECORDED = ((5, 2), (10, 4))
MACHINES = ("tensordash", "swat", "sparten", "scale-sim-os")
RUNS, SEED = 24, 23
#: By so much of it densities of images, of steps and of layers differ, as standard deviations.
OF_IMAGES, OF_STEPS, OF_LAYERS = 0.15, 0.03, 0.2
#: Their means.
DENSITY = {"weight": 0.2, "act": 0.45, "grad_out": 0.7}

LAYERS = (
    Layer(name="conv", C=16, K=32, H=16, W=16, R=3, S=3, stride=2, padding=1),
    Layer(name="depthwise", C=32, K=32, H=8, W=8, R=3, S=3, padding=1, groups=32),
    Layer(name="scores", kind="matmul", C=64, K=128, H=64, groups=2),
    Layer(name="fc", kind="linear", C=256, K=64),
)


@dataclass(frozen=True)
class Row:
    """One machine at one number of recorded steps and images, over all runs and draws.

    `bias` is the mean of estimated by true time, less one; `covered` the share of intervals that
    hold the truth: of times, energies and speed-ups the smallest; `half_width` the times' median.
    Not a number where no run has an interval.
    """

    machine: str
    steps: int
    images: int
    bias: float
    covered: float
    half_width: float


def table(
    machines: Sequence[str] = MACHINES,
    recorded: Sequence[tuple[int, int]] = RECORDED,
    runs: int = RUNS,
) -> list[Row]:
    """Estimate every run on every machine from one sample of each size."""
    found: dict[tuple[str, int, int], list[_Estimated]] = {}
    for i in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            run = _run(Path(folder) / "run", np.random.default_rng([SEED, i]))
            truths = {name: swatsim.estimate_run(run, name, STEPS) for name in machines}
            for steps, images in recorded:
                part = _part(run, Path(folder) / f"{i}-{steps}-{images}", steps, images)
                for name, truth in truths.items():
                    estimate = swatsim.estimate_run(part, name, STEPS)
                    found.setdefault((name, steps, images), []).append(_beside(estimate, truth))
    return [_row(*key, of) for key, of in found.items()]


@dataclass(frozen=True)
class _Estimated:
    """Estimated by true time, by what it is off at most; and which intervals hold the truth."""

    ratio: float
    half_width: float
    held: tuple[bool, ...]


def _beside(found: RunEstimate, truth: RunEstimate) -> _Estimated:
    time, exact = found.ours["time_ms"], truth.ours["time_ms"].value
    pairs = [
        (time, exact),
        (found.ours["energy_pj"], truth.ours["energy_pj"].value),
        (found.ratios["speed_up"], truth.ratios["speed_up"].value),
    ]
    held = tuple(one.low <= value <= one.high for one, value in pairs)
    return _Estimated(time.value / exact, time.half_width / exact, held)


def _row(machine: str, steps: int, images: int, of: Sequence[_Estimated]) -> Row:
    known = [one for one in of if not isnan(one.half_width)]
    held = zip(*(one.held for one in known), strict=True)
    covered = min(map(fmean, held)) if known else nan
    width = median(one.half_width for one in known) if known else nan
    return Row(machine, steps, images, fmean(one.ratio for one in of) - 1, covered, width)


def _run(path: Path, rng: np.random.Generator) -> Trace:
    """Record all images of all steps of a made-up run."""
    recorder = swatsim.Recorder(path, batch_size=BATCH)
    for layer in LAYERS:
        recorder.declare(layer)
    own = {name: rng.normal(1, OF_LAYERS, len(LAYERS)) for name in DENSITY}
    for number, level in enumerate(rng.normal(1, OF_STEPS, STEPS)):
        bright = level * rng.normal(1, OF_IMAGES, BATCH)
        with recorder.step(number) as step:
            for i, layer in enumerate(LAYERS):
                for operand, mean in DENSITY.items():
                    shape = layer.shape_of(operand, BATCH)
                    of_image = operand != "weight" or layer.multiplies_activations
                    by = bright.reshape(-1, *[1] * (len(shape) - 1)) if of_image else level
                    mask = rng.random(shape) < np.clip(mean * own[operand][i] * by, 0.02, 1)
                    ops = [op for op, operands in OPERANDS_OF.items() if operand in operands]
                    step.operand(layer.name, ops, operand, mask)
    recorder.close()
    return swatsim.open_trace(path)


def _part(run: Trace, path: Path, steps: int, images: int) -> Trace:
    """Record evenly spaced steps of a run, and of each some images, drawn at random."""
    rng = np.random.default_rng([SEED, *path.name.encode()])
    recorder = swatsim.Recorder(path, batch_size=BATCH, samples=range(images))
    for layer in LAYERS:
        recorder.declare(layer)
    for number in (round(i * (STEPS - 1) / (steps - 1)) for i in range(steps)):
        chosen = rng.choice(BATCH, images, replace=False)
        with recorder.step(number) as record:
            for layer, name in run.step(number).ops():
                op = run.step(number).op(layer, name)
                for operand, mask in op.operands.items():
                    held = mask[chosen] if op.has_samples(operand) else mask
                    record.operand(layer.name, name, operand, held)
    recorder.close()
    return swatsim.open_trace(path)


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """Write bias, coverage and the median half-width, machine by sample."""
    samples = list(dict.fromkeys((row.steps, row.images) for row in rows))
    heads = (f"{steps} steps, {images} images of each" for steps, images in samples)
    yield f"| machine | {' | '.join(heads)} |"
    yield "|---|" + "---:|" * len(samples)
    for name in dict.fromkeys(row.machine for row in rows):
        cells = (_cell(row) for row in rows if row.machine == name)
        yield f"| {name} | {' | '.join(cells)} |"


def _cell(row: Row) -> str:
    bias = f"{100 * row.bias:+.2f} %"
    if isnan(row.covered):
        return f"{bias}, all alike: no interval"
    return f"{bias}, {100 * row.covered:.0f} %, +-{100 * row.half_width:.2g} %"


def main() -> None:
    made = list(lines(table()))
    print("\n".join(made))
    put("whole-run", made)


if __name__ == "__main__":
    main()
