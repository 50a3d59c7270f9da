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


# ---- large tensors, of which a sample is drawn ---------------------------------------------------

LARGE = 2**18 + 5
RNG = np.random.default_rng(7)
NORMAL = RNG.standard_normal(LARGE).astype(np.float32)
OUTLIERS = np.full(LARGE, 0.5, np.float32)
OUTLIERS[::999] = RNG.standard_normal(len(OUTLIERS[::999])) * 1e9
LARGE_VALUES = {
    "normal": NORMAL,
    "relu": np.maximum(NORMAL, 0),
    "few levels": np.round(NORMAL * 2),
    "constant": np.full(LARGE, -0.25, np.float32),
    "zeros": np.zeros(LARGE, np.float32),
    "outliers": OUTLIERS,
    "in order": np.arange(LARGE, dtype=np.float32),
    "wild": np.where(NORMAL > 2, np.float32(math.nan), np.where(NORMAL > 1, math.inf, NORMAL)),
    "tiny": NORMAL * np.float32(1e-44),
}


def order_of(values: np.ndarray) -> np.ndarray:
    """NaN first, then by magnitude, then by index; zeros are none."""
    flat = np.abs(values.astype(np.float64)).reshape(-1)
    order = np.argsort(-np.where(np.isnan(flat), math.inf, flat), kind="stable")
    order = order[np.argsort(~np.isnan(flat[order]), kind="stable")]
    return order[flat[order] != 0]


def by_argsort(values: np.ndarray, k: int, order: np.ndarray | None = None) -> np.ndarray:
    mask = np.zeros(values.size, bool)
    mask[(order_of(values) if order is None else order)[:k]] = True
    return mask.reshape(values.shape)


@pytest.mark.parametrize("name", LARGE_VALUES)
def test_a_sample_changes_no_bit(name: str) -> None:
    values = LARGE_VALUES[name].astype(np.float32)
    order = order_of(values)
    for k in (1, 37, LARGE // 5, LARGE // 2 + 1, LARGE - 3, LARGE):
        assert np.array_equal(topk_mask(values, k), by_argsort(values, k, order)), k


def test_a_sample_that_is_wrong_costs_time_and_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    from swatsim.policies import kernel

    for low, high in ((1, 1), (0x7F800001, 0x7F800001), (0x3F800000, 0x3F800001), (1, 0x7F800001)):
        bounds = np.uint32(low), np.uint32(high)
        monkeypatch.setattr(kernel, "_bounds", lambda *_, it=bounds: it)
        for name in ("normal", "relu", "zeros"):
            expected = by_argsort(LARGE_VALUES[name], LARGE // 5)
            assert np.array_equal(topk_mask(LARGE_VALUES[name], LARGE // 5), expected)


@pytest.mark.parametrize("shape", [(3, 5, 4, 2), (8, 64, 24, 24), (2, 3, 4, 5, 6), (7, 9)])
@pytest.mark.parametrize("levels", [2, 1000])
def test_ties_go_by_logical_order_in_any_memory(shape: tuple[int, ...], levels: int) -> None:
    """Channels last, transposed, and with gaps."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(len(shape))
    values = np.round(rng.standard_normal(shape) * levels).astype(np.float32)
    for k in (values.size // 5, values.size // 2):
        expected = by_argsort(values, k)
        for axes in ((*range(2, len(shape)), 1, 0), (0, *range(2, len(shape)), 1)):
            back = np.argsort(axes)
            lying = np.ascontiguousarray(values.transpose(axes)).transpose(back)
            assert np.array_equal(topk_mask(lying, k), expected)
            assert np.array_equal(topk_mask(torch.from_numpy(lying), k).numpy(), expected)
        apart = np.repeat(values, 2, axis=1)[:, ::2]
        assert np.array_equal(topk_mask(apart, k), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_float_of_torch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    values = torch.from_numpy(NORMAL).to(getattr(torch, dtype))
    found = topk_mask(values, LARGE // 5)
    assert found.dtype == torch.bool
    assert np.array_equal(found.numpy(), by_argsort(values.double().numpy(), LARGE // 5))


@pytest.mark.parametrize("shape", [(), (0,), (4, 0), (0, 3, 2), (1,)])
def test_no_value_or_one(shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    for k in (0, 1, 2):
        mask = topk_mask(np.ones(shape, np.float32), k)
        assert mask.shape == shape
        assert mask.sum() == min(k, math.prod(shape))
        assert np.array_equal(topk_mask(torch.ones(shape), k).numpy(), mask)
