"""Entries of blocks of a mask, from sums that are made once.

A table of sums has an entry for each cell of the mask, of four bytes: of a mask that is large some
of its rows and some of its columns are held. Blocks whose edges lie on those columns are looked up
(cuts into powers of two do, unless they are narrow); of others, what lies between two of the rows
is added up when it is asked for, which takes as long as to read the mask once more.
"""

from __future__ import annotations

import numpy as np

from swatsim.simulator.memory.kernel import (
    Cells,
    Counts,
    add_up,
    add_up_runs,
    add_up_some,
    find_sums,
)
from swatsim.simulator.memory.tensors import Cut

#: Sums that are held (64 MiB); where not all are, a quarter of that, or two rows and two columns.
MOST_SUMS = 2**24


class Sums:
    """Entries in the first rows and columns of a table of cells.

    Parameters
    ----------
    cells : numpy.ndarray of uint8, shape (samples, rows, columns, cell)
        The table's column is sample * columns + column.
    runs : bool
        Entries are those of run-length, with their padding; otherwise values.
    """

    def __init__(self, cells: Cells, runs: bool) -> None:
        samples, rows, columns, _ = cells.shape
        width = samples * columns + 1
        kind = np.int32 if cells.size < 2**31 else np.int64
        least = -(-rows * width // max(1, MOST_SUMS // 8))
        self.every = 1 if rows * width <= MOST_SUMS else least
        self.sums: Counts = np.empty((-(-rows // self.every) + 1, width), kind)
        if self.whole:
            (add_up_runs if runs else add_up)(cells, self.sums)
            return
        self.cells, self.runs = cells, runs
        # blocks of powers of two end on those of a larger one; before the first column is nothing
        step = 2 ** (least - 1).bit_length()
        self.held = np.append(np.arange(step, width - 1, step), width - 1)
        self.columns: Counts = np.zeros((rows + 1, len(self.held)), kind)
        add_up_some(cells, runs, self.every, self.sums, self.held, self.columns)

    @property
    def whole(self) -> bool:
        """Whether all rows of the table are held."""
        return bool(self.every == 1)

    @property
    def of_columns(self) -> Counts:
        """Entries of all rows in the first columns, of each number of them."""
        last: Counts = self.sums[-1]
        return last

    def inside(self, rows: Cut, columns: Cut) -> Counts:
        """Return the entries of all blocks, shape (blocks of rows, blocks of columns)."""
        at, blocks = np.concatenate([rows.first, rows.last]), len(rows.first)
        found = self._of(at, columns)
        entries: Counts = (found[blocks:] - found[:blocks]).astype(np.int64)
        return entries

    def _of(self, rows: Counts, columns: Cut) -> Counts:
        """Return the entries of the first rows in blocks of columns."""
        edges = columns.first, columns.last
        if self.whole:
            return _between(self.sums, rows, edges)
        if all((np.isin(edge, self.held) | (edge == 0)).all() for edge in edges):
            first, last = (self._of_held(rows, edge) for edge in edges)
            between: Counts = last - first
            return between
        apart, at = np.unique(rows, return_inverse=True)
        found = np.empty((len(apart), len(columns.first)), np.int64)
        find_sums(self.cells, self.runs, self.every, self.sums, apart, *edges, found)
        return found[at]

    def _of_held(self, rows: Counts, edge: Counts) -> Counts:
        found = self.columns[rows[:, None], np.searchsorted(self.held, edge)]
        found[:, edge == 0] = 0
        return found


def _between(sums: Counts, rows: Counts, edges: tuple[Counts, Counts]) -> Counts:
    """Return what lies in some rows of sums between columns: (rows, blocks)."""
    found: Counts = sums[rows[:, None], edges[1]] - sums[rows[:, None], edges[0]]
    return found
