"""The whole batch from a few of its images: compute cycles with confidence intervals.

Where a machine's images follow one another (see `Mechanism.by_image`), a batch takes exactly the
sum of what its images take, and the recorded ones are a sample of it. That is so of every op of a
`cartesian`, of wgrad on an `inner_join`, whose clusters elsewhere begin the next image one by one,
and of every op of a `lane_array` but fprop and dgrad of linear layers, where images are the windows
of one and share sets of streams, and wgrad that reduces over the batch, where they share the
streams themselves. These other ops run as a batch of the right size, made of the recorded images
over and over: exact where cycles don't depend on the images (weights scheduled, or nothing),
otherwise near, and never with an interval. Such a batch is never laid out: it is rounds of images
that share the machine at a time (`Mechanism.in_rounds`), and these recur. Of a machine without
rounds all images share it, as they do a dense one's: where its cycles don't depend on them, any
will do, and the masks of such take no memory.

The images of a product of two activations are groups of one sample, which follow one another on
every machine but three kinds: `ideal`, which rounds up once an op; `tensor_core`, whose waves have
blocks of several groups; and where a machine numbers filters through all groups: those of one
channel on a `lane_array`, and those that banks are found by on a `cartesian`, if an image's are no
multiple of eight. All have rounds.

Compute cycles only: what the memory system adds depends on how a batch is cut into blocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import fsum, gcd, inf, nan
from typing import Any

import numpy as np

from swatsim.arguments import arguments, function, maybe, several, whole_number
from swatsim.columns import DENSE, label
from swatsim.counters import Counters
from swatsim.errors import ConfigError, TraceError
from swatsim.sampling import Estimate, Stratum, ratio, total
from swatsim.simulator.abreast import Announce, Progress, in_order
from swatsim.simulator.interface import Machine
from swatsim.simulator.jobs import Jobs
from swatsim.simulator.run import TRACE, WHERE, as_machine, choice, threads_of
from swatsim.simulator.runnable import Runnable, storing
from swatsim.store import Where, open_store
from swatsim.tracefile import Step, Trace, open_trace
from swatsim.tracefile.covered import covered
from swatsim.workload.layer import OPS, OUTPUT_OF, Layer, OpName
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.training_ops import Op
from swatsim.workload.windows import Mask

ASSUMPTION = "Assumed: the recorded images of each step behave as a random sample of its batch."
#: The total over all ops.
STEP = "step"
#: A round of more values is refused before anything is made of it (128 MiB, unpacked).
MOST_VALUES = 2**27


@dataclass(frozen=True)
class OpEstimate:
    """What one op, or several, take for whole batches, added up over the steps.

    Parameters
    ----------
    layer : str or None
        None: all layers.
    op : str
        fprop, dgrad, wgrad, or "step": all three.
    by_image : bool
        Whether all of it was estimated from images run one by one.
    agreed : bool
        Whether each recorded image by itself would have the same operand on the rows. If not, the
        others of the batch might turn the choice, and the interval does not know.
    apart : float
        Of the compute cycles those of ops that ran as a batch made of the recorded images, if they
        depend on the images. The interval of a total leaves out how these vary; of one such op it
        is unknown.
    cycles_compute, cycles_compute_baseline : Estimate
        Compute cycles, without the memory system; the baseline's.
    speed_up_compute : Estimate
        The baseline's by ours.
    """

    layer: str | None
    op: str
    by_image: bool
    agreed: bool
    apart: float
    cycles_compute: Estimate
    cycles_compute_baseline: Estimate
    speed_up_compute: Estimate


@dataclass(frozen=True)
class ImagesEstimate:
    """What whole batches cost, as far as some of their images tell.

    Parameters
    ----------
    trace, machine, baseline : str
        Names.
    images : int
        Recorded of each batch, at most: of a smaller one, all.
    batches : dict of int to int
        The batch's images, by step.
    ops : tuple of OpEstimate
        By layer and op, in the network's order.
    totals : tuple of OpEstimate
        By op over all layers; the last is the training step.
    share : float or None
        Of all that the steps multiplied, what the trace, and so the totals, hold; None: not known.
    """

    trace: str
    machine: str
    baseline: str
    images: int
    batches: dict[int, int]
    ops: tuple[OpEstimate, ...]
    totals: tuple[OpEstimate, ...]
    share: float | None = None


@dataclass(frozen=True)
class _Counted:
    """One op of one step: compute cycles of each recorded image, or its share of the batch's."""

    step: int
    layer: str
    op: OpName
    batch: int
    by_image: bool
    agreed: bool
    varies: bool
    ours: tuple[float, ...]
    dense: tuple[float, ...]


@arguments(
    ConfigError,
    trace=TRACE,
    steps=maybe(several(whole_number, "whole numbers, of recorded steps")),
    workers=maybe(whole_number),
    progress=maybe(function),
    announce=maybe(function),
    store=WHERE,
)
def estimate_images(
    trace: str | os.PathLike[str] | Trace,
    machine: str | Machine,
    *,
    steps: Sequence[int] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
    store: Where = True,
) -> ImagesEstimate:
    """Estimate the compute cycles of whole batches of which a trace holds some images.

    Every recorded image runs by itself; a batch is estimated as its size times their mean, and
    the recorded steps are added up. Intervals are right if the recorded images of a step behave as
    a random sample of its batch, as in a shuffled data set. If one image is recorded, or all that
    are take the same, there is no interval (it is not a number); if all are, or cycles don't depend
    on images (`Mechanism.reads_images`), the totals are exact. Which ops are not estimated in this
    way, and what is done instead: see the top of this file.

    A machine that schedules the sparser operand chooses it by the recorded images: `agreed` tells
    whether they are of one mind.

    Parameters
    ----------
    trace : path or Trace
    machine : str or Machine
        A preset's name or `swatsim.machine(..)`. Its baseline is itself with nothing skipped.
    steps : sequence of int, optional
        Which recorded steps; all by default.
    workers : int, optional
        Threads; one a core by default.
    progress, announce, store
        As in `swatsim.simulate`.

    Raises
    ------
    TraceError, WorkloadError
        If the trace, or a mask in it, is missing or damaged, or no op is recorded.
    ConfigError
        If the machine is unknown, or an object of your own.
    """
    source = trace if isinstance(trace, Trace) else open_trace(trace)
    chosen = storing(as_machine(machine), open_store(store))
    numbers = choice("steps", source.steps if steps is None else steps)
    jobs = Jobs(source, numbers, OPS)
    if not jobs:
        raise TraceError(f"{source.path}: no op has the masks of both operands: record again")
    count = partial(_count_op, chosen)
    counted = list(in_order(count, jobs, threads_of(workers), progress, announce))
    return ImagesEstimate(
        trace=source.name,
        machine=chosen.name,
        baseline=label(chosen.name, DENSE),
        images=max(step.samples_of(layer.name) for step, layer, _ in jobs),
        batches={number: source.step(number).batch_size for number in numbers},
        ops=tuple(_by_layer(counted)),
        totals=tuple(_totals(counted)),
        share=held.share if (held := covered(map(source.step, numbers))).known else None,
    )


def _count_op(machine: Runnable, step: Step, layer: Layer, name: OpName) -> _Counted:
    op = step.op(layer, name)
    run, batch = lower(op), step.batch_of(layer.name)
    where = step.number, layer.name, name, batch
    if alone := machine.by_image(run):
        parts = split(op)
        ours, dense = (
            tuple(float(simulate(part).cycles_compute) for part in parts)
            for simulate in (alone.simulate_op, alone.simulate_dense)
        )
        agreed = all(machine.by_image(part) == alone for part in parts)
        varies = alone.reads_images(run) or not _alike_wanted(op)
        return _Counted(*where, True, agreed, varies, ours, dense)
    used, cycles_of = _batch_on(machine, op, batch)
    # the batch's, shared out: its images then add up to it, and don't differ
    ours, dense = (
        (cycles_of(simulate) / batch,) * op.samples
        for simulate in (used.simulate_op, used.simulate_dense)
    )
    varies = used.reads_images(run) or not _alike_wanted(op)
    return _Counted(*where, False, True, varies, ours, dense)


def _batch_on(
    machine: Runnable, op: Op, batch: int
) -> tuple[Runnable, Callable[[Callable[[LoweredOp], Counters]], int]]:
    """Return the machine that takes a batch together, and how its compute cycles are found."""
    run = lower(op)
    if batch == op.samples:
        return machine, lambda simulate: simulate(run).cycles_compute
    if round_ := machine.in_rounds(run):
        used, at_once = round_
        return used, partial(batch_cycles, op, batch, at_once)
    if machine.reads_images(run) or _wanted_of_images(op) is not None:
        return machine, partial(batch_cycles, op, batch, batch)
    alike = _of_any_images(op, batch)
    return machine, lambda simulate: simulate(alike).cycles_compute


def _of_any_images(op: Op, batch: int) -> LoweredOp:
    """Return an op of a batch without a zero in its images; their masks take no memory."""
    dense = replace(Op.dense(op.layer, op.name, batch), output=op.output)
    if op.weight is None or op.has_samples("weight"):
        return lower(dense)
    known = {**dense.counts, "weight": op.counts["weight"]}
    return lower(replace(dense, weight=op.weight, known=known))


def _wanted_of_images(op: Op) -> Mask | None:
    """Return which outputs of each image are wanted; None: all, or those that images share."""
    return op.output if op.has_samples(OUTPUT_OF[op.name]) else None


def _alike_wanted(op: Op) -> bool:
    """Whether the same outputs are wanted of all images, as far as these tell."""
    wanted = _wanted_of_images(op)
    return wanted is None or (len(wanted) > 1 and bool((wanted == wanted[:1]).all()))


def split(op: Op) -> list[LoweredOp]:
    """Return an op for each sample alone."""
    return [lower(with_samples(op, np.array([sample]))) for sample in range(op.samples)]


def batch_cycles(
    op: Op, batch: int, at_once: int, simulate: Callable[[LoweredOp], Counters]
) -> int:
    """Return the compute cycles of a batch that is an op's samples, over and over.

    Parameters
    ----------
    op : Op
    batch : int
        Images; nothing is made in proportion to it.
    at_once : int
        Images of a round: rounds follow one another, and recur after as many as the op has samples
        at most.
    simulate : callable of LoweredOp to Counters

    Raises
    ------
    TraceError
        If a round would have more than `MOST_VALUES` values.
    """
    images = min(at_once, batch)
    _check_room(op, images, batch)
    full, rest = divmod(batch, images)
    recur = op.samples // gcd(op.samples, images)
    cycles = 0
    for i in range(min(recur, full)):
        times = full // recur + (i < full % recur)
        cycles += times * simulate(_repeated(op, i * images, images)).cycles_compute
    if rest:
        cycles += simulate(_repeated(op, full * images, rest)).cycles_compute
    return cycles


def _check_room(op: Op, images: int, batch: int) -> None:
    largest = max(mask.size for name, mask in op.operands.items() if op.has_samples(name))
    if (wanted := _wanted_of_images(op)) is not None:
        largest = max(largest, wanted.size)
    if (values := largest // op.samples * images) > MOST_VALUES:
        raise TraceError(
            f"{op.title}: the trace says a batch of {batch}, of which {images} images share the "
            f"machine at a time; their {values} values are too many to lay out (at most "
            f"{MOST_VALUES}): is the batch's size right? if so, choose a machine of fewer PEs"
        )


def _repeated(op: Op, first: int, images: int) -> LoweredOp:
    """Return an op of images of an endless row of the op's samples, over and over."""
    return lower(with_samples(op, (first % op.samples + np.arange(images)) % op.samples))


def with_samples(op: Op, samples: np.ndarray) -> Op:
    """Return an op of some of another one's samples, by their numbers, in that order."""
    masks: dict[str, Any] = {
        operand: mask[samples] if op.has_samples(operand) else mask
        for operand, mask in op.operands.items()
    }
    if (wanted := _wanted_of_images(op)) is not None:
        masks["output"] = wanted[samples]
    return replace(op, **masks, known={})


def _by_layer(counted: Sequence[_Counted]) -> Iterator[OpEstimate]:
    for layer, op in dict.fromkeys((c.layer, c.op) for c in counted):
        some = [c for c in counted if (c.layer, c.op) == (layer, op)]
        yield _estimate(layer, op, some)


def _totals(counted: Sequence[_Counted]) -> Iterator[OpEstimate]:
    for op in OPS:
        if some := [c for c in counted if c.op == op]:
            yield _estimate(None, op, some)
    yield _estimate(None, STEP, counted)


def _estimate(layer: str | None, op: str, counted: Sequence[_Counted]) -> OpEstimate:
    """Return an estimate, the ops of an image added up first: they are dense or sparse together.

    So are those of one step whose layers have the same batch, of which as much is recorded.
    """
    groups: dict[tuple[int, int, int], list[_Counted]] = {}
    for c in counted:
        groups.setdefault((c.step, c.batch, len(c.ours)), []).append(c)
    ours, dense = (
        [
            Stratum(batch, _added([getattr(c, part) for c in group]))
            for (_, batch, _), group in groups.items()
        ]
        for part in ("ours", "dense")
    )
    estimate, baseline, quotient = total(ours), _exact(total(dense)), ratio(dense, ours)
    varying = [c for c in counted if c.varies]
    if not varying:
        estimate, quotient = _exact(estimate), _exact(quotient)
    elif all(map(_made_up, varying)):
        estimate, quotient = _unknown(estimate), _unknown(quotient)
    return OpEstimate(
        layer=layer,
        op=op,
        by_image=all(c.by_image for c in counted),
        agreed=all(c.agreed for c in counted),
        apart=fsum(c.batch * c.ours[0] for c in varying if _made_up(c)),
        cycles_compute=estimate,
        cycles_compute_baseline=baseline,
        speed_up_compute=quotient,
    )


def _made_up(counted: _Counted) -> bool:
    """Whether images that share the machine stand for others of their batch."""
    return not counted.by_image and counted.batch > len(counted.ours)


def _unknown(estimate: Estimate) -> Estimate:
    """Return an estimate of ops of which images share the machine: what differs can't be seen."""
    return Estimate(estimate.value, nan, nan)


def _exact(estimate: Estimate) -> Estimate:
    """Return an estimate of what does not depend on the images; dense operands never do."""
    return Estimate(estimate.value, 0.0, inf)


def _added(parts: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(fsum(values) for values in zip(*parts, strict=True))
