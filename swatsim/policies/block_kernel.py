"""Transposable n of m for blocks of any size, block by block: see `transposable_masks`."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from swatsim.jit import inner, jit

Weights: TypeAlias = npt.NDArray[np.float64]
Marks: TypeAlias = npt.NDArray[np.bool_]
Counts: TypeAlias = npt.NDArray[np.int64]


def approximate(blocks: Weights, n: int, m: int) -> Marks:
    """Return which places survive, at most n in each row and column of a block.

    Of equal weights those that come last are pruned first, and those that come first come back
    first.

    Parameters
    ----------
    blocks : array of float64, shape (B, m * m)
        Magnitudes, without NaN.
    n, m : int
    """
    # from the back, so that a stable sort has the last of equal ones first
    orders = m * m - 1 - np.argsort(blocks[:, ::-1], axis=1, kind="stable")
    return prune(np.ascontiguousarray(blocks), orders, n, m)


@jit
def prune(blocks: Weights, orders: npt.NDArray[np.int64], n: int, m: int) -> Marks:
    """Return which places survive, by the order of each block's places from the lightest on."""
    kept = np.ones(blocks.shape, np.bool_)
    for block in range(blocks.shape[0]):
        weights, marks, order = blocks[block], kept[block], orders[block]
        rows, columns = np.zeros(m, np.int64), np.zeros(m, np.int64)
        for place in order:
            if rows[place // m] < m - n or columns[place % m] < m - n:
                marks[place] = False
                rows[place // m] += 1
                columns[place % m] += 1
        rows[:], columns[:] = m - rows, m - columns  # from here on what is kept
        for place in order[::-1]:
            if not marks[place] and rows[place // m] < n and columns[place % m] < n:
                marks[place] = True
                rows[place // m] += 1
                columns[place % m] += 1
        fill(weights, marks, rows, columns, n, m)
    return kept


@inner
def fill(weights: Weights, marks: Marks, rows: Counts, columns: Counts, n: int, m: int) -> None:
    """Swap until no row and column that both have too few gain by it, in their order."""
    for i in range(m):
        for j in range(m):
            while rows[i] < n and columns[j] < n:
                place = best_swap(weights, marks, i, j, m)
                if place < 0:
                    break
                marks[place] = False
                marks[i * m + place % m] = True
                marks[place // m * m + j] = True
                rows[i] += 1
                columns[j] += 1


@inner
def best_swap(weights: Weights, marks: Marks, i: int, j: int, m: int) -> int:
    """Return the place whose two stand-ins in row i and column j gain most; -1 if none gains."""
    best: Any = 0.0
    found: Any = -1
    for row in range(m):
        if marks[row * m + j]:
            continue
        for column in range(m):
            place = row * m + column
            if marks[place] and not marks[i * m + column]:
                gain = weights[i * m + column] + weights[row * m + j] - weights[place]
                if gain > best:
                    best, found = gain, place
    return int(found)
