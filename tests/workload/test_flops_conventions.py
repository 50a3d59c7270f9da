"""FLOP conventions, against brute force and against what SWAT published."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swatsim.errors import WorkloadError
from swatsim.policies import SwatU, site_densities
from swatsim.workload import flops
from swatsim.workload.layer import OPS, Layer, OpName
from swatsim.workload.networks import network
from tests import strategies

LAYERS = (
    Layer(name="stem", C=3, K=8, H=12, W=12, R=3, S=3, padding=1),
    Layer(name="conv", C=8, K=16, H=12, W=12, R=3, S=3, stride=2, padding=1),
    Layer(name="fc", kind="linear", C=16, K=10),
)

# network, Top-K sparsity in percent, reduction of training and of inference FLOPs in percent
PUBLISHED = [
    ("resnet50", 80, 76.1, 77.7),
    ("resnet50", 90, 85.6, 87.4),
    ("resnet50", 50, 47.6, 48.6),  # from here on structured
    ("resnet50", 60, 57.1, 58.3),
    ("resnet50", 70, 66.6, 68.0),
    ("wrn50-2", 80, 78.6, None),
    ("wrn50-2", 90, 88.4, None),
    ("wrn50-2", 50, 49.1, None),
    ("wrn50-2", 60, 58.9, None),
    ("wrn50-2", 70, 68.7, None),
]


@pytest.mark.parametrize(("name", "sparsity", "training", "inference"), PUBLISHED)
def test_swat_u_as_published(
    name: str, sparsity: int, training: float, inference: float | None
) -> None:
    layers = network(name).layers
    found = site_densities(SwatU(sparsity / 100), layers)
    assert round(flops.training_reduction(layers, found, "swat"), 1) == training
    if inference is not None:
        assert round(flops.inference_reduction(layers, found), 1) == inference


def test_exact_counts_no_inserted_zeros() -> None:
    layers = network("resnet50").layers
    reductions = [
        flops.training_reduction(layers, site_densities(SwatU(sparsity), layers))
        for sparsity in (0.8, 0.9)
    ]
    assert [round(reduction, 1) for reduction in reductions] == [78.4, 88.3]


@settings(deadline=None, max_examples=60)
@given(strategies.layers(), st.integers(1, 3))
def test_dense_counts_by_brute_force(layer: Layer, samples: int) -> None:
    taps = layer.K * (layer.C // layer.groups) * layer.R * layer.S
    outputs = len(list(product(range(samples), range(layer.P), range(layer.Q))))
    inputs = len(list(product(range(samples), range(layer.H), range(layer.W))))
    for op in OPS:
        assert flops.macs_dense(layer, samples, op) == taps * outputs
        expected = taps * (inputs if op == "dgrad" else outputs)
        assert flops.macs_dense(layer, samples, op, "swat") == expected


def test_zero_stuffing_of_a_strided_layer_is_a_convolution_at_input_resolution() -> None:
    """3x3, stride 2, padding 1: each of the 12 x 12 input gradients meets all 9 taps."""
    layer = LAYERS[1]
    stuffed = np.zeros((13 + 2, 13 + 2))  # 6 x 6 gradients, zeros between, and for the last tap
    stuffed[1:12:2, 1:12:2] = 1
    products = sum(1 for _ in product(range(12), range(12), range(3), range(3)))
    assert flops.macs_dense(layer, 1, "dgrad", "swat") == 8 * 16 * products


def test_the_first_layer_has_a_dgrad_in_swat_only() -> None:
    stem, conv, fc = (flops.macs_dense(layer, 2) for layer in LAYERS)
    assert flops.training_macs(LAYERS, 2) == 2 * stem + 3 * conv + 3 * fc
    assert flops.training_macs(LAYERS, 2, None, "swat") == 3 * stem + 6 * conv + 3 * fc


@pytest.mark.parametrize("convention", flops.CONVENTIONS)
def test_expected_macs_are_the_mean_over_random_masks(convention: Any) -> None:
    layer = LAYERS[1]
    shares: dict[tuple[str, OpName, Any], float] = {
        ("conv", "fprop", "weight"): 0.2,
        ("conv", "fprop", "act"): 0.5,
    }
    found = flops.macs_expected(layer, 1, "fprop", shares, convention)
    assert found == pytest.approx(0.1 * flops.macs_dense(layer, 1))
    assert flops.macs_expected(layer, 1, "wgrad", shares, convention) == flops.macs_dense(layer, 1)


def test_reductions_by_hand() -> None:
    layers = (LAYERS[0], LAYERS[2])
    stem, fc = (flops.macs_dense(layer, 1) for layer in layers)
    found = site_densities(SwatU(0.75), layers)
    dense, sparse = 2 * stem + 3 * fc, 2 * stem + 0.75 * fc
    assert flops.training_reduction(layers, found) == pytest.approx(100 * (1 - sparse / dense))
    assert flops.inference_reduction(layers, found) == pytest.approx(75 * fc / (stem + fc))
    assert flops.training_reduction(layers, {}) == 0


def test_what_is_refused() -> None:
    with pytest.raises(WorkloadError, match="unknown convention 'Swat': did you mean 'swat'"):
        flops.macs_dense(LAYERS[0], 1, "dgrad", "Swat")  # type: ignore[arg-type]
    with pytest.raises(WorkloadError, match="unknown op 'fprob'"):
        flops.macs_dense(LAYERS[0], 1, "fprob")  # type: ignore[arg-type]
    for count in (flops.training_reduction, flops.inference_reduction):
        with pytest.raises(WorkloadError, match="no layers to count"):
            count((), {})
