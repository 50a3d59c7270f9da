"""Bytes of one tensor in each storage format: exact from a mask, expected from a density.

What the formats store, for a tensor of E elements of which V are kept, of b bits a value:

========== ======================================================================================
dense      E values
values     V values and nothing that says where they were: what papers count that leave it out
bitmask    V values, one bit an element
csr        V values, V column indices, rows + 1 row pointers. Rows are the leading dimension (K of
           weights, N of activations), columns the others. Indices and pointers have the fewest of
           8, 16, 32 or 64 bits that hold the last column, and E: whatever the density, it fits
csc        the same by columns: V values, V row indices, columns + 1 column pointers
run-length a value and a count of the zeros before it, of 4 bits, as EIE (Han et al., ISCA 2016,
           section III.B) and SCNN (Parashar et al., ISCA 2017) have it. The tensor is one run in
           memory order; each 16 zeros before a value need a padding entry (count 15 and a zero as
           the value); zeros after the last value need none
N:M        of each M channels (axis 1, the last group may be smaller) at most N are kept: N values
           (of a last group that is smaller, no more than it has), each with its place in the group,
           whether all are used or not
========== ======================================================================================

A tensor without a zero is stored dense in every format: no one would do otherwise. Bytes are
rounded up once, for the whole tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from math import ceil, prod

import numpy as np

from swatsim.errors import WorkloadError, unknown
from swatsim.workload.training_ops import Mask

#: Value type -> bits.
DTYPES: Mapping[str, int] = {"fp32": 32, "fp16": 16, "bf16": 16}

FORMATS = ("dense", "values", "bitmask", "csr", "csc", "run-length")

#: Bits of run-length's counter of zeros, in EIE and SCNN.
COUNTER_BITS = 4

Shape = tuple[int, ...]
Density = Fraction | float


def check(format: str, dtype: str) -> None:
    """Refuse a format or a value type that there is none of.

    Raises
    ------
    WorkloadError
        Naming the nearest.
    """
    if dtype not in DTYPES:
        raise WorkloadError(unknown("value type", dtype, DTYPES))
    if format not in FORMATS and pattern(format) is None:
        raise WorkloadError(
            f"{unknown('format', format, FORMATS)}, or N:M with 1 <= N <= M, such as 2:4"
        )


def pattern(format: str) -> tuple[int, int] | None:
    """Read N:M, for example ``2:4``; None if the format is another."""
    found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", format)
    if found is None:
        return None
    n, m = map(int, found.groups())
    return (n, m) if 1 <= n <= m else None


def stored(mask: Mask, format: str, dtype: str) -> tuple[str, int]:
    """Count the bytes of a tensor exactly.

    Parameters
    ----------
    mask : numpy.ndarray of bool
        True where a value is kept; of two dimensions or more.
    format, dtype : str

    Returns
    -------
    (str, int)
        The format that is used, and bytes.

    Raises
    ------
    WorkloadError
        If there is no such format or type, or the mask does not obey N:M.
    """
    check(format, dtype)
    ones = int(np.count_nonzero(mask))
    if ones < mask.size and (nm := pattern(format)):
        check_pattern(mask, *nm)
    padding = padding_of(mask) if format == "run-length" else 0
    return _bytes(mask.shape, ones, padding, format, DTYPES[dtype])


def expected(shape: Shape, density: Density, format: str, dtype: str) -> tuple[str, int]:
    """Count the bytes of a tensor of which only the density is known.

    Kept are ceil(density * elements) values, as Top-K has it (0.2 is 1/5, not the float). All
    formats but run-length depend on nothing else; there it is the expectation over masks whose
    elements are kept independently.

    Parameters
    ----------
    shape : tuple of int
    density : Fraction or float
        In [0, 1].
    format, dtype : str

    Returns
    -------
    (str, int)
        The format that is used, and bytes.

    Raises
    ------
    WorkloadError
        If there is no such format or type, or the density is not in [0, 1], or above N/M.
    """
    check(format, dtype)
    elements = prod(shape)
    ones = kept(elements, density)
    nm = pattern(format)
    if nm and ones < elements and Fraction(str(density)) > Fraction(*nm):
        raise WorkloadError(
            f"a density of {float(density):g} can't obey {format}: must be at most "
            f"{nm[0] / nm[1]:g}; choose another format"
        )
    padding = ceil(expected_padding(elements, ones)) if format == "run-length" else 0
    return _bytes(shape, ones, padding, format, DTYPES[dtype])


def kept(elements: int, density: Density) -> int:
    """Count the values that a density leaves: ceil(density * elements), computed exactly.

    Raises
    ------
    WorkloadError
        If the density is not in [0, 1].
    """
    if not 0 <= density <= 1:
        raise WorkloadError(f"density={density!r} is not allowed: must be in [0, 1]")
    return ceil(Fraction(str(density)) * elements)


def _bytes(shape: Shape, ones: int, padding: int, format: str, bits: int) -> tuple[str, int]:
    """Add up values and metadata."""
    elements = prod(shape)
    if ones == elements or format == "dense":
        return "dense", _whole(elements * bits)
    if nm := pattern(format):
        n, m = nm
        whole, rest = divmod(shape[1], m)
        slots = (n * whole + min(n, rest)) * (elements // shape[1])
        return format, _whole(slots * (bits + (m - 1).bit_length()))
    if format == "run-length":
        return format, _whole((ones + padding) * (bits + COUNTER_BITS))
    if format in ("csr", "csc"):
        index, pointer = index_bits(shape, format)
        lines = shape[0] if format == "csr" else prod(shape[1:])
        return format, _whole(ones * (bits + index) + (lines + 1) * pointer)
    return format, _whole(ones * bits + (elements if format == "bitmask" else 0))


def _whole(bits: int) -> int:
    """Round up to bytes."""
    return (bits + 7) // 8


def index_bits(shape: Shape, format: str) -> tuple[int, int]:
    """Give the widths of an index and of a pointer, in ``csr`` or ``csc``."""
    across = prod(shape[1:]) if format == "csr" else shape[0]
    return _fewest_bits(across - 1), _fewest_bits(prod(shape))


def _fewest_bits(largest: int) -> int:
    return next(bits for bits in (8, 16, 32, 64) if largest < 2**bits)


def padding_of(mask: Mask) -> int:
    """Count the padding entries that run-length needs: one for each 16 zeros before a value."""
    places = np.flatnonzero(mask)
    zeros = np.diff(places, prepend=-1) - 1
    return int((zeros >> COUNTER_BITS).sum())


def expected_padding(elements: int, ones: int) -> float:
    """Expect the padding entries of a mask whose elements are kept independently.

    An element needs its j-th padding entry if it is kept, with probability d, and the 16 j
    elements before it exist and are not: the sum over j of (elements - 16 j) d (1 - d)^(16 j).
    """
    if ones == 0:
        return 0.0
    density, run = ones / elements, 2**COUNTER_BITS
    # what is left out is below exp(-40) of the sum
    last = min((elements - 1) // run, int(40 / (run * density)) + 1)
    lengths = run * np.arange(1, last + 1, dtype=np.float64)
    return float(((elements - lengths) * density * (1 - density) ** lengths).sum())


def check_pattern(mask: Mask, n: int, m: int) -> None:
    """Refuse a mask with more than n kept of m channels."""
    missing = -mask.shape[1] % m
    pads = [(0, 0), (0, missing)] + [(0, 0)] * (mask.ndim - 2)
    groups = np.pad(mask, pads).reshape(mask.shape[0], -1, m, *mask.shape[2:])
    excess = groups & (groups.cumsum(axis=2, dtype=np.uint16) > n)
    if not excess.any():
        return
    place = np.argwhere(excess.reshape(mask.shape[0], -1, *mask.shape[2:]))[0]
    raise WorkloadError(
        f"its mask does not obey {n}:{m}: at {tuple(map(int, place))} is value number {n + 1} of "
        f"its group of {m} channels (axis 1); choose another format"
    )
