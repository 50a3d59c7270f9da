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

#: Tensors, by their tables: weight[k, c], act[c, n], grad_out[k, n].
WEIGHT, ACT, GRAD_OUT = 0, 1, 2
#: Bytes of a partial sum.
SUM_BYTES = 4
#: What `walk` finds: times, bytes loaded of each tensor, of results, of partial sums; blocks.
START, END, TOTAL, LOADED, RESULTS, PARTIAL, BLOCKS = 0, 1, 2, 3, 6, 7, 8


@jit
def add_up(mask: Cells, runs: bool) -> Counts:
    """Make a table of sums of ``mask[n, row, column, cell]``; its column is n * columns + column.

    ``sums[i, j]`` are the entries in the first i rows and j columns. With `runs` a value brings
    the padding entries for the zeros before it in memory order.
    """
    samples, rows, columns, width = mask.shape
    sums = np.zeros((rows + 1, samples * columns + 1), np.int64)
    zeros = 0
    for n in range(samples):
        for row in range(rows):
            for column in range(columns):
                entries = 0
                for i in range(width):
                    entries += mask[n, row, column, i]
                for i in range(width if runs else 0):
                    zeros += 1
                    if mask[n, row, column, i]:
                        entries += (zeros - 1) >> 4
                        zeros = 0
                sums[row + 1, n * columns + column + 1] = entries
    for row in range(1, rows + 1):
        along = 0
        for column in range(1, samples * columns + 1):
            along += sums[row, column]
            sums[row, column] = sums[row - 1, column] + along
    return sums


@jit
def share(total: int, ends: Counts, j: int) -> int:
    """Give block j its part of what its loop has been given; `ends` of the blocks, from 0 on."""
    whole = ends[ends.size - 1]
    return total * ends[j + 1] // whole - total * ends[j] // whole


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

    ``weight[k, c]``, ``act[c, n]`` and ``grad_out[k, n]`` are the bytes of the operands' blocks,
    of the tensor `made` its elements; k and c count blocks over groups. `order` are the loops
    K, C, N (0, 1, 2) from the outermost on, `ends_*` where the blocks of each end. `fed` are the
    cycles to compute in all. `per_cycle` is (MB/s, MHz, latency in cycles); time is counted in
    units of 1 / MB/s cycles, in which a byte takes MHz. Returns what START to BLOCKS index.
    """
    fast, slow = per_cycle[0], per_cycle[1]
    found = np.zeros(BLOCKS + 1, np.int64)
    sizes = np.empty(3, np.int64)
    sizes[0], sizes[1], sizes[2] = ends_k.size - 1, ends_c.size - 1, ends_n.size - 1
    lacks = (2, 0, 1)[made]
    at, moved = np.zeros(3, np.int64), np.zeros(3, np.bool_)
    inside = sizes[0] * sizes[1] * sizes[2]
    time = per_cycle[2] * fast
    computing = held = leaving = drained = 0
    complete = True
    for position in range((ends_g.size - 1) * inside):
        group, rest = position // inside, position % inside
        for level in range(2, -1, -1):
            d = order[level]
            j, rest = rest % sizes[d], rest // sizes[d]
            moved[d] = j != at[d] or position % inside == 0
            at[d] = j
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
        computing = share(fed, ends_g, group)
        for level in range(3):
            d = order[level]
            ends = ends_k if d == 0 else (ends_c if d == 1 else ends_n)
            computing = share(computing, ends, at[d])
    found[RESULTS] += leaving
    found[END] = time + max(computing * fast, drained * slow)
    found[TOTAL] = found[END] + leaving * slow
    found[BLOCKS] = (ends_g.size - 1) * inside
    return found
