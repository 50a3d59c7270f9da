"""fprop and dgrad where some outputs are wanted by nobody: pair of blocks by pair of blocks.

Legend of dimensions: n sample, (w, h) output, k filter, x and y pixels, each a class of its own.

Which products are valid depends on the output, so that neither pixels nor channels are alike as in
`kernel`: what a block of pixels feeds into the banks is counted for each pair of blocks anew.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from swatsim.jit import inner, jit
from swatsim.simulator.machines.cartesian.kernel import (
    PixelLog,
    Work,
    cut,
    is_met,
    note_products,
    of_owners,
    pe_of,
    queue_pixels,
    queue_weights,
)
from swatsim.simulator.machines.cartesian.kernel_banks import larger, through
from swatsim.simulator.machines.cartesian.kernel_log import fullest_bank, note_pair
from swatsim.simulator.machines.cartesian.kernel_patterns import Bits, Counts, Words
from swatsim.simulator.machines.cartesian.kernel_queue import TO_A_WORD, WORDS, issue
from swatsim.simulator.machines.cartesian.kernel_queued import Plane, end_step
from swatsim.simulator.machines.cartesian.sides import Reached


class Wanted(NamedTuple):
    """Which outputs of one group somebody wants, and which pixels lead to them.

    Parameters
    ----------
    outputs : numpy.ndarray of bool, shape (N, W, H, K)
    rows : numpy.ndarray of int32, shape (X + (R - 1) * dilation,)
        The output w that a pixel reaches through a tap, laid out as `Axis.output_bits`; -1: none.
    columns : numpy.ndarray of int32, shape (Y + (S - 1) * dilation,)
    chunks : numpy.ndarray of bool, shape (chunks, N)
        Which chunks of filters have a wanted output of a sample.
    """

    outputs: Bits
    rows: Reached
    columns: Reached
    chunks: Bits


class Met(NamedTuple):
    """A queue of weights, and room for what a block of pixels makes of it.

    Parameters
    ----------
    queue : numpy.ndarray of int64, shape (weights, 3)
        (r, s, k) of each.
    first, first_k : int
        Index of the filter 0 in the group, and in the layer.
    at : numpy.ndarray of int64, shape (weights,)
        The first word of each weight's block in `products`.
    products : numpy.ndarray of uint64, shape (blocks * WORDS,)
    each : numpy.ndarray of int64, shape (blocks,)
        The cycles of each pair.
    """

    queue: Counts
    first: int
    first_k: int
    at: Counts
    products: Words
    each: Counts


@inner
def meet(queue: Counts, first: int, first_k: int, vector: int) -> Met:
    """Return a queue of weights with room for its products."""
    blocks = -(-queue.shape[0] // vector)
    at = np.empty(queue.shape[0], np.int64)
    for i in range(at.size):
        at[i] = i // vector * WORDS
    room = np.empty(blocks * WORDS, np.uint64), np.empty(blocks, np.int64)
    return Met(queue, first, first_k, at, *room)


@inner
def count_wanted(block: Counts, n: int, met: Met, plane: Plane, wanted: Wanted) -> None:
    """Count what a block of pixels feeds into each bank with each block of weights."""
    (rows, columns, array), queue, products = plane, met.queue, met.products
    ones, words = np.empty(8, np.uint64), np.empty(8, np.int64)
    products.fill(0)
    for pixel in block:
        x, y, begin = pixel // columns.place.size, pixel % columns.place.size, 0
        while begin < queue.shape[0]:  # tap by tap: k is innermost
            r, s, end = queue[begin, 0], queue[begin, 1], begin
            while end < queue.shape[0] and queue[end, 0] == r and queue[end, 1] == s:
                end += 1
            w = wanted.rows[through(rows, x, r)]
            h = wanted.columns[through(columns, y, s)]
            if w >= 0 and h >= 0:
                for k in range(8):
                    bank = array.bank[(met.first_k + k) & 7, w & 3, h & 3]
                    words[k] = bank // TO_A_WORD
                    ones[k] = np.uint64(1) << np.uint64(8 * (bank % TO_A_WORD))
                row = wanted.outputs[n, w, h]
                for i in range(begin, end):
                    k = queue[i, 2]
                    if row[met.first + k]:
                        products[met.at[i] + words[k & 7]] += ones[k & 7]
            begin = end


@inner
def fullest(word: np.uint64) -> int:
    """Return the largest of eight bytes, all below 128."""
    for shift in (32, 16, 8):
        word = larger(word, word >> np.uint64(shift))
    return int(word & np.uint64(255))


@inner
def wait(products: Words, each: Counts) -> int:
    """Let each pair wait for its fullest bank; return the cycles of all."""
    cycles = 0
    for i in range(each.size):
        word = np.uint64(0)
        for j in range(i * WORDS, (i + 1) * WORDS):
            word = larger(word, products[j])
        each[i] = max(1, fullest(word))
        cycles += each[i]
    return cycles


@inner
def note_wanted(
    given: PixelLog,
    at: tuple[int, int, int],
    block: Counts,
    met: Met,
    plane: Plane,
    wanted: Wanted,
) -> None:
    """Write down the pairs of a block of the logged PE's pixels; `each` has their cycles.

    `at` are the step, its cycle in which the first one's turn comes, and the block's place.
    """
    (rows, columns, array), log, (step, cycle, first) = plane, given.log, at
    for i in range(met.each.size):
        pair = note_pair(log, step, cycle, met.each[i])
        cycle += met.each[i]
        if pair < 0:
            continue
        some = met.queue[i * array.weight_vector : (i + 1) * array.weight_vector]
        note_products(given, pair, first, block, some, met.first_k, rows, columns, array)
        for p in range(block.size):
            x, y = given.places[first + p, 0], given.places[first + p, 1]
            for j in range(some.shape[0]):
                w = wanted.rows[through(rows, x, some[j, 0])]
                h = wanted.columns[through(columns, y, some[j, 1])]
                inside = w >= 0 and h >= 0
                if inside and not wanted.outputs[0, w, h, met.first + some[j, 2]]:
                    log.banks[pair, p, j] = -1
        log.fullest[pair] = fullest_bank(log.banks[pair])


@jit
def convolve_wanted(
    data: Bits,
    weight: Bits,
    first_k: int,
    plane: Plane,
    queues: Words,
    wanted: Wanted,
    log: PixelLog | None = None,
) -> Work:
    """Run one group's convolution, as `kernel_queued.convolve_queued`; without queues too.

    Chunks of which a sample has no wanted output are left out.
    """
    rows, columns, array = plane
    (chunks, parts), pes = queues.shape[:2], array.pe_h * array.pe_w
    costs, cost = np.empty((chunks, parts), np.int64), np.zeros((array.pe_h, array.pe_w), np.int64)
    cycles = pairs = products = words_a = words_b = 0
    for c in range(data.shape[0]):
        costs.fill(0)
        for a in range(rows.stride):
            for b in range(columns.stride):
                if not (is_met(rows, a) and is_met(columns, b)):
                    continue
                for first_part in range(0, parts, array.at_once):
                    some = cut(parts, first_part, array)
                    pixels, starts = queue_pixels(data[c], a, b, rows, columns, array, some, log)
                    for chunk in range(chunks):
                        first = chunk * array.chunk
                        kernel = weight[c, first : first + array.chunk]
                        queue = queue_weights(kernel, a, b, rows, columns)
                        met = meet(queue, first, first_k + first, array.weight_vector)
                        for part in range(some[0], some[1]):
                            n, at = part // pes, part - first_part
                            if not (queue.shape[0] and wanted.chunks[chunk, n]):
                                continue
                            for begin in range(starts[at], starts[at + 1], array.act_vector):
                                end = min(begin + array.act_vector, starts[at + 1])
                                count_wanted(pixels[begin:end], n, met, plane, wanted)
                                if array.queue:
                                    own = queues[chunk, part]
                                    spent = issue(met.products, own, array.queue, met.each)
                                else:
                                    spent = wait(met.products, met.each)
                                if log is not None and part == pe_of(log.log, array):
                                    noted = c * chunks + chunk, costs[chunk, part], begin
                                    note_wanted(log, noted, pixels[begin:end], met, plane, wanted)
                                costs[chunk, part] += spent
                                words_a += queue.shape[0]
                                pairs += met.each.size
                            products += (starts[at + 1] - starts[at]) * queue.shape[0]
                            words_b += starts[at + 1] - starts[at]
        for chunk in range(chunks):
            cycles += end_step(costs[chunk], queues[chunk], array, cost, log)
    return Work(cycles, cost, pairs, products, of_owners(cycles, array), words_a, words_b)
