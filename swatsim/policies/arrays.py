"""One code for NumPy and torch: the array API standard, and the little that it lacks.

What a policy computes must be the same, to the bit, in both. Comparisons, products and sums of two
numbers are; sums of many are not, for each library adds in an order of its own: `fold` does not.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace, device, is_numpy_array, is_torch_array

#: A numpy.ndarray or a torch.Tensor.
Array: TypeAlias = Any


def namespace(array: Array) -> Any:
    """Return the functions of the array API standard for an array's library."""
    return array_namespace(array)


def on_host(array: Array) -> bool:
    """Whether `as_numpy` of an array costs no transfer."""
    return is_numpy_array(array) or str(device(array)) == "cpu"


def as_numpy(array: Array) -> npt.NDArray[Any]:
    """Return a NumPy view; bfloat16, which NumPy lacks, becomes float32, which is exact."""
    if not is_torch_array(array):
        return np.asarray(array)
    known = array.float() if str(array.dtype) == "torch.bfloat16" else array
    viewed: npt.NDArray[Any] = known.numpy(force=True)
    return viewed


def like(values: npt.NDArray[Any], array: Array) -> Array:
    """Return a NumPy array as one of another array's library and device."""
    if is_numpy_array(array):
        return values
    return namespace(array).asarray(values, device=device(array))


def fold(values: Array, axis: int = -1) -> Array:
    """Return the sum along an axis in float64, by halves: the first half to the second, and so on.

    The order is the same in every library, so the sum is the same to the bit.

    Parameters
    ----------
    values : array of float
    axis : int

    Returns
    -------
    array of float64, without that axis
    """
    xp = namespace(values)
    rest = xp.moveaxis(xp.astype(values, xp.float64), axis, 0)
    while (size := rest.shape[0]) > 1:
        half = (size + 1) // 2
        added = rest[: size - half] + rest[half:]
        rest = xp.concat([added, rest[size - half : half]])
    return rest[0]


def is_finite(values: Array) -> bool:
    """Whether there is neither a NaN nor an infinity."""
    xp = namespace(values)
    return bool(xp.all(xp.isfinite(values)))


def mean_magnitude(values: Array, mask: Array) -> float:
    """Return the mean magnitude of the values that a mask marks; 0 if it marks none."""
    xp = namespace(values)
    count = int(xp.count_nonzero(mask))
    marked = xp.where(mask, xp.abs(values), xp.zeros_like(values))
    return float(fold(xp.reshape(marked, (-1,)))) / count if count else 0.0
