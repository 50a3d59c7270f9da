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
from swatsim.simulator.machines.lane_array.kernel import Words
from swatsim.simulator.machines.lane_array.streams import (
    Pass,
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
    def columns(self) -> tuple[int, int]:
        """Sets of column streams of a group, and the streams in them."""
        layer = self.op.layer
        channels, filters = layer.C // layer.groups, layer.K // layer.groups
        if self.rows_hold == "act":
            return ceil_of(filters, self.config.columns), filters
        taps = layer.R * layer.S
        return taps * ceil_of(channels, self.config.columns), taps * channels

    def passes(self) -> Iterator[Pass]:
        """Yield the passes: row sets in order, whole rounds of tiles, of all groups or fewer."""
        mapped = rows_in_use(self.streams, self.config.rows, times=self.taps)
        column_sets, following = self.columns
        for groups, sets in self._cuts(mapped.size):
            some, many = mapped[sets.start : sets.stop], len(groups)
            yield Pass(
                lines=partial(self._lines, groups, sets),
                lanes_in_use=partial(lanes_of, self.values, 1, self.config.lanes),
                mapped=some,
                groups=many,
                length=ceil_of(self.values, self.config.lanes),
                elements=many * int(some.sum()) * self.values,
                column_sets=column_sets,
                following=following,
                followed=many * some.size * self.values,
                repeats=1,
                tiles=self.config.tiles,
            )

    def _cuts(self, sets: int) -> Iterator[tuple[range, range]]:
        """Yield ranges of groups and of their row sets; what tiles run at once is not cut."""
        groups, tiles = self.op.layer.groups, self.config.tiles
        rows = rows_of(self.streams, self.config.rows)
        of_set = rows * ceil_of(self.values, self.config.lanes)
        at_once = max(1, MOST_WORDS // (of_set * sets))
        together = sets
        if of_set * sets > MOST_WORDS:
            together = tiles * max(1, MOST_WORDS // (of_set * tiles))
        for group in range(0, groups, at_once):
            for first in range(0, sets, together):
                some = range(first, min(first + together, sets))
                yield range(group, min(group + at_once, groups)), some

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
