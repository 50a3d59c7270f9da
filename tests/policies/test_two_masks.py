"""BDWP and SLoPe: a weight that fprop and dgrad read with masks of their own, N:M in each."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest

from swatsim.policies import Bdwp, Site, Slope, begin_run, site_densities
from swatsim.policies.slope import twice_pruned
from swatsim.workload.layer import Layer
from tests.policies.driver import LAYERS, Run
from tests.policies.test_arrays import by_groups

PATTERNS = [(2, 4), (1, 4), (1, 3), (3, 3)]


def along_k(weight: np.ndarray, n: int, m: int, groups: int) -> np.ndarray:
    """Turn each group around, so that its filters are its channels."""
    parts = [np.swapaxes(part, 0, 1) for part in np.split(weight, groups)]
    return np.concatenate([np.swapaxes(by_groups(part, n, m), 0, 1) for part in parts])


@pytest.mark.parametrize(("n", "m"), PATTERNS)
@pytest.mark.parametrize("dense", [True, False])
def test_bdwp_chooses_along_what_is_added_up(n: int, m: int, dense: bool) -> None:
    layers = [layer for layer in LAYERS if layer.name != "first" or not dense]
    for seen in Run(Bdwp(n, m, first_conv_dense=dense)).go(3):
        for layer in LAYERS:
            weight = np.abs(seen.read[layer.name, 1, "weight"])
            forward, backward = (
                seen.masks[layer.name, 1, op, "weight"] for op in ("fprop", "dgrad")
            )
            sparse = layer in layers and n < m
            if sparse and layer.C // layer.groups > n:
                assert np.array_equal(forward, by_groups(weight, n, m))
            else:
                assert forward is None
            if sparse and layer.K // layer.groups > n:
                assert np.array_equal(backward, along_k(weight, n, m, layer.groups))
            else:
                assert backward is None
        others = [mask for key, mask in seen.masks.items() if key[3] != "weight"]
        assert all(mask is None for mask in others)
        assert all(np.array_equal(seen.handed[key], seen.dense[key]) for key in seen.dense)


def test_bdwp_decays_what_fprop_leaves_out() -> None:
    (seen,) = Run(Bdwp(2, 4, decay=0.25)).go(1)
    weight, mask = seen.read["wide", 1, "weight"], seen.masks["wide", 1, "fprop", "weight"]
    expected = seen.dense["wide", 1] + np.where(mask, 0, np.float32(0.25) * weight)
    assert np.array_equal(seen.handed["wide", 1], expected)
    assert not np.array_equal(expected, seen.dense["wide", 1])


@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_slope_keeps_its_places_and_prunes_them_again(n: int, m: int) -> None:
    policy = Slope(n, m, seed=3)
    kept: dict[str, np.ndarray] = {}
    for seen in Run(policy, runs=lambda name, step: 1 + step % 2).go(5):
        for layer in LAYERS[1:]:
            weight, name = seen.read[layer.name, 1, "weight"], layer.name
            forward = seen.masks[name, 1, "fprop", "weight"]
            backward = seen.masks[name, 1, "dgrad", "weight"]
            if n == m or layer.C // layer.groups <= n:
                assert forward is None
                forward = np.ones(weight.shape, bool)
                assert np.array_equal(seen.handed[name, 1], seen.dense[name, 1])
            else:
                assert np.array_equal(forward, kept.setdefault(name, forward))
                by_place = np.moveaxis(forward, 1, -1).reshape(-1, forward.shape[1])
                for start in range(0, forward.shape[1], m):
                    group = by_place[:, start : start + m]
                    assert (group.sum(1) == min(n, group.shape[1])).all()
                assert not seen.weights[name][~forward].any()
                assert not seen.handed[name, 1][~forward].any()
                assert np.array_equal(seen.handed[name, 1][forward], seen.dense[name, 1][forward])
            if policy.density(Site(layer, "dgrad", "weight")) is not None:
                left = np.abs(np.where(forward, weight, 0))
                assert np.array_equal(backward, along_k(left, n, m, layer.groups))
            else:
                assert backward is None
        assert seen.masks["first", 1, "fprop", "weight"] is None


def test_slope_draws_every_place_as_often() -> None:
    layer, runs = Layer(name="fc", kind="linear", C=6, K=2), 600
    site = Site(layer, "fprop", "weight")
    counts = np.zeros((2, 6))
    for seed in range(runs):
        (mask,) = begin_run(Slope(2, 4, seed=seed)).masks([site], np.ones((2, 6), np.float32))
        counts += mask
    assert (counts[:, 4:] == runs).all()  # the last two of six are two of two
    deviation = (runs * 0.25) ** 0.5
    assert (abs(counts[:, :4] - runs / 2) < 4 * deviation).all()


@pytest.mark.parametrize(("n", "m", "percent"), [(1, 2, 12.5), (2, 4, 9.375), (2, 8, 5.84)])
def test_the_paper_s_additional_sparsity(n: int, m: int, percent: float) -> None:
    """Lemma 2.1; beside its formula there stands 3.39 % for 2:8, which it does not give."""
    more = float(100 * (Fraction(n, m) - twice_pruned(n, m, 8 * m, 8 * m)))
    assert more == pytest.approx(percent, abs=0.005)


@pytest.mark.parametrize(("channels", "filters"), [(2, 2), (3, 2), (2, 3), (3, 3), (1, 2)])
def test_twice_pruned_against_all_draws(channels: int, filters: int) -> None:
    n, m = 1, 2
    rows = [
        sum(choice, ())
        for choice in product(
            *(
                list(combinations(range(start, min(start + m, channels)), n))
                for start in range(0, channels, m)
            )
        )
    ]
    left = Fraction(0)
    for drawn in product(rows, repeat=filters):
        for channel, start in product(range(channels), range(0, filters, m)):
            left += min(n, sum(channel in row for row in drawn[start : start + m]))
    left /= len(rows) ** filters
    assert twice_pruned(n, m, channels, filters) == left / (channels * filters)


def test_the_densities_of_both_passes_are_counted() -> None:
    layer = Layer(name="fc", kind="linear", C=64, K=64)
    bdwp, slope = (site_densities(policy, [layer]) for policy in (Bdwp(2, 8), Slope(2, 4)))
    assert bdwp["fc", "fprop", "weight"] == bdwp["fc", "dgrad", "weight"] == Fraction(1, 4)
    assert slope["fc", "fprop", "weight"] == slope["fc", "wgrad", "weight"] == Fraction(1, 2)
    assert slope["fc", "dgrad", "weight"] == Fraction(13, 32)
    assert ("fc", "wgrad", "weight") not in bdwp


def test_slope_chooses_dgrad_s_mask_in_each_step() -> None:
    """Which is work of its own, beside the mask that it applies."""
    run = begin_run(Slope(2, 4))
    layer = Layer(name="fc", kind="linear", C=8, K=8)
    sites = [Site(layer, op, "weight") for op in ("fprop", "dgrad")]
    assert run.work(sites) == ("mask", "topk")
    assert run.work(sites[:1]) == ("mask",)
    assert run.work([Site(layer, "wgrad", "act")]) == ()
