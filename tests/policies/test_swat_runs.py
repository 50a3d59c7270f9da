"""SWAT-U, -ERK, -M and structured over several steps, against loops."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from swatsim.policies import Policy, SwatErk, SwatM, SwatStructured, SwatU
from swatsim.policies.allocation import erdos_renyi_kernel, share_out
from swatsim.workload.layer import Layer
from tests.policies.driver import LAYERS, Run, Seen, count_of, top, top_of

SPARSE = {("fprop", "weight"), ("dgrad", "weight"), ("wgrad", "act")}
TENTHS = Fraction(3, 10)


def check_top_k(seen: Seen, densities: dict[str, Fraction]) -> None:
    """Weights in fprop and dgrad, activations in wgrad, nothing else; gradients as they are."""
    for (layer, run, op, operand), mask in seen.masks.items():
        if layer not in densities or (op, operand) not in SPARSE:
            assert mask is None
        else:
            expected = top_of(seen.read[layer, run, operand], densities[layer])
            assert np.array_equal(mask, expected), (layer, op, operand)
    for key, gradient in seen.dense.items():
        assert np.array_equal(seen.handed[key], gradient)
    assert all(np.array_equal(seen.moved[name], seen.weights[name]) for name in seen.moved)


@pytest.mark.parametrize("dense", [True, False])
def test_swat_u(dense: bool) -> None:
    densities = {layer.name: TENTHS for layer in LAYERS if layer.name != "first" or not dense}
    for seen in Run(SwatU(0.7, first_conv_dense=dense)).go(3):
        check_top_k(seen, densities)


@pytest.mark.parametrize("dense", [True, False])
def test_swat_erk(dense: bool) -> None:
    share = erdos_renyi_kernel(LAYERS, Fraction(1, 2), {"first"} if dense else ())
    total = sum(share[layer.name] * layer.weights for layer in LAYERS)
    assert total == Fraction(1, 2) * sum(layer.weights for layer in LAYERS)
    densities = {name: part for name, part in share.items() if part < 1}
    for seen in Run(SwatErk(0.5, first_conv_dense=dense)).go(3):
        check_top_k(seen, densities)


# ---- structured --------------------------------------------------------------------------------


def by_l1(weight: np.ndarray, unit: str, density: Fraction) -> np.ndarray:
    if weight.ndim == 2:
        return top_of(weight, density)
    K, C = weight.shape[:2]
    blocks = [(k, c) for k in range(K) for c in range(C)] if unit == "channel" else range(K)
    norms = [
        sum(abs(float(weight[block][at])) for at in np.ndindex(weight[block].shape))
        for block in blocks
    ]
    mask = np.zeros(weight.shape, bool)
    for block, kept in zip(blocks, top(norms, count_of(density, len(norms))), strict=True):
        mask[block] = kept
    return mask


@pytest.mark.parametrize("unit", ["channel", "filter"])
def test_swat_structured(unit: str) -> None:
    for seen in Run(SwatStructured(0.7, unit=unit)).go(3):
        for layer in LAYERS[1:]:
            weight = seen.read[layer.name, 1, "weight"]
            assert np.array_equal(seen.mask(layer.name), by_l1(weight, unit, TENTHS))
            acts = seen.masks[layer.name, 1, "wgrad", "act"]
            assert np.array_equal(acts, top_of(seen.read[layer.name, 1, "act"], TENTHS))
        assert seen.masks["first", 1, "fprop", "weight"] is None
        for key, gradient in seen.dense.items():
            assert np.array_equal(seen.handed[key], gradient)


# ---- SWAT-M ------------------------------------------------------------------------------------


def reallocated(
    momentum: dict[str, np.ndarray], masks: dict[str, np.ndarray], density: Fraction
) -> dict[str, Fraction]:
    """One weight for each layer, the rest in proportion to the mean momentum of what is kept."""
    sizes = [mask.size for mask in masks.values()]
    means = []
    for name, mask in masks.items():
        kept = [abs(float(momentum[name][at])) for at in np.ndindex(mask.shape) if mask[at]]
        means.append(sum(kept) / len(kept) if kept else 0.0)
    budget = int(density * sum(sizes))
    more = share_out(max(0, budget - len(sizes)), means, [size - 1 for size in sizes])
    counts = [1 + count for count in more]
    assert sum(counts) == max(budget, len(sizes))
    return {name: Fraction(n, masks[name].size) for name, n in zip(masks, counts, strict=True)}


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
def test_swat_m(dense: bool, sparsity: float) -> None:
    density = 1 - Fraction(str(sparsity))
    run = Run(SwatM(sparsity, first_conv_dense=dense, every=2, smoothing=0.5))
    densities = {layer.name: density for layer in LAYERS if layer.name != "first" or not dense}
    momentum: dict[str, np.ndarray] = {}
    for seen in run.go(7):
        check_top_k(seen, densities)
        for name in densities:
            gradient = seen.dense[name, 1]
            old = momentum.get(name, np.zeros_like(gradient))
            momentum[name] = old * 0.5 + gradient * 0.5
        if seen.step > 0 and seen.step % 2 == 0:
            masks = {name: seen.mask(name) for name in densities}
            densities = reallocated(momentum, masks, density)
    found = {name: float(part) for name, part in densities.items()}
    assert run.sparsifier.report() == {"densities": found}


def test_two_runs_of_a_layer_add_up_in_the_momentum() -> None:
    run = Run(SwatM(0.5, every=1, smoothing=0.5), runs=lambda name, step: 2)
    first, second, _ = run.go(3)
    momentum = {}
    for layer in LAYERS:
        name = layer.name
        sums = [seen.dense[name, 1] + seen.dense[name, 2] for seen in (first, second)]
        momentum[name] = sums[0] * 0.25 + sums[1] * 0.5
    run = Run(SwatM(0.5, every=1, smoothing=0.5), runs=lambda name, step: 2)
    run.go(2)
    masks = {layer.name: second.mask(layer.name) for layer in LAYERS}
    expected = reallocated(momentum, masks, Fraction(1, 2))
    assert run.sparsifier.report()["densities"] == {k: float(v) for k, v in expected.items()}


def test_a_frozen_layer_keeps_its_density_and_is_not_counted() -> None:
    run = Run(SwatM(0.5, every=2), frozen=("wide",))
    run.go(4)
    densities = run.sparsifier.report()["densities"]
    assert "wide" not in densities
    counted = [layer for layer in LAYERS if layer.name != "wide"]
    kept = sum(densities[layer.name] * layer.weights for layer in counted)
    assert kept == pytest.approx(sum(layer.weights for layer in counted) // 2)


@pytest.mark.parametrize("policy", [SwatU(0.999), SwatErk(0.9), SwatM(0.999, every=1)])
def test_a_layer_keeps_at_least_one_weight(policy: Policy) -> None:
    layers = (Layer(name="a", C=2, K=2), Layer(name="b", C=1, K=1), Layer(name="c", C=3, K=1))
    ones = {layer.name: np.ones(layer.shape_of("weight", 1), np.float32) for layer in layers}
    for seen in Run(policy, layers, weights=ones, draw=lambda rng, shape: np.ones(shape, "f")).go(
        4
    ):
        for layer in layers[1:]:
            mask = seen.masks[layer.name, 1, "fprop", "weight"]
            assert mask is None or mask.any()
