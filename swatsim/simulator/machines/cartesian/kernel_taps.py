"""Blocks of weights that are all of one tap: what they cost is looked up.

Through one tap a product's bank depends on the *kinds* of its two values alone: of a weight the
filter modulo 8, of a pixel the last bits of the output that the tap leads it to, as far as the hash
tells them apart. So a block of at most 4 values is one of some hundred patterns of kinds, and what
two of them cost is looked up. Weights come tap by tap: only where one ends and the next begins does
a block hold weights of both, and its products are counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.jit import inner
from swatsim.simulator.machines.cartesian.kernel_banks import Array, Axis, cost_patterns
from swatsim.simulator.machines.cartesian.kernel_patterns import Bytes, Counts, Words

Kinds = npt.NDArray[np.int8]


class Blocks(NamedTuple):
    """Blocks of at most `vector` values as patterns.

    Parameters
    ----------
    base, vector : int
    pattern : numpy.ndarray of int64, shape (base ** vector,)
        The pattern of a block's kinds as digits; 0 is no value.
    members : numpy.ndarray of int64, shape (patterns, vector)
        A block of each pattern.
    """

    base: int
    vector: int
    pattern: Counts
    members: Counts


class Taps(NamedTuple):
    """What is looked up; a table without a row: nothing is.

    Parameters
    ----------
    kinds : numpy.ndarray of int8, shape (R, S, classes + 1)
        The kind that a pixel of each class has through each tap, counted from 1; the last one, that
        of class -1, is 0.
    pixels, weights : Blocks
    table : numpy.ndarray of uint8, shape (patterns of weights, patterns of pixels)
        What a block of weights costs with a block of pixels.
    """

    kinds: Kinds
    pixels: Blocks
    weights: Blocks
    table: Bytes


@inner
def pattern_at(queue: Counts, first: int, blocks: Blocks) -> int:
    """Return the pattern of the block that begins at a place of a queue."""
    digits = 0
    for i in range(first, first + blocks.vector):
        digits = digits * blocks.base + queue[i]
    return int(blocks.pattern[digits])


@inner
def pattern_of_weights(weights: Counts, first_k: int, blocks: Blocks) -> int:
    """Return the pattern of a block of weights of one tap."""
    digits = 0
    for i in range(weights.shape[0]):
        digits = digits * blocks.base + (first_k + weights[i, 2]) % 8 + 1
    return int(blocks.pattern[digits])


@inner
def look_through(patterns: Counts, kinds: Kinds, blocks: Blocks, found: Counts) -> None:
    """Find the pattern of kinds that each pattern of classes has through one tap."""
    for i in range(patterns.shape[0]):
        digits = 0
        for j in range(patterns.shape[1]):
            digits = digits * blocks.base + kinds[patterns[i, j]]
        found[i] = blocks.pattern[digits]


@inner
def look_up(  # type: ignore[no-untyped-def]
    patterns: Counts, weights: Counts, first_k: int, taps: Taps, costs: Counts
):
    """Add what the blocks of weights of one tap cost each pattern; return the other weights.

    These are whole blocks, but for the last one. A tap's only block is left among them: to look
    through a tap takes as long as to count a block.
    """
    rest, found = np.empty(weights.shape, np.int64), np.empty(patterns.shape[0], np.int64)
    length, vector = weights.shape[0], taps.weights.vector
    left = first = 0
    through_r = through_s = -1
    while first < length:
        end, r, s = min(first + vector, length), weights[first, 0], weights[first, 1]
        known = r == through_r and s == through_s
        last = (end if known else min(first + 2 * vector, length)) - 1
        if weights[last, 0] == r and weights[last, 1] == s:
            if not known:
                look_through(patterns, taps.kinds[r, s], taps.pixels, found)
                through_r, through_s = r, s
            row = taps.table[pattern_of_weights(weights[first:end], first_k, taps.weights)]
            for i in range(found.size):
                costs[i] += row[found[i]]
        else:
            for i in range(first, end):
                for j in range(3):
                    rest[left, j] = weights[i, j]
                left += 1
        first = end
    return rest[:left]


@inner
def cost_of_weights(
    counters: Words,
    patterns: Counts,
    weights: Counts,
    first_k: int,
    rows: Axis,
    columns: Axis,
    array: Array,
    taps: Taps,
) -> Counts:
    """Return the cost of each pattern of pixels with a queue of weights; `counters` is a buffer."""
    costs, rest = np.zeros(patterns.shape[0], np.int64), weights
    if taps.table.size:
        rest = look_up(patterns, weights, first_k, taps, costs)
    if rest.shape[0] and patterns.shape[0]:
        none = np.empty((0, 0), np.uint8)
        more = cost_patterns(counters, patterns, rest, first_k, rows, columns, array, none)
        for i in range(more.size):
            costs[i] += more[i]
    return costs
