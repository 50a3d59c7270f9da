"""Top-K by magnitude: how many values survive, and which."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from array_api_compat import is_torch_array

from swatsim.arguments import arguments, count_of, sparsity, whole_number
from swatsim.errors import PolicyError, shown
from swatsim.policies.arrays import Array, as_numpy, like, namespace, on_host, widened
from swatsim.policies.kernel import mark_largest


@arguments(PolicyError, numel=whole_number, sparsity=sparsity)
def keep_count(numel: int, sparsity: Any) -> int:
    """Return how many values survive a sparsity: ceil((1 - sparsity) * numel), computed exactly.

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
    left: int = math.ceil((1 - sparsity) * numel)
    return left


def topk_mask(values: npt.ArrayLike | Array, k: int) -> Any:
    """Return a mask of the k values of largest magnitude of a whole tensor.

    - A natural zero (0.0 or -0.0) is never marked: fewer than k may be.
    - Of equal magnitudes at the threshold, those of the lowest flat C-order index are marked.
    - NaN counts as larger than any number.

    Parameters
    ----------
    values : array of float, of any shape
        NumPy's or torch's, on any device. Integers are compared as float64.
    k : int
        At least 0; more than there are values marks all that are not zero.

    Returns
    -------
    array of bool
        Of the library and device of `values`, in their shape: the same bits in each.

    Raises
    ------
    PolicyError
        If k is not a whole number of at least 0, or the values are not real numbers.
    """
    k = _whole(k)
    if is_torch_array(values):
        _check_real(values.is_complex(), values.dtype)
        if not on_host(values):
            return _mark_elsewhere(values, k)
        known = widened(values) if values.dtype.is_floating_point else values
        return like(_mark(_floats(as_numpy(known)), k), values)
    return _mark(_floats(values), k)


def largest(scores: Array, k: int, among: Array) -> Array:
    """Return a mask of exactly k of some places: those of the largest scores, zeros too.

    Of equal scores those of the lowest flat C-order index. For masks that persist, in which a
    weight that is zero for the moment holds its place.

    Parameters
    ----------
    scores : array of float, at least 0
    k : int
        At most as many as `among` marks.
    among : array of bool
        The places to choose from, in the shape of `scores`.
    """
    xp = namespace(scores)
    mask = topk_mask(xp.where(among, scores, xp.zeros_like(scores)), k)
    left = k - int(xp.count_nonzero(mask))
    if left <= 0:
        return mask
    rest = xp.reshape(among & ~mask, (-1,))  # zeros, for of all others there were fewer than k
    filled = rest & (xp.cumulative_sum(xp.astype(rest, xp.int64)) <= left)
    return mask | xp.reshape(filled, scores.shape)


def _mark(array: npt.NDArray[Any], k: int) -> npt.NDArray[np.bool_]:
    if array.dtype == np.float16:
        array = array.astype(np.float32)  # exact, and far faster
    if array.dtype == np.float32 and 0 < k < array.size:
        return _mark_bits(array, k)
    magnitudes = np.abs(array).reshape(-1)
    mask = magnitudes != 0
    if k < np.count_nonzero(mask):
        mask = _by_threshold(magnitudes, magnitudes[mask], k)
    return np.reshape(mask, array.shape)


def _mark_bits(array: npt.NDArray[Any], k: int) -> npt.NDArray[np.bool_]:
    """Return the mask of float32 values, which lies in memory as they do if that is without gaps.

    torch has images channels last: putting them in their logical order takes longer than Top-K.
    """
    axes = tuple(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    lying = array.transpose(axes)
    if array.flags.c_contiguous or not lying.flags.c_contiguous:
        bits = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
        return mark_largest(bits, k).reshape(array.shape)

    def order(places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        index = np.unravel_index(places, lying.shape)
        logical = [index[axes.index(axis)] for axis in range(array.ndim)]
        return np.ravel_multi_index(logical, array.shape)

    marks = mark_largest(lying.reshape(-1).view(np.uint32), k, order)
    return marks.reshape(lying.shape).transpose(np.argsort(axes))


def _mark_elsewhere(values: Array, k: int) -> Array:
    """Return the mask of values on an accelerator, without a transfer."""
    xp = namespace(values)
    magnitudes = xp.reshape(xp.abs(values), (-1,))
    mask = magnitudes != 0
    if 0 < k < magnitudes.shape[0]:
        threshold = xp.sort(magnitudes, descending=True)[k - 1]  # a NaN comes first
        nans, nan = xp.isnan(magnitudes), xp.isnan(threshold)
        ties = (magnitudes == threshold) | (nans & nan)
        above = (magnitudes > threshold) | (nans & ~nan)
        left = k - xp.count_nonzero(above)
        mask &= above | (ties & (xp.cumulative_sum(xp.astype(ties, xp.int64)) <= left))
    return xp.reshape(mask & (k > 0), values.shape)


def _by_threshold(
    magnitudes: npt.NDArray[Any], nonzero: npt.NDArray[Any], k: int
) -> npt.NDArray[np.bool_]:
    """Return a mask of the k largest of a flat array, k less than it has non-zeros.

    The zeros are taken out first because np.partition takes 20 times as long with half of the
    values equal, as they are behind a ReLU.
    """
    if k == 0:
        return np.zeros(magnitudes.shape, np.bool_)
    threshold = np.partition(nonzero, nonzero.size - k)[nonzero.size - k]
    if np.isnan(threshold):
        mask, ties = np.zeros(magnitudes.shape, np.bool_), np.isnan(magnitudes)
    else:
        mask, ties = ~(magnitudes <= threshold), magnitudes == threshold
    chosen = np.flatnonzero(ties)[: k - np.count_nonzero(mask)]
    mask[chosen] = True
    return mask


def _whole(k: Any) -> int:
    if (count := count_of(k)) < 0:
        raise PolicyError(f"k={shown(k)} is not allowed: must be a whole number of at least 0")
    return count


def _floats(values: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise PolicyError(f"values={shown(values)} are no array: {error}") from None
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    _check_real(array.dtype.kind != "f", array.dtype)
    return array


def _check_real(wrong: bool, dtype: Any) -> None:
    if wrong:
        raise PolicyError(f"Top-K of {dtype} is not defined: pass real numbers")
