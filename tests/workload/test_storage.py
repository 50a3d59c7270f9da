"""Bytes of small tensors, counted by hand and by brute force."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swatsim.errors import WorkloadError
from swatsim.policies.topk import keep_count
from swatsim.workload import run_length, storage


def mask_of(bits: str, rows: int = 1) -> np.ndarray:
    return np.array([bit == "1" for bit in bits]).reshape(rows, -1)


#: Two rows of ten; three values are kept.
SMALL = mask_of("1000000000" + "0100000001", rows=2)


BY_HAND = [
    ("dense", 20 * 4, 20 * 2),
    ("values", 3 * 4, 3 * 2),
    ("bitmask", 3 * 4 + 3, 3 * 2 + 3),  # 20 bits are 3 bytes
    ("csr", 3 * 4 + 3 * 1 + 3 * 1, 3 * 2 + 3 * 1 + 3 * 1),  # columns below 256, 20 as well
    ("csc", 3 * 4 + 3 * 1 + 11 * 1, 3 * 2 + 3 * 1 + 11 * 1),  # ten columns
    ("run-length", (3 * 36 + 7) // 8, (3 * 20 + 7) // 8),  # gaps 0, 10, 7: no padding
    ("1:4", (6 * 34 + 7) // 8, (6 * 18 + 7) // 8),  # rows of 4, 4 and 2 channels: 6 slots
]


def test_every_format_is_counted_by_hand() -> None:
    assert [name for name, _, _ in BY_HAND] == [*storage.FORMATS, "1:4"]


@pytest.mark.parametrize(("format", "fp32", "bf16"), BY_HAND)
def test_formats_by_hand(format: str, fp32: int, bf16: int) -> None:
    assert storage.stored(SMALL, format, "fp32") == (format, fp32)
    assert storage.stored(SMALL, format, "bf16") == (format, bf16)


def test_indices_have_the_fewest_bits_that_fit() -> None:
    for columns, index, pointer in ((256, 1, 2), (257, 2, 2), (65_536, 2, 4), (65_537, 4, 4)):
        mask = np.zeros((2, columns), bool)
        mask[1, 0] = True
        assert storage.stored(mask, "csr", "fp32")[1] == 4 + index + 3 * pointer


@pytest.mark.parametrize(
    ("bits", "entries"),
    [
        ("1" + "0" * 40, 1),  # what follows the last value costs nothing
        ("0" * 15 + "1", 1),
        ("0" * 16 + "1", 2),  # 15 zeros and a zero as the value, then the value
        ("0" * 31 + "1", 2),
        ("0" * 32 + "1" + "0" * 16 + "1", 5),
        ("0" * 40, 0),
    ],
)
def test_run_length_pads_long_runs(bits: str, entries: int) -> None:
    assert storage.stored(mask_of(bits), "run-length", "fp32")[1] == -(-entries * 36 // 8)


def test_run_length_is_one_run_in_memory_order() -> None:
    bits = "0" * 10 + "0" * 9 + "1"
    assert run_length.padding_of(mask_of(bits, rows=2)) == 1


def decoded(mask: np.ndarray) -> int:
    """Count run-length's entries one element at a time."""
    entries = zeros = pending = 0
    for retained in mask.flat:
        if retained:
            entries, zeros, pending = entries + pending + 1, 0, 0
        elif zeros == 15:
            zeros, pending = 0, pending + 1
        else:
            zeros += 1
    return entries


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.sampled_from((0.01, 0.05, 0.3, 0.9)))
def test_run_length_by_brute_force(seed: int, size: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((1, size)) < density
    assert run_length.padding_of(mask) + mask.sum() == decoded(mask)


@pytest.mark.parametrize("density", [0.003, 0.02, 0.1, 0.5])
def test_expected_padding_is_the_mean_over_random_masks(density: float) -> None:
    rng, size, times = np.random.default_rng(3), 3000, 2000
    found = [run_length.padding_of(rng.random((1, size)) < density) for _ in range(times)]
    expected = run_length.expected_padding(size, round(density * size))
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / times**0.5 + 1e-9


def test_expected_padding_of_many_elements_is_the_same_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    for elements, ones in ((2**20, 1), (2**20, 10), (2**20, 10_000), (12_345, 100)):
        plain = run_length.expected_padding(elements, ones)
        with monkeypatch.context() as patch:
            patch.setattr(run_length, "MOST_TERMS", 1)
            closed = run_length.expected_padding(elements, ones)
        assert closed == pytest.approx(plain, rel=1e-9)


def test_expected_bytes_of_huge_batches_are_wide_or_refused_and_take_no_memory() -> None:
    few = (2**30, 2**30, 3, 3)  # of a billion values one is kept
    tracemalloc.start()
    used, size = storage.expected(few, 1e-9, "run-length", "fp32")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    kept = storage.retained(prod(few), 1e-9)
    assert used == "run-length"
    assert size * 8 // 36 > kept > 2**30
    huge = (2**62, 64, 56, 56)
    assert storage.expected(huge, 0.5, "values", "fp32")[1] == 2**63 * 64 * 56 * 56
    with pytest.raises(WorkloadError, match=r"an index up to \d+ is needed, .* a smaller batch"):
        storage.expected(huge, 0.5, "csr", "fp32")


def test_n_of_m_stores_all_slots() -> None:
    mask = np.zeros((3, 6, 2), bool)  # groups of 4 channels, and one of 2
    mask[0, 1, 0] = mask[0, 3, 0] = mask[2, 5, 1] = True
    slots = 3 * 2 * 2 * 2
    assert storage.stored(mask, "2:4", "bf16") == ("2:4", slots * (16 + 2) // 8)
    assert storage.expected((3, 6, 2), 0.1, "2:4", "bf16") == ("2:4", slots * (16 + 2) // 8)


def test_a_mask_that_does_not_obey_is_refused_with_the_first_place() -> None:
    mask = np.zeros((3, 8, 2), bool)
    mask[1, (4, 5, 7), 1] = True
    mask[2, :3, 0] = True
    with pytest.raises(WorkloadError, match=r"obey 2:4: at \(1, 7, 1\) is value number 3"):
        storage.stored(mask, "2:4", "fp32")
    assert storage.stored(mask, "3:4", "fp32")[0] == "3:4"
    with pytest.raises(WorkloadError, match=r"density of 0.6 can't obey 2:4: must be at most 0.5"):
        storage.expected((3, 8), 0.6, "2:4", "fp32")


@pytest.mark.parametrize("format", [*storage.FORMATS, "2:4"])
def test_what_has_no_zero_is_dense(format: str) -> None:
    assert storage.stored(np.ones((2, 5), bool), format, "fp32") == ("dense", 40)
    assert storage.expected((2, 5), 1, format, "fp32") == ("dense", 40)


@given(st.integers(0, 2**32 - 1), st.sampled_from(("values", "bitmask", "csr", "dense")))
def test_expected_is_exact_where_only_the_count_matters(seed: int, format: str) -> None:
    mask = np.random.default_rng(seed).random((3, 4, 5)) < 0.4
    density = Fraction(int(mask.sum()), mask.size)
    for dtype in storage.DTYPES:
        exact = storage.stored(mask, format, dtype)
        assert storage.expected(mask.shape, density, format, dtype) == exact


def test_kept_counts_as_top_k_does() -> None:
    for percent in range(1, 101):
        assert storage.retained(10, percent / 100) == keep_count(10, 1 - Fraction(percent, 100))


def test_what_does_not_exist_is_refused() -> None:
    for format in ("cs", "4:2", "0:4", "2:", ""):
        with pytest.raises(WorkloadError, match="unknown format"):
            storage.check(format, "fp32")
    with pytest.raises(WorkloadError, match="did you mean 'fp32'"):
        storage.check("csr", "fp3")
    for density in (-0.1, 1.1, float("nan")):
        with pytest.raises(WorkloadError, match="density="):
            storage.expected((2, 2), density, "values", "fp32")
