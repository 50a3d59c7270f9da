"""Transposable masks of blocks larger than 4 x 4, of which not all patterns can be tried."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, permutations, product

import numpy as np
import pytest

from swatsim.policies import Transposable
from swatsim.policies.block_kernel import approximate
from swatsim.policies.transposable_masks import _approximated, transposable
from tests.policies.driver import LAYERS, Run, levels, normal


def two_approximation(block: np.ndarray, n: int) -> np.ndarray:
    """Prune from the lightest on where a row or a column has too few pruned; of equals the last."""
    m = len(block)
    pruned = np.zeros((m, m), bool)
    for i, j in sorted(product(range(m), repeat=2), key=lambda at: (block[at], -at[0], -at[1])):
        pruned[i, j] = pruned[i].sum() < m - n or pruned[:, j].sum() < m - n
    return pruned


def rounded(block: np.ndarray, n: int) -> np.ndarray:
    """Bring back what fits, then swap for what gains, by what the two papers say."""
    kept, m = ~two_approximation(block, n), len(block)
    for i, j in sorted(product(range(m), repeat=2), key=lambda at: (-block[at], at)):
        kept[i, j] |= kept[i].sum() < n and kept[:, j].sum() < n
    for i, j in product(range(m), repeat=2):
        while kept[i].sum() < n and kept[:, j].sum() < n:
            gains = [
                (block[i, b] + block[a, j] - block[a, b], -a, -b)
                for a, b in product(range(m), repeat=2)
                if kept[a, b] and not kept[i, b] and not kept[a, j]
            ]
            gain, a, b = max(gains, default=(0, 0, 0))
            if gain <= 0:
                break
            kept[-a, -b], kept[i, -b], kept[-a, j] = False, True, True
    return kept


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 5), (4, 8), (2, 8), (7, 8), (1, 6), (5, 5)])
@pytest.mark.parametrize("draw", [levels, normal])
def test_blocks_are_pruned_as_the_papers_say(n: int, m: int, draw: object) -> None:
    rng = np.random.default_rng(n + m)
    blocks = np.abs(draw(rng, (12, m, m))).astype(np.float64)  # type: ignore[operator]
    kept = approximate(blocks.reshape(12, m * m), n, m).reshape(blocks.shape)
    for block, mask in zip(blocks, kept, strict=True):
        assert np.array_equal(mask, rounded(block, n))
        assert mask.sum(0).max() <= n
        assert mask.sum(1).max() <= n


def best(blocks: np.ndarray, n: int) -> np.ndarray:
    """Give the largest sum that a pattern of each block keeps, by trying all."""
    m = blocks.shape[1]
    if n == 1:
        tried = [list(enumerate(order)) for order in permutations(range(m))]
    else:
        tried = [
            [(i, j) for i, row in enumerate(rows) for j in row]
            for rows in product(combinations(range(m), n), repeat=m)
            if all(sum(j in row for row in rows) == n for j in range(m))
        ]
    sums = [sum(blocks[:, i, j] for i, j in places) for places in tried]
    return np.max(sums, axis=0)


@pytest.mark.parametrize(("n", "m"), [(1, 3), (2, 3), (1, 4), (2, 4), (3, 4), (1, 7), (2, 5)])
@pytest.mark.parametrize("tail", [False, True])
def test_at_most_twice_what_has_to_be_pruned(n: int, m: int, tail: bool) -> None:
    rng = np.random.default_rng(m)
    drawn = rng.standard_t(1, (40, m, m)) if tail else rng.standard_normal((40, m, m))
    blocks = np.abs(drawn)
    kept = approximate(blocks.reshape(40, m * m), n, m).reshape(blocks.shape)
    least = blocks.sum((1, 2)) - best(blocks, n)
    pruned = (blocks * ~kept).sum((1, 2))
    assert (pruned <= 2 * least + 1e-9).all()
    first = np.array([(block * two_approximation(block, n)).sum() for block in blocks])
    assert (pruned <= first * (1 + 1e-12)).all()


@pytest.mark.parametrize(("n", "m", "share"), [(4, 8, 0.95), (8, 16, 0.97), (2, 8, 0.9)])
def test_nearly_as_much_is_kept_as_without_columns(n: int, m: int, share: float) -> None:
    """Of n of m along C alone, which keeps at least as much as the best transposable mask."""
    scores = np.abs(normal(np.random.default_rng(1), (128, 128)))
    mask = transposable(n, m)(scores, Fraction(n, m), "linear")
    most = np.sort(scores.reshape(-1, m), axis=1)[:, -n:].sum()
    assert share * most < scores[mask].sum() < most
    assert 0.99 * n / m < mask.mean() <= n / m


def test_edges_groups_and_zeros() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    for shape, groups in (((10, 7), 1), ((12, 9, 2, 1), 2), ((3, 3), 1), ((1, 1), 1)):
        scores = np.abs(levels(rng, shape))
        kind = "linear" if len(shape) == 2 else "conv"
        mask = transposable(3, 6)(scores, Fraction(1, 2), kind, groups)
        expected = np.zeros(shape, bool)
        rows = shape[0] // groups
        for group, tap in product(range(groups), np.ndindex(shape[2:])):
            for k, c in product(range(0, rows, 6), range(0, shape[1], 6)):
                at = (slice(group * rows + k, group * rows + min(k + 6, rows)), slice(c, c + 6))
                part = scores[(*at, *tap)]
                block = np.zeros((6, 6))
                block[: part.shape[0], : part.shape[1]] = part
                kept = rounded(block, 3)[: part.shape[0], : part.shape[1]]
                expected[(*at, *tap)] = kept & (part > 0)
        assert np.array_equal(mask, expected)
        found = transposable(3, 6)(torch.from_numpy(scores), Fraction(1, 2), kind, groups)
        assert np.array_equal(found.numpy(), mask)


def test_nan_is_heavier_than_any_number() -> None:
    block = np.ones((8, 8), np.float32)
    block[::4, ::4] = np.nan
    mask = transposable(4, 8)(block, Fraction(1, 2), "linear")
    assert mask[::4, ::4].all()
    assert mask.sum(0).max() <= 4
    assert mask.sum(1).max() <= 4


def test_a_policy_of_larger_blocks() -> None:
    policy = Transposable(4, 8, first_conv_dense=False, every=2)
    sparse = {it.name for it in LAYERS if max(it.C, it.K) // it.groups > 4}
    for seen in Run(policy, draw=normal).go(3):
        for layer in LAYERS:
            mask = seen.masks[layer.name, 1, "fprop", "weight"]
            assert (mask is None) == (layer.name not in sparse)
        mask = seen.mask("fc")
        assert mask.sum(0).max() <= 4
        assert mask.sum(1).max() <= 4
    blocks = np.abs(normal(np.random.default_rng(2), (3, 64))).astype(np.float64)
    assert np.array_equal(_approximated(blocks, 4, 8), approximate(blocks, 4, 8))
