"""fprop, and dgrad after lowering, with queues before the banks: pair of blocks by pair of blocks.

Legend of dimensions: n sample, e PE, c channel, (a, b) stride phase, p pixel class, i block of
weights, j word of eight banks' products.

What a pair feeds into the banks is the sum of its pixels' rows ``laid[p, i, j]``, laid out once for
a queue of weights. Where these would take too much room (a linear layer has 256 classes, and makes
few products with each) they are counted for each block of pixels anew.
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
from swatsim.simulator.machines.cartesian.kernel_banks import (
    HIGH,
    Array,
    Axis,
    bank_of,
    through,
)
from swatsim.simulator.machines.cartesian.kernel_log import note_pair, note_step
from swatsim.simulator.machines.cartesian.kernel_patterns import Bits, Counts, Words
from swatsim.simulator.machines.cartesian.kernel_queue import (
    DEEPEST_BYTE,
    NONE,
    TO_A_WORD,
    WORDS,
    full,
    issue,
    longest,
    rest,
    retire,
    room_of,
)

ONE, TWO, THREE = np.uint64(1), np.uint64(2), np.uint64(3)

#: Words that are laid out at most: more would not stay in the cache.
MAX_LAID = 2**17


class Plane(NamedTuple):
    """How pixels meet weights, and on which PEs."""

    rows: Axis
    columns: Axis
    array: Array


class Weights(NamedTuple):
    """A queue of weights, in blocks.

    Parameters
    ----------
    queue : numpy.ndarray of int64, shape (weights, 3)
        (r, s, k) of each.
    first_k : int
        Index in the layer of the filter 0.
    laid : numpy.ndarray of uint64, shape (classes * blocks * WORDS,)
        Products with a pixel of each class, for each bank; none if that is too much.
    products : numpy.ndarray of uint64, shape (blocks * WORDS,)
        Room for those with one block of pixels.
    each : numpy.ndarray of int64, shape (blocks,)
        Room for the cycles of each pair.
    begins : numpy.ndarray of int64, shape (taps + 1,)
        Where in the queue each tap's weights begin, and where the last one's end.
    """

    queue: Counts
    first_k: int
    laid: Words
    products: Words
    each: Counts
    begins: Counts


@inner
def lay_out(queue: Counts, first_k: int, plane: Plane) -> Weights:
    """Return a queue of weights with what it feeds into the banks for each class of pixels."""
    rows, columns, array = plane
    height, width = rows.place.size, columns.place.size
    blocks = -(-queue.shape[0] // array.weight_vector)
    size = height * width * blocks * WORDS
    laid = np.zeros(size if size <= MAX_LAID else 0, np.uint64)
    products, each = np.empty(blocks * WORDS, np.uint64), np.empty(blocks, np.int64)
    weights = Weights(queue, first_k, laid, products, each, begins_of(queue, plane))
    for x in range(height if laid.size else 0):
        for y in range(width):
            add_products(laid, (x * width + y) * products.size, x, y, weights, plane)
    return weights


@inner
def begins_of(queue: Counts, plane: Plane) -> Counts:
    """Return where the weights of each tap begin in a queue, which is in the order of taps."""
    taps = plane.columns.tap_phase.size
    begins = np.zeros(plane.rows.tap_phase.size * taps + 1, np.int64)
    for i in range(queue.shape[0]):
        begins[queue[i, 0] * taps + queue[i, 1] + 1] = i + 1
    for tap in range(begins.size - 1):  # a tap without weights begins where the one before ends
        begins[tap + 1] = max(begins[tap], begins[tap + 1])
    return begins


@inner
def add_products(
    products: Words, begin: int, x: int, y: int, weights: Weights, plane: Plane
) -> None:
    """Add what a pixel of class (x, y) makes with each block of weights, from word `begin` on.

    Only taps that it meets are looked at: of a linear layer that is one.
    """
    rows, columns, array = plane
    taps = columns.tap_phase.size
    for r in range(rows.tap_phase.size):
        w = rows.output_bits[through(rows, x, r)]
        for s in range(taps if w >= 0 else 0):
            h, tap = columns.output_bits[through(columns, y, s)], r * taps + s
            for i in range(weights.begins[tap], weights.begins[tap + 1] if h >= 0 else 0):
                bank = bank_of((weights.first_k + weights.queue[i, 2]) % 8, w, h, array)
                one = np.uint64(1) << np.uint64(8 * (bank % TO_A_WORD))
                products[begin + i // array.weight_vector * WORDS + bank // TO_A_WORD] += one


@inner
def issue_laid(
    pixels: Counts,
    starts: Counts,
    array: Array,
    laid: Words,
    products: Words,
    queues: Words,
    costs: Counts,
) -> None:
    """Issue all parts' blocks of pixels, each against all of the weights, and add to their cycles.

    Equivalent: `issue_parts` of weights that are laid out, without a log, and queues of bytes; but
    that a PE's queues stay in registers. Indices without a sign need no look at whether they count
    from the end, without which the sums would be no vectors.
    """
    vector, room, words = array.act_vector, room_of(array.queue), np.uint64(products.size)
    for part in range(costs.size):
        q0, q1, q2, q3 = queues[part, 0], queues[part, 1], queues[part, 2], queues[part, 3]
        cycles = 0
        for begin in range(starts[part], starts[part + 1], vector):
            first = np.uint64(pixels[begin]) * words
            for word in range(words):
                products[word] = laid[first + word]
            for i in range(begin + 1, min(begin + vector, starts[part + 1])):
                first = np.uint64(pixels[i]) * words
                for word in range(words):
                    products[word] += laid[first + word]
            for at in range(NONE, words, np.uint64(WORDS)):
                p0, p1 = products[at], products[at + ONE]
                p2, p3 = products[at + TWO], products[at + THREE]
                waits = HIGH
                while waits:
                    cycles += 1
                    q0, q1, q2, q3 = retire(q0), retire(q1), retire(q2), retire(q3)
                    one = full(q0, p0, room) | full(q1, p1, room)
                    waits = (one | full(q2, p2, room) | full(q3, p3, room)) & HIGH
                q0 += p0
                q1 += p1
                q2 += p2
                q3 += p3
        queues[part, 0], queues[part, 1], queues[part, 2], queues[part, 3] = q0, q1, q2, q3
        costs[part] += cycles


@inner
def issue_parts(
    pixels: Counts, starts: Counts, weights: Weights, plane: Plane, queues: Words, costs: Counts
) -> None:
    """Issue all parts' blocks of pixels, each against all of the weights, and add their cycles."""
    products, array = weights.products, plane.array
    if weights.laid.size and array.queue <= DEEPEST_BYTE:
        issue_laid(pixels, starts, array, weights.laid, products, queues, costs)
        return
    for part in range(costs.size):
        for begin in range(starts[part], starts[part + 1], array.act_vector):
            block = pixels[begin : min(begin + array.act_vector, starts[part + 1])]
            count_products(block, weights, plane)
            costs[part] += issue(products, queues[part], array.queue, None)


@inner
def count_products(block: Counts, weights: Weights, plane: Plane) -> None:
    """Count what a block of pixels, by their classes, makes with each block of weights."""
    width = plane.columns.place.size
    weights.products.fill(0)
    for pixel in block:
        add_products(weights.products, 0, pixel // width, pixel % width, weights, plane)


@inner
def note_part(
    given: PixelLog,
    step: int,
    first: int,
    pixels: Counts,
    starts: Counts,
    weights: Weights,
    plane: Plane,
    queues: Words,
    costs: Counts,
) -> None:
    """Write down the pairs that `issue_parts` issues of the logged PE, from what it begins with.

    `first` is the first PE whose pixels are queued.
    """
    (rows, columns, array), first_k = plane, weights.first_k
    own = pe_of(given.log, array) - first
    if own < 0 or own >= costs.size:
        return
    cycle, before = costs[own], queues[own].copy()
    for begin in range(starts[own], starts[own + 1], array.act_vector):
        block = pixels[begin : min(begin + array.act_vector, starts[own + 1])]
        count_products(block, weights, plane)
        issue(weights.products, before, array.queue, weights.each)
        for i in range(weights.each.size):
            pair = note_pair(given.log, step, cycle, weights.each[i])
            cycle += weights.each[i]
            if pair >= 0:
                some = weights.queue[i * array.weight_vector : (i + 1) * array.weight_vector]
                note_products(given, pair, begin, block, some, first_k, rows, columns, array)


@inner
def end_step(costs: Counts, queues: Words, array: Array, cost: Counts, log: PixelLog | None) -> int:
    """Let PEs wait for the slowest, their queues going on; return its cycles.

    Those of each PE are added to ``cost[i, j]``.
    """
    pes, cycles = array.pe_h * array.pe_w, 0
    for first in range(0, costs.size, pes):
        slowest = costs[first : first + pes].max()
        for part in range(first, first + pes):
            rest(queues[part], array.queue, slowest - costs[part])
            cost[(part - first) // array.pe_w, (part - first) % array.pe_w] += costs[part]
        cycles += slowest
        if log is not None:
            own = pe_of(log.log, array)
            note_step(log.log, slowest, costs[own] if own >= 0 else -1)
    return int(cycles)


@jit
def convolve_queued(
    data: Bits,
    weight: Bits,
    first_k: int,
    plane: Plane,
    queues: Words,
    log: PixelLog | None = None,
) -> Work:
    """Run one group's convolution, as `kernel.convolve`, but for the drains.

    ``queues[chunk, part, word]``, where a part is a PE of a sample, say how many products wait, and
    are left as they are after the last channel.
    """
    rows, columns, array = plane
    chunks, parts = queues.shape[:2]
    costs, cost = np.empty((chunks, parts), np.int64), np.zeros((array.pe_h, array.pe_w), np.int64)
    cycles = pairs = products = words_a = words_b = 0
    for c in range(data.shape[0]):
        costs.fill(0)
        for a in range(rows.stride):
            for b in range(columns.stride):
                if not (is_met(rows, a) and is_met(columns, b)):
                    continue
                for begin in range(0, parts, array.at_once):
                    some = begin, end = cut(parts, begin, array)
                    pixels, starts = queue_pixels(data[c], a, b, rows, columns, array, some, log)
                    blocks = 0
                    for part in range(end - begin):
                        blocks += -((starts[part] - starts[part + 1]) // array.act_vector)
                    for chunk in range(chunks):
                        first = chunk * array.chunk
                        kernel = weight[c, first : first + array.chunk]
                        queue = queue_weights(kernel, a, b, rows, columns)
                        if not (queue.shape[0] and pixels.size):
                            continue
                        weights = lay_out(queue, first_k + first, plane)
                        own = queues[chunk, begin:end], costs[chunk, begin:end]
                        of_chunk = pixels, starts, weights, plane, *own
                        if log is not None:
                            note_part(log, c * chunks + chunk, begin, *of_chunk)
                        issue_parts(*of_chunk)
                        products += pixels.size * queue.shape[0]
                        words_a += blocks * queue.shape[0]
                        words_b += pixels.size
                        pairs += blocks * weights.each.size
        for chunk in range(chunks):
            cycles += end_step(costs[chunk], queues[chunk], array, cost, log)
    return Work(cycles, cost, pairs, products, of_owners(cycles, array), words_a, words_b)


@jit
def drain(queues: Words, array: Array, log: PixelLog | None = None) -> Work:
    """Empty all queues at the end of each chunk and sample; what a PE waits for is its own."""
    chunks, parts = queues.shape[:2]
    left, cost = np.empty(parts, np.int64), np.zeros((array.pe_h, array.pe_w), np.int64)
    cycles = 0
    for chunk in range(chunks):
        for part in range(parts):
            left[part] = longest(queues[chunk, part], array.queue)
        cycles += end_step(left, queues[chunk], array, cost, log)
    return Work(cycles, cost, 0, 0, of_owners(cycles, array), 0, 0)
