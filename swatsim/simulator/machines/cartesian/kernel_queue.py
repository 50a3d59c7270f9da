"""Queues of products before the banks of a PE, and pairs of blocks that are issued into them.

How many products each queue holds is a byte, eight to a word: in bytes one subtraction retires from
all of them. Queues that are deeper than a byte's half have a word each.

A pair's products are bytes in any case, one for each bank.
"""

from __future__ import annotations

import numpy as np

from swatsim.jit import inner
from swatsim.simulator.machines.cartesian.kernel_banks import BANKS, HIGH, larger
from swatsim.simulator.machines.cartesian.kernel_patterns import Counts, Words

#: Deeper queues are not counted in bytes: a queue holds at most this, or the 64 products of a pair.
DEEPEST_BYTE = 127
#: Banks that share a word of bytes.
TO_A_WORD = 8
#: Words of a pair's products.
WORDS = BANKS // TO_A_WORD

LOW = np.uint64(0x0101010101010101)
MOST = np.uint64(0x7F7F7F7F7F7F7F7F)
SEVEN = np.uint64(7)
NONE = np.uint64(0)


def words_of_queues(depth: int, banks: int) -> int:
    """Return how many words hold the lengths of as many queues of a depth."""
    return -(-banks // TO_A_WORD) if depth <= DEEPEST_BYTE else banks


@inner
def room_of(depth: int) -> np.uint64:
    """Return what makes a byte reach 128 together with more than `depth`."""
    return np.uint64(DEEPEST_BYTE - depth) * LOW


@inner
def retire(queues: np.uint64) -> np.uint64:
    """Take one out of each of eight queues that is not empty."""
    return queues - (((queues + MOST) & HIGH) >> SEVEN)


@inner
def full(queues: np.uint64, products: np.uint64, room: np.uint64) -> np.uint64:
    """Return a word whose bytes reach 128 where products have to wait; other bits mean nothing.

    They wait if there are any, some are queued, and both together are more than fit. No sum carries
    over: a queue holds at most the larger of its depth and 64, and there are at most 64 products.
    """
    return (queues + products + room) & (queues + MOST) & (products + MOST)


@inner
def issue(products: Words, queues: Words, depth: int, each: Counts | None) -> int:
    """Issue pairs of blocks, WORDS words of products each, and return the cycles that they take.

    Equivalent, cycle by cycle: each queue retires a product; the pair is issued if none of its
    products has to wait. ``each[pair]`` is filled with a pair's cycles; None: nobody asks.
    """
    if depth > DEEPEST_BYTE:
        return issue_deep(products, queues, depth, each)
    cycles = 0
    q0, q1, q2, q3 = queues[0], queues[1], queues[2], queues[3]
    room = room_of(depth)
    for at in range(0, products.size, WORDS):
        p0, p1, p2, p3 = products[at], products[at + 1], products[at + 2], products[at + 3]
        begin, waits = cycles, HIGH
        while waits:
            cycles += 1
            q0, q1, q2, q3 = retire(q0), retire(q1), retire(q2), retire(q3)
            one = full(q0, p0, room) | full(q1, p1, room)
            waits = (one | full(q2, p2, room) | full(q3, p3, room)) & HIGH
        q0 += p0
        q1 += p1
        q2 += p2
        q3 += p3
        if each is not None:
            each[at // WORDS] = cycles - begin
    queues[0], queues[1], queues[2], queues[3] = q0, q1, q2, q3
    return cycles


@inner
def issue_deep(products: Words, queues: Words, depth: int, each: Counts | None) -> int:
    """Issue as `issue` does, into queues of a word each."""
    cycles, words = 0, queues.size // TO_A_WORD
    for at in range(0, products.size, words):
        begin, waits = cycles, True
        while waits:
            cycles += 1
            waits = False
            for bank in range(queues.size):
                held, own = int(queues[bank]), products_of(products, at, bank)
                held -= min(held, 1)
                queues[bank] = held
                waits |= own > 0 and held > 0 and held + own > depth
        for bank in range(queues.size):
            queues[bank] = int(queues[bank]) + products_of(products, at, bank)
        if each is not None:
            each[at // words] = cycles - begin
    return cycles


@inner
def products_of(products: Words, at: int, bank: int) -> int:
    """Return what the pair whose words begin at `at` makes for one bank."""
    word = products[at + bank // TO_A_WORD] >> np.uint64(8 * (bank % TO_A_WORD))
    return int(word & np.uint64(255))


@inner
def rest(queues: Words, depth: int, cycles: int) -> None:
    """Retire for some cycles in which nothing is issued."""
    for i in range(queues.size):
        if depth > DEEPEST_BYTE:
            queues[i] = int(queues[i]) - min(int(queues[i]), cycles)
        else:
            left = (queues[i] | HIGH) - np.uint64(min(cycles, DEEPEST_BYTE)) * LOW
            some = left & HIGH
            queues[i] = left & (some - (some >> SEVEN))


@inner
def longest(queues: Words, depth: int) -> int:
    """Return how many products the longest queue holds."""
    most = 0
    if depth > DEEPEST_BYTE:
        for i in range(queues.size):
            most = max(most, int(queues[i]))
        return most
    word = NONE
    for i in range(queues.size):
        word = larger(word, queues[i])
    for i in range(TO_A_WORD):
        most = max(most, int((word >> np.uint64(8 * i)) & np.uint64(255)))
    return most
