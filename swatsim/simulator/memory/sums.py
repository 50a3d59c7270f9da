"""Entries of blocks of a mask, from sums that are made once.

A table of sums has an entry for each cell of the mask, of four bytes: of a mask that is large it
has some of its rows, and what lies between two of them is added up when it is asked for.
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
    zeros_before,
)
from swatsim.simulator.memory.tensors import Cut

#: Sums that are held, or two rows of them (64 MiB).
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
        self.every = max(1, -(-rows * width // MOST_SUMS))
        self.sums: Counts = np.empty((-(-rows // self.every) + 1, width), kind)
        if self.whole:
            (add_up_runs if runs else add_up)(cells, self.sums)
            return
        self.cells = cells
        # where nothing depends on what is before, there is nothing
        self.before = zeros_before(cells) if runs else np.zeros((0, 0), np.int64)
        add_up_some(cells, self.before, self.every, self.sums)

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
        low, high = self._of(rows.first, columns), self._of(rows.last, columns)
        entries: Counts = (high - low).astype(np.int64)
        return entries

    def _of(self, rows: Counts, columns: Cut) -> Counts:
        """Return the entries of the first rows in blocks of columns."""
        if self.whole:
            some = rows[:, None]
            found: Counts = self.sums[some, columns.last] - self.sums[some, columns.first]
            return found
        apart, at = np.unique(rows, return_inverse=True)
        found = np.empty((len(apart), len(columns.first)), np.int64)
        edges = columns.first, columns.last
        find_sums(self.cells, self.before, self.every, self.sums, apart, *edges, found)
        return found[at]
