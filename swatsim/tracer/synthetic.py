"""A trace from a layer table, a policy and a seed: no training, no framework.

The masks are really Top-K'd, of values that are drawn: normal weights, half-normal activations
that are non-zero with a given probability, as behind a ReLU. Each operand of each layer is drawn
for itself, so what a network makes of one tensor in two layers (a block and its shortcut) is two
tensors here. Speaks convolution letters.

How uneven `uneven` is: least, 5th, 50th, 95th percentile and most of the density of a channel, over
all convolutions but the first, SWAT-U at 80 %. `recorded` is step 2339 of the trace in
``tests/data/format_1``; ``tests/tracer/test_synthetic.py`` measures all of it, and holds these
figures::

    weights, filters: recorded, ResNet-8        0.00 0.00 0.19 0.38 0.50
    weights, filters: uneven, ResNet-8          0.00 0.03 0.18 0.40 0.98
    weights, filters: uneven, ResNet-18         0.00 0.05 0.19 0.39 0.93
    weights, filters: even, ResNet-18           0.08 0.18 0.20 0.22 0.31
    weights, input channels: recorded, ResNet-8 0.03 0.09 0.20 0.30 0.44
    weights, input channels: uneven, ResNet-8   0.00 0.05 0.19 0.38 0.65
    weights, input channels: uneven, ResNet-18  0.00 0.05 0.19 0.40 1.00
    weights, input channels: even, ResNet-18    0.12 0.18 0.20 0.22 0.27
    activations, natural: recorded, ResNet-8    0.14 0.24 0.39 0.69 0.84
    activations, natural: uneven, ResNet-8      0.09 0.23 0.50 0.77 0.95
    activations, natural: uneven, ResNet-18     0.04 0.22 0.49 0.79 0.96
    activations, natural: even, ResNet-18       0.29 0.42 0.50 0.59 0.78
    activations, wgrad: recorded, ResNet-8      0.01 0.09 0.20 0.34 0.49
    activations, wgrad: uneven, ResNet-8        0.00 0.06 0.19 0.36 0.47
    activations, wgrad: uneven, ResNet-18       0.00 0.05 0.19 0.38 0.73
    activations, wgrad: even, ResNet-18         0.02 0.14 0.20 0.27 0.39

Weights of four trained networks for detection and OCR, Top-K'd the same way (the ones in the
packages nudenet 3.4.2 and rapidocr-onnxruntime, measured once), have 5th percentiles from 0.00 to
0.09, medians from 0.19 to 0.20, 95th percentiles from 0.31 to 0.41, and channels from 0 to 1.

Weights are dense by nature; activations are non-zero with `act_density`, but for the input of the
first layer, which is dense, and inputs of which a table says that no ReLU made them
(`Network.dense`); gradients with `grad_density`. The first layer has no dgrad, unless it reads an
embedding. Of attention nothing is dropped; above the diagonal of a causal mask (`Network.causal`)
probabilities and gradients of scores are zero, and scores and gradients of probabilities not
wanted; the first query sees one key, whose score has no gradient. With `uneven`, filters and input
channels of weights and channels of activations have scales of their own, the latter natural
densities too (`drawing.py`).

Of a table that ships a step also notes what else it does (`Step.others`): its norms and
activations, its optimizer, and what the policy does of its own. Copies that only change a layout
are not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from swatsim.arguments import (
    arguments,
    count_of,
    density,
    either,
    flag,
    function,
    having,
    instance_of,
    mapping,
    maybe,
    path_like,
    several,
    whole_number,
)
from swatsim.errors import RecordingError, shown
from swatsim.policies import Sparsifier, allocate_once, begin_run
from swatsim.policies.interface import Policy, Site, first_convolution
from swatsim.tracefile.reader import Trace, open_trace
from swatsim.tracer.arguments import describe_policy
from swatsim.tracer.drawing import Drawing
from swatsim.tracer.given_masks import GivenMasks, Source, given_masks
from swatsim.tracer.policy_work import policy_work
from swatsim.tracer.recorder import Recorder
from swatsim.tracer.step_record import StepRecord
from swatsim.tracer.synthetic_work import other_works
from swatsim.workload.layer import OPERANDS, OPERANDS_OF, OPS, OUTPUT_OF, Layer, Operand
from swatsim.workload.tables import Network
from swatsim.workload.windows import Mask

Values = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]

#: Of steps, samples and seeds.
MOST = 2**63 - 1


@arguments(
    RecordingError,
    layers=either(instance_of(Network), several(instance_of(Layer), "of swatsim.Layer")),
    path=path_like,
    policy=having("density", "describe"),
    batch=whole_number,
    seed=whole_number,
    steps=whole_number,
    act_density=density,
    grad_density=density,
    masks=maybe(either(path_like, mapping, several(path_like, "of paths"))),
    uneven=flag,
    overwrite=flag,
    progress=maybe(function),
)
def synthesize(
    layers: Network | Sequence[Layer],
    path: str | os.PathLike[str],
    *,
    policy: Policy,
    batch: int,
    seed: int,
    steps: int = 1,
    act_density: float = 0.5,
    grad_density: float = 1.0,
    masks: Source = None,
    uneven: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Trace:
    """Write a trace of a network that was never trained.

    Natural masks first, then what the policy leaves of them: with SWAT the Top-K of the weights
    (one mask for fprop and dgrad) and of wgrad's activations. Steps are drawn independently of each
    other; a policy that keeps masks keeps the ones that it drew. The top of this file says more.

    Parameters
    ----------
    layers : Network, or sequence of Layer in the order in which they run
    path : path
        Where the trace goes: a directory that is empty or does not exist.
    policy : Policy
        For example ``SwatU(0.8)``. One with an ``allocate`` method is given all layers.
    batch, steps, seed : int
        How many samples (all are in the trace) and steps (numbered from 0); the same seed gives the
        same masks, of whichever other layers there are.
    act_density, grad_density : float
        Natural densities, in (0, 1].
    masks : path, sequence of paths, or mapping of str to array, optional
        Masks that somebody else made, of weights, activations or gradients, in files of
        ``mask_files.READERS`` or as arrays of bools or numbers: what is not zero is kept. They are
        called ``LAYER`` (its weight), ``LAYER.OPERAND`` or ``LAYER.OP.OPERAND``. The policy drops
        nothing of them; all others are drawn. They are the same in each step.
    uneven, overwrite : bool
        Channels are uneven; a trace at `path` is replaced, as soon as the first step is written.
    progress : callable of int and int, optional
        Called with the number of layers done and of all, over all steps.

    Raises
    ------
    RecordingError, PolicyError
        If an argument is not allowed, the policy knows nothing of a layer, or a mask can't be
        read, is of no layer or does not fit it.
    TraceError
        If something is at `path` already that is not replaced, or it can't be written.
    """
    drawing = _drawing(layers, batch, seed, act_density, grad_density, uneven)
    numbers = range(_checked_count("steps", steps, 1))
    given = given_masks(masks, drawing.layers, drawing.batch, drawing.seed, drawing.without_dgrad)
    chosen = allocate_once(policy, drawing.layers)
    stated = _stated(drawing, given, policy, len(numbers))
    with Recorder(path, batch_size=drawing.batch, overwrite=overwrite, **stated) as recorder:
        _record(recorder, drawing, given, chosen, numbers, progress or (lambda done, total: None))
    return open_trace(path)


def _stated(drawing: Drawing, given: GivenMasks, policy: Policy, steps: int) -> dict[str, Any]:
    """Return what the trace says of itself: whose zeros are in it, and how they were drawn."""
    described = {**drawing.describe(), "steps": steps, **given.describe()}
    return {"policy": given.named(describe_policy(policy)), "parameters": described}


def _drawing(
    layers: Network | Sequence[Layer],
    batch: int,
    seed: int,
    act_density: float,
    grad_density: float,
    uneven: bool,
) -> Drawing:
    return Drawing(
        network=layers.name if isinstance(layers, Network) else None,
        layers=_checked_layers(layers),
        batch=_checked_count("batch", batch, 1),
        seed=_checked_count("seed", seed, 0),
        density={"act": float(act_density), "grad_out": float(grad_density)},
        uneven=uneven,
        table=layers if isinstance(layers, Network) else None,
    )


def _record(
    recorder: Recorder,
    drawing: Drawing,
    given: GivenMasks,
    policy: Policy,
    numbers: range,
    progress: Progress,
) -> None:
    for layer in drawing.layers:
        recorder.declare(layer)
    total, chosen = len(numbers) * len(drawing.layers), begin_run(policy)
    noted = other_works(drawing.table, drawing.batch) if drawing.table is not None else None
    for number in numbers:
        with recorder.step(number) as record:
            record.others = noted
            for done, layer in enumerate(drawing.layers, number * len(drawing.layers) + 1):
                _record_layer(record, layer, drawing, given, chosen)
                progress(done, total)


def _record_layer(
    record: StepRecord, layer: Layer, drawing: Drawing, given: GivenMasks, sparsifier: Sparsifier
) -> None:
    if layer.multiplies_activations:
        _record_product(record, layer, drawing, given)
        return
    first, own = layer.name == first_convolution(drawing.layers), {}
    for operand in OPERANDS:
        ops = [op for op in OPS if operand in OPERANDS_OF[op]]
        if layer.name == drawing.without_dgrad:
            ops = [op for op in ops if op != "dgrad"]
        theirs = given.of(layer, operand, ops)
        sites = [Site(layer, op, operand, first, record.number) for op in ops if op not in theirs]
        own[operand] = sparsifier.work(sites) if sites else ()
        drawn = iter(_masks(sites, drawing, sparsifier) if sites else ())
        for op in ops:
            mask = theirs[op] if op in theirs else next(drawn)
            record.operand(layer.name, op, operand, mask)
    if not given.has(layer, "weight"):  # of the policy's own masks some gradients may be unwanted
        wanted = sparsifier.output_mask(Site(layer, "wgrad", "weight", first, record.number))
        if wanted is not None:
            record.output(layer.name, "wgrad", wanted)
    if record.others is not None:
        record.others = [*record.others, *policy_work(layer, drawing.batch, own)]


def _record_product(record: StepRecord, layer: Layer, drawing: Drawing, given: GivenMasks) -> None:
    """Record a product of two activations, of which no policy drops anything."""
    for operand in OPERANDS:
        ops = [op for op in OPS if operand in OPERANDS_OF[op]]
        seen = drawing.causal(layer, operand)
        if seen is not None:  # what it hides is neither computed nor differentiated
            (op,) = (op for op, made in OUTPUT_OF.items() if made == operand)
            record.output(layer.name, op, seen)
        theirs = given.of(layer, operand, ops)
        for op, mask in theirs.items():
            record.operand(layer.name, op, operand, mask if seen is None else mask & seen)
        if free := [op for op in ops if op not in theirs]:
            drawn = _factor(layer, operand, drawing, record.number, seen)
            record.operand(layer.name, free, operand, drawn)


def _factor(layer: Layer, operand: Operand, drawing: Drawing, step: int, seen: Mask | None) -> Mask:
    """Return the mask of an operand of a product of two activations."""
    mask = _nonzero(layer, operand, drawing, step)
    if seen is None:
        return mask
    mask = mask & seen
    if operand == "grad_out":  # the first query's softmax is 1, always
        mask &= (np.arange(layer.H) > 0)[:, None]
    return mask


def _nonzero(layer: Layer, operand: Operand, drawing: Drawing, step: int) -> Mask:
    """Return the mask of an operand of which nothing is dropped."""
    if drawing.natural(layer, operand) < 1:
        return np.asarray(drawing.values(layer, operand, step) != 0)
    return np.broadcast_to(np.True_, layer.shape_of(operand, drawing.batch))


def _masks(sites: Sequence[Site], drawing: Drawing, sparsifier: Sparsifier) -> list[Mask]:
    """Return an operand's masks from one drawing of it: those of its values that an op reads."""
    site = sites[0]
    whole = all(sparsifier.density(each) is None for each in sites)
    if whole and drawing.natural(site.layer, site.operand) == 1:
        return [_nonzero(site.layer, site.operand, drawing, site.step)] * len(sites)
    values = drawing.values(site.layer, site.operand, site.step)
    masks = sparsifier.masks(sites, values)
    if np.count_nonzero(values) == values.size:  # of a head a mask more is a gigabyte
        full = np.broadcast_to(np.True_, values.shape)
        return [full if mask is None else mask for mask in masks]
    nonzero = values != 0
    del values
    kept = {id(mask): nonzero if mask is None else mask & nonzero for mask in masks}
    return [kept[id(mask)] for mask in masks]


def _checked_layers(layers: Network | Sequence[Layer]) -> Sequence[Layer]:
    listed = layers.layers if isinstance(layers, Network) else tuple(layers)
    if not listed:
        raise RecordingError("layers=() is not allowed: a trace needs at least one layer")
    return listed


def _checked_count(name: str, value: Any, least: int) -> int:
    if not least <= (count := count_of(value)) <= MOST:
        raise RecordingError(
            f"{name}={shown(value)} is not allowed: must be a whole number of at least {least}, "
            "below 2**63"
        )
    return count
