"""How far DNNsim's SCNN lies from `cartesian` where it pairs operands that do not meet.

    python benchmarks/paper/dnnsim_pairs.py

DNNsim queues weights by (r + p) mod stride, and divides with truncation towards zero. With an even
padding p, or a stride of 1, these are the same queues and the same outputs; with an odd padding and
a stride of 2 every pair that is multiplied is of operands that do not meet. Here both rules, as a
second model of the queues, run through the same kernel: forward cycles of ResNet-50's layers of
that kind, batch 1, masks random. Writes the figures into the pages.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pages import put

import swatsim
from swatsim.simulator.machines.cartesian import kernel, points
from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.kernel_banks import Axis
from swatsim.simulator.machines.cartesian.mapping import Planar, planar
from swatsim.workload.layer import Layer
from swatsim.workload.networks import network

#: Shares of weights and activations that are not zero, in percent.
DENSITIES = ((10, 30), (10, 50), (10, 70), (20, 30), (20, 50), (20, 70))
SEED = 1


class Found(NamedTuple):
    """Cycles of one layer under either rule."""

    layer: str
    weights: int
    acts: int
    ours: int
    theirs: int

    @property
    def difference(self) -> float:
        """Theirs beyond ours, in percent of ours."""
        return 100 * (self.theirs / self.ours - 1)


def their_axis(layer: Layer, axis: int, like: Axis, size: int) -> Axis:
    """Sort the pixels of an axis as DNNsim meets them with taps."""
    stride, padding = layer.stride[axis], layer.padding[axis][0]
    taps = np.arange((layer.R, layer.S)[axis]) * layer.dilation[axis]
    behind = np.arange(-taps[-1], size)  # how far pixels are behind taps
    output = np.trunc(behind / stride).astype(np.int64)
    met = behind % stride == padding % stride
    valid = met & (output >= 0) & (output < (layer.P, layer.Q)[axis])
    return like._replace(
        pixel_class=np.arange(size),
        place=np.arange(size) + taps[-1],
        output_bits=np.where(valid, output & 3, -1),
        tap_phase=(taps + padding) % stride,
    )


def theirs(part: Planar, layer: Layer) -> Planar:
    """Give a part of an op with DNNsim's queues."""
    height, width = part.data.shape[2:]
    return replace(
        part,
        rows=their_axis(layer, 0, part.rows, height),
        columns=their_axis(layer, 1, part.columns, width),
    )


def cycles(part: Planar) -> int:
    """Run a part, its exchange of borders included."""
    given = part.data, part.weight, part.first_k, part.rows, part.columns, part.array
    run = kernel.convolve(*given, points.NO_TAPS)
    filters, samples = part.weight.shape[1], part.data.shape[1]
    return int(run.cycles) + part.halo * filters * samples


def compare(layer: Layer, weights: int, acts: int) -> Found:
    """Run one layer's fprop under both rules."""
    rng = np.random.default_rng(SEED)
    masks = {
        name: rng.random(layer.shape_of(name, 1)) < share / 100
        for name, share in (("weight", weights), ("act", acts))
    }
    op = swatsim.LoweredOp(layer, "fprop", **masks)
    machine = swatsim.machine("scnn")
    assert isinstance(machine.config, CartesianConfig)
    parts = list(planar(op, machine.config))
    ours = sum(map(cycles, parts))
    assert ours == machine.simulate_op(op).cycles_compute
    return Found(
        layer.name, weights, acts, ours, sum(cycles(theirs(part, layer)) for part in parts)
    )


def is_odd(layer: Layer) -> bool:
    """Whether the rules differ: the padding is no multiple of the stride."""
    return any(pad[0] % stride for pad, stride in zip(layer.padding, layer.stride, strict=True))


def found() -> list[Found]:
    """Compare all layers in which the rules differ."""
    layers = [layer for layer in network("resnet50").layers if is_odd(layer)]
    return [compare(layer, *shares) for layer in layers for shares in DENSITIES]


def lines(every: list[Found]) -> Iterator[str]:
    """Say the largest and the smallest difference of each layer."""
    names = list(dict.fromkeys(one.layer for one in every))
    worst = max(every, key=lambda one: abs(one.difference))
    ranges = []
    for name in names:
        mine = [round(one.difference) for one in every if one.layer == name]
        ranges.append(f"`{name}` {min(mine):+} to {max(mine):+} %")
    yield f"ResNet-50 has {len(names)} such layers. Forward, batch 1, on random masks DNNsim's"
    yield f"rules change their cycles by: {', '.join(ranges)}. The most, {worst.difference:+.0f} %,"
    yield f"is where {worst.weights} % of the weights and {worst.acts} % of the activations are not"
    yield "zero (`python benchmarks/paper/dnnsim_pairs.py`)."


if __name__ == "__main__":
    everything = found()
    for one in everything:
        shares = f"{one.weights} % of the weights, {one.acts} % of the activations"
        print(f"{one.layer}, {shares}: {one.ours}, {one.theirs} ({one.difference:+.1f} %)")
    put("dnnsim", lines(everything))
