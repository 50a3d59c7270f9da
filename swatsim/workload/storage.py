"""Bytes of one tensor in each storage format: exact from a mask, expected from a density.

`FORMATS` is the one declaration: what a format stores, as terms of a sum. The bytes of a tensor, of
a block of one in the memory system, the names that a configuration takes and the words of help all
come from it; a new format is an entry there.

A tensor without a zero is stored dense in every format: no one would do otherwise. Bytes are
rounded up once, for the whole tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod
from typing import Any, Literal, NamedTuple, assert_never

import numpy as np

from swatsim.arguments import (
    accepted,
    arguments,
    density_or_none,
    mask_like,
    several,
    string,
    whole_number,
)
from swatsim.errors import WorkloadError, unknown
from swatsim.workload.layer import SECOND_AXIS, Channels
from swatsim.workload.run_length import COUNTER_BITS, expected_padding, padding_of
from swatsim.workload.value_types import DTYPES as DTYPES
from swatsim.workload.value_types import fewest_bits
from swatsim.workload.windows import Mask

Shape = tuple[int, ...]
Density = Fraction | float

#: Values of a mask that are looked at at a time (16 MiB).
MOST_VALUES = 2**24
#: What a name such as 2:4 may be, in words.
N_OF_M = "N:M with 1 <= N <= M <= 9999, such as 2:4"

#: What an entry is stored for: each element; each value that is not zero; these and the padding of
#: long runs of zeros; N of each M channels, used or not; N for each M elements, wherever they are.
Entries = Literal["elements", "values", "runs", "slots", "packed"]
#: What has a pointer, with one more at the end: nothing; each index of the leading dimension (K of
#: weights, N of activations); each place within the others.
Lines = Literal["none", "leading", "trailing"]


class Terms(NamedTuple):
    """Bits of an entry, of each element beside, and of a pointer."""

    entry: int
    element: int = 0
    pointer: int = 0

    def bits(self, entries: Any, elements: Any, pointers: Any) -> Any:
        """Return all bits; of numbers, or arrays of one shape."""
        return entries * self.entry + elements * self.element + pointers * self.pointer


def _nothing(shape: Shape) -> int:
    return 0


def _column(shape: Shape) -> int:
    return fewest_bits(prod(shape[1:]) - 1)


def _row(shape: Shape) -> int:
    return fewest_bits(shape[0] - 1)


@dataclass(frozen=True)
class Format:
    """A storage format: what is stored of a tensor of E elements, of which V are not zero.

    Parameters
    ----------
    name : str
    stores : str
        What it stores, for people.
    entries : {"elements", "values", "runs", "slots", "packed"}
        What has an entry: a value, and what is stored beside it.
    beside : callable of shape to int
        Bits beside the value, of a tensor of that shape: an index, a counter.
    element : int
        Bits for each element, zero or not.
    lines : {"none", "leading", "trailing"}
        What has a pointer, of the fewest of 8, 16, 32 or 64 bits that hold E: whatever the
        density, it fits.
    placed : bool
        Whether it says where the values were: what can be read again.
    n, m : int
        Of slots: N of each M channels. Of what is packed: N for each M elements.
    """

    name: str
    stores: str
    entries: Entries = "values"
    beside: Callable[[Shape], int] = _nothing
    element: int = 0
    lines: Lines = "none"
    placed: bool = True
    n: int = 0
    m: int = 1

    def terms(self, shape: Shape, bits: int) -> Terms:
        """Return the bits of its terms, for a tensor of a shape with values of so many bits."""
        pointer = 0 if self.lines == "none" else fewest_bits(prod(shape))
        return Terms(bits + self.beside(shape), self.element, pointer)

    def packed(self, elements: Any) -> Any:
        """Return N slots for each M elements, rounded up; of a number, or of an array."""
        return -(-elements * self.n // self.m)


FORMATS: Mapping[str, Format] = {
    entry.name: entry
    for entry in (
        Format("dense", "E values", entries="elements"),
        Format(
            "values",
            "V values and nothing that says where they were: what papers count that leave it out",
            placed=False,
        ),
        Format("bitmask", "V values, one bit an element", element=1),
        Format(
            "csr",
            "V values, V column indices, rows + 1 row pointers; rows are the leading dimension, "
            "columns the others; indices have the fewest of 8, 16, 32 or 64 bits that hold the "
            "last column",
            beside=_column,
            lines="leading",
        ),
        Format(
            "csc",
            "the same by columns: V values, V row indices, columns + 1 column pointers",
            beside=_row,
            lines="trailing",
        ),
        Format(
            "run-length",
            "a value and a count of the zeros before it, of 4 bits, as EIE (Han et al., ISCA 2016, "
            "section III.B) and SCNN (Parashar et al., ISCA 2017) have it; the tensor is one run "
            "in memory order; each 16 zeros before a value need a padding entry (count 15 and a "
            "zero as the value); zeros after the last value need none",
            entries="runs",
            beside=lambda shape: COUNTER_BITS,
        ),
    )
}


def words(placed: bool = False) -> str:
    """Return the formats for people; `placed`: only those that say where their values are."""
    names = [name for name, format in FORMATS.items() if format.placed or not placed]
    return f"{', '.join(names)}, or {N_OF_M}"


def named(format: str) -> Format:
    """Return a format by its name.

    N:M: of each M channels (of a weight the input channels of a group of its layer; the last ones
    may be fewer) at most N are kept: N values (of the last ones no more than there are), each with
    its place among the M, whether all are used or not.

    Raises
    ------
    WorkloadError
        If there is none of that name; it names the nearest.
    """
    if format in FORMATS:
        return FORMATS[format]
    pattern = re.fullmatch(r"(\d{1,4}):(\d{1,4})", format)
    n, m = map(int, pattern.groups()) if pattern else (0, 0)
    if not 1 <= n <= m:
        raise WorkloadError(f"{unknown('format', format, FORMATS)}, or {N_OF_M}")
    stores = f"of each {m} channels {n} values, each with its place in the group"
    return Format(format, stores, "slots", lambda shape: (m - 1).bit_length(), n=n, m=m)


def packed(n: int, m: int) -> Format:
    """Return the format of an operand that a machine runs n:m along any axis of its own.

    N values for each M elements, rounded up, each with its place in the group.
    """
    name = f"packed {n}:{m}"
    stores = f"for each {m} elements {n} values, each with its place in the group"
    return Format(name, stores, "packed", lambda shape: (m - 1).bit_length(), n=n, m=m)


def check(format: str, dtype: str) -> None:
    """Refuse an unknown format or value type.

    Raises
    ------
    WorkloadError
        Naming the nearest.
    """
    if dtype not in DTYPES:
        raise WorkloadError(unknown("value type", dtype, DTYPES))
    named(format)


@arguments(WorkloadError, mask=mask_like, format=string, dtype=string)
def stored(
    mask: Mask, format: str, dtype: str, channels: Channels = SECOND_AXIS
) -> tuple[str, int]:
    """Return the bytes of a tensor, exactly.

    Parameters
    ----------
    mask : numpy.ndarray of bool
        True where a value is kept; of two dimensions or more.
    format, dtype : str
    channels : Channels
        Where the tensor has them, for N:M.

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
    used = FORMATS["dense"] if ones == mask.size else named(format)
    return used.name, _bytes(
        used, mask.shape, _entries_of(used, mask, ones, channels), DTYPES[dtype]
    )


def _entries_of(format: Format, mask: Mask, ones: int, channels: Channels) -> int:
    """Return the entries of a mask."""
    match format.entries:
        case "elements":
            return mask.size
        case "values":
            return ones
        case "runs":
            return ones + padding_of(mask)
        case "slots":
            check_pattern(mask, format.n, format.m, channels)
            return _slots(format, mask.shape, channels)
        case "packed":
            return int(format.packed(mask.size))
        case _:
            assert_never(format.entries)


@arguments(
    WorkloadError,
    shape=several(whole_number, "sizes of axes"),
    density=density_or_none,
    format=string,
    dtype=string,
)
def expected(
    shape: Shape, density: Density, format: str, dtype: str, channels: Channels = SECOND_AXIS
) -> tuple[str, int]:
    """Return the bytes of a tensor of which only the density is known.

    Kept are ceil(density * elements) values, as Top-K has it (0.2 is 1/5, not the float). All
    formats but run-length depend on nothing else; there it is the expectation over masks whose
    elements are kept independently.

    Parameters
    ----------
    shape : tuple of int
    density : Fraction or float
        In [0, 1].
    format, dtype : str
    channels : Channels
        Where the tensor has them, for N:M.

    Returns
    -------
    (str, int)
        The format that is used, and bytes.

    Raises
    ------
    WorkloadError
        If there is no such format or type, or the density is not in [0, 1], or above
        what N:M leaves.
    """
    check(format, dtype)
    elements = prod(shape)
    ones = retained(elements, density)
    used = FORMATS["dense"] if ones == elements else named(format)
    entries = _entries_expected(used, shape, ones, density, channels)
    return used.name, _bytes(used, shape, entries, DTYPES[dtype])


def _entries_expected(
    format: Format, shape: Shape, ones: int, density: Density, channels: Channels
) -> int:
    """Return the expected entries of a tensor that retains so many values."""
    match format.entries:
        case "elements":
            return prod(shape)
        case "values":
            return ones
        case "runs":
            return ones + ceil(expected_padding(prod(shape), ones))
        case "slots":
            slots = _slots(format, shape, channels)
            if ones > slots:
                raise WorkloadError(
                    f"a density of {float(density):g} can't obey {format.name}: must be at most "
                    f"{slots / prod(shape):g}; choose another format"
                )
            return slots
        case "packed":
            return int(format.packed(prod(shape)))
        case _:
            assert_never(format.entries)


def _slots(format: Format, shape: Shape, channels: Channels) -> int:
    """Return the slots of all M channels."""
    size = shape[channels.axis] // channels.groups
    whole, rest = divmod(size, format.m)
    return (format.n * whole + min(format.n, rest)) * (prod(shape) // size)


def retained(elements: int, density: Density) -> int:
    """Return how many values a density leaves: ceil(density * elements), computed exactly.

    Raises
    ------
    WorkloadError
        If the density is not in [0, 1].
    """
    share = accepted(WorkloadError, "retained", "density", density, density_or_none)
    left: int = ceil(share * elements)
    return left


def _bytes(format: Format, shape: Shape, entries: int, bits: int) -> int:
    """Return values and metadata together, in whole bytes."""
    pointers = _lines(format.lines, shape) + 1
    total: int = format.terms(shape, bits).bits(entries, prod(shape), pointers)
    return (total + 7) // 8


def _lines(lines: Lines, shape: Shape) -> int:
    match lines:
        case "none":
            return 0
        case "leading":
            return shape[0]
        case "trailing":
            return prod(shape[1:])
        case _:
            assert_never(lines)


def check_pattern(mask: Mask, n: int, m: int, channels: Channels = SECOND_AXIS) -> None:
    """Refuse a mask with more than n of m channels retained."""
    cut = 0 if channels.axis else 1  # any axis but that of the channels
    at_once, places = max(1, MOST_VALUES * mask.shape[cut] // mask.size), []
    for first in range(0, mask.shape[cut], at_once):
        some = mask.take(range(first, min(first + at_once, mask.shape[cut])), axis=cut)
        excess = _excess(some, n, m, channels)
        if excess.any():
            place = list(map(int, np.unravel_index(excess.argmax(), excess.shape)))
            place[cut] += first
            places.append(tuple(place))
    if places:
        raise WorkloadError(
            f"its mask does not obey {n}:{m}: at {min(places)} is value number {n + 1} of its "
            f"group of {m} channels (axis {channels.axis}); choose another format"
        )


def _excess(mask: Mask, n: int, m: int, channels: Channels) -> Mask:
    """Return which values are more than n of m channels."""
    axis, groups = channels
    before, after = prod(mask.shape[:axis]), prod(mask.shape[axis + 1 :])
    size = mask.shape[axis] // groups
    together = min(m, size)
    split = mask.reshape(before, groups, size, after)
    filled = np.pad(split, [(0, 0), (0, 0), (0, -size % together), (0, 0)])
    of_each = filled.reshape(before, groups, -1, together, after)
    excess = of_each & (of_each.cumsum(axis=3, dtype=np.min_scalar_type(together)) > n)
    return excess.reshape(before, groups, -1, after)[:, :, :size].reshape(mask.shape)
