"""Steps of whole batches, of which a trace holds some images: memory and everything else included.

The recorded images, over and over, make a batch of the right size, and it is simulated as any other
is. What works on the machine one image after another (`Mechanism.by_image`) is counted one by one
and added up, which is exact; anything else runs as the batch that it is. Buffers and DRAM see the
whole batch: blocks are chosen for its size, and weights are loaded as often as these blocks ask
for. Everything else that a step does is noted of the whole batch, and is not cut.

A batch of many or of large images is not laid out. Its cost is taken to grow by the same with every
`more` images: that of N images is T(n) + (N - n) / more * (T(n) - T(n - more)), so that what comes
once, such as the weights, is counted once. n and more are of some million values of the layer's
largest tensor, far more than a buffer holds; where a batch is smaller it runs as it is.

What one image says of the batch, y_i, is the batch's cost by the op's with copies of that image
alone, over the mean of all images' such costs; summed over ops, for an image is dense or sparse in
all of them together. Their mean is the batch's cost, and their variance says how far the images
that were not recorded may be from it: the second stage of a sample in two stages, see
`swatsim.course`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import fsum, prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim import provenance
from swatsim.columns import COLUMNS, Role
from swatsim.counters import SUMMED, Counters
from swatsim.results import Results
from swatsim.sampling import Seen
from swatsim.simulator.abreast import Announce, Progress, in_order
from swatsim.simulator.energy.table import EnergyTable, energy_table
from swatsim.simulator.images import split, with_samples
from swatsim.simulator.interface import Machine
from swatsim.simulator.jobs import Some
from swatsim.simulator.memory.refusals import BufferTooSmallError
from swatsim.simulator.other import Share
from swatsim.simulator.rows import Counting
from swatsim.simulator.run import as_machine, checked, choice, threads_of
from swatsim.simulator.runnable import ConfiguredMachine, OwnMachine, Runnable
from swatsim.simulator.systems import Row
from swatsim.simulator.trace_run import Run
from swatsim.store import Store, Where, open_store
from swatsim.tracefile import Step, Trace, covered, open_trace
from swatsim.workload.layer import Layer, OpName
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.training_ops import Op

#: Of a layer's largest tensor, and of its images: a larger batch is not laid out.
MOST_VALUES, MOST_IMAGES = 2**22, 2**10
#: Columns of an image's cost.
COSTS = ("cycles", "cycles_compute", "energy_pj")

_SUMS = tuple(column.name for column in COLUMNS if column.adds == "sum")
_Numbers = npt.NDArray[np.intp]


class Batches(NamedTuple):
    """Steps of whole batches.

    Parameters
    ----------
    results : Results
        As `swatsim.simulate` gives them of a trace that holds all images. They are not written:
        counts of buckets may be below zero where an op's cost was extended.
    seen : mapping of int to tuple of Seen
        By step, what each recorded image says of the batch, by (role, column of `COSTS`); of layers
        that hold other numbers of images apart. None of a step that holds all.
    extended : float
        Share of the machine's cycles of ops whose batch was not laid out.
    """

    results: Results
    seen: Mapping[int, tuple[Seen, ...]]
    extended: float


class Sizes(NamedTuple):
    """How a batch is run: `images` of it, and that grows by `more` for so many `times`."""

    images: int
    more: int = 0
    times: int = 0


def sizes_of(batch: int, recorded: int, values: int) -> Sizes:
    """Return how many images of a batch are laid out.

    Parameters
    ----------
    batch, recorded : int
        Images; `more` is a multiple of those that are recorded, so that each counts as much.
    values : int
        Of an image, in the layer's largest tensor.
    """
    most = max(1, min(MOST_IMAGES, MOST_VALUES // values))
    more = recorded * max(1, most // (2 * recorded))
    times = (batch - 2 * more) // more
    return Sizes(batch - times * more, more, times) if times > 0 else Sizes(batch)


Pick = Callable[[Step, Layer], _Numbers]


class Repeated(Run):
    """A trace whose ops run with their recorded images in an order of ours, some more than once.

    `pick` says which, by their numbers in the masks.
    """

    def __init__(
        self,
        trace: Trace,
        machine: Runnable,
        baseline: Runnable | None,
        energy: EnergyTable,
        store: Store | None,
        pick: Pick,
    ) -> None:
        super().__init__(trace, [machine], baseline, energy, store=store)
        self._pick = pick

    def read(self, step: Step, layer: Layer, name: OpName) -> Op:
        """Return an op of the images as they run."""
        op = super().read(step, layer, name)
        if step.samples_of(layer.name) == step.batch_of(layer.name):
            return op
        return with_samples(op, self._pick(step, layer))

    def _counting(self, machine: Runnable, op: LoweredOp, step: Step, layer: Layer) -> Counting:
        """Return what counts the op's different images one by one, if they follow one another."""
        alone = None if isinstance(machine, OwnMachine) else machine.by_image(op)
        if alone is None or op.images == 1:
            return machine
        picked = self._pick(step, layer)
        if step.samples_of(layer.name) == step.batch_of(layer.name):
            return machine
        numbers, times = np.unique(picked, return_counts=True)
        recorded = super().read(step, layer, op.own_name)
        parts = split(with_samples(recorded, numbers))
        return OneByOne(alone, list(zip(parts, times.tolist(), strict=True)))

    def _samples(self, step: Step) -> tuple[int, Share]:
        return step.batch_size, Share(1, 1)


class OneByOne:
    """Counts an op as the sum of its images, each of which runs so many times by itself.

    Dense operands are the same in all of them.
    """

    def __init__(self, machine: ConfiguredMachine, parts: Sequence[tuple[LoweredOp, int]]) -> None:
        self._machine = machine
        self._parts = parts
        self._images = sum(times for _, times in parts)

    def simulate_op(self, op: LoweredOp) -> Counters:
        """Return the counters of all images."""
        counted = [self._machine.simulate_op(part).times(times) for part, times in self._parts]
        sums = {name: sum(getattr(one, name) for one in counted) for name in SUMMED}
        return counted[0]._replace(**sums)

    def simulate_dense(self, op: LoweredOp) -> Counters:
        """Return the counters of all images' dense baseline."""
        return self._machine.simulate_dense(self._any).times(self._images)

    def simulate_dense_operands(self, op: LoweredOp) -> Counters:
        """Return the counters of all images, were no value zero."""
        return self._machine.simulate_dense_operands(self._any).times(self._images)

    def simulate_alternatives(self, op: LoweredOp) -> dict[str, Counters]:
        """Return the counters of all images' other dense baselines."""
        found = self._machine.simulate_alternatives(self._any).items()
        return {name: counters.times(self._images) for name, counters in found}

    @property
    def _any(self) -> LoweredOp:
        return self._parts[0][0]


class _Counted(NamedTuple):
    """An op of a whole batch: its rows, what of them images say, and whether it was extended."""

    rows: list[Row]
    of_images: list[list[Row]]
    extended: bool


class _Batch:
    """The runs that a batch's estimate is made of: the batch, a smaller one, each image alone."""

    def __init__(self, most: int, made: Callable[[Pick], Repeated]) -> None:
        self.whole = made(lambda step, layer: _over(step, layer, 0))
        self._less = made(lambda step, layer: _over(step, layer, 1))
        self._alone = [made(_alone(image)) for image in range(most)]

    def count(self, step: Step, layer: Layer, name: OpName) -> _Counted:
        """Return what an op of a whole batch takes."""
        (rows,) = self.whole.rows(step, layer, name)
        recorded, batch = step.samples_of(layer.name), step.batch_of(layer.name)
        if recorded == batch:
            return _Counted(rows, [], False)
        sizes = _sizes(step, layer)
        if sizes.times:
            (fewer,) = self._less.rows(step, layer, name)
            pairs = zip(rows, fewer, strict=True)
            rows = [_extended(row, less, sizes.times) for row, less in pairs]
        rows = [{**row, "samples": batch} for row in rows]
        # of one image nothing tells how images differ
        alone = self._alone[:recorded] if recorded > 1 else []
        return _Counted(rows, [_costs(run, step, layer, name) for run in alone], sizes.times > 0)


def _costs(run: Repeated, step: Step, layer: Layer, name: OpName) -> list[Row]:
    (rows,) = run.costs(step, layer, name, run.entered(run.read(step, layer, name)))
    return rows


def _sizes(step: Step, layer: Layer) -> Sizes:
    tensors = ("act", "grad_out", *(["weight"] if layer.multiplies_activations else []))
    values = max(prod(layer.shape_of(tensor, 1)) for tensor in tensors)  # type: ignore[arg-type]
    return sizes_of(step.batch_of(layer.name), step.samples_of(layer.name), values)


def _over(step: Step, layer: Layer, fewer: int) -> _Numbers:
    """Return the recorded images over and over; `fewer`: 1, as many less as the cost grows by."""
    sizes = _sizes(step, layer)
    return np.arange(sizes.images - fewer * sizes.more) % step.samples_of(layer.name)


def _alone(image: int) -> Pick:
    def pick(step: Step, layer: Layer) -> _Numbers:
        copies = max(1, _sizes(step, layer).images // step.samples_of(layer.name))
        return np.full(copies, image)

    return pick


def _extended(row: Row, less: Row, times: int) -> Row:
    """Return a row that has grown so many times by what it has more than another."""
    known = (name for name in _SUMS if row[name] is not None and less[name] is not None)
    return {**row, **{name: row[name] + times * (row[name] - less[name]) for name in known}}


def simulate_batches(
    trace: str | os.PathLike[str] | Trace,
    machine: str | Machine,
    *,
    baseline: str | Machine | None = None,
    energy: str | os.PathLike[str] | EnergyTable = "45nm",
    steps: Sequence[int] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
    store: Where = True,
) -> Batches:
    """Run every recorded op of a trace with whole batches, made of the images that it holds.

    Parameters and errors are those of `swatsim.simulate`.
    """
    source = trace if isinstance(trace, Trace) else open_trace(trace)
    other = None if baseline is None else as_machine(baseline, "baseline")
    chosen = choice("steps", source.steps if steps is None else steps)
    held = [
        step.samples_of(layer.name) for step in map(source.step, chosen) for layer in step.layers
    ]
    what = source, as_machine(machine), other, energy_table(energy), open_store(store)
    batch = _Batch(max(held), partial(Repeated, *what))
    run = batch.whole
    resolved = checked(run.describe(run.machines[0], covered.describe(source, chosen), chosen))
    jobs = run.jobs(chosen)
    run.check_before(jobs)
    try:
        counted = list(in_order(batch.count, jobs, threads_of(workers), progress, announce))
    except BufferTooSmallError as error:
        raise run.refusal(error, jobs) from None
    rows = [row for one in counted for row in one.rows]
    if not resolved["others_left_out"]:
        rows += [row for n in chosen for row in run.others(source.step(n))[0]]
    results = Results(rows, provenance.collect({**resolved, "samples": None}))
    return Batches(results, _seen(jobs, counted), _share_extended(counted))


def _seen(jobs: Some, counted: Sequence[_Counted]) -> dict[int, tuple[Seen, ...]]:
    """Return what images say of the batches, the ops of an image added up."""
    groups: dict[tuple[int, int, int], list[_Counted]] = {}
    for (step, layer, _), one in zip(jobs, counted, strict=True):
        batch, recorded = step.batch_of(layer.name), step.samples_of(layer.name)
        if recorded < batch:
            groups.setdefault((step.number, batch, recorded), []).append(one)
    found: dict[int, tuple[Seen, ...]] = {}
    for (number, batch, recorded), group in groups.items():
        found[number] = (*found.get(number, ()), Seen(batch, recorded, dict(_added(group))))
    return found


def _added(group: Sequence[_Counted]) -> Iterator[tuple[tuple[str, str], tuple[float, ...]]]:
    """Yield, by role and column, what each image says; nothing of a column that is not known."""
    if not group[0].of_images:
        return
    for role in (Role.MACHINE, Role.BASELINE):
        at = next(i for i, row in enumerate(group[0].rows) if row["role"] == role)
        for column in COSTS:
            said = [_said(one, at, column) for one in group]
            if all(said):
                yield (role.value, column), tuple(map(fsum, zip(*said, strict=True)))


def _said(one: _Counted, at: int, column: str) -> list[float]:
    """Return what each image says that an op of the batch costs; nothing: it is not known."""
    if one.rows[at][column] is None:
        return []
    costs = [rows[at][column] for rows in one.of_images]
    mean = fsum(costs) / len(costs)
    return [one.rows[at][column] * (cost / mean if mean else 1.0) for cost in costs]


def _share_extended(counted: Sequence[_Counted]) -> float:
    cycles = [(one.rows[0]["cycles"], one.extended) for one in counted]
    whole = sum(taken for taken, _ in cycles)
    return sum(taken for taken, extended in cycles if extended) / whole if whole else 0.0
