"""Convolutions through a PE of a Cartesian-product machine: cycles and sums against the machine."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import cocotb
import numpy as np

import swatsim
from swatsim.simulator.runnable import ConfiguredMachine
from swatsim.workload.layer import Layer
from tests.rtl.harness import LATENCY, begin, issued, put, span
from tests.rtl.streams import turns, values

#: Of so many streams' turns one has a wgrad too.
EACH = 4
Queue = list[tuple[int, ...]]


class Segment(NamedTuple):
    """A channel and stride phase: its pixels (x, y, value), its weights (r, s, k, value)."""

    pixels: Queue
    weights: Queue


@cocotb.test()
async def convolutions_take_the_machines_cycles(dut: Any) -> None:
    rng = np.random.default_rng(23)
    stride, dilation = int(dut.STRIDE.value), int(dut.DILATION.value)
    machine = machine_of(dut)
    await begin(dut)
    for i in turns():
        layer = drawn(rng, stride, dilation)
        act = values(rng, (layer.C, layer.H, layer.W), i)
        weight = values(rng, (layer.K, layer.C, layer.R, layer.S), i + 1)
        of = segments(layer, act, weight, stride, dilation)
        cycles, sums = await run(dut, list(of), (layer.K, layer.P, layer.Q))
        assert span(cycles) == len(cycles)
        for op in convolutions(layer, act, weight):
            assert len(cycles) == machine.simulate_op(swatsim.lower(op)).cycles_compute
        assert not cycles or cycles[0] == LATENCY
        assert np.array_equal(sums, convolution(layer, act, weight))


@cocotb.test()
async def gradients_of_weights_take_the_machines_cycles(dut: Any) -> None:
    rng = np.random.default_rng(24)
    machine = machine_of(dut)
    await begin(dut)
    for i in range(0, len(turns()) if dut.STRIDE.value == 1 else 0, EACH):
        c, k, p, q = map(int, rng.integers(1, [12, 9, 7, 7]))
        act, grad_out = values(rng, (p * q, c), i), values(rng, (p * q, k), i // EACH)
        cycles, sums = await run(dut, list(positions(act, grad_out)), (k, c, 1))
        layer = Layer(name="conv", C=c, K=k, H=p, W=q, R=1, S=1)
        masks = {
            "act": act.T.reshape(1, c, p, q) != 0,
            "grad_out": grad_out.T.reshape(1, k, p, q) != 0,
        }
        op = swatsim.Op(layer, "wgrad", **masks)
        expected = machine.simulate_op(swatsim.lower(op)).cycles_compute
        assert span(cycles) == len(cycles) == expected
        assert np.array_equal(sums[..., 0], grad_out.T @ act)


def machine_of(dut: Any) -> ConfiguredMachine:
    """Return the machine of one PE that a circuit's parameters describe."""
    queue = int(dut.QUEUE.value)
    return swatsim.machine("scnn", pe_h=1, pe_w=1, halo="output", bank_queue=queue)


def convolutions(layer: Layer, act: Any, weight: Any) -> Iterator[swatsim.Op]:
    """Yield the fprop that is this convolution, and a dgrad that is, of stride 1."""
    yield swatsim.Op(layer, "fprop", weight=weight != 0, act=act[None] != 0)
    dilation, padding = layer.dilation[0], layer.padding[0][0]
    back = [(side - 1) * dilation - padding for side in (layer.R, layer.S)]
    if layer.stride[0] == 1 and min(back) >= 0:
        whole = {"C": layer.K, "K": layer.C, "H": layer.P, "W": layer.Q}
        taps = {"R": layer.R, "S": layer.S, "dilation": dilation, "padding": tuple(back)}
        turned = weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1] != 0
        adjoint = Layer(name="conv", **whole, **taps)
        yield swatsim.Op(adjoint, "dgrad", weight=turned, grad_out=act[None] != 0)


def positions(act: Any, grad_out: Any) -> Iterator[Segment]:
    """Yield what meets in a wgrad of one tap: a position's activations, its gradients."""
    for one, other in zip(act, grad_out, strict=True):
        pixels = [(int(c), 0, int(one[c])) for c in np.flatnonzero(one)]
        yield Segment(pixels, [(0, 0, int(k), int(other[k])) for k in np.flatnonzero(other)])


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


async def run(dut: Any, of: list[Segment], outputs: tuple[int, int, int]) -> tuple[list[int], Any]:
    """Multiply segments; return the cycles in which it was at work, and outputs of that shape."""
    await put(dut, clear=1)
    dut.clear.value = 0
    await written(dut, of)
    _, dut.outputs_w.value, dut.outputs_h.value = outputs
    cycles = await issued(dut)
    sums = np.zeros(outputs, np.int64)
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
