"""Top-KAST over several steps, against loops."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from swatsim.errors import PolicyError
from swatsim.policies import TopKast
from swatsim.policies.allocation import erdos_renyi_kernel
from tests.policies.driver import LAYERS, Run, count_of, exactly, top_of


def trained_by(
    gradient: np.ndarray, weight: np.ndarray, read: np.ndarray, more: np.ndarray, factors: tuple
) -> np.ndarray:
    """The gradient of B, with the penalty's: `factors` in A, and in B alone."""
    out = np.zeros_like(gradient)
    for at in np.ndindex(gradient.shape):
        if more[at]:
            out[at] = gradient[at] + weight[at] * factors[0 if read[at] else 1]
    return out


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("allocation", ["uniform", "erk"])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("runs", [1, 2])
def test_top_kast(every: int, allocation: str, dense: bool, runs: int) -> None:
    options = {"allocation": allocation, "first_conv_dense": dense, "every": every}
    penalty = 0.25 if allocation == "uniform" else 0.0
    policy = TopKast(0.5, backward_sparsity=0.25, penalty=penalty, **options)
    share = dict.fromkeys((layer.name for layer in LAYERS), Fraction(1, 2))
    if allocation == "erk":
        share = erdos_renyi_kernel(LAYERS, Fraction(1, 2), {"first"} if dense else ())
    elif dense:
        share["first"] = Fraction(1)
    sets: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for seen in Run(policy, runs=lambda name, step: runs).go(7):
        for key, mask in seen.masks.items():
            assert mask is None or key[3] == "weight"
        for layer in LAYERS:
            name, weight = layer.name, seen.read[layer.name, 1, "weight"]
            for run in range(1, runs + 1):
                gradient, handed = seen.dense[name, run], seen.handed[name, run]
                if share[name] == 1:
                    assert seen.masks[name, run, "fprop", "weight"] is None
                    assert np.array_equal(handed, gradient)
                    continue
                if seen.step % every == 0:
                    more = count_of(min(Fraction(1), share[name] * 3 / 2), weight.size)
                    everywhere = np.ones(weight.shape, bool)
                    trained = exactly(np.abs(weight), more, everywhere)
                    sets[name] = top_of(weight, share[name]), trained
                read, trained = sets[name]
                assert not (read & ~trained).any()
                assert np.array_equal(seen.mask(name, run), read)
                expected = trained_by(gradient, weight, read, trained, (penalty, penalty * 2))
                assert np.array_equal(handed, expected)


def test_weights_that_are_all_zero_are_trained() -> None:
    zeros = {layer.name: np.zeros(layer.shape_of("weight", 1), "f") for layer in LAYERS}
    seen = Run(TopKast(0.75), weights=zeros).go(1)[0]
    for layer in LAYERS:
        trained = seen.handed[layer.name, 1] != 0
        assert not seen.mask(layer.name).any()
        assert trained.any() or not seen.dense[layer.name, 1].any() or layer.weights < 3


def test_more_is_trained_than_is_read() -> None:
    with pytest.raises(PolicyError, match="TopKast: backward_sparsity=0.9 must be at most"):
        TopKast(0.8, backward_sparsity=0.9)
