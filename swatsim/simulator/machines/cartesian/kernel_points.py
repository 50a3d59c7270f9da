"""Cartesian products of 1 x 1 kernels: fprop and dgrad where what a product meets is no matter.

With one tap a product's bank depends on the *kinds* of its two values alone: of a weight the filter
modulo 8, of a pixel the last bits of its output, as far as the hash tells them apart. So a block of
at most 4 values is one of some hundred patterns of kinds, and what two of them cost is looked up.
The loops are those of `kernel.convolve`, and count the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.jit import inner, jit
from swatsim.simulator.machines.cartesian.kernel import Work, of_owners
from swatsim.simulator.machines.cartesian.kernel_banks import BANKS, Array
from swatsim.simulator.machines.cartesian.kernel_patterns import Bits, Bytes, Counts
from swatsim.simulator.machines.cartesian.kernel_taps import Blocks, pattern_at


class Points(NamedTuple):
    """The pixels that meet the tap, PE by PE, in the order in which each takes them.

    Parameters
    ----------
    places : numpy.ndarray of int64, shape (pixels,)
        Where in the plane a pixel is.
    kinds : numpy.ndarray of int64, shape (pixels,)
        Counted from 1.
    starts : numpy.ndarray of int64, shape (PEs + 1,)
        Where each PE's pixels begin.
    """

    places: Counts
    kinds: Counts
    starts: Counts


@jit
def cost_of_patterns(weights: Counts, pixels: Counts, bank: Counts) -> Bytes:
    """Return the cost of each block of weights with each block of pixels, by their members.

    ``bank[weight kind - 1, pixel kind - 1]`` is -1 outside the plane.
    """
    table = np.ones((weights.shape[0], pixels.shape[0]), np.uint8)
    hits = np.zeros(BANKS, np.int64)
    for w in range(weights.shape[0]):
        for p in range(pixels.shape[0]):
            hits[:] = 0
            most = 1
            for k in weights[w]:
                for kind in pixels[p]:
                    at = bank[k - 1, kind - 1] if k > 0 and kind > 0 else -1
                    if at >= 0:
                        hits[at] += 1
                        most = max(most, hits[at])
            table[w, p] = most
    return table


@inner
def queue_points(
    data: npt.NDArray[np.bool_],
    points: Points,
    of_pixels: Blocks,
    queue: Counts,
    known: Counts,
    used: Counts,
    block_of: Counts,
    begins: Counts,
) -> tuple[int, int, int]:
    """Queue a channel's pixels, ``data[n, place]``; return how many, their blocks, and patterns.

    Filled in: the patterns in use, of each block which of them it has, and where each PE's begin.
    """
    samples, pes, vector = data.shape[0], points.starts.size - 1, of_pixels.vector
    pixels = blocks = patterns = 0
    for n in range(samples):
        for e in range(pes):
            length = 0
            for i in range(points.starts[e], points.starts[e + 1]):
                queue[length] = points.kinds[i]  # kept if it is not zero: see `queue_pixels`
                length += int(data[n, points.places[i]])
            queue[length : length + vector] = 0
            for first in range(0, length, vector):
                pattern = pattern_at(queue, first, of_pixels)
                if known[pattern] < 0:
                    known[pattern], used[patterns] = patterns, pattern
                    patterns += 1
                block_of[blocks] = known[pattern]
                blocks += 1
            pixels += length
            begins[n * pes + e + 1] = blocks
    for pattern in used[:patterns]:
        known[pattern] = -1
    return pixels, blocks, patterns


@jit
def convolve_points(
    data: npt.NDArray[np.bool_],
    weight: Bits,
    first_k: int,
    points: Points,
    of_pixels: Blocks,
    of_weights: Blocks,
    table: Bytes,
    array: Array,
) -> Work:
    """Run one group's convolution: ``data[c, n, place]``, ``weight[c, k]``."""
    (channels, samples, _), filters, pes = data.shape, weight.shape[1], points.starts.size - 1
    vector, along = of_pixels.vector, of_weights.vector
    queue = np.zeros(max(points.places.size, min(filters, array.chunk)) + 8, np.int64)
    known = np.full(of_pixels.members.shape[0], -1, np.int64)
    used, sums = np.empty(known.size, np.int64), np.empty(known.size, np.int64)
    block_of = np.empty(samples * (points.places.size // vector + pes), np.int64)
    begins = np.zeros(samples * pes + 1, np.int64)
    cost = np.zeros(pes, np.int64)
    cycles = pairs = products = words_a = words_b = 0
    for c in range(channels):
        own = queue, known, used, block_of, begins
        pixels, blocks, patterns = queue_points(data[c], points, of_pixels, *own)
        for chunk in range(0, filters, array.chunk):
            length = 0
            for k in range(chunk, min(chunk + array.chunk, filters)):
                queue[length] = (first_k + k) % 8 + 1
                length += int(weight[c, k])
            queue[length : length + along] = 0
            sums[:patterns] = 0
            for first in range(0, length, along):
                row = table[pattern_at(queue, first, of_weights)]
                for i in range(patterns):
                    sums[i] += row[used[i]]
            for n in range(samples):
                slowest = 0
                for e in range(pes):
                    mine = 0
                    for i in range(begins[n * pes + e], begins[n * pes + e + 1]):
                        mine += sums[block_of[i]]
                    slowest = max(slowest, mine)
                    cost[e] += mine
                cycles += slowest
            if length:
                products += pixels * length
                words_a += blocks * length
                words_b += pixels
                pairs += blocks * -(-length // along)
    of_pes = cost.reshape(array.pe_h, array.pe_w)
    return Work(cycles, of_pes, pairs, products, of_owners(cycles, array), words_a, words_b)
