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

With a log, the costs of one PE's pairs of blocks are taken out of the same bytes. Without one its
type is none, and Numba leaves that out when it compiles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from swatsim.jit import inner, jit
from swatsim.simulator.machines.cartesian.kernel_banks import (
    BANKS,
    MAX_WORDS,
    MOST_CLASSES,
    Array,
    Axis,
    bank_of,
    cost_patterns,
    through,
)
from swatsim.simulator.machines.cartesian.kernel_log import (
    Log,
    fullest_bank,
    note_pair,
    note_step,
)
from swatsim.simulator.machines.cartesian.kernel_patterns import (
    Bits,
    Counts,
    Words,
    find_patterns,
)
from swatsim.simulator.machines.cartesian.kernel_taps import Taps, cost_of_weights


class Work(NamedTuple):
    """What a number of steps take; a step is what PEs do before they wait for each other.

    Parameters
    ----------
    cycles : int
        Sum over the steps of the slowest PE's cost.
    cost : numpy.ndarray of int64, shape (rows, columns)
        Sum over the steps of each PE's cost: of the first rows and columns, where others own
        nothing.
    pairs : int
        Pairs of blocks.
    products : int
        Products, valid or not.
    mapped : numpy.ndarray of int64, shape (rows, columns)
        Sum over the steps that each PE has a part in of the slowest one's cost.
    words_a, words_b : int
        Values taken of the first and of the second operand.
    """

    cycles: int
    cost: Counts
    pairs: int
    products: int
    mapped: Counts
    words_a: int
    words_b: int


class PixelLog(NamedTuple):
    """A log, and what a queue of classes doesn't say.

    Parameters
    ----------
    log : Log
    places : numpy.ndarray of int64, shape (X * Y + 1, 2)
        The queued pixels' (x, y): a buffer.
    """

    log: Log
    places: Counts


@inner
def is_met(axis: Axis, phase: int) -> bool:
    """Whether a tap is of a phase."""
    met = False
    for tap in axis.tap_phase:
        met |= tap == phase
    return met


@inner
def firsts(axis: Axis, phase: int, pes: int) -> Counts:
    """Return the first pixel of a phase that each PE along an axis owns, or one beyond its own."""
    found = np.empty(pes, np.int64)
    for i in range(pes):
        found[i] = i * axis.tile + (phase - i * axis.tile) % axis.stride
    return found


@inner
def queue_pixels(  # type: ignore[no-untyped-def]
    image: Bits,
    a: int,
    b: int,
    rows: Axis,
    columns: Axis,
    array: Array,
    parts: tuple[int, int],
    log: PixelLog | None,
):
    """Queue the classes of phase (a, b)'s non-zero pixels, PE by PE, x outer, y inner.

    ``image[n, x, y]`` is one channel; `parts` are the first (sample, PE), and where to end. Returns
    the queue, and where each one's part of it begins.
    """
    (_, height, width), pes = image.shape, array.pe_h * array.pe_w
    classes, (first, end) = columns.place.size, parts
    queue = np.empty(min(image.size, (end - first) * rows.tile * columns.tile) + 1, np.int64)
    starts = np.zeros(end - first + 1, np.int64)
    tops, lefts = firsts(rows, a, array.pe_h), firsts(columns, b, array.pe_w)
    n, i, j = first // pes, first % pes // array.pe_w, first % array.pe_w
    length = 0
    for part in range(end - first):  # no division for each: a part may be of one pixel
        x, right = tops[i], min((j + 1) * columns.tile, width)
        while x < min((i + 1) * rows.tile, height):
            y, of_row = lefts[j], rows.pixel_class[x] * classes
            while y < right:
                # written in any case, kept if it is not zero: a branch would be guessed wrong
                queue[length] = of_row + columns.pixel_class[y]
                if log is not None:
                    log.places[length, 0], log.places[length, 1] = x, y
                length += int(image[n, x, y])
                y += columns.stride
            x += rows.stride
        starts[part + 1] = length
        j += 1
        if j == array.pe_w:
            i, j = i + 1, 0
        if i == array.pe_h:
            n, i = n + 1, 0
    return queue[:length], starts


@inner
def cut(parts: int, first: int, array: Array) -> tuple[int, int]:
    """Return the parts from a first one on that are queued at a time, as `queue_pixels` asks."""
    return first, min(first + array.at_once, parts)


@inner
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
                for k in range(filters):  # written in any case, as pixels are
                    queue[length, 0], queue[length, 1], queue[length, 2] = r, s, k
                    length += int(kernel[k, r, s])
    return queue[:length]


@inner
def pe_of(log: Log, array: Array) -> int:
    """Return the logged PE's number among those that own pixels; -1: it is none of them."""
    owns = log.row < array.pe_h and log.column < array.pe_w
    owns = owns and array.owns[log.row, log.column]
    return log.row * array.pe_w + log.column if owns else -1


@inner
def note_pairs(
    given: PixelLog,
    at_step: tuple[int, int, Counts],
    queued: tuple[Counts, Counts],
    blocks: tuple[Counts, Counts, Counts],
    filters: tuple[Counts, int],
    plane: tuple[Axis, Axis, Array],
    counters: Words,
) -> None:
    """Write down how the logged PE's blocks of pixels meet the blocks of a queue of weights.

    Block after block of pixels, each against all of the weights. `at_step` is the step, the first
    PE whose pixels are queued, and the cycles of the step that each has spent before; `filters` are
    the weights, and the index of the first filter in the layer.
    """
    (step, first_pe, costs), (weights, first_k), (rows, columns, array) = at_step, filters, plane
    (classes, starts), (pattern_of, begins, patterns), log = queued, blocks, given.log
    pe = pe_of(log, array) - first_pe
    if pe < 0 or pe >= costs.size:
        return
    own = np.empty((begins[pe + 1] - begins[pe], patterns.shape[1]), np.int64)
    for i in range(own.shape[0]):
        for p in range(own.shape[1]):
            own[i, p] = patterns[pattern_of[begins[pe] + i], p]
    each = np.empty((own.shape[0], -(-weights.shape[0] // array.weight_vector)), np.uint8)
    cost_patterns(counters, own, weights, first_k, rows, columns, array, each)
    begin = costs[pe]
    for i in range(each.shape[0]):
        first = starts[pe] + i * array.act_vector
        end = min(first + array.act_vector, starts[pe + 1])
        for j in range(each.shape[1]):
            cost = int(each[i, j])
            at = note_pair(log, step, begin, cost)
            begin += cost
            if at >= 0:
                some = weights[j * array.weight_vector : (j + 1) * array.weight_vector]
                note_products(
                    given, at, first, classes[first:end], some, first_k, rows, columns, array
                )


@inner
def note_products(
    given: PixelLog,
    at: int,
    first: int,
    classes: Counts,
    weights: Counts,
    first_k: int,
    rows: Axis,
    columns: Axis,
    array: Array,
) -> None:
    """Write down what a pair of blocks multiplies, and the banks of the products.

    The pixels are those from place `first` of their queue on.
    """
    log, width = given.log, columns.place.size
    for i in range(classes.size):
        x, y = classes[i] // width, classes[i] % width
        for letter in range(2):
            log.pixels[at, i, letter] = given.places[first + i, letter]
        for j in range(weights.shape[0]):
            r, s, k = weights[j, 0], weights[j, 1], weights[j, 2]
            log.weights[at, j, 0], log.weights[at, j, 1], log.weights[at, j, 2] = r, s, k
            w = rows.output_bits[through(rows, x, r)]
            h = columns.output_bits[through(columns, y, s)]
            log.banks[at, i, j] = bank_of((first_k + k) % 8, w, h, array)
    log.fullest[at] = fullest_bank(log.banks[at])


@inner
def add_costs(costs: Counts, of: Counts, pattern_of: Counts, begins: Counts) -> None:
    """Add to each PE's cycles those of its blocks, by their patterns."""
    for part in range(costs.size):
        for i in range(begins[part], begins[part + 1]):
            costs[part] += of[pattern_of[i]]


@inner
def of_owners(cycles: int, array: Array) -> Counts:
    """Return the cycles of steps that all PEs with pixels have a part in: (pe_h, pe_w)."""
    mapped = np.zeros((array.pe_h, array.pe_w), np.int64)
    for i in range(array.pe_h):
        for j in range(array.pe_w):
            mapped[i, j] = cycles if array.owns[i, j] else 0
    return mapped


@inner
def end_steps(costs: Counts, array: Array, cost: Counts, log: PixelLog | None) -> int:
    """Let the PEs of each chunk and sample wait for the slowest; return the cycles of all.

    ``costs[chunk, part]`` is added to each PE's ``cost[e]``.
    """
    cycles, pes = 0, cost.size
    for chunk in range(costs.shape[0]):
        for first in range(0, costs.shape[1], pes):
            slowest = 0
            for e in range(pes):
                slowest = max(slowest, costs[chunk, first + e])
                cost[e] += costs[chunk, first + e]
            cycles += slowest
            if log is not None:
                own = pe_of(log.log, array)
                note_step(log.log, slowest, costs[chunk, own] if own >= 0 else -1)
    return cycles


@jit
def convolve(
    data: Bits,
    weight: Bits,
    first_k: int,
    rows: Axis,
    columns: Axis,
    array: Array,
    taps: Taps,
    log: PixelLog | None = None,
) -> Work:
    """Run one group's convolution: ``data[c, n, x, y]`` (padded), ``weight[c, k, r, s]``.

    `first_k` is the index of the group's first filter in the layer. A step is one channel of one
    chunk of filters of one sample; a log holds a channel's chunks one after another, and is of one
    sample.
    """
    pes, chunks = array.pe_h * array.pe_w, -(-weight.shape[1] // array.chunk)
    parts = data.shape[1] * pes
    classes = rows.place.size * columns.place.size
    costs, cost = np.empty((chunks, parts), np.int64), np.zeros(pes, np.int64)
    counters = np.empty(min(classes, MOST_CLASSES) * BANKS * MAX_WORDS, np.uint64)
    plane = rows, columns, array
    pairs = products = words_a = words_b = 0
    cycles = int(np.int64(0))  # no literal: Numba would compile `of_owners` for it too
    for c in range(data.shape[0]):
        costs.fill(0)
        for a in range(rows.stride):
            for b in range(columns.stride):
                if not (is_met(rows, a) and is_met(columns, b)):
                    continue  # by no tap: a 1 x 1 kernel of stride 2 meets a quarter of the pixels
                for part in range(0, parts, array.at_once):
                    some = begin, end = cut(parts, part, array)
                    queued = pixels, starts = queue_pixels(
                        data[c], a, b, rows, columns, array, some, log
                    )
                    blocks = find_patterns(pixels, starts, classes, array.act_vector)
                    pattern_of, begins, patterns = blocks
                    for chunk in range(chunks):
                        first, own = chunk * array.chunk, costs[chunk, begin:end]
                        kernel = weight[c, first : first + array.chunk]
                        weights = queue_weights(kernel, a, b, rows, columns)
                        if weights.shape[0]:
                            k = first_k + first
                            of = cost_of_weights(
                                counters, patterns, weights, k, rows, columns, array, taps
                            )
                            if log is not None:
                                at = c * chunks + chunk, begin, own
                                note_pairs(log, at, queued, blocks, (weights, k), plane, counters)
                            add_costs(own, of, pattern_of, begins)
                            products += pixels.size * weights.shape[0]
                            words_a += pattern_of.size * weights.shape[0]
                            words_b += pixels.size
                            pairs += pattern_of.size * -(-weights.shape[0] // array.weight_vector)
        cycles += end_steps(costs, array, cost, log)
    of_pes = cost.reshape(array.pe_h, array.pe_w)
    return Work(cycles, of_pes, pairs, products, of_owners(cycles, array), words_a, words_b)
