"""One fold, line by line: where the wave front is, and which values meet in which PE.

Which they are `fold` says; here it is put into words. Shown are PEs of the first column and of the
first row, for the front reaches PE (i, j) i + j lines after the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from swatsim.simulator.elements import Numbers, assemble, element, numbered
from swatsim.simulator.interface import Event, Timeline, check_tile
from swatsim.simulator.machines.systolic.config import SystolicConfig
from swatsim.simulator.machines.systolic.fold import Fold, Places, count, depths, folds, pairs
from swatsim.simulator.machines.systolic.machine import runs_compressed
from swatsim.simulator.machines.systolic.matrices import left, right
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask

#: PEs of a column or of a row that are shown: of more, so many, evenly spread.
SHOWN = 32


def timeline(op: LoweredOp, config: SystolicConfig, tile: int) -> Timeline:
    """Return what one fold of an op does; they are numbered in the order in which they run.

    Raises
    ------
    ConfigError
        If the op has no such fold.
    """
    compressed = runs_compressed(op, config)
    every = count(op, config, compressed)
    check_tile(tile, every, op, "one of its folds")
    fold = next(islice(folds(op, config, compressed), tile, None))
    return _Drawn(op, config, fold, every, compressed).timeline()


@dataclass
class _Drawn:
    op: LoweredOp
    config: SystolicConfig
    fold: Fold
    folds: int
    compressed: bool

    def __post_init__(self) -> None:
        down = [(row, 0) for row in _spread(self.config.rows)]
        across = [(0, column) for column in _spread(self.config.columns)[1:]]
        self.pes = down + across

    def timeline(self) -> Timeline:
        """Return the timeline: its threads, how long it takes, its events when asked."""
        threads = tuple(f"PE ({row}, {column})" for row, column in self.pes)
        return Timeline(threads, self.fold.lines, self._events, self._about())

    def _about(self) -> dict[str, Any]:
        fold = self.fold
        return {
            "tiles": self.folds,
            "runs_compressed": self.compressed,
            "product": fold.place.part,
            "group": fold.place.group,
            "block_of_rows": fold.block[0],
            "block_of_columns": fold.block[1],
            "rows_in_use": fold.used[0],
            "columns_in_use": fold.used[1],
            "streamed": fold.streamed,
        }

    def _events(self, window: range) -> Iterator[Event]:
        busy = []
        for thread, (row, column) in enumerate(self.pes):
            if row >= self.fold.used[0] or column >= self.fold.used[1]:
                lines = self.fold.lines
                yield Event(thread, "holds nothing", "unmapped", 0, lines, {})
                continue
            yield from self._waiting(thread, row, column)
            begin = self.fold.begin(row, column)
            first = max(0, window.start - begin)
            streamed = range(first, min(self.fold.streamed, window.stop - begin))
            busy += [(thread, row, column, begin, t) for t in streamed]
        if busy:
            yield from self._products(*np.array(busy).T)

    def _waiting(self, thread: int, row: int, column: int) -> Iterator[Event]:
        """Yield a PE's lines before its first pair and after its last."""
        begin = self.fold.begin(row, column)
        end = begin + self.fold.streamed
        rest = self.fold.lines - end
        yield Event(thread, "the front is not there yet", "skew", 0, begin, {})
        yield Event(thread, "the front has left", "skew", end, rest, {})

    def _products(
        self, thread: Places, row: Places, column: Places, begin: Places, t: Places
    ) -> Iterator[Event]:
        of = pairs(self.fold, self.config, row, column, t)
        depth = depths(self.op, self.config, self.fold, of)
        both = self._values(self.op, of.m, depth, of.n)
        effectual = (both[0] & both[1]).tolist()
        planes = [self._values(plane, of.m, depth, of.n) for plane in numbered(self.op)]
        numbers = [assemble(side) for side in zip(*planes, strict=True)]
        for at, (of_pe, line) in enumerate(zip(thread.tolist(), (begin + t).tolist(), strict=True)):
            name = "effectual" if effectual[at] else "ineffectual"
            details = self._details(numbers[0][at], numbers[1][at])
            yield Event(of_pe, name, "product", line, 1, details)

    def _values(self, op: LoweredOp, m: Places, depth: Places, n: Places) -> tuple[Mask, Mask]:
        """Return the left and the right values of pairs, those of an empty slot zero."""
        where = self.config.dgrad_lowering, self.fold.place
        there, filled = np.maximum(depth, 0), depth >= 0
        return left(op, *where, m, there) & filled, right(op, *where, there, n) & filled

    def _details(self, *numbers: Numbers) -> dict[str, Any]:
        """Return the elements that meet; none: padding, or an empty slot."""
        names = list(self.op.operands)
        if self.op.name != "wgrad":
            names.reverse()
        return {
            self.op.called(name): element(self.op, name, int(number))
            for name, number in zip(names, numbers, strict=True)
        }


def _spread(size: int) -> list[int]:
    """Return all of so many, or as many as are shown: the first, the last, evenly between."""
    if size <= SHOWN:
        return list(range(size))
    return [at * (size - 1) // (SHOWN - 1) for at in range(SHOWN)]
