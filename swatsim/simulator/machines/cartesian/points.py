"""Convolutions with 1 x 1 kernels, which a kernel of their own runs many times quicker."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from swatsim.simulator.machines.cartesian.groups import Planar
from swatsim.simulator.machines.cartesian.kernel import Work
from swatsim.simulator.machines.cartesian.kernel_banks import Array
from swatsim.simulator.machines.cartesian.kernel_patterns import Bytes, Counts
from swatsim.simulator.machines.cartesian.kernel_points import (
    Points,
    convolve_points,
    cost_of_patterns,
)
from swatsim.simulator.machines.cartesian.kernel_taps import Blocks, Taps
from swatsim.simulator.machines.cartesian.sides import bits_by_tap

#: Larger blocks have too many patterns.
MAX_VECTOR = 4
#: Of fewer pairs of a pixel and a filter it takes less time to run them than to compile the kernel.
LEAST_PAIRS = 2**23
#: Of a larger plane it would take too much room to lay down where each pixel is (48 MiB).
MOST_PLANE = 2**20
_NO_BLOCKS = Blocks(1, 1, np.empty(0, np.int64), np.empty((0, 0), np.int64))
#: Nothing is looked up.
NO_TAPS = Taps(np.empty((0, 0, 0), np.int8), _NO_BLOCKS, _NO_BLOCKS, np.empty((0, 0), np.uint8))


def is_pointwise(part: Planar) -> bool:
    """Whether a part has one tap, is large enough to be worth it, and has blocks that are small."""
    alone = part.weight.shape[2:] == (1, 1) and not part.array.queue and part.wanted is None
    return alone and _is_worth_it(part) and part.data[0, 0].size <= MOST_PLANE


def _is_worth_it(part: Planar) -> bool:
    small = max(part.array.act_vector, part.array.weight_vector) <= MAX_VECTOR
    return small and part.data.size * part.weight.shape[1] >= LEAST_PAIRS


def convolve(part: Planar) -> Work:
    """Run one group's convolution with a 1 x 1 kernel, as `kernel.convolve` does."""
    channels, samples = part.data.shape[:2]
    data = part.data.reshape(channels, samples, -1)
    weight = part.weight.reshape(part.weight.shape[:2])
    run = _points_of(part, part.array.bank.tobytes()), *_tables_of(part.array), part.array
    return convolve_points(data, weight, part.first_k, *run)


def taps_of(part: Planar) -> Taps:
    """Return what is looked up of a part with larger kernels, where that is worth it."""
    taps, classes = part.weight[0, 0].size, part.rows.place.size * part.columns.place.size
    if not _is_worth_it(part) or taps * classes > MOST_PLANE:
        return NO_TAPS
    rows, columns = bits_by_tap(part.rows), bits_by_tap(part.columns)
    known = _kinds(part.array.bank.tobytes())[0]
    kinds = np.zeros((len(rows), len(columns), classes + 1), np.int8)
    kinds[:, :, :-1] = known[rows[:, None, :, None], columns[:, None, :]].reshape(
        *kinds.shape[:2], classes
    )
    return Taps(kinds, *_tables_of(part.array))


def _tables_of(array: Array) -> tuple[Blocks, Blocks, Bytes]:
    vectors = array.act_vector, array.weight_vector
    return _tables(array.bank.tobytes(), *vectors, array.conflicts)


def _points_of(part: Planar, bank: bytes) -> Points:
    axes = part.rows, part.columns
    outputs = [axis.output_bits[axis.place[axis.pixel_class]].tobytes() for axis in axes]
    strides, tiles = [(it.stride for it in axes), (it.tile for it in axes)]
    return _points(*outputs, *strides, *tiles, part.array.pe_h, part.array.pe_w, bank)


@lru_cache(maxsize=16)  # a network has few shapes; of a large image each takes megabytes
def _points(
    along_x: bytes,
    along_y: bytes,
    stride_x: int,
    stride_y: int,
    tile_x: int,
    tile_y: int,
    pe_h: int,
    pe_w: int,
    bank: bytes,
) -> Points:
    """Return the pixels that meet the tap; `along_x` and `along_y` are the bits of its outputs."""
    bits_x, bits_y = (np.frombuffer(it, np.int64) for it in (along_x, along_y))
    x, y = np.arange(0, bits_x.size, stride_x)[:, None], np.arange(0, bits_y.size, stride_y)
    pe = (x // tile_x * pe_w + y // tile_y).reshape(-1)
    order = np.argsort(pe, kind="stable")  # x outer, y inner: as the pixels of a PE are queued
    return Points(
        places=(x * bits_y.size + y).reshape(-1)[order],
        kinds=_kinds(bank)[0][bits_x[x], bits_y[y]].reshape(-1)[order],
        starts=np.searchsorted(pe[order], np.arange(pe_h * pe_w + 1)).astype(np.int64),
    )


@lru_cache(maxsize=32)
def _kinds(bank: bytes) -> tuple[Counts, Counts]:
    """Return the kind of each pair of output bits, counted from 1; and each kind's banks.

    Of bits -1, which are the last ones, it is the last kind, that of what is outside the plane.
    """
    banks, kind = np.unique(
        np.frombuffer(bank, np.int64).reshape(8, 16), axis=1, return_inverse=True
    )
    kinds = np.full((5, 5), banks.shape[1] + 1)
    kinds[:4, :4] = kind.reshape(4, 4) + 1
    return kinds, np.hstack([banks, np.full((8, 1), -1)])


@lru_cache(maxsize=32)
def _tables(
    bank: bytes, act_vector: int, weight_vector: int, conflicts: bool
) -> tuple[Blocks, Blocks, Bytes]:
    """Return blocks of pixels and of weights as patterns, and what each two of them cost."""
    banks = _kinds(bank)[1]
    pixels, weights = _blocks(banks.shape[1], act_vector), _blocks(8, weight_vector)
    if conflicts:
        return pixels, weights, cost_of_patterns(weights.members, pixels.members, banks)
    return pixels, weights, np.ones((len(weights.members), len(pixels.members)), np.uint8)


@lru_cache(maxsize=32)
def _blocks(kinds: int, vector: int) -> Blocks:
    """Return the patterns of blocks of at most `vector` values of so many kinds."""
    digits = np.indices((kinds + 1,) * vector).reshape(vector, -1).T
    count = (vector + 1) ** np.arange(kinds)
    keys = np.concatenate([[0], count])[digits].sum(axis=1)
    _, first, pattern = np.unique(keys, return_index=True, return_inverse=True)
    return Blocks(kinds + 1, vector, pattern.reshape(-1), np.ascontiguousarray(digits[first]))
