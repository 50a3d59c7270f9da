"""One code for NumPy and torch: the array API standard, and the little that it lacks.

What a policy computes must be the same, to the bit, in both. Comparisons, products and sums of two
numbers are; sums of many are not, for each library adds in an order of its own: `fold` does not.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace, device, is_numpy_array, is_torch_array

from swatsim.policies.kernel import keep

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


def only(values: Array, mask: Array) -> Array:
    """Return values where a mask is set and zeros elsewhere: bits of ``where(mask, values, 0)``.

    For torch's tensors on the host that lie in memory without gaps it takes a fifth of the time of
    torch's own `where`, which does what needs a gradient.
    """
    xp = namespace(values)
    if is_torch_array(values) and on_host(values) and not values.requires_grad:
        kept = xp.empty_like(values)
        words = [_words(values), _words(kept), as_numpy(mask)]
        axes = tuple(sorted(range(mask.ndim), key=lambda axis: -words[0].strides[axis]))
        lying = [each.transpose(axes) for each in words]
        if all(each.flags.c_contiguous for each in lying):
            flat = [each.reshape(-1) for each in lying]
            keep(flat[0], flat[2], flat[1])
            return kept
    return xp.where(mask, values, xp.zeros_like(values))


def _words(values: Array) -> npt.NDArray[Any]:
    """Return a tensor's bits as whole numbers of the same width, in the same memory."""
    xp = namespace(values)
    width = {1: xp.int8, 2: xp.int16, 4: xp.int32, 8: xp.int64}[values.dtype.itemsize]
    bits: npt.NDArray[Any] = values.view(width).numpy()
    return bits


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
    if not rest.shape[0]:
        return xp.zeros(rest.shape[1:], dtype=xp.float64, device=device(values))
    while (size := rest.shape[0]) > 1:
        half = (size + 1) // 2
        added = rest[: size - half] + rest[half:]
        rest = xp.concat([added, rest[size - half : half]])
    return rest[0]


def fits(known: Array | None, values: Array) -> bool:
    """Whether there is an array from before, of the shape that values have now.

    A layer's weight may be pruned in mid-training, a batch have another size.
    """
    return known is not None and tuple(known.shape) == tuple(values.shape)


def widened(values: Array) -> Array:
    """Return floats of less than 32 bits as float32, which is exact, and others as they are.

    Products and sums of them overflow early: the largest float16 is 65504.
    """
    narrow = values.dtype.itemsize < 4
    return namespace(values).astype(values, namespace(values).float32) if narrow else values


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
