"""Cut a wgrad into streams: of one sample after another, or of all as one reduction.

Speaks convolution letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import numpy as np

from swatsim.simulator.machines.lane_array.config import LaneArrayConfig, WgradReduces
from swatsim.simulator.machines.lane_array.kernel import Counts, Words
from swatsim.simulator.machines.lane_array.streams import (
    Pass,
    Sets,
    any_of_sets,
    ceil_of,
    lanes_of,
    pack,
    rows_in_use,
    rows_of,
    streams_of,
)
from swatsim.workload.layer import Layer, Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask, as_4d

#: Values of streams that are packed at a time (32 MiB), or those of one.
MOST_VALUES = 2**25


def sums_batch(config: LaneArrayConfig) -> bool:
    """Whether the positions of all samples are one reduction."""
    match config.wgrad_reduces:
        case WgradReduces.POSITIONS:
            return False
        case WgradReduces.BATCH:
            return True
        case _:
            assert_never(config.wgrad_reduces)


def wgrad_passes(op: LoweredOp, config: LaneArrayConfig, rows_hold: Operand) -> Iterator[Pass]:
    """Yield the passes of a wgrad, which follow one another."""
    together = op.samples if sums_batch(config) else 1
    for first in range(0, op.samples, together):
        yield _Reduction(op, config, rows_hold, first, together).whole_pass()


@dataclass(frozen=True)
class _Reduction:
    """The sums over the positions of some samples, the streams of one operand on the rows."""

    op: LoweredOp
    config: LaneArrayConfig
    rows_hold: Operand
    first: int
    together: int

    def __post_init__(self) -> None:
        if self.rows_hold not in self.op.operands:
            raise ValueError(f"wgrad does not read {self.rows_hold}")

    @property
    def values(self) -> int:
        """Elements of a stream."""
        return self.together * self.op.layer.positions

    @property
    def taps(self) -> int:
        """Taps whose streams lie on the rows: an activation's, not a gradient's."""
        return self.op.layer.R * self.op.layer.S if self.rows_hold == "act" else 1

    @property
    def streams(self) -> int:
        """Streams on the rows of one group at one tap."""
        layer = self.op.layer
        return (layer.C if self.rows_hold == "act" else layer.K) // layer.groups

    @property
    def columns(self) -> Counts:
        """Column streams of each column set of a group."""
        layer = self.op.layer
        if self.rows_hold == "act":
            return rows_in_use(layer.K // layer.groups, self.config.columns)
        taps = layer.R * layer.S
        return rows_in_use(layer.C // layer.groups, self.config.columns, times=taps)

    def whole_pass(self) -> Pass:
        """Return the pass: that of all groups."""
        mapped = rows_in_use(self.streams, self.config.rows, times=self.taps)
        return Pass(
            lines=self._lines,
            lanes_in_use=partial(lanes_of, self.values, 1, self.config.lanes),
            mapped=mapped,
            groups=self.op.layer.groups,
            length=ceil_of(self.values, self.config.lanes),
            elements=self.values,
            columns=self.columns,
            followed=np.full(mapped.size, self.values),
            repeats=1,
            tiles=self.config.tiles,
            wanted=None if self.op.output is None else self._wanted,
        )

    def _wanted(self, groups: range) -> Mask:
        """Return which column sets and row sets of some groups have a wanted sum in common."""
        layer, (acts, grads) = self.op.layer, (self.config.rows, self.config.columns)
        taps = layer.R * layer.S
        if self.rows_hold == "grad_out":
            acts, grads = grads, acts
        every = as_4d(self.op.output).reshape(layer.groups, -1, layer.C // layer.groups, taps)
        some = any_of_sets(any_of_sets(every[groups.start : groups.stop], 1, grads), 2, acts)
        filters, channels = some.shape[1:3]
        some = some.swapaxes(2, 3).reshape(1, len(groups), filters, taps * channels)
        return some if self.rows_hold == "act" else some.swapaxes(2, 3)

    def _lines(self, some: Sets) -> Words:
        rows = rows_of(self.streams, self.config.rows)
        blocks = ceil_of(self.streams, self.config.rows)  # row sets of one tap
        length = ceil_of(self.values, self.config.lanes)
        cut = np.zeros((*some.shape, rows, length), np.uint64)
        for tap in range(some.sets.start // blocks, ceil_of(some.sets.stop, blocks)):
            first, end = (
                max(some.sets.start, tap * blocks),
                min(some.sets.stop, (tap + 1) * blocks),
            )
            of_tap = Sets(some.groups, range(first - tap * blocks, end - tap * blocks))
            place = cut[:, first - some.sets.start : end - some.sets.start]
            self._fill(place.reshape(len(some.groups), -1, length), of_tap, tap)
        return cut.reshape(-1, rows, length)

    def _fill(self, place: Words, some: Sets, tap: int) -> None:
        """Pack the streams of some row sets at a tap, of one group some at a time."""
        held = streams_of(some, rows_of(self.streams, self.config.rows), self.streams)
        groups = len(some.groups)
        together = len(held) if groups > 1 else max(1, MOST_VALUES // self.values)
        for first in range(0, len(held), together):
            values = self._at_tap(tap, held[first : first + together])
            own = values.reshape(groups, -1, self.values)
            place[:, first : first + own.shape[1]] = pack(own, self.config.lanes)

    def _at_tap(self, tap: int, streams: range) -> Mask:
        """Return the values of some streams of all groups at a tap: (streams, n, P, Q)."""
        layer, samples = self.op.layer, slice(self.first, self.first + self.together)
        held = as_4d(self.op.operands[self.rows_hold])[samples, streams.start : streams.stop]
        data = held.swapaxes(0, 1)
        if self.rows_hold == "grad_out":
            return data
        found = np.zeros((*data.shape[:2], layer.P, layer.Q), np.bool_)
        pairs = zip((layer.P, layer.Q), divmod(tap, layer.S), strict=True)
        rows, columns = (_met(layer, axis, *pair) for axis, pair in enumerate(pairs))
        found[:, :, rows[0], columns[0]] = data[:, :, rows[1], columns[1]]
        return found


def _met(layer: Layer, axis: int, outputs: int, tap: int) -> tuple[slice, slice]:
    """Return which outputs of an axis a tap gives an input, and which inputs."""
    stride, size = layer.stride[axis], (layer.H, layer.W)[axis]
    place = tap * layer.dilation[axis] - layer.padding[axis][0]
    first, end = max(0, ceil_of(-place, stride)), min(outputs, (size - 1 - place) // stride + 1)
    if end <= first:
        return slice(0, 0), slice(0, 0)
    begin, last = first * stride + place, (end - 1) * stride + place
    return slice(first, end), slice(begin, last + 1, stride)
