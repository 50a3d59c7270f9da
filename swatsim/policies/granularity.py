"""What survives together: single values, blocks, or so many of each group.

A granularity is a function of scores (at least 0), a density and the layer's kind, and marks what
survives: of equal scores what comes first, and never what has a score of 0. A block's score is the
sum of its values'; it survives whole, with its zeros. Weights are (K, C/groups, R, S) or (K, C), of
a transposed convolution (C, K/groups, R, S); activations and gradients (N, ...). Speaks convolution
letters.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import reduce
from itertools import combinations, product
from typing import TypeAlias

from swatsim.errors import unknown
from swatsim.policies.arrays import Array, fold, namespace
from swatsim.policies.topk import topk_mask
from swatsim.workload.layer import Kind

#: Of each row the places of its survivors.
Pattern: TypeAlias = tuple[tuple[int, ...], ...]
Granularity: TypeAlias = Callable[[Array, Fraction, Kind], Array]


def element(scores: Array, density: Fraction, kind: Kind) -> Array:
    """Mark single values, over the whole tensor: ceil(density * values) of them."""
    return topk_mask(scores, math.ceil(density * math.prod(scores.shape)))


def sample(scores: Array, density: Fraction, kind: Kind) -> Array:
    """Mark single values, so many in each sample (row of a linear layer)."""
    xp = namespace(scores)
    k = math.ceil(density * math.prod(scores.shape[1:]))
    return xp.stack([topk_mask(scores[n], k) for n in range(scores.shape[0])])


def position(scores: Array, density: Fraction, kind: Kind) -> Array:
    """Mark the same values in all samples: those of largest sum over the batch."""
    return _blocks(scores, density, tuple(range(1, scores.ndim)))


def filter(scores: Array, density: Fraction, kind: Kind) -> Array:
    """Mark whole filters of a weight: all that makes one output channel."""
    return _blocks(scores, density, (1 if kind == "conv_transpose" else 0,))


def channel(scores: Array, density: Fraction, kind: Kind) -> Array:
    """Mark whole input channels: of a weight in all filters, of an activation in all samples."""
    return _blocks(scores, density, (0 if kind == "conv_transpose" else 1,))


def kernel(scores: Array, density: Fraction, kind: Kind) -> Array:
    """Mark the R x S kernels of a weight: one channel of one filter. Of a matrix, single values."""
    return _blocks(scores, density, (0, 1))


#: What a user calls them.
GRANULARITIES: dict[str, Granularity] = {
    it.__name__: it for it in (element, sample, position, filter, channel, kernel)
}


def granularity(name: str) -> Granularity:
    """Look up a granularity.

    Raises
    ------
    ValueError
        If there is none of that name; ``N:M``, such as 2:4, is one.
    """
    n, colon, m = name.partition(":")
    if colon and n.isdecimal() and m.isdecimal() and 0 < int(n) <= int(m):
        return n_of_m(int(n), int(m))
    if name not in GRANULARITIES:
        raise ValueError(unknown("granularity", name, [*GRANULARITIES, "N:M"]))
    return GRANULARITIES[name]


def n_of_m(n: int, m: int) -> Granularity:
    """Make the granularity of n survivors in each m values that follow each other along C.

    Where m does not divide C, the last group is shorter, and keeps at most n as well.
    """

    def mark(scores: Array, density: Fraction, kind: Kind) -> Array:
        xp = namespace(scores)
        axis = 0 if kind == "conv_transpose" else 1
        ranked = xp.where(xp.isnan(scores), xp.full_like(scores, math.inf), scores)
        groups = _grouped(xp.moveaxis(ranked, axis, -1), m)
        ranks = xp.stack([_rank(groups, i) for i in range(m)], axis=-1)
        kept = xp.reshape((ranks < n) & (groups != 0), (*groups.shape[:-2], -1))
        return xp.moveaxis(kept[..., : scores.shape[axis]], -1, axis)

    return mark


def _rank(groups: Array, i: int) -> Array:
    """Count how many of each group are larger than its i-th, or as large and come first."""
    xp = namespace(groups)
    own = groups[..., i]
    rank = xp.zeros(own.shape, dtype=xp.uint8, device=own.device)
    for j in range(groups.shape[-1]):
        if j != i:
            other = groups[..., j]
            rank = rank + xp.astype(other >= own if j < i else other > own, xp.uint8)
    return rank


def transposable(n: int, m: int) -> Granularity:
    """Make the granularity of n survivors in each row and each column of m x m blocks over K and C.

    Of all such patterns the one of the largest sum; of equal sums the one that comes first, with
    patterns ordered by their rows, and rows by the places of their survivors. Sums are float64, of
    a row's survivors in their order, then of the rows. Blocks at the edge are filled up with zeros.
    """
    patterns = [
        rows
        for rows in product(combinations(range(m), n), repeat=m)
        if all(sum(place in places for places in rows) == n for place in range(m))
    ]

    def mark(scores: Array, density: Fraction, kind: Kind) -> Array:
        xp = namespace(scores)
        ranked = xp.where(xp.isnan(scores), xp.full_like(scores, math.inf), scores)
        planes = xp.reshape(xp.moveaxis(ranked, (0, 1), (-2, -1)), (-1, *scores.shape[:2]))
        blocks = _blocked(xp.astype(planes, xp.float64), m)
        kept = _best(blocks, patterns, m) & (blocks != 0)
        back = _unblocked(kept, planes.shape, m)
        shape = (*scores.shape[2:], *scores.shape[:2])
        return xp.moveaxis(xp.reshape(back, shape), (-2, -1), (0, 1))

    return mark


def _best(blocks: Array, patterns: Sequence[Pattern], m: int) -> Array:
    """Mark each block's best pattern; blocks are (B, m * m)."""
    xp = namespace(blocks)
    sums = {
        (row, places): reduce(operator.add, (blocks[:, m * row + place] for place in places))
        for row in range(m)
        for places in {pattern[row] for pattern in patterns}
    }
    best = xp.full_like(blocks[:, 0], -1)
    chosen = xp.zeros_like(best, dtype=xp.int64)
    for i, pattern in enumerate(patterns):
        total = reduce(operator.add, (sums[row, places] for row, places in enumerate(pattern)))
        chosen = xp.where(total > best, xp.full_like(chosen, i), chosen)
        best = xp.maximum(total, best)
    marks = [[place in places for places in rows for place in range(m)] for rows in patterns]
    return xp.take(xp.asarray(marks, device=blocks.device), chosen, axis=0)


def _blocked(planes: Array, m: int) -> Array:
    """Cut (T, K, C) into (B, m * m), filled up with zeros."""
    xp = namespace(planes)
    rows = _grouped(planes, m)  # T, K, C/m, m
    both = _grouped(xp.moveaxis(rows, 1, -1), m)  # T, C/m, m, K/m, m
    return xp.reshape(xp.permute_dims(both, (0, 3, 1, 4, 2)), (-1, m * m))


def _unblocked(blocks: Array, shape: tuple[int, ...], m: int) -> Array:
    xp = namespace(blocks)
    T, K, C = shape
    k, c = -(-K // m), -(-C // m)
    tiled = xp.permute_dims(xp.reshape(blocks, (T, k, c, m, m)), (0, 1, 3, 2, 4))
    return xp.reshape(tiled, (T, k * m, c * m))[:, :K, :C]


def _grouped(values: Array, m: int) -> Array:
    """Cut the last axis into groups of m, the last one filled up with zeros."""
    xp = namespace(values)
    missing = -values.shape[-1] % m
    if missing:
        shape = (*values.shape[:-1], missing)
        zeros = xp.zeros(shape, dtype=values.dtype, device=values.device)
        values = xp.concat([values, zeros], axis=-1)
    return xp.reshape(values, (*values.shape[:-1], -1, m))


def _blocks(scores: Array, density: Fraction, axes: tuple[int, ...]) -> Array:
    """Mark whole blocks, one for each index along `axes`, by the sum of their scores."""
    xp = namespace(scores)
    others = [axis for axis in range(scores.ndim) if axis not in axes]
    if not others:
        return element(scores, density, "conv")
    kept_shape = [scores.shape[axis] for axis in axes]
    flat = xp.reshape(xp.permute_dims(scores, (*axes, *others)), (*kept_shape, -1))
    norms = fold(flat)
    marks = topk_mask(norms, math.ceil(density * math.prod(kept_shape)))
    shape = [scores.shape[axis] if axis in axes else 1 for axis in range(scores.ndim)]
    return xp.broadcast_to(xp.reshape(marks, tuple(shape)), scores.shape)
