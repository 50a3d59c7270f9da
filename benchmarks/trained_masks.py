"""What masks of a trained network do that random ones of the same densities don't.

    python benchmarks/trained_masks.py

Reads the traces of ResNet-20 and of the GPT in traces/. A random twin of a step has each mask
shuffled: as dense in every operand of every op, at other places. Both are simulated, layers alone.
Makes benchmarks/figures/trained_masks.png, of ResNet-20, and tables of docs/trained.md.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from pages import ROOT, put
from trained_runs import GPT, METHODS, RESNET, Network, Run

import swatsim
from swatsim.reports import style
from swatsim.reports.style import Figure
from swatsim.tracefile import Step, Trace
from swatsim.tracer.recorder import Recorder
from swatsim.workload.layer import Operand, OpName
from swatsim.workload.windows import Mask

PICTURE = ROOT / "benchmarks" / "figures" / "trained_masks.png"
MACHINES = ("tensordash", "swat", "scnn-queued", "sparten")
SEED = 7

Shuffle = Callable[[Mask, str], Mask]


class Found(NamedTuple):
    """A run's last recorded step, and its random twin.

    Parameters
    ----------
    run : Run
    speed_ups : dict of str to (float, float)
        Machine -> of the recorded masks, and of shuffled ones.
    """

    run: Run
    speed_ups: dict[str, tuple[float, float]]

    @property
    def sparse(self) -> bool:
        """Whether weights are."""
        return self.run.label != METHODS["dense"]


# ---- twins -------------------------------------------------------------------------------------


def shuffled(mask: Mask, name: str) -> Mask:
    """Return as many ones at random places; equal masks of one name stay equal."""
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode()), int(mask.sum())])
    return rng.permutation(mask.reshape(-1)).reshape(mask.shape)


def as_it_is(mask: Mask, name: str) -> Mask:
    """Return a mask unchanged."""
    return mask


def twin(trace: Trace, number: int, path: Path, shuffle: Shuffle = shuffled) -> Trace:
    """Write a step with each mask shuffled."""
    step, manifest = trace.step(number), trace.manifest
    with Recorder(path, batch_size=manifest.batch_size, samples=manifest.samples) as recorder:
        for layer in step.layers:
            recorder.declare(layer)
        with recorder.step(number, step.batch_size) as record:
            for it in step.records:
                mask = shuffle(step.mask(*it.key), f"{it.layer} {it.operand}")
                if step.output_record(it.layer, it.op) is it:
                    record.output(it.layer, it.op, mask)
                else:
                    record.operand(it.layer, it.op, it.operand, mask, it.dtype)
    return swatsim.open_trace(path)


def speed_up(trace: Trace, machine: str, number: int) -> float:
    """Return the machine's speed-up over its dense baseline in a step's layers, DRAM left out."""
    own = swatsim.machine(machine, dram="ideal")
    frame = swatsim.simulate(trace, own, steps=[number], layers_only=True).frame
    cycles = frame.groupby("role").cycles.sum()
    return float(cycles["baseline"] / cycles["machine"])


def compared(run: Run) -> Found:
    """Simulate the last step of a run, and its twin."""
    number = run.trace.steps[-1]
    with tempfile.TemporaryDirectory() as folder:
        random = twin(run.trace, number, Path(folder) / "twin")
        pairs = {
            machine: (
                speed_up(run.trace, machine, number),
                speed_up(random, machine, number),
            )
            for machine in MACHINES
        }
    return Found(run, pairs)


# ---- what masks look like ----------------------------------------------------------------------


class Slices(NamedTuple):
    """Parts of an operand that a machine gives to different PEs."""

    op: OpName
    operand: Operand
    axis: int


FILTERS, CHANNELS = Slices("fprop", "weight", 0), Slices("wgrad", "act", 1)


def relative(step: Step, of: Slices, shuffle: Shuffle = as_it_is) -> np.ndarray:
    """Return the densities of all slices of all sparse operands, by their operand's own."""
    found = []
    for layer in step.layers:
        mask = shuffle(step.mask(layer.name, of.op, of.operand), f"{layer.name} {of.operand}")
        others = tuple(axis for axis in range(mask.ndim) if axis != of.axis)
        if not mask.all():
            found.append(mask.mean(axis=others) / mask.mean())
    return np.sort(np.concatenate(found)) if found else np.ones(1)


def kept(trace: Trace, number: int) -> float:
    """Return which share of a step's kept weights, in sparse layers, the last step still keeps."""
    early, late = trace.step(number), trace.step(trace.steps[-1])
    both = had = 0
    for layer in late.layers:
        mask, last = (step.mask(layer.name, "fprop", "weight") for step in (early, late))
        if not last.all():
            both, had = both + int((mask & last).sum()), had + int(mask.sum())
    return both / had if had else 1.0


# ---- the picture, and the table ----------------------------------------------------------------


def draw(found: Sequence[Found]) -> Figure:
    """Return the picture: unevenness, what it costs, drift."""
    figure, (left, middle, right) = style.axes_on(13.0, 4.6, 3, 3)
    for (colour, marker), of in zip(style.SERIES, found, strict=False):
        _draw_channels(left, of, colour)
        if of.sparse:
            _draw_drift(right, of, colour, marker)
    _draw_speed_ups(middle, found)
    for axes, (title, x, y) in zip((left, middle, right), TITLES, strict=True):
        style.finish(axes, style.wrapped([title], 4.2))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
    for axes in (left, right):
        axes.legend(fontsize=style.TINY, frameon=False)
    return figure


TITLES = (
    (
        "Channels keep unequal numbers of activations: what wgrad reads, all layers of ResNet-20, "
        "last step; dotted: the same masks shuffled",
        "density of a channel / density of its layer",
        "share of channels below",
    ),
    (
        "So random masks promise another speed-up: layers of the last step, DRAM left out, "
        "recorded (filled) and shuffled (hollow)",
        "speed-up over each machine's dense baseline",
        "",
    ),
    (
        "And masks move while a network learns: kept weights of a step that the last step still "
        "keeps",
        "step of the run",
        "share of kept weights",
    ),
)


def _draw_channels(axes: Axes, of: Found, colour: str) -> None:
    last = of.run.trace.step(of.run.trace.steps[-1])
    for shuffle, line, label in ((as_it_is, "-", of.run.label), (shuffled, ":", None)):
        values = relative(last, CHANNELS, shuffle)
        share = np.arange(1, len(values) + 1) / len(values)
        axes.step(values, share, line, color=colour, label=label, where="post", linewidth=1.3)
    axes.set_xlim(0, 3)


def _draw_drift(axes: Axes, of: Found, colour: str, marker: str) -> None:
    steps = of.run.trace.steps
    shares = [kept(of.run.trace, number) for number in steps]
    axes.plot(steps, shares, color=colour, marker=marker, label=of.run.label, markersize=4)
    axes.set_ylim(0, 1.02)


def _draw_speed_ups(axes: Axes, found: Sequence[Found]) -> None:
    height = len(found) + 1
    for row, machine in enumerate(MACHINES):
        for place, ((colour, marker), of) in enumerate(zip(style.SERIES, found, strict=False)):
            y = row * height + place
            recorded, random = of.speed_ups[machine]
            axes.plot([recorded, random], [y, y], color=colour, linewidth=1)
            axes.plot([random], [y], marker, color=colour, fillstyle="none", markersize=5)
            axes.plot([recorded], [y], marker, color=colour, markersize=5)
    ticks = [row * height + (len(found) - 1) / 2 for row in range(len(MACHINES))]
    axes.set_yticks(ticks, MACHINES)
    axes.invert_yaxis()
    axes.set_xlim(left=0)


def lines(of: Network, found: Sequence[Found]) -> Iterator[str]:
    """Yield the table of what was learned, unevenness and speed-ups."""
    yield (
        f"| method | {of.score}, at the end | filters' weights "
        f"| channels' activations | {' | '.join(MACHINES)} |"
    )
    yield "|---|---:|---:|---:|" + "---:|" * len(MACHINES)
    for it in found:
        last = it.run.trace.step(it.run.trace.steps[-1])
        cells = [f"{it.run.scores[-1]:.{of.digits}f}"]
        for slices in (FILTERS, CHANNELS):
            pair = [relative(last, slices, shuffle).std() for shuffle in (as_it_is, shuffled)]
            cells.append("{:.2f} ({:.2f})".format(*pair))
        cells += ["{:.2f}x ({:.2f}x)".format(*it.speed_ups[name]) for name in MACHINES]
        yield f"| {it.run.label} | {' | '.join(cells)} |"


def scores(of: Network, part: str) -> Iterator[str]:
    """Yield the table of what was measured after each part of the runs."""
    count = max(len(run.scores) for run in of.runs)
    yield f"| {part} | {' | '.join(str(i + 1) for i in range(count))} |"
    yield "|---|" + "---:|" * count
    for run in of.runs:
        yield f"| {run.label} | {' | '.join(f'{each:.{of.digits}f}' for each in run.scores)} |"


def main() -> None:
    resnet, gpt = ([compared(run) for run in of.runs] for of in (RESNET, GPT))
    PICTURE.write_bytes(style.as_png(draw(resnet)))
    put("trained-epochs", scores(RESNET, "after epoch"))
    put("trained-masks", lines(RESNET, resnet))
    put("trained-losses", scores(GPT, "after fifth of the run"))
    put("trained-gpt-masks", lines(GPT, gpt))


if __name__ == "__main__":
    main()
