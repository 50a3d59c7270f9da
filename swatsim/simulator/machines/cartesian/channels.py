"""One group's and sample's wgrad, laid out whole or some of it at a time.

Speaks convolution letters. PEs wait for each other after each tap of each round of blocks of
channels: what several taps, or whole rounds, take adds up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np

from swatsim.simulator.machines.cartesian.kernel_patterns import Bits, Counts
from swatsim.workload.layer import Layer
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask, as_4d

#: Values of an operand that are laid out at a time (16 MiB), or those of a round.
MOST_VALUES = 2**24
#: Pairs of a tap and an output position that are looked up at a time (32 MiB), or those of a tap.
MOST_MET = 2**22
#: Banks tell channels apart by their index modulo 4, filters modulo 8: pieces begin at such.
ALIKE = 8


class Met:
    """Which input pixels taps meet at output positions.

    Parameters
    ----------
    rows, columns : numpy.ndarray of int64, shape (R, P) and (S, Q)
        Of each axis, the input that a tap meets at an output; -1: none.
    width : int
        Pixels of a row.
    """

    def __init__(self, rows: Counts, columns: Counts, width: int) -> None:
        self.rows, self.columns, self.width = rows, columns, width
        self.taps = len(rows) * len(columns)
        self.positions = rows.shape[1] * columns.shape[1]

    @classmethod
    def of_layer(cls, layer: Layer) -> Met:
        """Return what a layer's taps meet."""
        axes = ((layer.H, layer.R, layer.P), (layer.W, layer.S, layer.Q))
        reached = []
        for axis, (size, taps, outputs) in enumerate(axes):
            tap = np.arange(taps)[:, None] * layer.dilation[axis] - layer.padding[axis][0]
            place = tap + np.arange(outputs) * layer.stride[axis]
            reached.append(np.where((place >= 0) & (place < size), place, -1))
        return cls(*reached, layer.W)

    def of(self, taps: range) -> Counts:
        """Return what some taps meet: (taps, P * Q), pixels row by row; -1: none."""
        return self._whole if len(taps) == self.taps else self._made(taps)

    def cuts(self) -> Iterator[range]:
        """Yield the taps in order, so many at a time."""
        at_once = max(1, MOST_MET // self.positions)
        for first in range(0, self.taps, at_once):
            yield range(first, min(first + at_once, self.taps))

    def positions_inside(self) -> Counts:
        """Return at how many positions each tap meets a pixel, (R * S,)."""
        rows, columns = (np.count_nonzero(it >= 0, axis=1) for it in (self.rows, self.columns))
        return np.asarray(np.outer(rows, columns).reshape(-1))

    @cached_property
    def _whole(self) -> Counts:
        return self._made(range(self.taps))

    def _made(self, taps: range) -> Counts:
        r, s = np.divmod(np.arange(taps.start, taps.stop), len(self.columns))
        rows, columns = self.rows[r][:, :, None], self.columns[s][:, None, :]
        met = rows * self.width + columns
        met[(rows < 0) | (columns < 0)] = -1
        return met.reshape(len(taps), self.positions)


#: One position, which the only tap meets.
ONE_POSITION = Met(np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64), 1)


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
    """

    act: Bits
    grad: Bits
    met: Met
    block_c: int
    block_k: int
    wanted: Mask | None = None

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
        channels, filters = self.sizes
        return self._part(range(channels), range(filters))

    def pieces(self) -> Iterator[Channels]:
        """Yield whole rounds of it."""
        layer, taps = self.op.layer, self.met.taps
        most = MOST_VALUES // (layer.H * layer.W), MOST_VALUES // self.met.positions
        channels = list(self._cut(0, most[0]))
        if self.op.output is not None:  # it is laid out too
            most = most[0], min(most[1], MOST_VALUES // (taps * len(channels[0])))
        for c in channels:
            for k in self._cut(1, most[1]):
                yield self._part(c, k)

    def _cut(self, side: int, most: int) -> Iterator[range]:
        """Yield channels or filters in order, at most so many, or a few rounds that begin alike."""
        round_ = self.pes[side] * self.blocks[side]
        least = round_ * ALIKE // gcd(round_, ALIKE)
        at_once = max(1, most // least) * least
        for first in range(0, self.sizes[side], at_once):
            yield range(first, min(first + at_once, self.sizes[side]))

    def _part(self, channels: range, filters: range) -> Channels:
        act, grad = self.op.act, self.op.grad_out
        assert act is not None, "wgrad reads act"
        assert grad is not None, "wgrad reads grad_out"
        own_c, own_k = self.group * self.sizes[0], self.group * self.sizes[1]
        acts = act[self.sample, own_c + channels.start : own_c + channels.stop]
        grads = grad[self.sample, own_k + filters.start : own_k + filters.stop]
        return Channels(
            act=np.array(acts.reshape(len(channels), -1).T, order="C"),
            grad=np.array(grads.reshape(len(filters), -1).T, order="C"),
            met=self.met,
            block_c=self.blocks[0],
            block_k=self.blocks[1],
            wanted=self._wanted(channels, own_k + filters.start, own_k + filters.stop),
        )

    def _wanted(self, channels: range, first: int, end: int) -> Mask | None:
        if self.op.output is None:
            return None
        some = as_4d(self.op.output)[first:end, channels.start : channels.stop]
        taps = some.reshape(end - first, len(channels), -1)
        return np.array(taps.transpose(2, 1, 0), order="C")
