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


#: From so many values on a sample is worth its while; one of how many is drawn, and how many at
#: most; how far from its rank in it the k-th largest is looked for, in standard deviations.
MANY, SHARE, MOST, APART = 1 << 14, 32, 1 << 14, 3.5


@jit
def mark_largest(bits: Bits, k: int) -> npt.NDArray[np.bool_]:
    """Return a mask of the k largest magnitudes of ``values.view(np.uint32)``, flat; never a zero.

    Of equal ones at the threshold, those that come first. Equivalent: sort by (-magnitude, index),
    take the first k, drop the zeros.
    """
    if bits.size >= MANY:
        low, high = bounds(bits, k)
        marks, known = mark_between(bits, k, low, high)
        if known:
            return marks
    marks = np.empty(bits.size, np.bool_)
    threshold, left = find_threshold(bits, k)
    for i in range(bits.size):
        magnitude = min(bits[i] & MAGNITUDE, NAN)
        tie = magnitude == threshold
        marks[i] = (magnitude != 0) & ((magnitude > threshold) | (tie & (left > 0)))
        left -= tie
    return marks


@jit
def find_threshold(bits: Bits, k: int) -> tuple[np.uint32, int]:
    """Return the k-th largest magnitude, and how many of those that equal it are among the k."""
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
    return threshold, left


@jit
def bounds(bits: Bits, k: int) -> tuple[np.uint32, np.uint32]:
    """Return magnitudes that the k-th largest lies between, if a sample of them is a fair one."""
    size = min(bits.size // SHARE, MOST)
    stride = bits.size // size
    sample = np.empty(size, np.uint32)
    for i in range(size):
        sample[i] = min(bits[i * stride] & MAGNITUDE, NAN)
    sample.sort()
    share = k / bits.size
    apart = APART * np.sqrt(size * share * (1 - share)) + 2
    place = size * (1 - share)
    low = sample[np.int64(place - apart)] if place > apart else np.uint32(0)
    top = np.int64(place + apart)
    high = sample[top] if top < size else NAN
    low = max(low, np.uint32(1))
    return low, max(high, low)


@jit
def mark_between(
    bits: Bits, k: int, low: np.uint32, high: np.uint32
) -> tuple[npt.NDArray[np.bool_], bool]:
    """Return the mask, and whether the k-th largest was between two magnitudes, or zero.

    One look at all values marks what is above, and notes what is between: few, of which the k-th
    largest is found.
    """
    marks = np.empty(bits.size, np.bool_)
    between = np.empty(bits.size // 4, np.int64)
    reach = np.uint32(high - low)
    count = above = 0
    for i in range(bits.size):
        marks[i] = min(bits[i] & MAGNITUDE, NAN) > high
    for i in range(bits.size):
        above += marks[i]
    for i in range(bits.size):
        if np.uint32(min(bits[i] & MAGNITUDE, NAN) - low) <= reach:
            if count == between.size:
                return marks, False
            between[count] = i
            count += 1
    left = k - above
    if left < 0 or (left > count and low > 1):
        return marks, False
    if left >= count:  # fewer are not zero than may survive
        for j in range(count):
            marks[between[j]] = True
        return marks, True
    if left == 0:
        return marks, True
    chosen = np.empty(count, np.uint32)
    for j in range(count):
        chosen[j] = bits[between[j]]
    threshold, left = find_threshold(chosen, left)
    for j in range(count):
        magnitude = min(chosen[j] & MAGNITUDE, NAN)
        tie = magnitude == threshold
        marks[between[j]] = (magnitude > threshold) | (tie & (left > 0))
        left -= tie
    return marks, True
