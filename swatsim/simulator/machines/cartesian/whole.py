"""Kernels as large as what they are applied to: linear layers, where each pixel meets one tap.

A block of weights then costs more than one cycle only against pixels under its own taps. Most
blocks are of one tap: what they take beyond a cycle is added up by tap, so that a pixel adds a
number that is known, and no block of pixels meets all weights. Blocks across taps are kept, at
most one between two taps, and met by the pixels of these. Equivalent: `kernel.convolve`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from swatsim.jit import inner, jit
from swatsim.simulator.machines.cartesian.groups import Planar
from swatsim.simulator.machines.cartesian.kernel import (
    Work,
    add_costs,
    cut,
    end_steps,
    of_owners,
    queue_pixels,
)
from swatsim.simulator.machines.cartesian.kernel_banks import (
    BANKS,
    Array,
    Axis,
    bank_of,
    through,
)
from swatsim.simulator.machines.cartesian.kernel_patterns import Bits, Counts, find_patterns

#: Of fewer weights it takes less time to run them pair by pair than to compile the kernel.
LEAST_WEIGHTS = 2**22


class Queue(NamedTuple):
    """A queue of weights, as blocks: buffers, filled anew for each channel and chunk.

    Parameters
    ----------
    more : numpy.ndarray of int64, shape (taps,)
        What the blocks of one tap alone take beyond a cycle each, if their pixel is there.
    first, last : numpy.ndarray of int64, shape (taps,)
        The first and the last block across taps that a tap has a part in; -1: none.
    taps, banks : numpy.ndarray of int64, shape (taps, weight_vector)
        Of the weights of blocks across taps; -1 where a block is short.
    """

    more: Counts
    first: Counts
    last: Counts
    taps: Counts
    banks: Counts


def is_whole(part: Planar) -> bool:
    """Whether a part's kernel is as large as its plane, and it has many weights."""
    alone = part.data.shape[2:] == part.weight.shape[2:] and part.wanted is None
    alone &= part.rows.stride == part.columns.stride == 1
    return alone and not part.array.queue and part.weight.size >= LEAST_WEIGHTS


def convolve(part: Planar) -> Work:
    """Run one group's convolution with such a kernel, as `kernel.convolve` does."""
    run = part.data, part.weight, part.first_k, part.rows, part.columns, part.array
    return convolve_whole(*run)


@inner
def taps_of(axis: Axis) -> Counts:
    """Return the tap that the pixels of each class meet, -1 for none."""
    taps = np.full(axis.place.size, -1, np.int64)
    for at in range(axis.place.size):
        for tap in range(axis.tap_phase.size):
            if axis.output_bits[through(axis, at, tap)] >= 0:
                taps[at] = tap
    return taps


@inner
def end_block(queue: Queue, block: tuple[Counts, Counts], across: int, hits: Counts) -> int:
    """Sort a block of weights, their (taps, banks), and return how many are across taps then."""
    taps, banks = block
    if taps[0] == taps[-1]:  # they come tap by tap
        most = 0
        for bank in banks:
            hits[bank] += 1
            most = max(most, hits[bank])
        for bank in banks:
            hits[bank] = 0
        queue.more[taps[0]] += most - 1
        return across
    queue.taps[across].fill(-1)
    for i in range(taps.size):
        queue.taps[across, i], queue.banks[across, i] = taps[i], banks[i]
        queue.last[taps[i]] = across
        if queue.first[taps[i]] < 0:
            queue.first[taps[i]] = across
    return across + 1


@inner
def queue_blocks(kernel: Bits, first_k: int, array: Array, queue: Queue) -> int:
    """Queue one channel's and chunk's non-zero weights (r, s, k), k innermost, and count them."""
    (filters, taps_r, taps_s), vector = kernel.shape, array.weight_vector
    queue.more.fill(0)
    queue.first.fill(-1)
    queue.last.fill(-1)
    taps, banks = np.empty(vector, np.int64), np.empty(vector, np.int64)
    hits = np.zeros(BANKS, np.int64)
    length = across = 0
    for r in range(taps_r):
        for s in range(taps_s):
            for k in range(filters):
                if kernel[k, r, s]:
                    at = length % vector
                    taps[at] = r * taps_s + s
                    banks[at] = bank_of((first_k + k) % 8, 0, 0, array)
                    length += 1
                    if at == vector - 1:
                        across = end_block(queue, (taps, banks), across, hits)
    rest = length % vector
    if rest:
        end_block(queue, (taps[:rest], banks[:rest]), across, hits)
    return length


@inner
def cost_across(queue: Queue, block: int, there: Bits, hits: Counts) -> int:
    """Return the cycles of a block across taps, against pixels under those that are there."""
    most = 1
    for i in range(queue.taps.shape[1]):
        tap = queue.taps[block, i]
        if tap >= 0 and there[tap]:
            hits[queue.banks[block, i]] += 1
            most = max(most, hits[queue.banks[block, i]])
    for i in range(queue.taps.shape[1]):
        if queue.taps[block, i] >= 0:
            hits[queue.banks[block, i]] = 0
    return most


@inner
def cost_taps(patterns: Counts, queue: Queue, blocks: int, conflicts: bool) -> Counts:
    """Return the cycles of each block of pixels, by their taps, against a queue of weights."""
    costs, hits = np.full(patterns.shape[0], blocks), np.zeros(BANKS, np.int64)
    there = np.zeros(queue.more.size, np.bool_)
    for p in range(patterns.shape[0] if conflicts else 0):
        for tap in patterns[p]:
            if tap >= 0:
                there[tap] = True
        for tap in patterns[p]:
            if tap < 0:
                continue
            costs[p] += queue.more[tap]
            for at in range(queue.first[tap], queue.last[tap] + 1):
                if at >= 0 and is_of(queue.taps[at], tap, there):
                    costs[p] += cost_across(queue, at, there, hits) - 1
        for tap in patterns[p]:
            if tap >= 0:
                there[tap] = False
    return costs


@inner
def is_of(taps: Counts, tap: int, there: Bits) -> bool:
    """Whether a tap is the first of a block's that are there: so each block counts once."""
    for one in taps:
        if one >= 0 and there[one]:
            return bool(one == tap)
    return False


@jit
def convolve_whole(
    data: Bits, weight: Bits, first_k: int, rows: Axis, columns: Axis, array: Array
) -> Work:
    """Run one group's convolution, ``data[c, n, x, y]`` with ``weight[c, k, x, y]``."""
    vector, pes = array.weight_vector, array.pe_h * array.pe_w
    chunks = -(-weight.shape[1] // array.chunk)
    taps, parts = weight.shape[2] * weight.shape[3], data.shape[1] * pes
    costs, cost = np.empty((chunks, parts), np.int64), np.zeros(pes, np.int64)
    of_taps, across = np.empty((3, taps), np.int64), np.empty((2, taps, vector), np.int64)
    queue = Queue(of_taps[0], of_taps[1], of_taps[2], across[0], across[1])
    of_rows, of_columns = taps_of(rows), taps_of(columns)
    cycles = pairs = products = words_a = words_b = 0
    for c in range(data.shape[0]):
        costs.fill(0)
        for part in range(0, parts, array.at_once):
            some = begin, end = cut(parts, part, array)
            pixels, starts = queue_pixels(data[c], 0, 0, rows, columns, array, some, None)
            for i in range(pixels.size):
                x, y = pixels[i] // of_columns.size, pixels[i] % of_columns.size
                pixels[i] = of_rows[x] * of_columns.size + of_columns[y]
            pattern_of, begins, patterns = find_patterns(pixels, starts, taps, array.act_vector)
            for chunk in range(chunks):
                first = chunk * array.chunk
                kernel = weight[c, first : first + array.chunk]
                length = queue_blocks(kernel, first_k + first, array, queue)
                blocks = -(-length // vector)
                of = cost_taps(patterns, queue, blocks, array.conflicts)
                add_costs(costs[chunk, begin:end], of, pattern_of, begins)
                products += pixels.size * length
                words_a += pattern_of.size * length
                words_b += pixels.size if length else 0
                pairs += pattern_of.size * blocks
        cycles += end_steps(costs, array, cost, None)
    of_pes = cost.reshape(array.pe_h, array.pe_w)
    return Work(cycles, of_pes, pairs, products, of_owners(cycles, array), words_a, words_b)
