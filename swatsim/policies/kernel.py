"""Exact Top-K of float32 on its bits: no sort, no copy.

The bits of a magnitude, read as an integer, are in the order of the magnitudes. So the k-th largest
is found digit by digit (`kth_largest`): count how many values have each top digit, go into the
digit in which the k-th lies, and count the next digit of the values that share it.

That is three slow looks at everything. Of a large tensor a sample first says between which two
values the k-th lies, one fast look sorts out what is above and what is between, and digits are
counted of the few between alone. Where the sample is wrong, all is done the slow way: it costs
time, and never a bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from swatsim.jit import jit

Bits: TypeAlias = npt.NDArray[np.uint32]
Marks: TypeAlias = npt.NDArray[np.bool_]
Places: TypeAlias = npt.NDArray[np.int64]

#: Shift and mask of each digit of the 31 bits of a magnitude, highest first.
DIGITS = ((20, 0x7FF), (9, 0x7FF), (0, 0x1FF))
MAGNITUDE = np.uint32(0x7FFFFFFF)
#: Every NaN counts as this one: larger than infinity, and all alike.
NAN = np.uint32(0x7F800001)

#: Sizes of tensors of which a sample is drawn, one value of so many, and not more than that: of
#: smaller ones it saves nothing, and places in larger ones don't fit into 32 bits.
SAMPLED = range(1 << 14, 1 << 32)
ONE_OF, SAMPLE = 16, 1 << 15
#: How far around the k-th of the sample the k-th of all is looked for, in standard deviations.
SPREAD = 3.0
#: Eight values of `classify` in one word, each one that is between.
BETWEEN = np.uint64(0x0202020202020202)


def mark_largest(bits: Bits, k: int, order: Callable[[Places], Places] | None = None) -> Marks:
    """Return a mask of the k largest magnitudes of ``values.view(np.uint32)``, flat; never a zero.

    Of equal ones at the threshold, those that come first. Equivalent: sort by (-magnitude, index),
    take the first k, drop the zeros.

    Parameters
    ----------
    bits : array of uint32, shape (numel,)
    k : int
        In [1, numel].
    order : callable, optional
        What comes first: the ranks of places, where that is not the order of `bits`.
    """
    if bits.size in SAMPLED and (found := _by_sample(bits, k)):
        marks, ties, left = found
    else:
        threshold, left = kth_largest(bits, k)
        if order is None or not threshold:
            return mark(bits, threshold, left)
        marks = mark(bits, threshold, 0)
        ties = np.flatnonzero(np.minimum(bits & MAGNITUDE, NAN) == threshold)
    if order is not None and left < ties.size:
        ties = ties[np.argsort(order(ties))]
    marks[ties[:left]] = True
    return marks


def _by_sample(bits: Bits, k: int) -> tuple[Marks, Places, int] | None:
    """Return what is above the k-th largest, the places of its equals, and how many of these count.

    None where most of the values lie between the bounds, or the k-th does not.
    """
    low, high = _bounds(bits, k)
    classes = np.zeros(-(-bits.size // 8) * 8, np.uint8)
    above, between = map(int, classify(bits, low, high, classes))
    marks: Marks = classes[: bits.size].view(np.bool_)
    if above + between < k and low == 1:  # fewer than k are not zero
        classes[classes != 0] = 1
        return marks, np.empty(0, np.int64), 0
    if not above < k <= above + between or between > bits.size // 8:
        return None
    places = gather(classes.view(np.uint64), between)
    inside = bits[places]
    threshold, left = kth_largest(inside, k - above)
    magnitudes = np.minimum(inside & MAGNITUDE, NAN)
    classes[places] = magnitudes > threshold
    return marks, places[magnitudes == threshold], left


def _bounds(bits: Bits, k: int) -> tuple[np.uint32, np.uint32]:
    """Return two magnitudes between which, both included, the k-th largest is likely to lie."""
    count, share = min(bits.size // ONE_OF, SAMPLE), k / bits.size
    spread = SPREAD * (count * share * (1 - share)) ** 0.5 + SPREAD
    low, high = int(count * (1 - share) - spread), int(count * (1 - share) + spread) + 1
    inside = [place for place in (low, high) if 0 <= place < count]
    drawn = np.partition(draw(bits, count), inside) if inside else np.empty(0, np.uint32)
    least = drawn[low] if low in inside else np.uint32(0)
    return max(least, np.uint32(1)), drawn[high] if high in inside else NAN


@jit
def draw(bits: Bits, count: int) -> Bits:
    """Return the magnitudes of some values, in places that no pattern of a tensor's lines meets."""
    drawn = np.empty(count, np.uint32)
    place, size = np.uint64(0), np.uint64(bits.size)
    for i in range(count):
        place += np.uint64(0x9E3779B97F4A7C15)  # 2^64 by the golden ratio: spread evenly
        at = ((place >> np.uint64(32)) * size) >> np.uint64(32)
        drawn[i] = min(bits[at] & MAGNITUDE, NAN)
    return drawn


@jit
def classify(
    bits: Bits, low: np.uint32, high: np.uint32, classes: npt.NDArray[np.uint8]
) -> tuple[int, int]:
    """Write 1 for a magnitude above `high`, 2 for one from `low` to it; return how many are each.

    One branchless loop over all values, so that it is compiled to vector instructions.
    """
    above: Any = np.uint32(0)
    between: Any = np.uint32(0)
    for i in range(bits.size):
        magnitude = min(bits[i] & MAGNITUDE, NAN)
        larger = np.uint32(magnitude > high)
        equal = np.uint32(magnitude >= low) & np.uint32(magnitude <= high)
        classes[i] = larger | (equal << np.uint32(1))
        above += larger
        between += equal
    return above, between


@jit
def gather(words: npt.NDArray[np.uint64], count: int) -> Places:
    """Return the places of the `count` values that are between, eight classes in a word."""
    places, found = np.empty(count + 1, np.int64), np.int64(0)
    for word in range(words.size):
        marked = words[word] & BETWEEN
        if marked:
            for byte in range(8):
                places[found] = 8 * word + byte
                found += np.int64((marked >> np.uint64(8 * byte + 1)) & np.uint64(1))
    return places[:count]


@jit
def kth_largest(bits: Bits, k: int) -> tuple[np.uint32, int]:
    """Return the k-th largest magnitude, and how many of its equals are among the k largest."""
    threshold = np.uint32(0)  # as far as its digits are known
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
def mark(bits: Bits, threshold: np.uint32, left: int) -> Marks:
    """Return a mask of what is above a magnitude, and of the first `left` of its equals."""
    marks = np.empty(bits.size, np.bool_)
    least = max(threshold, np.uint32(1))  # a zero is never marked
    ties = np.int64(0)
    for i in range(bits.size):  # without a branch, so that it is compiled to vector instructions
        magnitude = min(bits[i] & MAGNITUDE, NAN)
        marks[i] = magnitude >= least
        ties += np.int64(magnitude == least)
    last = bits.size
    while threshold and ties > left:
        last -= 1
        if min(bits[last] & MAGNITUDE, NAN) == threshold:
            marks[last] = False
            ties -= 1
    return marks


@jit
def keep(words: npt.NDArray[Any], marks: Marks, kept: npt.NDArray[Any]) -> None:
    """Write the words that are marked, and 0 for the others."""
    for i in range(words.size):
        kept[i] = words[i] if marks[i] else 0
