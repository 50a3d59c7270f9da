"""Cut a wgrad into streams: of one sample after another, or of all as one reduction.

Speaks convolution letters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import numpy as np

from swatsim.simulator.machines.lane_array.config import LaneArrayConfig, WgradReduces
from swatsim.simulator.machines.lane_array.kernel import Counts, Words
from swatsim.simulator.machines.lane_array.streams import (
    Pass,
    any_of_sets,
    ceil_of,
    lanes_of,
    pack,
    rows_in_use,
    rows_of,
    sets_of,
)
from swatsim.workload.layer import Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask, as_4d, windows

#: A pass holds so many lines of all its rows, or one round of row sets: 16 MiB.
MOST_WORDS = 2**21


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
        yield from _Reduction(op, config, rows_hold, first, together).passes()


#: Values of some groups at one tap: (groups, streams, n, P, Q), where they lie.
AtTap = Callable[[int], Mask]


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

    def passes(self) -> Iterator[Pass]:
        """Yield the passes: of all groups, or as many as are laid out at once."""
        mapped = rows_in_use(self.streams, self.config.rows, times=self.taps)
        of_set = rows_of(self.streams, self.config.rows) * ceil_of(self.values, self.config.lanes)
        at_once = max(1, MOST_WORDS // (of_set * mapped.size))
        together = max(1, MOST_WORDS // of_set)  # row sets of a group that is too large for that
        for first in range(0, self.op.layer.groups, at_once):
            groups = range(first, min(first + at_once, self.op.layer.groups))
            pieces = [
                range(begin, min(begin + together, mapped.size))
                for begin in range(0, mapped.size, together)
            ]
            yield Pass(
                pieces=[partial(self._lines, groups, sets) for sets in pieces],
                at_once=len(groups) * len(pieces[0]),
                lanes_in_use=partial(lanes_of, self.values, 1, self.config.lanes),
                mapped=mapped,
                groups=len(groups),
                length=ceil_of(self.values, self.config.lanes),
                elements=self.values,
                columns=self.columns,
                followed=np.full(mapped.size, self.values),
                repeats=1,
                tiles=self.config.tiles,
                wanted=None if self.op.output is None else partial(self._wanted, groups),
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

    def _lines(self, groups: range, sets: range) -> Words:
        at_tap, rows = self._at_tap(groups), rows_of(self.streams, self.config.rows)
        blocks = ceil_of(self.streams, self.config.rows)  # row sets of one tap
        parts = []
        for tap in range(sets.start // blocks, ceil_of(sets.stop, blocks)):
            first, end = (min(max(at - tap * blocks, 0), blocks) for at in (sets.start, sets.stop))
            some = at_tap(tap)[:, first * rows : end * rows]
            streams = pack(some.reshape(*some.shape[:2], self.values), self.config.lanes)
            parts.append(sets_of(streams, rows).reshape(len(groups), end - first, rows, -1))
        lines = np.concatenate(parts, axis=1)
        return lines.reshape(-1, *lines.shape[2:])

    def _at_tap(self, groups: range) -> AtTap:
        layer, samples = self.op.layer, slice(self.first, self.first + self.together)
        channels = slice(groups.start * self.streams, groups.stop * self.streams)
        data = as_4d(self.op.operands[self.rows_hold])[samples, channels]
        split = (len(data), len(groups), self.streams, layer.P, layer.Q)
        if self.rows_hold == "grad_out":
            return lambda tap: data.reshape(split).transpose(1, 2, 0, 3, 4)
        origin = (-layer.padding[0][0], -layer.padding[1][0])
        taps, output = (layer.R, layer.S), (layer.P, layer.Q)
        view = windows(data, taps, layer.stride, layer.dilation, origin, output)

        def at_tap(tap: int) -> Mask:
            r, s = divmod(tap, layer.S)
            return view[:, :, r, s].reshape(split).transpose(1, 2, 0, 3, 4)

        return at_tap
