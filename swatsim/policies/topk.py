"""Top-K by magnitude: how many values survive, and which."""

from __future__ import annotations

import contextlib
import math
import numbers
import operator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from swatsim.errors import PolicyError


def exact(number: Any) -> Fraction:
    """Turn a number into the fraction that its decimal writes: 0.7 is 7/10.

    Raises
    ------
    PolicyError
        If it is not a finite real number.
    """
    if not isinstance(number, bool) and isinstance(number, numbers.Real | Decimal):
        with contextlib.suppress(ValueError):
            return Fraction(str(number))
    raise PolicyError(f"{number!r} is not allowed: must be a finite number, such as 0.8")


def check_sparsity(sparsity: Any) -> Fraction:
    """Turn a sparsity into an exact fraction.

    Raises
    ------
    PolicyError
        If it is not a number in [0, 1).
    """
    allowed = "a number in [0, 1); 0.8 drops 80 % of the values, 0 none"
    try:
        fraction = exact(sparsity)
    except PolicyError:
        fraction = Fraction(-1)
    if not 0 <= fraction < 1:
        raise PolicyError(f"sparsity={sparsity!r} is not allowed: must be {allowed}")
    return fraction


def keep_count(numel: int, sparsity: Any) -> int:
    """Count the values that survive a sparsity: ceil((1 - sparsity) * numel), computed exactly.

    Floats would give 4 for a sparsity of 0.7 and 10 values; the decimal 0.7 gives 3.

    Parameters
    ----------
    numel : int
        Elements of the tensor.
    sparsity : float, Fraction or Decimal
        In [0, 1).

    Raises
    ------
    PolicyError
        If the sparsity is not a number in [0, 1).
    """
    return math.ceil((1 - check_sparsity(sparsity)) * numel)


def topk_mask(values: npt.ArrayLike, k: int) -> npt.NDArray[np.bool_]:
    """Mark the k values of largest magnitude of a whole tensor.

    - A natural zero (0.0 or -0.0) is never kept: fewer than k may be.
    - Of equal magnitudes at the threshold, those of the lowest flat C-order index are kept.
    - NaN counts as larger than any number.

    Parameters
    ----------
    values : array of float, of any shape
        Integers are compared as float64.
    k : int
        At least 0; more than there are values keeps all that are not zero.

    Returns
    -------
    numpy.ndarray of bool
        In the shape of `values`.

    Raises
    ------
    PolicyError
        If k is not a whole number of at least 0, or the values are not real numbers.
    """
    k = _whole(k)
    array = _floats(values)
    if array.dtype == np.float32 and 0 < k < array.size:
        from swatsim.policies.kernel import mark_largest  # numba: not for those who only count

        bits = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
        return mark_largest(bits, k).reshape(array.shape)
    magnitudes = np.abs(array).reshape(-1)
    kept = magnitudes != 0
    if k < np.count_nonzero(kept):
        kept = _largest(magnitudes, magnitudes[kept], k)
    return kept.reshape(array.shape)


def _largest(
    magnitudes: npt.NDArray[Any], nonzero: npt.NDArray[Any], k: int
) -> npt.NDArray[np.bool_]:
    """Mark the k largest of a flat array, k less than it has non-zeros.

    The zeros are taken out first because np.partition takes 20 times as long with half of the
    values equal, as they are behind a ReLU.
    """
    if k == 0:
        return np.zeros(magnitudes.shape, np.bool_)
    threshold = np.partition(nonzero, nonzero.size - k)[nonzero.size - k]
    if np.isnan(threshold):
        kept, ties = np.zeros(magnitudes.shape, np.bool_), np.isnan(magnitudes)
    else:
        kept, ties = ~(magnitudes <= threshold), magnitudes == threshold
    chosen = np.flatnonzero(ties)[: k - np.count_nonzero(kept)]
    kept[chosen] = True
    return kept


def _whole(k: Any) -> int:
    try:
        count = operator.index(k)
    except TypeError:
        count = -1
    if count < 0:
        raise PolicyError(f"k={k!r} is not allowed: must be a whole number of at least 0")
    return count


def _floats(values: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    if array.dtype.kind != "f":
        raise PolicyError(f"Top-K of {array.dtype} is not defined: pass real numbers")
    return array
