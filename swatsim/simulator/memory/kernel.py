"""Adding up masks: the one part of the memory system that looks at every element; and their blocks.

Legend of dimensions: n samples, and a table of cells in rows and columns; a cell is what is never
cut, the taps of a kernel or a row of an image.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swatsim.jit import inner, jit

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


@inner
def zeros_before(flat: Cells, at: int) -> int:
    """Return the zeros, in memory order, between an element and the value before it."""
    zeros = 0
    while zeros < at and not flat[at - 1 - zeros]:
        zeros += 1
    return zeros


@inner
def add_row(mask: Cells, runs: bool, row: int, sums: Counts) -> None:
    """Add a row's entries to those of the rows before it; with `runs`, those of run-length."""
    samples, rows, columns, width = mask.shape
    flat = mask.reshape(mask.size)
    along = 0
    for n in range(samples):
        own = sums[n * columns + 1 : (n + 1) * columns + 1]
        if runs:
            along = add_runs(flat, (n * rows + row) * columns * width, width, along, own)
            continue
        for column in range(columns):
            for i in range(width):
                along += mask[n, row, column, i]
            own[column] += along


@inner
def add_runs(flat: Cells, begin: int, width: int, along: int, sums: Counts) -> int:
    """Add a row's entries of run-length, as `add_row` does; return them with those before it.

    The zeros before it are looked for where it has a value: so each is looked at once, and none is
    kept.
    """
    at, zeros = begin, -1
    for column in range(sums.size):
        for _ in range(width):
            if flat[at]:
                if zeros < 0:
                    zeros = at - begin + zeros_before(flat, begin)
                along += 1 + (zeros >> 4)
                zeros = 0
            elif zeros >= 0:
                zeros += 1
            at += 1
        sums[column] += along
    return along


@jit
def add_up_some(
    mask: Cells, runs: bool, every: int, sums: Counts, held: Counts, columns: Counts
) -> None:
    """Fill, of the table that `add_up` or `add_up_runs` fills, each so manieth row, and the last.

    And ``columns[row, i]``, which comes as zeros, with its columns `held`.
    """
    row_sums = np.zeros(sums.shape[1], np.int64)
    sums[0] = row_sums
    for row in range(mask.shape[1]):
        add_row(mask, runs, row, row_sums)
        for i in range(held.size):
            columns[row + 1, i] = row_sums[held[i]]
        if (row + 1) % every == 0:
            sums[(row + 1) // every] = row_sums
    sums[-1] = row_sums


@jit
def find_sums(
    mask: Cells,
    runs: bool,
    every: int,
    sums: Counts,
    rows: Counts,
    first: Counts,
    last: Counts,
    found: Counts,
) -> None:
    """Fill in what the whole table has of ascending rows, between columns: (rows, blocks)."""
    row_sums, done = np.zeros(sums.shape[1], np.int64), 0
    for i in range(rows.size):
        begin = rows[i] // every * every
        if done < begin:
            row_sums[:] = sums[begin // every]
            done = begin
        while done < rows[i]:
            add_row(mask, runs, done, row_sums)
            done += 1
        for j in range(first.size):
            found[i, j] = row_sums[last[j]] - row_sums[first[j]]


@jit
def largest_and_bytes(
    sums: Counts,
    first_row: Counts,
    last_row: Counts,
    first_column: Counts,
    last_column: Counts,
    leading: Counts,
    cell: int,
    terms: tuple[int, int, int],
    lines: int,
) -> tuple[int, int]:
    """Return the most bits of a block of `sums`, and the bytes of all, each of whole bytes.

    `terms` are bits of an entry, of an element and of a pointer. `lines` says what has a pointer,
    beside the one at the end: 0 nothing, 1 each index of the leading dimension, 2 each place within
    the others. `leading` are those indices: of the blocks of the columns, or none of them, if they
    are the rows.
    """
    largest, total = 0, 0
    for i in range(len(first_row)):
        low, high = first_row[i], last_row[i]
        for j in range(len(first_column)):
            left, right = first_column[j], last_column[j]
            entries = np.int64(sums[high, right]) - sums[low, right]
            entries -= np.int64(sums[high, left]) - sums[low, left]
            elements = (high - low) * (right - left) * cell
            indices = leading[j] if len(leading) else high - low
            pointers = 1
            if lines == 1:
                pointers += indices
            elif lines == 2:
                pointers += elements // indices
            bits = entries * terms[0] + elements * terms[1] + pointers * terms[2]
            largest = max(largest, bits)
            total += (bits + 7) >> 3
    return largest, total
