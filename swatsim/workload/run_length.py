"""Run-length coding: a value and a count of the zeros before it, and the padding of long runs."""

from __future__ import annotations

from math import exp, expm1, log1p

import numpy as np

from swatsim.workload.windows import Mask

#: Bits of the counter of zeros, in EIE and SCNN.
COUNTER_BITS = 4
#: Terms of a sum that are added one by one (8 MiB of each array).
MOST_TERMS = 2**20


def padding_of(mask: Mask) -> int:
    """Return the padding entries that run-length needs: one for each 16 zeros before a value."""
    places = np.flatnonzero(mask)
    zeros = np.diff(places, prepend=-1) - 1
    return int((zeros >> COUNTER_BITS).sum())


def expected_padding(elements: int, ones: int) -> float:
    """Return the expected padding entries of a mask whose elements are retained independently.

    An element needs its j-th padding entry if it is kept, with probability d, and the 16 j
    elements before it exist and are not: the sum over j of (elements - 16 j) d (1 - d)^(16 j).
    """
    if ones == 0:
        return 0.0
    density, run = ones / elements, 2**COUNTER_BITS
    # what is left out is below exp(-40) of the sum
    last = min((elements - 1) // run, int(40 / (run * density)) + 1)
    if last > MOST_TERMS:
        return _in_closed_form(elements, density, last)
    lengths = run * np.arange(1, last + 1, dtype=np.float64)
    return float(((elements - lengths) * density * (1 - density) ** lengths).sum())


def _in_closed_form(elements: int, density: float, last: int) -> float:
    """Return the same sum, of two geometric series: j up to `last` may be billions."""
    run: int = 2**COUNTER_BITS
    log = run * log1p(-density)
    ratio, left, power = exp(log), -expm1(log), exp(last * log)
    ones = ratio * -expm1(last * log) / left
    places = ratio * (1 - power * (1 + last * left)) / left**2
    return density * (elements * ones - run * places)
