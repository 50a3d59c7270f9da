"""Convolutions through a PE of a Cartesian-product machine: cycles and sums against the machine."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import cocotb
import numpy as np

import swatsim
from swatsim.workload.layer import Layer
from tests.rtl.harness import LATENCY, begin, issued, put, span
from tests.rtl.streams import turns, values

Queue = list[tuple[int, ...]]


class Segment(NamedTuple):
    """A channel and stride phase: its pixels (x, y, value), its weights (r, s, k, value)."""

    pixels: Queue
    weights: Queue


@cocotb.test()
async def convolutions_take_the_machines_cycles(dut: Any) -> None:
    rng = np.random.default_rng(23)
    stride, dilation = int(dut.STRIDE.value), int(dut.DILATION.value)
    queue = int(dut.QUEUE.value)
    machine = swatsim.machine("scnn", pe_h=1, pe_w=1, halo="output", bank_queue=queue)
    await begin(dut)
    for i in turns():
        layer = drawn(rng, stride, dilation)
        act = values(rng, (layer.C, layer.H, layer.W), i)
        weight = values(rng, (layer.K, layer.C, layer.R, layer.S), i + 1)
        cycles, sums = await convolved(dut, layer, act, weight)
        op = swatsim.Op(layer, "fprop", weight=weight != 0, act=act[None] != 0)
        expected = machine.simulate_op(swatsim.lower(op)).cycles_compute
        assert span(cycles) == len(cycles) == expected
        assert not cycles or cycles[0] == LATENCY
        assert np.array_equal(sums, convolution(layer, act, weight))


def drawn(rng: np.random.Generator, stride: int, dilation: int) -> Layer:
    """Return a small layer."""
    padding, (r, s) = int(rng.integers(0, 2)), map(int, rng.integers(1, 4, 2))
    least = [max(1, (side - 1) * dilation + 1 - 2 * padding) for side in (r, s)]
    h, w = (low + int(rng.integers(0, 6)) for low in least)
    c, k = map(int, rng.integers(1, [4, 9]))
    moves = {"stride": stride, "dilation": dilation, "padding": padding}
    return Layer(name="conv", C=c, K=k, H=h, W=w, R=r, S=s, **moves)


def segments(layer: Layer, act: Any, weight: Any, stride: int, dilation: int) -> Iterator[Segment]:
    """Yield what meets, channel by channel and phase by phase."""
    padding = layer.padding[0][0]
    padded = np.pad(act, ((0, 0), (padding, padding), (padding, padding)))
    for c, px, py in product(range(layer.C), range(stride), range(stride)):
        pixels = [
            (int(x), int(y), int(padded[c, x, y]))
            for x, y in np.argwhere(padded[c])
            if x % stride == px and y % stride == py
        ]
        weights = [
            (int(r), int(s), int(k), int(weight[k, c, r, s]))
            for r, s, k in np.argwhere(weight[:, c].transpose(1, 2, 0))
            if r * dilation % stride == px and s * dilation % stride == py
        ]
        yield Segment(pixels, weights)


def convolution(layer: Layer, act: Any, weight: Any) -> Any:
    """Return the convolution's outputs (K, P, Q)."""
    (stride, _), (dilation, _), padding = layer.stride, layer.dilation, layer.padding[0][0]
    padded = np.pad(act, ((0, 0), (padding, padding), (padding, padding)))
    found = np.zeros((layer.K, layer.P, layer.Q), np.int64)
    for r, s in np.ndindex(layer.R, layer.S):
        rows = slice(r * dilation, r * dilation + (layer.P - 1) * stride + 1, stride)
        columns = slice(s * dilation, s * dilation + (layer.Q - 1) * stride + 1, stride)
        found += np.einsum("kc,cpq->kpq", weight[:, :, r, s], padded[:, rows, columns])
    return found


async def convolved(dut: Any, layer: Layer, act: Any, weight: Any) -> tuple[list[int], Any]:
    """Run a layer; return the cycles in which it was at work, and its outputs."""
    await put(dut, clear=1)
    dut.clear.value = 0
    of = segments(layer, act, weight, layer.stride[0], layer.dilation[0])
    await written(dut, list(of))
    dut.outputs_w.value, dut.outputs_h.value = layer.P, layer.Q
    cycles = await issued(dut)
    sums = np.zeros((layer.K, layer.P, layer.Q), np.int64)
    for at in range(sums.size):
        await put(dut, address=at)
        sums.flat[at] = dut.result.value.to_signed()
    return cycles, sums


async def written(dut: Any, of: list[Segment]) -> None:
    """Write the queues of all segments."""
    pixels_at = weights_at = 0
    for i, (pixels, weights) in enumerate(of):
        for at, (x, y, value) in enumerate(pixels, pixels_at):
            await put(dut, write_pixel=1, address=at, x=x, y=y, value=value)
        dut.write_pixel.value = 0
        for at, (r, s, k, value) in enumerate(weights, weights_at):
            await put(dut, write_weight=1, address=at, x=r, y=s, filter=k, value=value)
        dut.write_weight.value = 0
        counts = {"pixels": len(pixels), "weights": len(weights)}
        begins = {"pixels_at": pixels_at, "weights_at": weights_at}
        await put(dut, write_segment=1, address=i, **counts, **begins)
        dut.write_segment.value = 0
        pixels_at, weights_at = pixels_at + len(pixels), weights_at + len(weights)
