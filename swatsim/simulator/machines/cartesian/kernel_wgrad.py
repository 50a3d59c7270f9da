"""Outer products over channels: wgrad, on a mapping that is ours.

The cost of a block of activations with one of gradients depends on their *patterns* alone: how many
of a block's indices are equal modulo 4 (activations, c) or 8 (gradients, k). So it is looked up in
a table of all pairs of patterns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.jit import inner, jit
from swatsim.simulator.machines.cartesian.kernel import Work
from swatsim.simulator.machines.cartesian.kernel_banks import BANKS
from swatsim.simulator.machines.cartesian.kernel_log import (
    Log,
    Places,
    fullest_bank,
    note_pair,
    note_step,
)
from swatsim.simulator.machines.cartesian.kernel_patterns import Bits, Counts, Words

#: Of blocks: as many as vectors of 8 can have.
Patterns = npt.NDArray[np.int16]


@inner
def bank_of(c: int, k: int, bank: Counts) -> int:
    """Return the bank of an input channel's product with an out-channel's: that of (k, c, 0)."""
    return int(bank[k % 8, c % 4, 0])


@jit
def cost_table(act_counts: Counts, grad_counts: Counts, bank: Counts) -> Counts:
    """Return the cost of every block of activations with every block of gradients, as patterns.

    A pattern says how many of a block's indices are equal modulo 4 (activations, c) or 8
    (gradients, k): a bank depends on nothing else. All products are valid.
    """
    table = np.ones((act_counts.shape[0], grad_counts.shape[0]), np.int64)
    for a in range(act_counts.shape[0]):
        for g in range(grad_counts.shape[0]):
            hits = np.zeros(BANKS, np.int64)
            for c in range(4):
                for k in range(8):
                    hits[bank_of(c, k, bank)] += act_counts[a, c] * grad_counts[g, k]
            for count in hits:
                table[a, g] = max(table[a, g], count)
    return table


@jit
def queue_blocks(  # type: ignore[no-untyped-def]
    values: Bits, size: int, vector: int, grown: Counts, members: Places | None = None
):
    """Cut the non-zero channels of every position into blocks, PE block by PE block.

    ``values[position, channel]``; a PE holds `size` channels; ``grown[pattern, i]`` is the pattern
    with one index i (modulo) more. Returns the patterns, where those of each (position, PE block)
    begin, and the number of non-zeros of each. ``members[block]`` is filled with its channels.
    """
    positions, channels = values.shape
    parts = -(-channels // size)
    # there is one for each position and PE: small types
    patterns = np.empty(values.size, np.int16)
    starts = np.zeros(positions * parts + 1, np.int32)
    nonzero = np.zeros(positions * parts, np.int16)
    length = part = 0
    for position in range(positions):
        for begin in range(0, channels, size):
            pattern = 0
            for channel in range(begin, min(begin + size, channels)):
                if values[position, channel]:
                    if members is not None:
                        members[length, nonzero[part] % vector] = channel
                    pattern = grown[pattern, channel % grown.shape[1]]
                    nonzero[part] += 1
                    if nonzero[part] % vector == 0:
                        patterns[length] = pattern
                        length += 1
                        pattern = 0
            if pattern:
                patterns[length] = pattern
                length += 1
            part += 1
            starts[part] = length
    return patterns[:length], starts, nonzero


class Outer(NamedTuple):
    """One operand of an outer product, as `queue_blocks` returns it."""

    patterns: Patterns
    starts: npt.NDArray[np.int32]
    nonzero: npt.NDArray[np.int16]


class OuterLog(NamedTuple):
    """A log, and what queues of patterns don't say.

    Parameters
    ----------
    log : Log
    act, grad : numpy.ndarray of int32, shape (blocks, vector)
        Channels of each block of activations and of gradients, -1 where it is short.
    bank : numpy.ndarray of int64, shape (8, 4, 4)
        As in `Array`.
    """

    log: Log
    act: Places
    grad: Places
    bank: Counts


class Held(NamedTuple):
    """What PEs took of the steps of some taps so far: their positions may come in several bands.

    Parameters
    ----------
    spent : numpy.ndarray of int64, shape (taps, blocks_c, blocks_k)
        Cycles.
    queues : numpy.ndarray of uint64, shape (taps, blocks_c, blocks_k, words)
        What waits before the banks.
    last : bool
        Whether no band comes after this one.
    """

    spent: Counts
    queues: Words
    last: bool


@inner
def note_products(
    given: OuterLog, row: int, column: int, begin: int, cost: int, of: tuple[int, int, int, int]
) -> None:
    """Write down a PE's pair of blocks: which values it multiplies, and the banks of the products.

    `of` are the input pixel, the output position, and the blocks of activations and of gradients.
    """
    log, (pixel, position, act, grad) = given.log, of
    if row != log.row or column != log.column:
        return
    at = note_pair(log, log.size[0], begin, cost)
    if at < 0:
        return
    for i in range(given.act.shape[1]):
        for j in range(given.grad.shape[1]):
            c, k = given.act[act, i], given.grad[grad, j]
            if c >= 0 and k >= 0:
                log.pixels[at, i, 0], log.pixels[at, i, 1] = pixel, c
                log.weights[at, j, 0], log.weights[at, j, 1] = position, k
                log.banks[at, i, j] = bank_of(c, k, given.bank)
    log.fullest[at] = fullest_bank(log.banks[at])


@jit
def is_constant(queued: Outer, blocks: int) -> bool:
    """Whether every position has the patterns of the first: dense gradients have."""
    for part in range(queued.nonzero.size):
        first = part % blocks
        length = queued.starts[part + 1] - queued.starts[part]
        if length != queued.starts[first + 1] - queued.starts[first]:
            return False
        for i in range(length):
            here = queued.patterns[queued.starts[part] + i]
            if here != queued.patterns[queued.starts[first] + i]:
                return False
    return True


@inner
def count_patterns(act: Outer, pixels: Counts, blocks_c: int, counts: Counts, nonzero: Counts):  # type: ignore[no-untyped-def]
    """Return the patterns ``counts[i, pattern]``, and non-zeros, that a tap meets in each block."""
    counts.fill(0)
    nonzero.fill(0)
    for position in range(pixels.size):
        if pixels[position] >= 0:
            for i in range(blocks_c):
                a = pixels[position] * blocks_c + i
                nonzero[i] += act.nonzero[a]
                for m in range(act.starts[a], act.starts[a + 1]):
                    counts[i, act.patterns[m]] += 1


@inner
def end_step(
    spent: Counts, first_c: int, first_k: int, rows: int, columns: int, cost: Counts, mapped: Counts
) -> int:
    """Let the PEs of a round wait for the slowest, and return its cycles."""
    slowest = int(np.int64(0))  # no literal: Numba would compile `add_to_corner` for it too
    for i in range(rows):
        for j in range(columns):
            own = spent[first_c + i, first_k + j]
            slowest = max(slowest, own)
            cost[i, j] += own
    add_to_corner(mapped, rows, columns, slowest)
    return slowest


@inner
def add_to_corner(table: Counts, rows: int, columns: int, value: int) -> None:
    """Add a value to the first rows and columns: slices would compile for seconds, of messages."""
    for i in range(rows):
        for j in range(columns):
            table[i, j] += value


@jit
def outer_product_constant(
    act: Outer,
    grad: Outer,
    met: Counts,
    blocks_c: int,
    blocks_k: int,
    table: Counts,
    pe_h: int,
    pe_w: int,
    held: Held,
) -> Work:
    """Run `outer_product` for gradients that are the same at every position.

    A PE's cost is then linear in how often each pattern of activations comes up.
    """
    cost = np.zeros((min(pe_h, blocks_c), min(pe_w, blocks_k)), np.int64)
    cycles, mapped = 0, np.zeros(cost.shape, np.int64)
    pairs = products = words_a = words_b = 0
    against = np.zeros((blocks_k, table.shape[0]), np.int64)
    for j in range(blocks_k):
        for g in range(grad.starts[j], grad.starts[j + 1]):
            for a in range(table.shape[0]):
                against[j, a] += table[a, grad.patterns[g]]
    counts = np.empty((blocks_c, table.shape[0]), np.int64)
    nonzero = np.empty(blocks_c, np.int64)
    for tap in range(met.shape[0]):
        count_patterns(act, met[tap], blocks_c, counts, nonzero)
        for first_c in range(0, blocks_c, pe_h):
            for first_k in range(0, blocks_k, pe_w):
                rows = min(pe_h, blocks_c - first_c)
                columns = min(pe_w, blocks_k - first_k)
                for i in range(first_c, first_c + rows):
                    blocks = 0
                    for a in range(table.shape[0]):
                        blocks += counts[i, a]
                    for j in range(first_k, first_k + columns):
                        own = 0
                        for a in range(table.shape[0]):
                            own += counts[i, a] * against[j, a]
                        held.spent[tap, i, j] += own
                        pairs += blocks * (grad.starts[j + 1] - grad.starts[j])
                        products += nonzero[i] * grad.nonzero[j]
                        words_a += nonzero[i] if grad.nonzero[j] else 0
                        words_b += blocks * grad.nonzero[j]
                if held.last:
                    at = first_c, first_k, rows, columns
                    cycles += end_step(held.spent[tap], *at, cost, mapped)
    return Work(cycles, cost, pairs, products, mapped, words_a, words_b)


@jit
def outer_product(
    act: Outer,
    grad: Outer,
    met: Counts,
    blocks_c: int,
    blocks_k: int,
    table: Counts,
    pe_h: int,
    pe_w: int,
    held: Held,
    log: OuterLog | None = None,
) -> Work:
    """Run one group's and one sample's wgrad. SCNN has no mapping of it; this one is ours.

    ``met[tap, position]`` is the input pixel under a tap at an output position, or -1. PE (i, j)
    holds input-channel block i and out-channel block j of a round. A step is one tap and one round;
    PEs wait for each other after it, that is after its last band of positions.
    """
    pairs = products = words_a = words_b = 0
    cost = np.zeros((min(pe_h, blocks_c), min(pe_w, blocks_k)), np.int64)
    cycles, mapped = 0, np.zeros(cost.shape, np.int64)
    for tap in range(met.shape[0]):
        spent = held.spent[tap]
        for first_c in range(0, blocks_c, pe_h):
            for first_k in range(0, blocks_k, pe_w):
                rows = min(pe_h, blocks_c - first_c)
                columns = min(pe_w, blocks_k - first_k)
                for position in range(met.shape[1]):
                    if met[tap, position] < 0:
                        continue
                    for i in range(rows):
                        a = met[tap, position] * blocks_c + first_c + i
                        for j in range(columns):
                            g = position * blocks_k + first_k + j
                            for m in range(act.starts[a], act.starts[a + 1]):
                                for n in range(grad.starts[g], grad.starts[g + 1]):
                                    of = table[act.patterns[m], grad.patterns[n]]
                                    if log is not None:
                                        where = met[tap, position], position, m, n
                                        begin = spent[first_c + i, first_k + j]
                                        note_products(log, i, j, begin, of, where)
                                    spent[first_c + i, first_k + j] += of
                            blocks = act.starts[a + 1] - act.starts[a]
                            pairs += blocks * (grad.starts[g + 1] - grad.starts[g])
                            products += act.nonzero[a] * grad.nonzero[g]
                            words_a += act.nonzero[a] if grad.nonzero[g] else 0
                            words_b += blocks * grad.nonzero[g]
                if not held.last:
                    continue
                slowest = end_step(spent, first_c, first_k, rows, columns, cost, mapped)
                cycles += slowest
                if log is not None:
                    owns = log.log.row < rows and log.log.column < columns
                    at = first_c + log.log.row, first_k + log.log.column
                    own = spent[at[0], at[1]] if owns else -1
                    note_step(log.log, slowest, own)
    return Work(cycles, cost, pairs, products, mapped, words_a, words_b)
