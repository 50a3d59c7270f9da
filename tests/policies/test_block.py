"""Whole blocks of filters x channels, by the sum of their scores."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from swatsim.errors import PolicyError
from swatsim.policies import ByScore
from swatsim.policies.granularity import granularity
from swatsim.workload.layer import Layer
from tests.policies.driver import LAYERS, Run, count_of, levels, normal, top
from tests.policies.test_arrays import SPLIT
from tests.policies.test_vnm import planes


def by_loops(scores: np.ndarray, layer: Layer, k: int, c: int, density: Fraction) -> np.ndarray:
    """Keep blocks of largest sum: groups first, then filters, channels and taps in their order."""
    taps = int(np.prod(scores.shape[2:]))
    found = planes(layer)  # of each group its taps
    blocks = []
    for group in range(layer.groups):
        own = found[group * taps : (group + 1) * taps]
        for row, column in product(range(0, len(own[0]), k), range(0, len(own[0][0]), c)):
            for plane in own:
                block = [at for line in plane[row : row + k] for at in line[column : column + c]]
                blocks.append(block)
    sums = [sum(float(scores[at]) for at in block) for block in blocks]
    mask = np.zeros(scores.shape, bool)
    for block, stays in zip(blocks, top(sums, count_of(density, len(blocks))), strict=True):
        for at in block:
            mask[at] = stays
    return mask


@pytest.mark.parametrize("layer", [*SPLIT, *LAYERS], ids=lambda layer: layer.name)
@pytest.mark.parametrize(("k", "c"), [(2, 3), (1, 1), (32, 32), (4, 1)])
def test_blocks_by_their_sums(layer: Layer, k: int, c: int) -> None:
    torch = pytest.importorskip("torch")
    shape = layer.shape_of("weight", 1)
    for seed, density in enumerate((Fraction(1, 3), Fraction(1, 10), Fraction(9, 10))):
        scores = np.abs((levels, normal)[seed % 2](np.random.default_rng(seed), shape))
        lies = density, layer.kind, layer.groups
        mask = granularity(f"block:{k}x{c}")(scores, *lies)
        assert np.array_equal(mask, by_loops(scores, layer, k, c, density))
        found = granularity(f"block:{k}x{c}")(torch.from_numpy(scores), *lies)
        assert np.array_equal(found.numpy(), mask)


def test_a_policy_of_blocks() -> None:
    policy = ByScore(lambda it: abs(it.values), 0.6, granularity="block:3x2", name="size")
    for seen in Run(policy).go(2):
        for layer in LAYERS:
            weight = np.abs(seen.read[layer.name, 1, "weight"])
            expected = by_loops(weight, layer, 3, 2, Fraction(2, 5))
            assert np.array_equal(seen.mask(layer.name), expected)


def test_blocks_are_of_weights() -> None:
    with pytest.raises(PolicyError, match=r"granularity='block:8x8' is of weights"):
        ByScore(abs, 0.5, of="grad_out", granularity="block:8x8", name="size")


@pytest.mark.parametrize("name", ["block:9999x9999", "999999999:2:999999999"])
def test_tiles_larger_than_a_layer_take_no_room(name: str) -> None:
    scores = np.arange(1, 16, dtype=np.float32).reshape(3, 5)
    mask = granularity(name)(scores, Fraction(1, 2), "linear")
    assert mask.sum() == (15 if "block" in name else 6)
