"""Exact Top-K of float32 by radix select: no sort, no copy, three looks at the bits.

The bits of a magnitude, read as an integer, are in the order of the magnitudes. So the k-th largest
is found digit by digit: count how many values have each top digit, go into the digit in which the
k-th lies, and count the next digit of the values that share it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swatsim.jit import jit

Bits = npt.NDArray[np.uint32]

#: Shift and mask of each digit of the 31 bits of a magnitude, highest first.
DIGITS = ((20, 0x7FF), (9, 0x7FF), (0, 0x1FF))
MAGNITUDE = np.uint32(0x7FFFFFFF)
#: Every NaN counts as this one: larger than infinity, and all alike.
NAN = np.uint32(0x7F800001)


@jit
def mark_largest(bits: Bits, k: int) -> npt.NDArray[np.bool_]:
    """Return a mask of the k largest magnitudes of ``values.view(np.uint32)``, flat; never a zero.

    Of equal ones at the threshold, those that come first. Equivalent: sort by (-magnitude, index),
    take the first k, drop the zeros.
    """
    marks = np.empty(bits.size, np.bool_)
    threshold = np.uint32(0)  # the k-th largest, as far as its digits are known
    left = k  # of those that share its digits so far
    known = np.uint32(31)
    for level in range(3):
        shift, mask = np.uint32(DIGITS[level][0]), np.uint32(DIGITS[level][1])
        counts = np.zeros(mask + 1, np.int64)
        for i in range(bits.size):
            magnitude = min(bits[i] & MAGNITUDE, NAN)
            if magnitude >> known == threshold:
                counts[(magnitude >> shift) & mask] += 1
        digit = np.int64(mask)
        while digit > 0 and counts[digit] < left:
            left -= counts[digit]
            digit -= 1
        threshold = np.uint32((threshold << (known - shift)) | np.uint32(digit))
        known = shift
    for i in range(bits.size):
        magnitude = min(bits[i] & MAGNITUDE, NAN)
        tie = magnitude == threshold
        marks[i] = (magnitude != 0) & ((magnitude > threshold) | (tie & (left > 0)))
        left -= tie
    return marks
