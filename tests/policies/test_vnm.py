"""V:N:M: columns of a block by their sums, then N of the four in each row."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest

from swatsim.errors import PolicyError
from swatsim.policies import ByScore, Site, Vnm, site_densities
from swatsim.policies.granularity import granularity, n_and_m, v_n_m
from swatsim.workload.layer import Layer
from tests.policies.driver import LAYERS, Run, levels, normal, top
from tests.policies.test_arrays import SPLIT


def planes(layer: Layer) -> list[list[tuple[Any, ...]]]:
    """Give for each group and tap the places of its weights: a row for each filter."""
    first, second, *taps = layer.shape_of("weight", 1)
    found = []
    for group, tap in product(range(layer.groups), np.ndindex(*taps)):
        own = range(group * first // layer.groups, (group + 1) * first // layer.groups)
        if layer.kind == "conv_transpose":  # (C, K/groups, R, S)
            found.append([[(c, k, *tap) for c in own] for k in range(second)])
        else:
            found.append([[(k, c, *tap) for c in range(second)] for k in own])
    return found


def by_loops(scores: np.ndarray, layer: Layer, v: int, n: int, m: int) -> np.ndarray:
    mask = np.zeros(scores.shape, bool)
    for plane in planes(layer):
        for k, c in product(range(0, len(plane), v), range(0, len(plane[0]), m)):
            block = [row[c : c + m] for row in plane[k : k + v]]
            sums = [sum(float(scores[row[j]]) for row in block) for j in range(len(block[0]))]
            order = sorted(range(len(sums)), key=lambda j: (-sums[j], j))
            kept = sorted(order[:4])
            for row in block:
                for j, stays in zip(kept, top([scores[row[j]] for j in kept], n), strict=True):
                    mask[row[j]] = stays
    return mask


@pytest.mark.parametrize("layer", [*SPLIT, *LAYERS], ids=lambda layer: layer.name)
@pytest.mark.parametrize(("v", "n", "m"), [(2, 2, 5), (3, 1, 4), (64, 2, 8), (1, 4, 6)])
def test_columns_then_rows(layer: Layer, v: int, n: int, m: int) -> None:
    torch = pytest.importorskip("torch")
    for seed, draw in enumerate((levels, normal)):
        scores = np.abs(draw(np.random.default_rng(seed), layer.shape_of("weight", 1)))
        lies = Fraction(n, m), layer.kind, layer.groups
        mask = v_n_m(v, n, m)(scores, *lies)
        assert np.array_equal(mask, by_loops(scores, layer, v, n, m))
        found = granularity(f"{v}:{n}:{m}")(torch.from_numpy(scores), *lies)
        assert np.array_equal(found.numpy(), mask)


def test_a_policy_over_some_steps() -> None:
    policy = Vnm(1, 5, v=3, decay=0.25)
    sparse = {layer.name for layer in LAYERS[1:] if layer.C // layer.groups > 1}
    for seen in Run(policy).go(3):
        for layer in LAYERS:
            weight = seen.read[layer.name, 1, "weight"]
            if layer.name not in sparse:
                assert seen.masks[layer.name, 1, "fprop", "weight"] is None
                continue
            mask = seen.mask(layer.name)
            assert np.array_equal(mask, by_loops(np.abs(weight), layer, 3, 1, 5))
            decay = np.where(mask, 0, np.float32(0.25) * weight)
            assert np.array_equal(seen.handed[layer.name, 1], seen.dense[layer.name, 1] + decay)


def test_the_density_is_what_survives() -> None:
    """At the edge as many are kept as elsewhere, if there are as many."""
    for channels, density in ((16, Fraction(1, 4)), (9, Fraction(3, 9)), (11, Fraction(4, 11))):
        layer = Layer(name="fc", kind="linear", C=channels, K=6)
        scores = np.arange(1, 1 + layer.weights, dtype=np.float32).reshape(6, channels)
        own = ByScore(abs, 0.5, granularity="64:2:8", name="size")
        for policy in (Vnm(2, 8), own):
            assert policy.density(Site(layer, "dgrad", "weight")) == density
        assert site_densities(Vnm(2, 8), [layer])["fc", "fprop", "weight"] == density
        assert v_n_m(64, 2, 8)(scores, density, "linear").mean() == pytest.approx(float(density))


def test_names_and_refusals() -> None:
    assert n_and_m("64:2:8") == n_and_m("2:8") == (2, 8)
    with pytest.raises(PolicyError, match="n=5 must be at most 4, and m=8 at least 4"):
        Vnm(5, 8)
    with pytest.raises(PolicyError, match="n=2 must be at most 4, and m=3 at least 4"):
        Vnm(2, 3)
    with pytest.raises(PolicyError, match=r"granularity='64:2:8' is of weights, and act have none"):
        ByScore(abs, 0.5, of="act", granularity="64:2:8", name="size")
    assert [Vnm.of_sparsity(s).m for s in (0.5, 0.6, 0.667, 0.75, 0.875)] == [4, 5, 6, 8, 16]
    for wrong in (0, 0.25, 0.55, 0.7, 0.99):
        with pytest.raises(PolicyError, match=f"sparsity={wrong} is not allowed: of 64:2:m"):
            Vnm.of_sparsity(wrong)


def test_a_column_of_nan_stays() -> None:
    scores = np.ones((4, 8), np.float32)
    scores[:, 7] = np.nan
    mask = v_n_m(4, 2, 8)(scores, Fraction(1, 4), "linear")
    assert mask.sum(1).tolist() == [2] * 4
    assert mask[:, 7].all()
