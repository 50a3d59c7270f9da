"""Outer products over channels with queues before the banks: pair of blocks by pair of blocks.

A product's bank is that of (k, c, 0): of the banks that there are, 16 at most. Only those have a
queue here, two words of bytes.
"""

from __future__ import annotations

import numpy as np

from swatsim.jit import inner, jit
from swatsim.simulator.machines.cartesian.kernel import Work
from swatsim.simulator.machines.cartesian.kernel_banks import HIGH
from swatsim.simulator.machines.cartesian.kernel_log import note_step
from swatsim.simulator.machines.cartesian.kernel_patterns import Counts, Words
from swatsim.simulator.machines.cartesian.kernel_queue import (
    DEEPEST_BYTE,
    TO_A_WORD,
    full,
    issue_deep,
    longest,
    retire,
    room_of,
)
from swatsim.simulator.machines.cartesian.kernel_wgrad import (
    Held,
    Outer,
    OuterLog,
    Patterns,
    bank_of,
    is_constant,
    note_products,
)

ONE = np.uint64(1)

#: Banks that the products of (k, c, 0) fall into, at most.
BANKS_USED = 16
#: Words of a pair's products.
WORDS_USED = BANKS_USED // TO_A_WORD


@jit
def product_table(act_counts: Counts, grad_counts: Counts, bank: Counts, number: Counts) -> Words:
    """Return what each pair of block patterns feeds into the banks: ``[act, grad, word]``.

    ``number[bank]`` is a bank's place among those in use.
    """
    size = act_counts.shape[0], grad_counts.shape[0], WORDS_USED
    table = np.zeros(size, np.uint64)
    for c in range(4):
        for k in range(8):
            at = number[bank_of(c, k, bank)]
            word, shift = at // TO_A_WORD, np.uint64(8 * (at % TO_A_WORD))
            for a in range(act_counts.shape[0]):
                for g in range(grad_counts.shape[0]):
                    made = act_counts[a, c] * grad_counts[g, k]
                    table[a, g, word] += np.uint64(made) << shift
    return table


@inner
def issue_row(
    table: Words,
    act: int,
    patterns: Counts | Patterns,
    begin: int,
    end: int,
    queues: Words,
    depth: int,
) -> int:
    """Issue a block of activations with gradients' blocks `begin` to `end`; return the cycles.

    `act` is the activations' pattern; as `kernel_queue.issue`.
    """
    cycles = 0
    if depth > DEEPEST_BYTE:
        for at in range(begin, end):
            cycles += issue_deep(table[act, patterns[at]], queues, depth, None)
        return cycles
    q0, q1, room = queues[0], queues[1], room_of(depth)
    for at in range(begin, end):
        p0, p1 = table[act, patterns[at], 0], table[act, patterns[at], 1]
        waits = HIGH
        while waits:
            cycles += 1
            q0, q1 = retire(q0), retire(q1)
            waits = (full(q0, p0, room) | full(q1, p1, room)) & HIGH
        q0 += p0
        q1 += p1
    queues[0], queues[1] = q0, q1
    return cycles


@inner
def issue_places(
    places: Counts,
    act: Outer,
    grad: Outer,
    at: tuple[int, int, int, int],
    table: Words,
    queues: Words,
    depth: int,
) -> int:
    """Issue what a PE has at some ``(position, pixel)``, one after another; return the cycles.

    `at` are its block of input channels, how many there are, and the same of out-channels.
    Equivalent: `issue_row` for each block of activations, but that the queues stay in registers.
    """
    block_c, blocks_c, block_k, blocks_k = at
    acts, act_starts, grads, grad_starts = act.patterns, act.starts, grad.patterns, grad.starts
    cycles, q0, q1, room = 0, queues[0], queues[1], room_of(depth)
    for i in range(places.shape[0]):
        a = np.uint64(places[i, 1] * blocks_c + block_c)
        g = np.uint64(places[i, 0] * blocks_k + block_k)
        begin, end = np.uint64(grad_starts[g]), np.uint64(grad_starts[g + ONE])
        for m in range(np.uint64(act_starts[a]), np.uint64(act_starts[a + ONE])):
            pattern = np.uint64(acts[m])
            for n in range(begin, end):
                at_n = np.uint64(grads[n])
                p0, p1 = table[pattern, at_n, 0], table[pattern, at_n, 1]
                waits = HIGH
                while waits:
                    cycles += 1
                    q0, q1 = retire(q0), retire(q1)
                    waits = (full(q0, p0, room) | full(q1, p1, room)) & HIGH
                q0 += p0
                q1 += p1
    queues[0], queues[1] = q0, q1
    return cycles


@inner
def issue_places_deep(
    places: Counts,
    act: Outer,
    grad: Outer,
    at: tuple[int, int, int, int],
    table: Words,
    queues: Words,
    depth: int,
) -> int:
    """Issue as `issue_places` does, into queues of a word each."""
    cycles, (block_c, blocks_c, block_k, blocks_k) = 0, at
    for i in range(places.shape[0]):
        a = places[i, 1] * blocks_c + block_c
        g = places[i, 0] * blocks_k + block_k
        row = grad.starts[g], grad.starts[g + 1], queues, depth
        for m in range(act.starts[a], act.starts[a + 1]):
            cycles += issue_row(table, act.patterns[m], grad.patterns, *row)
    return cycles


@inner
def count_places(places: Counts, act: Outer, grad: Outer, at: tuple[int, int, int, int]):  # type: ignore[no-untyped-def]
    """Return how many pairs `issue_places` issues, of how many products, and words of operands."""
    block_c, blocks_c, block_k, blocks_k = at
    pairs = products = words_a = words_b = 0
    for i in range(places.shape[0]):
        a = places[i, 1] * blocks_c + block_c
        g = places[i, 0] * blocks_k + block_k
        blocks = act.starts[a + 1] - act.starts[a]
        pairs += blocks * (grad.starts[g + 1] - grad.starts[g])
        products += act.nonzero[a] * grad.nonzero[g]
        words_a += act.nonzero[a] if grad.nonzero[g] else 0
        words_b += blocks * grad.nonzero[g]
    return pairs, products, words_a, words_b


@inner
def note_places(
    given: OuterLog,
    pe: tuple[int, int],
    places: Counts,
    act: Outer,
    grad: Outer,
    at: tuple[int, int, int, int],
    table: Words,
    queues: Words,
    depth: int,
) -> None:
    """Write down the pairs that `issue_places` issues, from queues as it finds them."""
    block_c, blocks_c, block_k, blocks_k = at
    cycles = 0
    for i in range(places.shape[0]):
        a = places[i, 1] * blocks_c + block_c
        g = places[i, 0] * blocks_k + block_k
        for m in range(act.starts[a], act.starts[a + 1]):
            for n in range(grad.starts[g], grad.starts[g + 1]):
                pattern = act.patterns[m]
                taken = issue_row(table, pattern, grad.patterns, n, n + 1, queues, depth)
                where = places[i, 1], places[i, 0], m, n
                note_products(given, pe[0], pe[1], cycles, taken, where)
                cycles += taken


@inner
def find_places(
    pixels: Counts, act: Outer, block: int, blocks: int, places: Counts, stays: bool
) -> int:
    """Fill in where a tap meets non-zeros of a block of channels: ``(position, pixel)``.

    Where gradients stay the same at all positions, the first one stands for each: it is in the
    cache. Returns how many there are.
    """
    length = 0
    for position in range(pixels.size):
        pixel = pixels[position]
        if pixel >= 0 and act.nonzero[pixel * blocks + block]:
            places[length, 0], places[length, 1] = 0 if stays else position, pixel
            length += 1
    return length


@jit
def outer_product_queued(
    act: Outer,
    grad: Outer,
    met: Counts,
    blocks_c: int,
    blocks_k: int,
    table: Words,
    depth: int,
    pe_h: int,
    pe_w: int,
    held: Held,
    log: OuterLog | None = None,
) -> Work:
    """Run one group's and one sample's wgrad, as `outer_product`; each step ends with a drain.

    A log has a step and its drain one after the other.
    """
    pairs = products = words_a = words_b = 0
    cost = np.zeros((min(pe_h, blocks_c), min(pe_w, blocks_k)), np.int64)
    cycles, mapped = 0, np.zeros_like(cost)
    costs, left = np.empty((pe_h, pe_w), np.int64), np.empty((pe_h, pe_w), np.int64)
    room, stays = np.empty((met.shape[1], 2), np.int64), log is None and is_constant(grad, blocks_k)
    for tap in range(met.shape[0]):
        for first_c in range(0, blocks_c, pe_h):
            for first_k in range(0, blocks_k, pe_w):
                rows, columns = min(pe_h, blocks_c - first_c), min(pe_w, blocks_k - first_k)
                for i in range(rows):
                    c = first_c + i
                    places = room[: find_places(met[tap], act, c, blocks_c, room, stays)]
                    for j in range(columns):
                        k = first_k + j
                        at, queues = (c, blocks_c, k, blocks_k), held.queues[tap, c, k]
                        if log is not None:
                            found = queues.copy()
                            note_places(log, (i, j), places, act, grad, at, table, found, depth)
                        run = places, act, grad, at, table, queues, depth
                        deep = depth > DEEPEST_BYTE
                        issued = issue_places_deep(*run) if deep else issue_places(*run)
                        held.spent[tap, c, k] += issued
                        costs[i, j] = held.spent[tap, c, k]
                        left[i, j] = longest(queues, depth)
                        counted = count_places(places, act, grad, at)
                        pairs += counted[0]
                        products += counted[1]
                        words_a += counted[2]
                        words_b += counted[3]
                if not held.last:
                    continue
                costs_here, left_here = costs[:rows, :columns], left[:rows, :columns]
                # who waits for the slowest goes on retiring
                left_here[:] = np.maximum(left_here - (costs_here.max() - costs_here), 0)
                for taken in (costs_here, left_here):
                    cycles += taken.max()
                    cost[:rows, :columns] += taken
                    mapped[:rows, :columns] += taken.max()
                    if log is not None:
                        owns = log.log.row < rows and log.log.column < columns
                        share = taken[log.log.row, log.log.column] if owns else -1
                        note_step(log.log, taken.max(), share)
    return Work(cycles, cost, pairs, products, mapped, words_a, words_b)


@jit
def issue_alike(acts: Patterns, grads: Patterns, table: Words, depth: int, ends: Counts):  # type: ignore[no-untyped-def]
    """Issue the same blocks of activations and gradients at each of some positions.

    Returns, after as many positions as each of `ends` says, in rising order: the cycles, and the
    longest queue.
    """
    cycles, left = np.zeros(ends.size, np.int64), np.zeros(ends.size, np.int64)
    queues = np.zeros(BANKS_USED if depth > DEEPEST_BYTE else WORDS_USED, np.uint64)
    spent = at = 0
    for i in range(ends.size):
        while at < ends[i]:
            for a in acts:
                spent += issue_row(table, a, grads, 0, grads.size, queues, depth)
            at += 1
        cycles[i], left[i] = spent, longest(queues, depth)
    return cycles, left
