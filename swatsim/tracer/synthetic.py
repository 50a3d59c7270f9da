"""A trace from a layer table, a policy and a seed: no training, no framework.

The masks are really Top-K'd, of values that are drawn: normal weights, half-normal activations
that are non-zero with a given probability, as behind a ReLU. Each operand of each layer is drawn
for itself, so what a network makes of one tensor in two layers (a block and its shortcut) is two
tensors here. Speaks convolution letters.

How uneven `uneven` is: least, 5th, 50th, 95th percentile and most of the density of a channel, over
all convolutions but the first, SWAT-U at 80 %. `recorded` is step 2339 of the trace that ships;
``tests/tracer/test_synthetic.py`` measures all of it, and holds these figures::

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
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
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
    maybe,
    path_like,
    several,
    whole_number,
)
from swatsim.errors import RecordingError, shown
from swatsim.policies import Sparsifier, allocate_once, begin_run
from swatsim.policies.draw import generator
from swatsim.policies.interface import Policy, Site, first_convolution
from swatsim.tracefile.reader import Trace, open_trace
from swatsim.tracer.arguments import describe_policy
from swatsim.tracer.recorder import Recorder
from swatsim.tracer.step_record import StepRecord
from swatsim.workload.layer import OPERANDS, OPERANDS_OF, OPS, Layer, Operand
from swatsim.workload.tables import Network
from swatsim.workload.windows import Mask

Values = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]

#: Of `uneven`: the log of a channel's scale is this times a Student's t of so many degrees of
#: freedom. A log-normal scale that fits the bulk of trained layers has no channel that is all but
#: empty or full, and they have.
SCALE, FREEDOM = 0.2, 3
#: Of `uneven`: the deviation of a channel's natural density, on the scale of a normal's quantiles.
NATURAL_SPREAD = 0.45


#: Of steps, samples and seeds.
MOST = 2**63 - 1


@dataclass(frozen=True)
class _Drawing:
    """How values are drawn, and whose turn it is.

    Parameters
    ----------
    network : str or None
    layers : sequence of Layer
        The input of the first one is dense.
    batch, seed : int
    density : mapping of Operand to float
        Natural density of act and grad_out.
    uneven : bool
    """

    network: str | None
    layers: Sequence[Layer]
    batch: int
    seed: int
    density: Mapping[Operand, float]
    uneven: bool

    @classmethod
    def checked(
        cls,
        layers: Network | Sequence[Layer],
        batch: int,
        seed: int,
        act_density: float,
        grad_density: float,
        uneven: bool,
    ) -> _Drawing:
        """Refuse what is not allowed."""
        return cls(
            network=layers.name if isinstance(layers, Network) else None,
            layers=_checked_layers(layers),
            batch=_checked_count("batch", batch, 1),
            seed=_checked_count("seed", seed, 0),
            density={
                "act": float(act_density),
                "grad_out": float(grad_density),
            },
            uneven=bool(uneven),
        )

    def describe(self) -> dict[str, Any]:
        """Return what the values are drawn with, as JSON, for the trace's provenance."""
        density = {f"{name.removesuffix('_out')}_density": x for name, x in self.density.items()}
        seeds = {"batch": self.batch, "seed": self.seed, "uneven": self.uneven}
        return {"synthetic": True, "network": self.network, **seeds, **density}

    def values(self, layer: Layer, operand: Operand, step: int) -> Values:
        """Return drawn values of an operand: magnitudes (no mask depends on signs), and zeros."""
        rng = self._rng(layer, operand, step + 1)
        drawn = rng.standard_normal(layer.shape_of(operand, self.batch), dtype=np.float32)
        np.abs(drawn, out=drawn)
        for axis, scales in self._scales(layer, operand):
            drawn *= _along(axis, scales, drawn.ndim)
        return self._thin(drawn, layer, operand, rng)

    def _thin(
        self, drawn: Values, layer: Layer, operand: Operand, rng: np.random.Generator
    ) -> Values:
        """Return values with natural zeros, as a ReLU makes them."""
        density = self.natural(layer, operand)
        if density == 1:
            return drawn
        chance: Any = density
        if self.uneven and operand == "act":
            chance = _along(1, self._natural_of_channels(layer, density), drawn.ndim)
        drawn *= rng.random(drawn.shape, dtype=np.float32) < chance
        return drawn

    def natural(self, layer: Layer, operand: Operand) -> float:
        """Return how dense an operand is before anything is dropped; 1 needs no drawing."""
        return 1.0 if self._is_input(layer, operand) else self.density.get(operand, 1.0)

    def _is_input(self, layer: Layer, operand: Operand) -> bool:
        return operand == "act" and layer.name == self.layers[0].name

    def _scales(self, layer: Layer, operand: Operand) -> Iterator[tuple[int, Values]]:
        """Yield the scales of filters and input channels: the same ones in every step."""
        axes = {"weight": (0, 1), "act": (1,), "grad_out": ()}[operand]
        if not self.uneven or self._is_input(layer, operand):
            return
        rng = self._rng(layer, operand, 0)
        shape = layer.shape_of(operand, self.batch)
        for axis in axes:
            yield axis, np.exp(SCALE * rng.standard_t(FREEDOM, shape[axis])).astype(np.float32)

    def _natural_of_channels(self, layer: Layer, density: float) -> Values:
        """Return each channel's natural density, drawn so that their mean is the one asked for."""
        normal = NormalDist()
        centre = normal.inv_cdf(density) * math.hypot(1, NATURAL_SPREAD)
        rng = self._rng(layer, "grad_out", 0)  # whose scales are never drawn
        quantiles = centre + NATURAL_SPREAD * rng.standard_normal(layer.C)
        return np.array([normal.cdf(x) for x in quantiles], np.float32)

    def _rng(self, layer: Layer, operand: Operand, turn: int) -> np.random.Generator:
        """Return the generator of one operand of one layer."""
        return generator(self.seed, layer.name, OPERANDS.index(operand), turn)


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
    uneven=flag,
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
    uneven: bool = False,
    progress: Progress | None = None,
) -> Trace:
    """Write a trace of a network that was never trained.

    Natural masks first: weights dense; activations non-zero with `act_density`, but for the
    input of the first layer, which is dense; gradients with `grad_density`. Then what the policy
    leaves of them: with SWAT the Top-K of the weights (one mask for fprop and dgrad) and of
    wgrad's activations. The first layer has no dgrad. Steps are drawn independently of each other;
    a policy that keeps masks keeps the ones that it drew.

    With `uneven`, filters and input channels of weights and channels of activations have scales of
    their own, the latter natural densities too: see the table at the top of this file.

    Parameters
    ----------
    layers : Network, or sequence of Layer in the order in which they run
    path : path
        Where the trace goes: a directory that is empty or does not exist.
    policy : Policy
        For example ``SwatU(0.8)``. One with an ``allocate`` method is given all layers.
    batch, steps : int
        How many samples (all are in the trace) and steps (numbered from 0).
    seed : int
        The same one gives the same masks, of whichever other layers there are.
    act_density, grad_density : float
        Natural densities, in (0, 1].
    uneven : bool
    progress : callable of int and int, optional
        Called with the number of layers done and of all, over all steps.

    Raises
    ------
    RecordingError
        If an argument is not allowed.
    TraceError
        If something is at `path` already, or it can't be written.
    PolicyError
        If the policy knows nothing of a layer.
    """
    drawing = _Drawing.checked(layers, batch, seed, act_density, grad_density, uneven)
    numbers = range(_checked_count("steps", steps, 1))
    described, chosen = describe_policy(policy), allocate_once(policy, drawing.layers)
    drawn = {**drawing.describe(), "steps": len(numbers)}
    with Recorder(path, batch_size=drawing.batch, policy=described, parameters=drawn) as recorder:
        _record(recorder, drawing, chosen, numbers, progress or (lambda done, total: None))
    return open_trace(path)


def _record(
    recorder: Recorder, drawing: _Drawing, policy: Policy, numbers: range, progress: Progress
) -> None:
    for layer in drawing.layers:
        recorder.declare(layer)
    total, chosen = len(numbers) * len(drawing.layers), begin_run(policy)
    for number in numbers:
        with recorder.step(number) as record:
            for done, layer in enumerate(drawing.layers, number * len(drawing.layers) + 1):
                _record_layer(record, layer, drawing, chosen)
                progress(done, total)


def _record_layer(
    record: StepRecord, layer: Layer, drawing: _Drawing, sparsifier: Sparsifier
) -> None:
    first = layer.name == first_convolution(drawing.layers)
    for operand in OPERANDS:
        ops = [op for op in OPS if operand in OPERANDS_OF[op]]
        if layer.name == drawing.layers[0].name:
            ops = [op for op in ops if op != "dgrad"]
        sites = [Site(layer, op, operand, first, record.number) for op in ops]
        masks = _masks(sites, drawing, sparsifier)
        for op, mask in zip(ops, masks, strict=True):
            record.operand(layer.name, op, operand, mask)
    wanted = sparsifier.output_mask(Site(layer, "wgrad", "weight", first, record.number))
    if wanted is not None:
        record.output(layer.name, "wgrad", wanted)


def _masks(sites: Sequence[Site], drawing: _Drawing, sparsifier: Sparsifier) -> list[Mask]:
    """Return an operand's masks from one drawing of it: those of its values that an op reads."""
    site = sites[0]
    whole = all(sparsifier.density(each) is None for each in sites)
    if whole and drawing.natural(site.layer, site.operand) == 1:
        full = np.broadcast_to(np.True_, site.layer.shape_of(site.operand, drawing.batch))
        return [full] * len(sites)
    values = drawing.values(site.layer, site.operand, site.step)
    nonzero = values != 0
    masks = sparsifier.masks(sites, values)
    return [nonzero if mask is None else mask & nonzero for mask in masks]


def _along(axis: int, values: Values, ndim: int) -> Values:
    """Return one value a channel in the shape that meets a tensor along an axis."""
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


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
