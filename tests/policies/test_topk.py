from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from swatsim.errors import PolicyError
from swatsim.policies import keep_count, topk_mask

#: Few different values make many ties.
TIED = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.5, math.inf, -math.inf, math.nan])
ANY = st.one_of(TIED, st.floats(width=32))


def by_sorting(values: np.ndarray, k: int) -> np.ndarray:
    """The rules, one by one: largest first, NaN before all, then the index; zeros never."""
    flat = [float(value) for value in values.reshape(-1)]
    order = sorted(range(len(flat)), key=lambda i: (not math.isnan(flat[i]), -abs(flat[i]), i))
    kept = [i for i in order if flat[i] != 0][:k]
    mask = np.zeros(len(flat), bool)
    mask[kept] = True
    return mask.reshape(values.shape)


@pytest.mark.parametrize(
    ("numel", "sparsity", "count"),
    [
        (10, 0.7, 3),  # (1 - 0.7) * 10 is 3.0000000000000004 in floats
        (10, 0.9, 1),
        (1000, 0.9, 100),
        (7, 0.5, 4),
        (64, 0.8, 13),
        (5, 0, 5),
        (0, 0.8, 0),
        (1, 0.999, 1),
        (3, Fraction(2, 3), 1),
        (10, Decimal("0.7"), 3),
        (10, np.float32(0.7), 3),
        (10**9, 1e-9, 10**9 - 1),
    ],
)
def test_keep_count(numel: int, sparsity: Any, count: int) -> None:
    assert keep_count(numel, sparsity) == count


@given(st.integers(0, 10**12), st.integers(0, 999))
def test_keep_count_is_exact_for_every_decimal(numel: int, thousandths: int) -> None:
    exact = -((thousandths - 1000) * numel // 1000)
    assert keep_count(numel, thousandths / 1000) == exact


@pytest.mark.parametrize("sparsity", [1, 1.0, -0.1, 80, math.nan, math.inf, "0.8", None, True])
def test_sparsities_that_are_refused(sparsity: Any) -> None:
    with pytest.raises(PolicyError, match=r"sparsity=.*must be a number in \[0, 1\)"):
        keep_count(10, sparsity)


@given(
    arrays.arrays(np.float32, arrays.array_shapes(max_dims=4, max_side=6), elements=TIED),
    st.integers(0, 40),
)
def test_ties_zeros_and_nan(values: np.ndarray, k: int) -> None:
    assert np.array_equal(topk_mask(values, k), by_sorting(values, k))


@given(arrays.arrays(np.float32, st.integers(0, 30), elements=ANY), st.integers(0, 32))
def test_any_values(values: np.ndarray, k: int) -> None:
    assert np.array_equal(topk_mask(values, k), by_sorting(values, k))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_tensor_as_large_as_an_activation(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    values = np.maximum(rng.standard_normal((8, 16, 14, 14)), 0).astype(dtype)
    order = np.argsort(-np.abs(values).reshape(-1), kind="stable")
    expected = np.zeros(values.size, bool)
    expected[order[:5000]] = True
    mask = topk_mask(values, 5000)
    assert mask.shape == values.shape
    assert np.array_equal(mask.reshape(-1), expected)


def test_ties_go_by_logical_order_not_by_memory() -> None:
    values = np.asfortranarray([[1.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    assert topk_mask(values, 2).tolist() == [[True, False, True], [False, False, False]]


def test_natural_zeros_are_not_kept() -> None:
    assert topk_mask([0.0, -3.0, -0.0, 1.0], 3).tolist() == [False, True, False, True]


def test_the_values_are_not_changed() -> None:
    values = np.array([3.0, -1.0, 2.0], np.float32)
    topk_mask(values, 2)
    assert values.tolist() == [3.0, -1.0, 2.0]


def test_integers() -> None:
    assert topk_mask(np.array([-128, 127, 0], np.int8), 1).tolist() == [True, False, False]


@pytest.mark.parametrize("k", [-1, 2.5, "3", None])
def test_counts_that_are_refused(k: Any) -> None:
    with pytest.raises(PolicyError, match="k=.*whole number"):
        topk_mask([1.0, 2.0], k)


@pytest.mark.parametrize("values", [["a"], [1j]])
def test_values_that_are_refused(values: Any) -> None:
    with pytest.raises(PolicyError, match="pass real numbers"):
        topk_mask(values, 1)


@pytest.mark.parametrize(
    "kind", ["normal", "half zero", "ties", "nan", "sorted", "periodic", "zero"]
)
def test_many_values_are_marked_as_by_a_sort(kind: str) -> None:
    """From some size on a sample says where to look; one that is not fair must not matter."""
    rng = np.random.default_rng(7)
    values = rng.standard_normal(40_000).astype(np.float32)
    values = {
        "normal": values,
        "half zero": np.maximum(values, 0),
        "ties": np.round(values * 4) / 4,
        "nan": np.where(np.arange(values.size) % 7, values, np.float32("nan")),
        "sorted": np.sort(values),
        "periodic": np.where(np.arange(values.size) % 32, values, 100 * values),
        "zero": np.zeros_like(values),
    }[kind]
    ranked = np.where(np.isnan(values), np.inf, np.abs(values))
    order = np.argsort(-ranked, kind="stable")
    for k in (1, 77, 8_000, 20_000, 39_999):
        expected = np.zeros(values.size, np.bool_)
        expected[order[:k]] = True
        np.testing.assert_array_equal(topk_mask(values, k), expected & (values != 0))
