"""Adding up masks: the one part of the memory system that looks at every element.

Legend of dimensions: n samples, and a table of cells in rows and columns; a cell is what is never
cut, the taps of a kernel or a row of an image.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swatsim.jit import jit

Counts = npt.NDArray[np.int64]
Cells = npt.NDArray[np.uint8]


@jit
def add_up(mask: Cells, sums: Counts) -> None:
    """Fill a table of sums of ``mask[n, row, column, cell]``; its column is n * columns + column.

    ``sums[i, j]`` are the values in the first i rows and j columns. It comes empty, in a type that
    holds them: the smaller it is, the fewer pages the system has to find.
    """
    samples, rows, columns, width = mask.shape
    for at in range(sums.shape[1]):
        sums[0, at] = 0
    for row in range(rows):
        sums[row + 1, 0] = 0
        along = 0
        for n in range(samples):
            for column in range(columns):
                values = 0
                for i in range(width):
                    values += mask[n, row, column, i]
                along += values
                at = n * columns + column + 1
                sums[row + 1, at] = sums[row, at] + along


@jit
def add_up_runs(mask: Cells, sums: Counts) -> None:
    """Fill a table, as `add_up` does, of the entries of run-length.

    A value brings the padding entries for the zeros before it in memory order, one for each 16: so
    there are no more of them than elements.
    """
    samples, rows, columns, width = mask.shape
    zeros = 0
    for n in range(samples):
        for row in range(rows):
            for column in range(columns):
                inside = 0
                for i in range(width):
                    zeros += 1
                    if mask[n, row, column, i]:
                        inside += 1 + ((zeros - 1) >> 4)
                        zeros = 0
                sums[row + 1, n * columns + column + 1] = inside
    for at in range(sums.shape[1]):
        sums[0, at] = 0
    for row in range(1, rows + 1):
        sums[row, 0] = 0
        along = 0
        for at in range(1, sums.shape[1]):
            along += sums[row, at]
            sums[row, at] = sums[row - 1, at] + along
