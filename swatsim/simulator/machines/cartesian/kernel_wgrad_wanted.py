"""Outer products over channels where some weight gradients are wanted by nobody.

Which products are valid depends on the channels themselves, no longer on their patterns. So what
each pair of channels of a PE feeds into the banks is laid out once for a tap, zeros where nobody
wants their sum; a pair of blocks adds up its channels' part of that. Where a block is short it
names a channel more than the PE has, and adds zeros.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from swatsim.jit import inner, jit
from swatsim.simulator.machines.cartesian.kernel import Work
from swatsim.simulator.machines.cartesian.kernel_banks import larger
from swatsim.simulator.machines.cartesian.kernel_log import fullest_bank, note_step
from swatsim.simulator.machines.cartesian.kernel_patterns import Bits, Counts, Words
from swatsim.simulator.machines.cartesian.kernel_queue import DEEPEST_BYTE, longest
from swatsim.simulator.machines.cartesian.kernel_wanted import fullest
from swatsim.simulator.machines.cartesian.kernel_wgrad import (
    Held,
    Outer,
    OuterLog,
    note_products,
)
from swatsim.simulator.machines.cartesian.kernel_wgrad_queued import (
    BANKS_USED,
    WORDS_USED,
    count_places,
    find_places,
    issue_row,
)

NONE, ONE = np.uint64(0), np.uint64(1)


class Sums(NamedTuple):
    """Which weight gradients of one group somebody wants, and how channels meet in PEs.

    Parameters
    ----------
    wanted : numpy.ndarray of bool, shape (R * S, C, K)
    block_c, block_k : int
        Channels of a PE.
    act, grad : numpy.ndarray of uint64, shape (blocks, vector)
        Of each block of activations and of gradients, where in `Room.laid` its channels' part is.
    feeds : numpy.ndarray of uint64, shape (4, 8, WORDS_USED)
        What channels c and k, modulo 4 and 8, feed into the banks in use.
    depth : int
        Products that wait before a bank; 0: there are no queues.
    alike : bool
        Whether all positions hold the same, and nothing carries over from one to the next.
    """

    wanted: Bits
    block_c: int
    block_k: int
    act: Words
    grad: Words
    feeds: Words
    depth: int
    alike: bool


class Room(NamedTuple):
    """Room for one PE.

    Parameters
    ----------
    laid : numpy.ndarray of uint64, shape ((block_c + 1) * (block_k + 1) * WORDS_USED,)
        What each pair of channels feeds into the banks.
    made : numpy.ndarray of uint64, shape (1, blocks, WORDS_USED)
        The same of a block of activations and each block of gradients.
    order : numpy.ndarray of int64, shape (blocks,)
        0, 1, 2, ..
    queues : numpy.ndarray of uint64
    """

    laid: Words
    made: Words
    order: Counts
    queues: Words


@inner
def room_for(sums: Sums) -> Room:
    """Return room for a PE."""
    queues = np.zeros(BANKS_USED if sums.depth > DEEPEST_BYTE else WORDS_USED, np.uint64)
    laid = np.zeros((sums.block_c + 1) * (sums.block_k + 1) * WORDS_USED, np.uint64)
    made, order = (
        np.empty((1, sums.block_k, WORDS_USED), np.uint64),
        np.empty(sums.block_k, np.int64),
    )
    for i in range(order.size):
        order[i] = i
    return Room(laid, made, order, queues)


@inner
def lay_out(wanted: Bits, first_c: int, first_k: int, sums: Sums, room: Room) -> bool:
    """Lay out what channels of a PE feed into the banks at a tap; return whether any is wanted."""
    some = False
    for c in range(first_c, min(first_c + sums.block_c, wanted.shape[0])):
        at = (c - first_c) * (sums.block_k + 1) * WORDS_USED
        for k in range(first_k, min(first_k + sums.block_k, wanted.shape[1])):
            some |= wanted[c, k]
            for word in range(WORDS_USED):
                room.laid[at] = sums.feeds[c % 4, k % 8, word] * np.uint64(wanted[c, k])
                at += 1
    return some


@inner
def make(act: int, begin: int, end: int, sums: Sums, room: Room) -> None:
    """Add up what a block of activations feeds into the banks with some blocks of gradients.

    Indices without a sign need no look at whether they count from the end.
    """
    acts, grads, laid, made = sums.act, sums.grad, room.laid, room.made
    for n in range(end - begin):
        one = other = np.uint64(0)
        for i in range(acts.shape[1]):
            row = acts[act, i]
            for j in range(grads.shape[1]):
                at = row + grads[begin + n, j]
                one += laid[at]
                other += laid[at + ONE]
        made[0, n, 0], made[0, n, 1] = one, other


@inner
def wait_places(
    places: Counts,
    act: Outer,
    grad: Outer,
    at: tuple[int, int, int, int],
    sums: Sums,
    laid: Words,
) -> int:
    """Let what a PE has at some ``(position, pixel)`` wait for banks; return the cycles of all.

    `at` are its block of input channels, how many there are, and the same of out-channels.
    Equivalent: `make`, and the fullest bank, for each block of activations; here are no calls.
    """
    block_c, blocks_c, block_k, blocks_k = at
    act_starts, grad_starts, acts, grads = act.starts, grad.starts, sums.act, sums.grad
    height, width = np.uint64(acts.shape[1]), np.uint64(grads.shape[1])
    cycles = 0
    for place in range(places.shape[0]):
        a = np.uint64(places[place, 1] * blocks_c + block_c)
        g = np.uint64(places[place, 0] * blocks_k + block_k)
        begin, end = np.uint64(grad_starts[g]), np.uint64(grad_starts[g + ONE])
        for m in range(np.uint64(act_starts[a]), np.uint64(act_starts[a + ONE])):
            for n in range(begin, end):
                one = other = np.uint64(0)
                for j in range(NONE, width):
                    column = grads[n, j]
                    for i in range(NONE, height):
                        one += laid[acts[m, i] + column]
                        other += laid[acts[m, i] + column + ONE]
                word = larger(one, other)
                word = larger(word, word >> np.uint64(32))
                word = larger(word, word >> np.uint64(16))
                word = larger(word, word >> np.uint64(8)) & np.uint64(255)
                cycles += max(1, int(np.int64(word)))
    return cycles


@inner
def issue_places(
    places: Counts,
    act: Outer,
    grad: Outer,
    at: tuple[int, int, int, int],
    sums: Sums,
    room: Room,
) -> int:
    """Issue what `wait_places` makes wait into queues; return the cycles of all."""
    block_c, blocks_c, block_k, blocks_k = at
    cycles = 0
    for i in range(places.shape[0]):
        a, g = places[i, 1] * blocks_c + block_c, places[i, 0] * blocks_k + block_k
        begin, end = grad.starts[g], grad.starts[g + 1]
        for m in range(act.starts[a], act.starts[a + 1]):
            make(m, begin, end, sums, room)
            run = room.order, 0, end - begin, room.queues, sums.depth
            cycles += issue_row(room.made, 0, *run)
    return cycles


@inner
def spend(
    places: Counts,
    act: Outer,
    grad: Outer,
    at: tuple[int, int, int, int],
    sums: Sums,
    room: Room,
) -> int:
    """Return the cycles of what a PE has at some places."""
    if sums.depth:
        return issue_places(places, act, grad, at, sums, room)
    if sums.alike:
        one = wait_places(places[:1], act, grad, at, sums, room.laid)
        return one * int(places.shape[0])
    return wait_places(places, act, grad, at, sums, room.laid)


@inner
def note_wanted(
    given: OuterLog,
    pe: tuple[int, int],
    begin: int,
    cost: int,
    of: tuple[int, int, int, int],
    wanted: Bits,
) -> None:
    """Write down a pair of blocks, as `kernel_wgrad.note_products`: no bank where nobody wants it.

    `wanted` are the sums of the tap.
    """
    log, before = given.log, given.log.size[1]
    note_products(given, pe[0], pe[1], begin, cost, of)
    if log.size[1] == before:
        return
    for i in range(given.act.shape[1]):
        for j in range(given.grad.shape[1]):
            c, k = given.act[of[2], i], given.grad[of[3], j]
            if c >= 0 and k >= 0 and not wanted[c, k]:
                log.banks[before, i, j] = -1
    log.fullest[before] = fullest_bank(log.banks[before])


@inner
def note_places(
    given: OuterLog,
    pe: tuple[int, int],
    places: Counts,
    act: Outer,
    grad: Outer,
    at: tuple[int, int, int, int],
    sums: Sums,
    room: Room,
    wanted: Bits,
) -> None:
    """Write down the pairs that a PE has at some places, from queues as it finds them."""
    block_c, blocks_c, block_k, blocks_k = at
    begin = 0
    for i in range(places.shape[0]):
        a, g = places[i, 1] * blocks_c + block_c, places[i, 0] * blocks_k + block_k
        first, blocks = grad.starts[g], grad.starts[g + 1] - grad.starts[g]
        for m in range(act.starts[a], act.starts[a + 1]):
            make(m, first, first + blocks, sums, room)
            for n in range(blocks):
                if sums.depth:
                    run = room.order, n, n + 1, room.queues, sums.depth
                    spent = issue_row(room.made, 0, *run)
                else:
                    held = fullest(larger(room.made[0, n, 0], room.made[0, n, 1]))
                    spent = max(1, int(np.int64(held)))
                where = places[i, 1], places[i, 0], m, first + n
                note_wanted(given, pe, begin, spent, where, wanted)
                begin += spent


@inner
def copy(words: Words, into: Words) -> None:
    """Copy some words: slices would compile for seconds, of messages."""
    for i in range(words.size):
        into[i] = words[i]


@inner
def close(spent: Counts, turn: int, cost: Counts, mapped: Counts) -> int:
    """Let PEs wait for the slowest, and return its cycles.

    Those of each PE are added to `cost`, and with what it waits to `mapped`. `turn` is 0 for a
    step, and 1 for its drain, before which who has waited has retired.
    """
    cycles = 0
    for pe in range(spent.shape[1]):
        cycles = max(cycles, spent[0, pe])
    if turn:
        slowest, cycles = cycles, 0
        for pe in range(spent.shape[1]):
            if spent[1, pe] > 0:
                spent[1, pe] = max(spent[1, pe] - (slowest - spent[0, pe]), 0)
                cycles = max(cycles, spent[1, pe])
    for pe in range(spent.shape[1]):
        if spent[turn, pe] >= 0:
            cost[pe] += spent[turn, pe]
            mapped[pe] += cycles
    return cycles


@jit
def outer_product_wanted(
    act: Outer,
    grad: Outer,
    met: Counts,
    blocks_c: int,
    blocks_k: int,
    sums: Sums,
    pe_h: int,
    pe_w: int,
    held: Held,
    log: OuterLog | None = None,
) -> Work:
    """Run one group's and one sample's wgrad, as `outer_product` or, with queues, the other one.

    PEs without a wanted sum own nothing in a step. With queues a log has a step and its drain.
    """
    cycles = pairs = products = words_a = words_b = 0
    cost, mapped = np.zeros(pe_h * pe_w, np.int64), np.zeros(pe_h * pe_w, np.int64)
    # of the step and its drain what each PE takes; -1: it owns nothing
    spent, room = np.empty((2, pe_h * pe_w), np.int64), room_for(sums)
    found = np.empty((met.shape[1], 2), np.int64)
    for tap in range(met.shape[0]):
        wanted = sums.wanted[tap]
        for first_c in range(0, blocks_c, pe_h):
            for first_k in range(0, blocks_k, pe_w):
                spent.fill(-1)
                for i in range(min(pe_h, blocks_c - first_c)):
                    for j in range(min(pe_w, blocks_k - first_k)):
                        c, k = first_c + i, first_k + j
                        if not lay_out(wanted, c * sums.block_c, k * sums.block_k, sums, room):
                            continue
                        at, pe = (c, blocks_c, k, blocks_k), i * pe_w + j
                        places = found[: find_places(met[tap], act, c, blocks_c, found, False)]
                        waiting = held.queues[tap, c, k]
                        copy(waiting, room.queues)
                        if log is not None:
                            run = places, act, grad, at, sums, room, wanted
                            note_places(log, (i, j), *run)
                            copy(waiting, room.queues)
                        held.spent[tap, c, k] += spend(places, act, grad, at, sums, room)
                        copy(room.queues, waiting)
                        spent[0, pe] = held.spent[tap, c, k]
                        spent[1, pe] = longest(room.queues, sums.depth) if sums.depth else 0
                        counted = count_places(places, act, grad, at)
                        pairs += counted[0]
                        products += counted[1]
                        words_a += counted[2]
                        words_b += counted[3]
                for turn in range((2 if sums.depth else 1) if held.last else 0):
                    taken = close(spent, turn, cost, mapped)
                    cycles += taken
                    if log is not None:
                        own = spent[turn, log.log.row * pe_w + log.log.column]
                        note_step(log.log, taken, own)
    of_pes = cost.reshape(pe_h, pe_w), mapped.reshape(pe_h, pe_w)
    return Work(cycles, of_pes[0], pairs, products, of_pes[1], words_a, words_b)
