"""Outer products over channels where some weight gradients are wanted by nobody.

Which products are valid depends on the channels themselves, no longer on their patterns. So what
each pair of channels of a PE feeds into the banks is laid out once for a tap, zeros where nobody
wants their sum; a block of activations adds up its rows of that, once for all blocks of gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from swatsim.jit import jit
from swatsim.simulator.machines.cartesian.kernel import Work
from swatsim.simulator.machines.cartesian.kernel_banks import larger
from swatsim.simulator.machines.cartesian.kernel_log import Places, fullest_bank, note_step
from swatsim.simulator.machines.cartesian.kernel_patterns import Bits, Counts, Words
from swatsim.simulator.machines.cartesian.kernel_queue import DEEPEST_BYTE, longest
from swatsim.simulator.machines.cartesian.kernel_wanted import fullest
from swatsim.simulator.machines.cartesian.kernel_wgrad import Outer, OuterLog, note_products
from swatsim.simulator.machines.cartesian.kernel_wgrad_queued import (
    BANKS_USED,
    WORDS_USED,
    issue_row,
)


class Sums(NamedTuple):
    """Which weight gradients of one group somebody wants, and how channels meet in PEs.

    Parameters
    ----------
    wanted : numpy.ndarray of bool, shape (R * S, C, K)
    block_c, block_k : int
        Channels of a PE.
    act, grad : numpy.ndarray of int32, shape (blocks, vector)
        Channels of each block of activations and of gradients, -1 where it is short.
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
    act: Places
    grad: Places
    feeds: Words
    depth: int
    alike: bool


class Room(NamedTuple):
    """Room for one PE.

    Parameters
    ----------
    laid : numpy.ndarray of uint64, shape (block_c, block_k * WORDS_USED)
        What each pair of channels feeds into the banks.
    row : numpy.ndarray of uint64, shape (block_k * WORDS_USED,)
        The same of a block of activations.
    made : numpy.ndarray of uint64, shape (1, blocks, WORDS_USED)
        The same of it and each block of gradients.
    order : numpy.ndarray of int64, shape (blocks,)
        0, 1, 2, ..
    queues : numpy.ndarray of uint64
    """

    laid: Words
    row: Words
    made: Words
    order: Counts
    queues: Words


@jit
def room_for(sums: Sums) -> Room:
    """Return room for a PE."""
    width = sums.block_k * WORDS_USED
    queues = np.zeros(BANKS_USED if sums.depth > DEEPEST_BYTE else WORDS_USED, np.uint64)
    return Room(
        np.empty((sums.block_c, width), np.uint64),
        np.empty(width, np.uint64),
        np.empty((1, sums.block_k, WORDS_USED), np.uint64),
        np.arange(sums.block_k),
        queues,
    )


@jit
def lay_out(wanted: Bits, first_c: int, first_k: int, sums: Sums, room: Room) -> bool:
    """Lay out what channels of a PE feed into the banks at a tap; return whether any is wanted."""
    some = False
    for c in range(first_c, min(first_c + sums.block_c, wanted.shape[0])):
        for k in range(first_k, min(first_k + sums.block_k, wanted.shape[1])):
            some |= wanted[c, k]
            for word in range(WORDS_USED):
                feeds = sums.feeds[c % 4, k % 8, word] * np.uint64(wanted[c, k])
                room.laid[c - first_c, (k - first_k) * WORDS_USED + word] = feeds
    return some


@jit
def make(act: Places, grads: Places, first_c: int, first_k: int, room: Room) -> None:
    """Add up what a block of activations feeds into the banks with each block of gradients."""
    row, made = room.row, room.made
    row[:] = room.laid[act[0] - first_c]
    for i in range(1, act.size):
        if act[i] >= 0:
            own = room.laid[act[i] - first_c]
            for at in range(row.size):
                row[at] += own[at]
    for n in range(grads.shape[0]):
        one = other = np.uint64(0)
        for k in grads[n]:
            if k >= 0:
                one += row[(k - first_k) * WORDS_USED]
                other += row[(k - first_k) * WORDS_USED + 1]
        made[0, n, 0], made[0, n, 1] = one, other


@jit
def spend(room: Room, begin: int, end: int, depth: int) -> int:
    """Return the cycles of a block of activations with blocks of gradients."""
    made = room.made
    if depth:
        return issue_row(made, 0, room.order, begin, end, room.queues, depth)
    cycles = 0
    for n in range(begin, end):
        cycles += max(1, fullest(larger(made[0, n, 0], made[0, n, 1])))
    return cycles


@jit
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


@jit
def run_pe(
    act: Outer,
    grad: Outer,
    pixels: Counts,
    at: tuple[int, int, int, int],
    sums: Sums,
    room: Room,
    wanted: Bits,
    pe: tuple[int, int],
    log: OuterLog | None,
) -> tuple[int, int, int, int, int]:
    """Run a PE's part of a step; return its cycles, pairs, products, and words of operands.

    `at` are its block of input channels, how many there are, and the same of out-channels.
    """
    block_c, blocks_c, block_k, blocks_k = at
    first_c, first_k = block_c * sums.block_c, block_k * sums.block_k
    cost = pairs = products = words_a = words_b = 0
    room.queues.fill(0)
    for position in range(pixels.size):
        if pixels[position] < 0:
            continue
        a, g = pixels[position] * blocks_c + block_c, position * blocks_k + block_k
        begin, blocks = grad.starts[g], grad.starts[g + 1] - grad.starts[g]
        for m in range(act.starts[a], act.starts[a + 1] if blocks else act.starts[a]):
            make(sums.act[m], sums.grad[begin : begin + blocks], first_c, first_k, room)
            if log is None:
                cost += spend(room, 0, blocks, sums.depth)
                continue
            for n in range(blocks):
                spent = spend(room, n, n + 1, sums.depth)
                where = pixels[position], position, m, begin + n
                note_wanted(log, pe, cost, spent, where, wanted)
                cost += spent
        acts = act.starts[a + 1] - act.starts[a]
        pairs += acts * blocks
        products += act.nonzero[a] * grad.nonzero[g]
        words_a += act.nonzero[a] if grad.nonzero[g] else 0
        words_b += acts * grad.nonzero[g]
        if sums.alike:
            times = (pixels >= 0).sum()
            return cost * times, pairs * times, products * times, words_a * times, words_b * times
    return cost, pairs, products, words_a, words_b


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
    log: OuterLog | None = None,
) -> Work:
    """Run one group's and one sample's wgrad, as `outer_product` or, with queues, the other one.

    PEs without a wanted sum own nothing in a step. With queues a log has a step and its drain.
    """
    cycles = cost = pairs = products = mapped = words_a = words_b = 0
    costs, left = np.empty((pe_h, pe_w), np.int64), np.empty((pe_h, pe_w), np.int64)
    owns, room = np.empty((pe_h, pe_w), np.bool_), room_for(sums)
    for tap in range(met.shape[0]):
        wanted = sums.wanted[tap]
        for first_c in range(0, blocks_c, pe_h):
            for first_k in range(0, blocks_k, pe_w):
                costs.fill(0)
                left.fill(0)
                owns.fill(False)
                for i in range(min(pe_h, blocks_c - first_c)):
                    for j in range(min(pe_w, blocks_k - first_k)):
                        c, k = first_c + i, first_k + j
                        if not lay_out(wanted, c * sums.block_c, k * sums.block_k, sums, room):
                            continue
                        at, pe = (c, blocks_c, k, blocks_k), (i, j)
                        owns[i, j] = True
                        run = run_pe(act, grad, met[tap], at, sums, room, wanted, pe, log)
                        costs[i, j] = run[0]
                        left[i, j] = longest(room.queues, sums.depth) if sums.depth else 0
                        pairs += run[1]
                        products += run[2]
                        words_a += run[3]
                        words_b += run[4]
                # who waits for the slowest goes on retiring
                left[:] = np.maximum(left - (costs.max() - costs), 0)
                for taken in (costs, left):
                    cycles += taken.max()
                    cost += taken.sum()
                    mapped += taken.max() * owns.sum()
                    if log is not None:
                        own = taken[log.log.row, log.log.column]
                        note_step(log.log, taken.max(), own if owns[pe_at(log)] else -1)
                    if not sums.depth:
                        break
    return Work(cycles, cost, pairs, products, mapped, words_a, words_b)


@jit
def pe_at(log: OuterLog) -> tuple[int, int]:
    """Return the logged PE."""
    return log.log.row, log.log.column
