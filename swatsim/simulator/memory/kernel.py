"""The two loops of the memory system that are long: adding up a mask, and walking all blocks.

What they take is prepared so that they know nothing of layers: a mask as cells in rows and columns;
blocks as tables of bytes. Both compile in a moment, which a first run waits for.

Legend of dimensions: g groups, k filters, c channels, n rows of all samples; i, j blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swatsim.jit import jit

Counts = npt.NDArray[np.int64]
Cells = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.bool_]

#: Tensors, by their tables: weight[k, c], act[c, n], grad_out[k, n].
WEIGHT, ACT, GRAD_OUT = 0, 1, 2
#: Bytes of a partial sum.
SUM_BYTES = 4
#: What `walk` finds: times, bytes loaded of each tensor, of results, of partial sums; blocks.
START, END, TOTAL, LOADED, RESULTS, PARTIAL, BLOCKS = 0, 1, 2, 3, 6, 7, 8


@jit
def add_up(mask: Cells) -> Counts:
    """Make a table of sums of ``mask[n, row, column, cell]``; its column is n * columns + column.

    ``sums[i, j]`` are the values in the first i rows and j columns.
    """
    samples, rows, columns, width = mask.shape
    sums = np.zeros((rows + 1, samples * columns + 1), np.int64)
    for row in range(rows):
        along = 0
        for n in range(samples):
            for column in range(columns):
                values = 0
                for i in range(width):
                    values += mask[n, row, column, i]
                along += values
                at = n * columns + column + 1
                sums[row + 1, at] = sums[row, at] + along
    return sums


@jit
def runs_in(mask: Cells) -> Counts:
    """Count the entries of run-length in each cell of ``mask[n, row, column, cell]``.

    A value brings the padding entries for the zeros before it in memory order, one for each 16.
    The table is laid out, but not added up, as in `add_up`.
    """
    samples, rows, columns, width = mask.shape
    entries = np.zeros((rows + 1, samples * columns + 1), np.int64)
    zeros = 0
    for n in range(samples):
        for row in range(rows):
            for column in range(columns):
                found = 0
                for i in range(width):
                    zeros += 1
                    if mask[n, row, column, i]:
                        found += 1 + ((zeros - 1) >> 4)
                        zeros = 0
                entries[row + 1, n * columns + column + 1] = found
    return entries


@jit
def share(total: int, ends: Counts, j: int) -> int:
    """Give block j its part of what its loop has been given; `ends` of the blocks, from 0 on."""
    whole = ends[ends.size - 1]
    return total * ends[j + 1] // whole - total * ends[j] // whole


@jit
def place(position: int, order: Counts, sizes: Counts, at: Counts, moved: Bits) -> None:
    """Find the block of each loop at a position of a group, and whether it is another one."""
    rest = position
    for level in range(2, -1, -1):
        d = order[level]
        j, rest = rest % sizes[d], rest // sizes[d]
        moved[d] = j != at[d] or position == 0
        at[d] = j


@jit
def spread(
    total: int, order: Counts, at: Counts, ends_k: Counts, ends_c: Counts, ends_n: Counts
) -> int:
    """Give a position its part of what its groups have been given, loop by loop."""
    for level in range(3):
        d = order[level]
        ends = ends_k if d == 0 else (ends_c if d == 1 else ends_n)
        total = share(total, ends, at[d])
    return total


@jit
def walk(
    weight: Counts,
    act: Counts,
    grad_out: Counts,
    made: int,
    order: Counts,
    ends_g: Counts,
    ends_k: Counts,
    ends_c: Counts,
    ends_n: Counts,
    fed: int,
    per_cycle: Counts,
    value_bytes: int,
) -> Counts:
    """Take all blocks through the pipeline.

    The tables hold the bytes of the operands' blocks, and of the tensor `made` its elements; k and
    c count blocks over groups. `order` are the loops K, C, N (0, 1, 2), outermost first, `ends_*`
    where their blocks end, `fed` the cycles to compute. `per_cycle` is (MB/s, MHz, latency in
    cycles); the unit of time is 1 / MB/s cycles: a byte takes MHz. Returns what START.. index.
    """
    fast, slow = per_cycle[0], per_cycle[1]
    found, sizes = np.zeros(BLOCKS + 1, np.int64), np.empty(3, np.int64)
    sizes[0], sizes[1], sizes[2] = ends_k.size - 1, ends_c.size - 1, ends_n.size - 1
    inside, lacks = sizes[0] * sizes[1] * sizes[2], (2, 0, 1)[made]
    at, moved = np.zeros(3, np.int64), np.zeros(3, np.bool_)
    time, complete = per_cycle[2] * fast, True
    computing = held = leaving = drained = 0
    for position in range((ends_g.size - 1) * inside):
        group = position // inside
        place(position % inside, order, sizes, at, moved)
        k, c, n = group * sizes[0] + at[0], group * sizes[1] + at[1], at[2]
        load = drain = 0
        for tensor in range(3):
            d1, d2 = (1 if tensor == ACT else 0), (1 if tensor == WEIGHT else 2)
            if not (moved[d1] or moved[d2]):
                continue
            size = weight[k, at[1]] if d2 == 1 else (act[c, n] if d1 == 1 else grad_out[k, n])
            if tensor != made:
                load += size
                found[LOADED + tensor] += size
                continue
            drain, held = leaving, size
            found[RESULTS if complete else PARTIAL] += drain
            if at[lacks] > 0:  # it has been here before
                load += size * SUM_BYTES
                found[PARTIAL] += size * SUM_BYTES
        # while the block before was computed, this one was loaded and the one before it drained
        time += max(computing * fast, (load + drained) * slow)
        found[START] = time if position == 0 else found[START]
        drained = drain
        complete = at[lacks] == sizes[lacks] - 1
        leaving = held * (value_bytes if complete else SUM_BYTES)
        computing = spread(share(fed, ends_g, group), order, at, ends_k, ends_c, ends_n)
    found[RESULTS] += leaving
    found[END] = time + max(computing * fast, drained * slow)
    found[TOTAL] = found[END] + leaving * slow
    found[BLOCKS] = (ends_g.size - 1) * inside
    return found
