"""How many values of a mask along an axis are not zero; NumPy's own count is ten times slower."""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from swatsim.jit import jit
from swatsim.workload.windows import Mask

Counts = npt.NDArray[np.int64]
#: As many ones a byte counts.
_MOST = 255
#: Places that are counted together: their bytes stay in the nearest cache.
_TOGETHER = 8192


def ones_along(mask: Mask, axis: int) -> Counts:
    """Return the values that are not zero along an axis of a mask, which is left out."""
    outer, inner = prod(mask.shape[:axis]), prod(mask.shape[axis + 1 :])
    if mask.size and not any(mask.strides):  # one value, as all of an operand that is dense
        rest = mask.shape[:axis] + mask.shape[axis + 1 :]
        return np.full(rest, mask.shape[axis] * int(mask.flat[0]), np.int64)
    data = np.ascontiguousarray(mask).view(np.uint8).reshape(outer, mask.shape[axis], inner)
    return _ones(data).reshape(mask.shape[:axis] + mask.shape[axis + 1 :])


@jit
def _ones(data: npt.NDArray[np.uint8]) -> Counts:
    """Count (outer, length, inner) to (outer, inner)."""
    outer, length, inner = data.shape
    found = np.zeros((outer, inner), np.int64)
    held = np.zeros(min(inner, _TOGETHER), np.uint8)
    for i in range(outer):
        if inner == 1:
            found[i, 0] = data[i].sum()
            continue
        for first in range(0, inner, _TOGETHER):
            some, end = found[i, first : first + _TOGETHER], min(inner, first + _TOGETHER)
            for top in range(0, length, _MOST):
                held[:] = 0
                for j in range(top, min(length, top + _MOST)):
                    row = data[i, j, first:end]
                    for place in range(row.size):
                        held[place] += row[place]
                for place in range(some.size):
                    some[place] += held[place]
    return found
