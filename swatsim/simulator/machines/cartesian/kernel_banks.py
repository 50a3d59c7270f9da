"""How the products of pixels and weights fall into banks, and what blocks of them cost."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from swatsim.jit import inner
from swatsim.simulator.machines.cartesian.kernel_patterns import Bits, Bytes, Counts, Words

#: The bank hash addresses no more.
BANKS = 32
#: Weight blocks that share a word of byte counters.
BLOCKS = 8
#: Words that are laid out at once: more would not stay in the cache.
MAX_WORDS = 8
#: Classes of pixels whose counters are laid out at once (32 MiB); kernels up to 60 x 60 have fewer.
MOST_CLASSES = 2**14

HIGH = np.uint64(0x8080808080808080)
LOW_HALVES = np.uint64(0x00FF00FF00FF00FF)
HALVES = np.uint64(0x0001000100010001)


class Axis(NamedTuple):
    """How the pixels of one axis meet the taps.

    Parameters
    ----------
    stride : int
        Pixels and taps meet if they are of the same phase: coordinates modulo the stride.
    tile : int
        Pixels of a PE.
    dilation : int
    pixel_class : numpy.ndarray of int64, shape (X,)
        Pixels of a class meet the same taps, and lead to outputs with the same last two bits.
    place : numpy.ndarray of int64, shape (classes,)
        Where in `output_bits` is what a pixel of each class reaches through the first tap.
    output_bits : numpy.ndarray of int64, shape (X + (taps - 1) * dilation,)
        Last two bits of an output; -1 where that is outside the plane, or the tap is of another
        phase. Of each tap it is `dilation` before that of the tap before: see `through`.
    tap_phase : numpy.ndarray of int64, shape (taps,)
    """

    stride: int
    tile: int
    dilation: int
    pixel_class: Counts
    place: Counts
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
    queue : int
        Products that wait before a bank; 0: there are no queues.
    at_once : int
        PEs, those of each sample for themselves, whose pixels are queued at a time.
    owns : numpy.ndarray of bool, shape (pe_h, pe_w)
        Whether a PE owns a pixel.
    """

    pe_h: int
    pe_w: int
    act_vector: int
    weight_vector: int
    bank: Counts
    chunk: int
    conflicts: bool
    queue: int
    at_once: int
    owns: Bits


@inner
def through(axis: Axis, at: int, tap: int) -> int:
    """Return where in `output_bits` is what a pixel of class `at` reaches through a tap."""
    return int(axis.place[at] - tap * axis.dilation)


@inner
def larger(a: np.uint64, b: np.uint64) -> np.uint64:
    """Return the larger of each pair of bytes, below 128: vectors of 8 make 64 products at most."""
    wins = ((a | HIGH) - b) & HIGH
    mask = (wins - (wins >> np.uint64(7))) | wins
    return (a & mask) | (b & ~mask)


@inner
def sum_of_bytes(word: np.uint64) -> int:
    """Return the sum of eight bytes."""
    pairs = (word & LOW_HALVES) + ((word >> np.uint64(8)) & LOW_HALVES)
    return int((pairs * HALVES) >> np.uint64(48))


@inner
def bank_of(k: int, w: int, h: int, array: Array) -> int:
    """Return the bank of filter k (modulo 8), output (w, h) (modulo 4); -1: outside the plane."""
    return int(array.bank[k, w, h]) if w >= 0 and h >= 0 else -1


@inner
def classes_of(patterns: Counts, classes: int) -> Counts:
    """Return the classes that come up in some patterns."""
    seen = np.zeros(classes, np.int64)
    for pattern in range(patterns.shape[0]):
        for pixel in range(patterns.shape[1]):
            if patterns[pattern, pixel] >= 0:
                seen[patterns[pattern, pixel]] = 1
    used = np.empty(classes, np.int64)
    length = 0
    for at in range(classes):
        used[length] = at
        length += seen[at]
    return used[:length]


@inner
def lay_out(
    counters: Words,
    weights: Counts,
    first_k: int,
    rows: Axis,
    columns: Axis,
    array: Array,
    words: int,
    used: Counts,
) -> None:
    """Lay out the counters ``[p, b, j]`` of up to 8 * words weight blocks, in a buffer.

    Those of the classes in `used`, one after another.
    """
    width = BANKS * words
    for i in range(used.size * width):
        counters[i] = 0
    places = np.empty((8, used.size), np.int64)  # of filters modulo 8, in each class that is met
    filters = met = 0
    for i in range(weights.shape[0]):
        filters = max(filters, weights[i, 2] + 1)
    for i in range(weights.shape[0] if array.conflicts else 0):
        r, s, k = weights[i, 0], weights[i, 1], (first_k + weights[i, 2]) % 8
        if i == 0 or r != weights[i - 1, 0] or s != weights[i - 1, 1]:  # they come tap by tap
            met = 0
            for at in range(used.size):
                x, y = used[at] // columns.place.size, used[at] % columns.place.size
                w = rows.output_bits[through(rows, x, r)]
                h = columns.output_bits[through(columns, y, s)]
                if w >= 0 and h >= 0:
                    for one in range(min(8, filters)):
                        other = (first_k + one) % 8
                        bank = bank_of(other, w, h, array)
                        places[other, met] = at * width + bank * words
                    met += 1
        block = i // array.weight_vector
        bit = np.uint64(1) << np.uint64(8 * (block % BLOCKS))
        word = block // BLOCKS
        for at in places[k, :met]:
            counters[at + word] += bit


@inner
def cost_of_pattern(
    pattern: Counts, place: Counts, counters: Words, floor: Words, total: Words
) -> int:
    """Return the cost of one block of pixels against the weight blocks that are laid out.

    ``place[p]`` says where among these the counters of a class lie.

    Equivalent: the sum, over the weight blocks, of max(1, largest counter of a bank), where the
    counters are added up over the pixels. `floor` holds a 1 for every weight block. Byte after
    byte, ``total[:floor.size]`` then holds each weight block's part of the sum.
    """
    width = BANKS * floor.size
    first = place[pattern[0]] * width
    own = counters[first : first + width]  # places of a slice are seen not to be negative
    for i in range(width):
        total[i] = own[i]
    for pixel in range(1, pattern.size):
        if pattern[pixel] >= 0:
            first = place[pattern[pixel]] * width
            own = counters[first : first + width]
            for i in range(width):
                total[i] += own[i]
    while width > floor.size:  # halve the banks until one is left: words of a bank lie together
        width //= 2
        other = total[width : 2 * width]
        for i in range(width):
            total[i] = larger(total[i], other[i])
    cost = 0
    for i in range(width):
        total[i] = larger(total[i], floor[i])
        cost += sum_of_bytes(total[i])
    return cost


@inner
def cost_patterns(
    counters: Words,
    patterns: Counts,
    weights: Counts,
    first_k: int,
    rows: Axis,
    columns: Axis,
    array: Array,
    each: Bytes,
) -> Counts:
    """Return the cost of each pattern of pixels against a queue of weights; `counters` is a buffer.

    ``each[pattern, block]`` is filled with what each block of weights adds to it, if it is not
    empty: no type of its own, so that this is compiled once.
    """
    costs = np.zeros(patterns.shape[0], np.int64)
    at_once = MAX_WORDS * BLOCKS * array.weight_vector
    total = np.empty(BANKS * MAX_WORDS, np.uint64)
    classes = rows.place.size * columns.place.size
    place = np.empty(classes, np.int64)
    together = patterns.shape[0]
    if classes > MOST_CLASSES:
        together = MOST_CLASSES // patterns.shape[1]
    for first in range(0, patterns.shape[0], max(1, together)):
        own = patterns[first : first + together]
        used = classes_of(own, classes)
        for i in range(used.size):
            place[used[i]] = i
        for begin in range(0, weights.shape[0], at_once):
            some = weights[begin : begin + at_once]
            blocks = -(-some.shape[0] // array.weight_vector)
            floor = np.zeros(-(-blocks // BLOCKS), np.uint64)
            for block in range(blocks):
                floor[block // BLOCKS] |= np.uint64(1) << np.uint64(8 * (block % BLOCKS))
            lay_out(counters, some, first_k, rows, columns, array, floor.size, used)
            for i in range(own.shape[0]):
                costs[first + i] += cost_of_pattern(own[i], place, counters, floor, total)
                for block in range(blocks if each.size else 0):
                    byte = total[block // BLOCKS] >> np.uint64(8 * (block % BLOCKS))
                    at = begin // array.weight_vector + block
                    each[first + i, at] = byte & np.uint64(255)
    return costs
