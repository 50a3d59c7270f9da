"""What the kernels write down of one PE: its steps, and in some cycles its pairs of blocks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.jit import inner
from swatsim.simulator.machines.cartesian.kernel_banks import BANKS
from swatsim.simulator.machines.cartesian.kernel_patterns import Counts

Places = npt.NDArray[np.int32]


class Log(NamedTuple):
    """Steps in the kernel's order, and one PE's pairs of blocks in those cycles that are asked for.

    A pair takes a cycle at least: as many as there are such cycles are room enough. What a short
    block leaves free is -1.

    Parameters
    ----------
    row, column : int
        The PE.
    first, end : numpy.ndarray of int64, shape (steps,)
        The cycles of each step that are asked for, counted from its begin.
    cycles : numpy.ndarray of int64, shape (steps,)
        What the slowest PE takes.
    own : numpy.ndarray of int64, shape (steps,)
        What this one takes; -1: it has no part.
    size : numpy.ndarray of int64, shape (2,)
        Steps and pairs written down so far.
    step, begin, cost : numpy.ndarray of int64, shape (pairs,)
        Which step, its cycle in which the pair's turn comes, and how many it takes.
    pixels, weights : numpy.ndarray of int32, shape (pairs, block, letters)
        Where a block's pixels and weights lie: (x, y) and (r, s, k); in `outer_product`
        activations (pixel, c) and gradients (position, k).
    banks : numpy.ndarray of int32, shape (pairs, pixels, weights)
        Bank of each product, -1 outside the plane.
    fullest : numpy.ndarray of int64, shape (pairs,)
        The bank that most products fall into, of equals the first; -1: none does.
    queued : bool
        Whether a pair waits before it is issued, for queues; without them it waits after that.
    """

    row: int
    column: int
    first: Counts
    end: Counts
    cycles: Counts
    own: Counts
    size: Counts
    step: Counts
    begin: Counts
    cost: Counts
    pixels: Places
    weights: Places
    banks: Places
    fullest: Counts
    queued: bool


def new_log(
    pe: tuple[int, int],
    first: Counts,
    end: Counts,
    vectors: tuple[int, int],
    letters: int,
    queued: bool = False,
) -> Log:
    """Return a log with room for as many steps as `first` has, and their pairs."""
    pairs, (across, along) = int((end - first).sum()), vectors
    return Log(
        *pe,
        first=first,
        end=end,
        cycles=np.zeros_like(first),
        own=np.zeros_like(first),
        size=np.zeros(2, np.int64),
        step=np.zeros(pairs, np.int64),
        begin=np.zeros(pairs, np.int64),
        cost=np.zeros(pairs, np.int64),
        pixels=np.full((pairs, across, 2), -1, np.int32),
        weights=np.full((pairs, along, letters), -1, np.int32),
        banks=np.full((pairs, across, along), -1, np.int32),
        fullest=np.zeros(pairs, np.int64),
        queued=queued,
    )


@inner
def note_step(log: Log, cycles: int, own: int) -> None:
    """Write down what a step takes, and this PE's share of it."""
    step = log.size[0]
    assert step < log.cycles.size, "more steps than there is room for"
    log.cycles[step], log.own[step] = cycles, own
    log.size[0] += 1


@inner
def note_pair(log: Log, step: int, begin: int, cost: int) -> int:
    """Write down when a pair is issued and what it costs; return its place, -1 if nobody asks."""
    if begin >= log.end[step] or begin + cost <= log.first[step]:
        return -1
    pair = int(log.size[1])
    assert pair < log.step.size, "more pairs than there is room for"
    log.step[pair], log.begin[pair], log.cost[pair] = step, begin, cost
    log.size[1] += 1
    return pair


@inner
def fullest_bank(banks: Places) -> int:
    """Return the bank that most products fall into, of equals the first met; -1: none does."""
    hits = np.zeros(BANKS, np.int64)
    for i in range(banks.shape[0]):
        for j in range(banks.shape[1]):
            if banks[i, j] >= 0:
                hits[banks[i, j]] += 1
    fullest, most = -1, 0
    for i in range(banks.shape[0]):
        for j in range(banks.shape[1]):
            bank = int(banks[i, j])
            if bank >= 0 and hits[bank] > most:
                fullest, most = bank, hits[bank]
    return fullest
