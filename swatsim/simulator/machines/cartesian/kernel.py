"""Cartesian products of pixel blocks and weight blocks: fprop, and dgrad after lowering.

Legend of dimensions: n sample, e PE, c channel, (a, b) stride phase, p pixel class, j word of eight
byte counters, one for each of eight weight blocks.

The plain formula, for one channel, one chunk of filters and one PE::

    for each phase, for each block of I pixels, for each block of F weights:
        cost += max(1, largest number of valid products that fall into one bank)

Here eight weight blocks are counted at once, in the bytes of a word: a product's bank depends on
its pixel only through its *class* (which taps it meets, and the last two bits of the outputs that
they lead to), so the counters of every weight block are laid out once for each class, and a pixel
block costs the sum of I rows of counters and one maximum over the banks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.jit import jit

Words = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]

#: The bank hash addresses no more.
BANKS = 32
#: Weight blocks that share a word of byte counters.
BLOCKS = 8
#: Words that are laid out at once: more would not stay in the cache.
MAX_WORDS = 8

#: Fewer than these have keys of 16 bits, of which 0 is none.
MAX_CLASSES = 2**16

#: An odd number with well spread bits, for multiplicative hashing.
MIXER = np.uint64(0x9E3779B97F4A7C15)

HIGH = np.uint64(0x8080808080808080)
LOW_HALVES = np.uint64(0x00FF00FF00FF00FF)
HALVES = np.uint64(0x0001000100010001)


class Work(NamedTuple):
    """What a number of steps take; a step is what PEs do before they wait for each other.

    Parameters
    ----------
    cycles : int
        Sum over the steps of the slowest PE's cost.
    cost : int
        Sum of all PEs' costs.
    pairs : int
        Pairs of blocks.
    products : int
        Products, valid or not.
    mapped : int
        Sum over the steps of the slowest PE's cost times the PEs that have a part in it.
    words_a, words_b : int
        Values taken of the first and of the second operand.
    """

    cycles: int
    cost: int
    pairs: int
    products: int
    mapped: int
    words_a: int
    words_b: int


class Axis(NamedTuple):
    """How the pixels of one axis meet the taps.

    Parameters
    ----------
    stride : int
        Pixels and taps meet if they are of the same phase: coordinates modulo the stride.
    tile : int
        Pixels of a PE.
    pixel_class : numpy.ndarray of int64, shape (X,)
        Pixels of a class meet the same taps, and lead to outputs with the same last two bits.
    output_bits : numpy.ndarray of int64, shape (classes, taps)
        Last two bits of the output that a pixel of the class reaches through a tap; -1 where that
        is outside the plane, or the tap is of another phase.
    tap_phase : numpy.ndarray of int64, shape (taps,)
    """

    stride: int
    tile: int
    pixel_class: Counts
    output_bits: Counts
    tap_phase: Counts


class Array(NamedTuple):
    """The PEs.

    Parameters
    ----------
    pe_h, pe_w : int
    act_vector, weight_vector : int
    bank : numpy.ndarray of int64, shape (8, 4, 4)
        Bank of filter k (modulo 8) and output (w, h) (modulo 4).
    chunk : int
        Filters of a chunk.
    conflicts : bool
        Whether products wait for their bank.
    """

    pe_h: int
    pe_w: int
    act_vector: int
    weight_vector: int
    bank: Counts
    chunk: int
    conflicts: bool


@jit
def larger(a: np.uint64, b: np.uint64) -> np.uint64:
    """Take the larger of each pair of bytes, below 128: vectors of 8 make 64 products at most."""
    wins = ((a | HIGH) - b) & HIGH
    mask = (wins - (wins >> np.uint64(7))) | wins
    return (a & mask) | (b & ~mask)


@jit
def sum_of_bytes(word: np.uint64) -> int:
    """Add up eight bytes."""
    pairs = (word & LOW_HALVES) + ((word >> np.uint64(8)) & LOW_HALVES)
    return int((pairs * HALVES) >> np.uint64(48))


@jit
def is_met(axis: Axis, phase: int) -> bool:
    """Tell whether a tap is of a phase."""
    met = False
    for tap in axis.tap_phase:
        met |= tap == phase
    return met


@jit
def queue_pixels(image: Bits, a: int, b: int, rows: Axis, columns: Axis, array: Array):  # type: ignore[no-untyped-def]
    """Queue the classes of phase (a, b)'s non-zero pixels, PE by PE, x outer, y inner.

    ``image[n, x, y]`` is one channel. Returns the queue, and where each (sample, PE)'s part of it
    begins.
    """
    samples, height, width = image.shape
    classes = columns.output_bits.shape[0]
    queue = np.empty(image.size + 1, np.int64)
    starts = np.zeros(samples * array.pe_h * array.pe_w + 1, np.int64)
    length = part = 0
    for n in range(samples):
        for e in range(array.pe_h * array.pe_w):
            top, left = e // array.pe_w * rows.tile, e % array.pe_w * columns.tile
            first_x = top + (a - top) % rows.stride
            first_y = left + (b - left) % columns.stride
            for x in range(first_x, min(top + rows.tile, height), rows.stride):
                of_row = rows.pixel_class[x] * classes
                for y in range(first_y, min(left + columns.tile, width), columns.stride):
                    # written in any case, kept if it is not zero: a branch would be guessed wrong
                    queue[length] = of_row + columns.pixel_class[y]
                    length += int(image[n, x, y])
            part += 1
            starts[part] = length
    return queue[:length], starts


@jit
def queue_weights(kernel: Bits, a: int, b: int, rows: Axis, columns: Axis):  # type: ignore[no-untyped-def]
    """Queue one channel's and chunk's non-zero weights of phase (a, b): (r, s, k), k innermost.

    ``kernel[k, r, s]``; returns rows of (r, s, k).
    """
    filters, taps_r, taps_s = kernel.shape
    queue = np.empty((kernel.size, 3), np.int64)
    length = 0
    for r in range(taps_r):
        for s in range(taps_s):
            if rows.tap_phase[r] == a and columns.tap_phase[s] == b:
                for k in range(filters):
                    if kernel[k, r, s]:
                        queue[length, 0] = r
                        queue[length, 1] = s
                        queue[length, 2] = k
                        length += 1
    return queue[:length]


@jit
def lay_out(
    counters: Words,
    weights: Counts,
    first_k: int,
    rows: Axis,
    columns: Axis,
    array: Array,
    words: int,
) -> None:
    """Lay out the counters ``[p, b, j]`` of up to 8 * words weight blocks, in a buffer."""
    of_rows, of_columns = rows.output_bits, columns.output_bits
    width = BANKS * words
    for i in range(of_rows.shape[0] * of_columns.shape[0] * width):
        counters[i] = 0
    for i in range(weights.shape[0] if array.conflicts else 0):
        r, s, k = weights[i, 0], weights[i, 1], (first_k + weights[i, 2]) % 8
        block = i // array.weight_vector
        one = np.uint64(1) << np.uint64(8 * (block % BLOCKS))
        word = block // BLOCKS
        for x in range(of_rows.shape[0]):
            w = of_rows[x, r]
            if w >= 0:
                for y in range(of_columns.shape[0]):
                    h = of_columns[y, s]
                    if h >= 0:
                        at = array.bank[k, w, h] * words + word
                        counters[(x * of_columns.shape[0] + y) * width + at] += one


@jit
def find_patterns(queue: Counts, starts: Counts, classes: int, vector: int):  # type: ignore[no-untyped-def]
    """Cut each part of a queue into blocks of at most `vector` pixels, and find those that repeat.

    The cost of a block depends on which classes are in it, not on their order, and a few thousand
    combinations make up the blocks of all PEs and samples: each is costed once. Where there are
    more classes than a key has room for (a kernel above some 120 x 120), none is looked for.
    Returns the pattern of every block, where each part's blocks begin, and the patterns, padded
    with -1.
    """
    blocks = 0
    for part in range(starts.size - 1):
        blocks += -((starts[part] - starts[part + 1]) // vector)
    found = np.empty(blocks, np.int64)
    begins = np.zeros(starts.size, np.int64)
    patterns = np.empty((blocks, vector), np.int64)
    patterns.fill(-1)
    size = 16
    while size < 2 * blocks:
        size *= 2
    assert blocks < 2**31, "the queue alone would take 16 GiB"
    slots = np.empty(size, np.int32)  # open addressing: slot -> pattern
    slots.fill(-1)
    keys = np.empty((blocks, 2), np.uint64)
    sorted_block = np.empty(vector, np.int64)
    block = known = 0
    for part in range(starts.size - 1):
        for first in range(starts[part], starts[part + 1], vector):
            length = min(vector, starts[part + 1] - first)
            if classes < MAX_CLASSES:
                low, high = key_of(queue[first : first + length], classes, sorted_block)
            else:
                low, high = np.uint64(block), np.uint64(0)
            slot = np.int64((low ^ high) * MIXER >> np.uint64(32)) & (size - 1)
            while slots[slot] >= 0 and (
                keys[slots[slot], 0] != low or keys[slots[slot], 1] != high
            ):
                slot = (slot + 1) & (size - 1)
            if slots[slot] < 0:
                slots[slot] = known
                keys[known, 0], keys[known, 1] = low, high
                for i in range(length):
                    patterns[known, i] = queue[first + i]
                known += 1
            found[block] = slots[slot]
            block += 1
        begins[part + 1] = block
    return found, begins, patterns[:known]


@jit
def key_of(block: Counts, classes: int, scratch: Counts):  # type: ignore[no-untyped-def]
    """Pack a block of at most 8 classes below 2**16 - 1 into two words, whatever their order.

    Up to 16 classes: how often each comes up, 4 bits each. More: sorted, 16 bits each.
    """
    low = high = np.uint64(0)
    if classes <= 16:
        for i in range(block.size):
            low += np.uint64(1) << np.uint64(4 * block[i])
        return low, high
    for i in range(block.size):
        j = i
        while j > 0 and scratch[j - 1] > block[i]:
            scratch[j] = scratch[j - 1]
            j -= 1
        scratch[j] = block[i]
    for i in range(block.size):
        word = np.uint64(scratch[i] + 1) << np.uint64(16 * (i % 4))
        if i < 4:
            low |= word
        else:
            high |= word
    return low, high


@jit
def cost_of_pattern(pattern: Counts, counters: Words, floor: Words, total: Words) -> int:
    """Cost of one block of pixels against the weight blocks that are laid out.

    Equivalent: the sum, over the weight blocks, of max(1, largest counter of a bank), where the
    counters are added up over the pixels. `floor` holds a 1 for every weight block; `total` is
    scratch.
    """
    width = BANKS * floor.size
    first = pattern[0] * width
    for i in range(width):
        total[i] = counters[first + i]
    for pixel in range(1, pattern.size):
        if pattern[pixel] >= 0:
            first = pattern[pixel] * width
            for i in range(width):
                total[i] += counters[first + i]
    while width > floor.size:  # halve the banks until one is left: words of a bank lie together
        width //= 2
        for i in range(width):
            total[i] = larger(total[i], total[i + width])
    cost = 0
    for i in range(width):
        cost += sum_of_bytes(larger(total[i], floor[i]))
    return cost


@jit
def cost_patterns(
    counters: Words,
    patterns: Counts,
    weights: Counts,
    first_k: int,
    rows: Axis,
    columns: Axis,
    array: Array,
) -> Counts:
    """Cost of each pattern of pixels against a queue of weights; `counters` is a buffer."""
    costs = np.zeros(patterns.shape[0], np.int64)
    at_once = MAX_WORDS * BLOCKS * array.weight_vector
    total = np.empty(BANKS * MAX_WORDS, np.uint64)
    for begin in range(0, weights.shape[0], at_once):
        some = weights[begin : begin + at_once]
        blocks = -(-some.shape[0] // array.weight_vector)
        floor = np.zeros(-(-blocks // BLOCKS), np.uint64)
        for block in range(blocks):
            floor[block // BLOCKS] |= np.uint64(1) << np.uint64(8 * (block % BLOCKS))
        lay_out(counters, some, first_k, rows, columns, array, floor.size)
        for i in range(patterns.shape[0]):
            costs[i] += cost_of_pattern(patterns[i], counters, floor, total)
    return costs


@jit
def convolve(data: Bits, weight: Bits, first_k: int, rows: Axis, columns: Axis, array: Array):  # type: ignore[no-untyped-def]
    """Run one group's convolution: ``data[c, n, x, y]`` (padded), ``weight[c, k, r, s]``.

    `first_k` is the index of the group's first filter in the layer. A step is one channel of one
    chunk of filters of one sample.
    """
    samples, pes = data.shape[1], array.pe_h * array.pe_w
    chunks = -(-weight.shape[1] // array.chunk)
    classes = rows.output_bits.shape[0] * columns.output_bits.shape[0]
    costs = np.empty((chunks, samples * pes), np.int64)
    counters = np.empty(classes * BANKS * MAX_WORDS, np.uint64)
    cycles = cost = pairs = products = words_a = words_b = 0
    for c in range(data.shape[0]):
        costs.fill(0)
        for a in range(rows.stride):
            for b in range(columns.stride):
                if not (is_met(rows, a) and is_met(columns, b)):
                    continue  # by no tap: a 1 x 1 kernel of stride 2 meets a quarter of the pixels
                pixels, starts = queue_pixels(data[c], a, b, rows, columns, array)
                found, begins, patterns = find_patterns(pixels, starts, classes, array.act_vector)
                for chunk in range(chunks):
                    first = chunk * array.chunk
                    kernel = weight[c, first : first + array.chunk]
                    weights = queue_weights(kernel, a, b, rows, columns)
                    if weights.shape[0]:
                        of = cost_patterns(
                            counters, patterns, weights, first_k + first, rows, columns, array
                        )
                        for part in range(samples * pes):
                            for i in range(begins[part], begins[part + 1]):
                                costs[chunk, part] += of[found[i]]
                        products += pixels.size * weights.shape[0]
                        words_a += found.size * weights.shape[0]
                        words_b += pixels.size
                        pairs += found.size * -(-weights.shape[0] // array.weight_vector)
        for chunk in range(chunks):
            for n in range(samples):
                slowest = 0
                for e in range(n * pes, (n + 1) * pes):
                    slowest = max(slowest, costs[chunk, e])
                    cost += costs[chunk, e]
                cycles += slowest
    used = -(-data.shape[2] // rows.tile) * -(-data.shape[3] // columns.tile)
    return Work(cycles, cost, pairs, products, cycles * used, words_a, words_b)
