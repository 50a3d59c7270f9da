"""One group's and sample's wgrad, laid out whole or some of it at a time.

Speaks convolution letters. PEs wait for each other after each tap of each round of blocks of
channels: what several taps, or whole rounds, take adds up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import NamedTuple

import numpy as np

from swatsim.simulator.machines.cartesian.kernel_patterns import Bits, Counts
from swatsim.workload.layer import Layer
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask, as_4d

#: Values of an operand that are laid out at a time (72 MiB with their blocks at most), or those of
#: a round at one row of outputs.
MOST_VALUES = 2**23
#: Positions that are laid out at a time (32 MiB of what is noted of each), or one row of them.
MOST_POSITIONS = 2**20
#: Steps of PEs whose cycles and queues are held (48 MiB), or those of a round at all taps.
MOST_HELD = 2**21
#: Pairs of a tap and an output position that are looked up at a time (32 MiB), or those of a tap.
MOST_MET = 2**22
#: Banks tell channels apart by their index modulo 4, filters modulo 8: pieces begin at such.
ALIKE = 8


class Line(NamedTuple):
    """One axis of a wgrad: so many pixels, taps and outputs."""

    size: int
    taps: int
    outputs: int
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    def pixels_of(self, outputs: range) -> range:
        """Return the pixels between the first and the last that some outputs may meet."""
        first = outputs.start * self.stride - self.padding
        end = (outputs.stop - 1) * self.stride + (self.taps - 1) * self.dilation + 1 - self.padding
        return range(min(max(first, 0), self.size - 1), min(max(end, 1), self.size))

    def band(self, outputs: range) -> Line:
        """Return the part of the axis that has some outputs, and the pixels that they meet."""
        pixels = self.pixels_of(outputs)
        return self._replace(
            size=len(pixels),
            outputs=len(outputs),
            padding=self.padding - outputs.start * self.stride + pixels.start,
        )

    def places(self, taps: Counts) -> Counts:
        """Return the pixels that some taps meet at each output, (taps, outputs); -1: none."""
        tap = taps[:, None] * self.dilation - self.padding
        place = tap + np.arange(self.outputs) * self.stride
        place[(place < 0) | (place >= self.size)] = -1
        return place

    def outputs_inside(self) -> Counts:
        """Return at how many outputs each tap meets a pixel, (taps,)."""
        tap = np.arange(self.taps) * self.dilation - self.padding
        first = np.maximum(0, -(tap // self.stride))
        end = np.minimum(self.outputs, (self.size - 1 - tap) // self.stride + 1)
        inside: Counts = np.maximum(0, end - first)
        return inside


class Met:
    """Which input pixels taps meet at output positions.

    Parameters
    ----------
    rows, columns : Line
    """

    def __init__(self, rows: Line, columns: Line) -> None:
        self.rows, self.columns = rows, columns
        self.taps = rows.taps * columns.taps
        self.positions = rows.outputs * columns.outputs

    @classmethod
    def of_layer(cls, layer: Layer) -> Met:
        """Return what a layer's taps meet."""
        axes = ((layer.H, layer.R, layer.P), (layer.W, layer.S, layer.Q))
        rows, columns = (
            Line(*sizes, layer.stride[i], layer.dilation[i], layer.padding[i][0])
            for i, sizes in enumerate(axes)
        )
        return cls(rows, columns)

    def of(self, taps: range) -> Counts:
        """Return what some taps meet: (taps, P * Q), pixels row by row; -1: none."""
        return self._whole if len(taps) == self.taps else self._made(taps)

    def bands(self, channels: int, filters: int) -> Iterator[tuple[range, range]]:
        """Yield the outputs of both axes in order: bands of the longer one, of so many channels."""
        rows, columns = range(self.rows.outputs), range(self.columns.outputs)
        along, across = self.rows, self.columns
        if len(columns) > len(rows):
            along, across = across, along
        pixels = channels * along.stride * across.size
        at_once = MOST_VALUES // max(pixels, filters * across.outputs)
        at_once = max(1, min(at_once, MOST_POSITIONS // across.outputs))
        for outputs in cut(range(along.outputs), at_once):
            yield (rows, outputs) if along is self.columns else (outputs, columns)

    def cuts(self) -> Iterator[range]:
        """Yield the taps in order, so many at a time."""
        at_once = max(1, MOST_MET // self.positions)
        for first in range(0, self.taps, at_once):
            yield range(first, min(first + at_once, self.taps))

    def positions_inside(self) -> Counts:
        """Return at how many positions each tap meets a pixel, (R * S,)."""
        rows, columns = self.rows.outputs_inside(), self.columns.outputs_inside()
        return np.asarray(np.outer(rows, columns).reshape(-1))

    @cached_property
    def _whole(self) -> Counts:
        return self._made(range(self.taps))

    def _made(self, taps: range) -> Counts:
        r, s = np.divmod(np.arange(taps.start, taps.stop), self.columns.taps)
        rows, columns = self.rows.places(r)[:, :, None], self.columns.places(s)[:, None, :]
        met = rows * self.columns.size + columns
        met[np.broadcast_to((rows < 0) | (columns < 0), met.shape)] = -1
        return met.reshape(len(taps), self.positions)


#: One position, which the only tap meets.
ONE_POSITION = Met(Line(1, 1, 1), Line(1, 1, 1))


@dataclass(frozen=True, eq=False)
class Channels:
    """One group's and sample's wgrad, or a piece of it, as an outer product over channels.

    Parameters
    ----------
    act : numpy.ndarray of bool, shape (H * W, C)
    grad : numpy.ndarray of bool, shape (P * Q, K)
    met : Met
    block_c, block_k : int
        Channels of a PE.
    wanted : numpy.ndarray of bool, shape (R * S, C, K), optional
        Which sums somebody wants; by default all.
    last : bool
        Whether its positions are the last ones.
    """

    act: Bits
    grad: Bits
    met: Met
    block_c: int
    block_k: int
    wanted: Mask | None = None
    last: bool = True

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of input channels and of out-channels."""
        return -(-self.act.shape[1] // self.block_c), -(-self.grad.shape[1] // self.block_k)


@dataclass(frozen=True, eq=False)
class OuterProduct:
    """One group's and sample's wgrad.

    Parameters
    ----------
    op : LoweredOp
    sample, group : int
    met : Met
    blocks : pair of int
        Channels and filters of a PE.
    pes : pair of int
    """

    op: LoweredOp
    sample: int
    group: int
    met: Met
    blocks: tuple[int, int]
    pes: tuple[int, int]

    @property
    def sizes(self) -> tuple[int, int]:
        """Channels and filters of the group."""
        layer = self.op.layer
        return layer.C // layer.groups, layer.K // layer.groups

    def whole(self) -> Channels:
        """Return all of it."""
        channels, filters = map(range, self.sizes)
        outputs = range(self.met.rows.outputs), range(self.met.columns.outputs)
        return self._part(channels, filters, outputs, self._wanted(channels, filters))

    def pieces(self) -> Iterator[Iterator[Channels]]:
        """Yield whole rounds of it, each as bands of positions in order."""
        layer, taps = self.op.layer, self.met.taps
        channels = list(self._cut(0, MOST_VALUES // (layer.H * layer.W)))
        blocks = -(-len(channels[0]) // self.blocks[0])
        most = MOST_VALUES // self.met.positions
        most = min(most, MOST_HELD // (taps * blocks) * self.blocks[1])
        if self.op.output is not None:  # it is laid out too
            most = min(most, MOST_VALUES // (taps * len(channels[0])))
        for c in channels:
            for k in self._cut(1, most):
                yield self._bands(c, k)

    def _bands(self, channels: range, filters: range) -> Iterator[Channels]:
        wanted = self._wanted(channels, filters)
        for outputs in self.met.bands(len(channels), len(filters)):
            yield self._part(channels, filters, outputs, wanted)

    def _cut(self, side: int, most: int) -> Iterator[range]:
        """Yield channels or filters in order, at most so many, or a few rounds that begin alike."""
        round_ = self.pes[side] * self.blocks[side]
        least = round_ * ALIKE // gcd(round_, ALIKE)
        at_once = max(1, most // least) * least
        return cut(range(self.sizes[side]), at_once)

    def _part(
        self, channels: range, filters: range, outputs: tuple[range, range], wanted: Mask | None
    ) -> Channels:
        act, grad = self.op.act, self.op.grad_out
        assert act is not None, "wgrad reads act"
        assert grad is not None, "wgrad reads grad_out"
        own_c, own_k = self.group * self.sizes[0], self.group * self.sizes[1]
        lines = self.met.rows, self.met.columns
        whole = outputs == tuple(range(line.outputs) for line in lines)
        pixels = [line.pixels_of(of) for line, of in zip(lines, outputs, strict=True)]
        met = Met(*(line.band(of) for line, of in zip(lines, outputs, strict=True)))
        if whole:  # what they meet may be known
            met, pixels = self.met, [range(line.size) for line in lines]
        return Channels(
            act=_laid(act[self.sample], own_c, channels, pixels),
            grad=_laid(grad[self.sample], own_k, filters, outputs),
            met=met,
            block_c=self.blocks[0],
            block_k=self.blocks[1],
            wanted=wanted,
            last=all(of.stop == line.outputs for line, of in zip(lines, outputs, strict=True)),
        )

    def _wanted(self, channels: range, filters: range) -> Mask | None:
        if self.op.output is None:
            return None
        first = self.group * self.sizes[1] + filters.start
        some = as_4d(self.op.output)[first : first + len(filters)]
        taps = some[:, channels.start : channels.stop].reshape(len(filters), len(channels), -1)
        return np.array(taps.transpose(2, 1, 0), order="C")


def _laid(values: Mask, own: int, channels: range, at: Sequence[range]) -> Bits:
    """Return some channels of one sample, from number `own` on, at some places: (places, C)."""
    rows, columns = (slice(some.start, some.stop) for some in at)
    some = values.reshape(len(values), *values.shape[1:] or (1, 1))
    some = some[own + channels.start : own + channels.stop, rows, columns]
    return np.array(some.reshape(len(channels), -1).T, order="C")


def cut(some: range, at_once: int) -> Iterator[range]:
    """Yield a range in order, so many at a time."""
    for first in range(0, len(some), at_once):
        yield some[first : first + at_once]
