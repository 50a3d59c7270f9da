"""N:M masks whose transpose is N:M too: the best of all patterns, or one that is good enough.

Of blocks of up to 4 x 4 all patterns are tried. Of larger ones there are too many (8 x 8 with 4 in
each row and column: 10^17), and the best is approximated:

1. By the 2-approximation of Hubara et al. (arXiv:2102.08124, section 4): places are gone through
   from the lightest to the heaviest, and one is pruned if its row or its column has not enough
   pruned yet. What is pruned weighs at most twice what the best pattern prunes.
2. This prunes more than it has to. So, by the rounding of Meng et al. (arXiv:2505.23949, algorithm
   2): from the heaviest to the lightest a place comes back if its row and its column both have
   fewer than n; then, for a row i and a column j that have fewer, the place (i', j') gives way to
   (i, j') and (i', j) where that gains most, if it gains at all.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from fractions import Fraction
from functools import cache, reduce
from itertools import combinations, product
from typing import TypeAlias

from swatsim.policies.arrays import Array, as_numpy, like, namespace
from swatsim.policies.block_kernel import approximate
from swatsim.policies.granularity import Granularity
from swatsim.policies.tiles import cut, joined
from swatsim.workload.layer import Kind

#: Of each row the places of its survivors.
Pattern: TypeAlias = tuple[tuple[int, ...], ...]
#: The largest blocks of which all patterns are tried.
TRIED = 4


def transposable(n: int, m: int) -> Granularity:
    """Return the granularity of n survivors in each row and column of m x m blocks over K and C.

    For m up to 4, of all such patterns the one of the largest sum; of equal sums the one that comes
    first, with patterns ordered by their rows, and rows by the places of their survivors. Sums are
    float64, of a row's survivors in their order, then of the rows. For greater m one near to it, of
    at most n in each row and column. Blocks at the edge are filled up with zeros, of each group of
    a layer by itself.
    """

    def mark(scores: Array, density: Fraction, kind: Kind, groups: int = 1) -> Array:
        xp = namespace(scores)
        ranked = xp.where(xp.isnan(scores), xp.full_like(scores, math.inf), scores)
        tiles = cut(xp.astype(ranked, xp.float64), m, m, "conv", groups)  # both axes are alike
        blocks = xp.reshape(tiles, (math.prod(tiles.shape[:-2]), m * m))
        chosen = _best(blocks, n, m) if m <= TRIED else _approximated(blocks, n, m)
        survivors = xp.reshape(chosen & (blocks != 0), tiles.shape)
        return joined(survivors, scores, "conv", groups)

    return mark


@cache
def _patterns(n: int, m: int) -> Sequence[Pattern]:
    """Return all patterns with n in each row and column."""
    return [
        rows
        for rows in product(combinations(range(m), n), repeat=m)
        if all(sum(place in places for places in rows) == n for place in range(m))
    ]


def _best(blocks: Array, n: int, m: int) -> Array:
    """Return a mask of each block's best pattern; blocks are (B, m * m)."""
    xp, patterns = namespace(blocks), _patterns(n, m)
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


def _approximated(blocks: Array, n: int, m: int) -> Array:
    """Return a mask of each block's approximation, made on the host; blocks are (B, m * m)."""
    return like(approximate(as_numpy(blocks), n, m), blocks)
