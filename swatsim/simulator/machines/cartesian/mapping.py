"""Cut an op into the convolutions or outer products that a `cartesian` runs one after another.

Speaks convolution letters, and the machine's: X, Y the padded planar operand, x along H.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations_with_replacement
from math import isqrt
from typing import assert_never

import numpy as np

from swatsim.simulator.machines.cartesian.channels import Met, OuterProduct
from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.groups import (
    Group,
    Layout,
    Planar,
    of_channels,
    on_a_plane,
    padded,
    pes_at_once,
)
from swatsim.simulator.machines.cartesian.kernel_banks import Array
from swatsim.simulator.machines.cartesian.kernel_patterns import Counts
from swatsim.simulator.machines.cartesian.sides import Side
from swatsim.workload.convolutions import Convolution, convolutions
from swatsim.workload.layer import Layer
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Axes, Mask


def planar(op: LoweredOp, config: CartesianConfig) -> Iterator[Planar]:
    """Yield the convolutions of the phases and groups of fprop or dgrad, each whole."""
    return (group.whole() for group in groups(op, config))


def groups(op: LoweredOp, config: CartesianConfig) -> Iterator[Group]:
    """Yield the convolutions of the phases and groups of fprop or dgrad, to be laid out."""
    for conv in convolutions(op, config.dgrad_lowering):
        if op.is_matrix_product:
            yield from _groups(conv, of_channels(), conv.output, config)
        elif config.positions == "square" and is_of_tokens(op.layer):
            positions = conv.output[0] * conv.output[1]
            plane = square(positions, config.pe_h, config.pe_w)
            yield from _groups(conv, on_a_plane(positions, plane), plane, config)
        else:
            # fprop pads the whole image; a lowered dgrad holds exactly what its outputs read
            size = op.layer.padded if op.name == "fprop" else _read(conv)
            yield from _groups(conv, padded(conv, size), conv.output, config)


def _read(conv: Convolution) -> tuple[int, int]:
    """Return the size of what the outputs read."""
    taps = conv.weight.shape[2:]
    sizes = (
        (conv.output[i] - 1) * conv.stride[i] + (taps[i] - 1) * conv.dilation[i] + 1 for i in (0, 1)
    )
    height, width = sizes
    return height, width


def _groups(
    conv: Convolution, layout: Layout, output: Axes, config: CartesianConfig
) -> Iterator[Group]:
    sides = [
        Side(layout.exists.shape[i], layout.taps[i], conv.stride[i], conv.dilation[i], output[i])
        for i in (0, 1)
    ]
    rows, columns = (
        side.axis(pes, conv.wanted is not None)
        for side, pes in zip(sides, _pes(config), strict=True)
    )
    # PEs that own no pixel do nothing: the kernel need not know them
    array = _array(output, config)._replace(owns=_owns(layout.exists, (rows.tile, columns.tile)))
    array = array._replace(pe_h=array.owns.shape[0], pe_w=array.owns.shape[1])
    array = array._replace(at_once=pes_at_once(rows.tile * columns.tile))
    reached = None if conv.wanted is None else (sides[0].reached(), sides[1].reached())
    halo = _halo(conv, layout.taps, output, (rows.tile, columns.tile), config)
    for number in range(conv.groups):
        yield Group(conv, number, layout, rows, columns, array, halo, output, reached)


def _owns(exists: Mask, tile: Axes) -> Mask:
    """Return which PEs, of those up to the last row and column of pixels, own one."""
    rows = np.logical_or.reduceat(exists, range(0, exists.shape[0], tile[0]), axis=0)
    return np.logical_or.reduceat(rows, range(0, exists.shape[1], tile[1]), axis=1)


def _pes(config: CartesianConfig) -> tuple[int, int]:
    return config.pe_h, config.pe_w


def _array(output: Axes, config: CartesianConfig) -> Array:
    """Return the PEs; a chunk has as many filters as accumulators have room for output tiles."""
    height, width = _output_tile(output, config)
    return Array(
        config.pe_h,
        config.pe_w,
        config.act_vector,
        config.weight_vector,
        bank=bank_table(config.banks),
        chunk=max(1, config.accumulator // (height * width)),
        conflicts=True,
        queue=config.bank_queue,
        at_once=1,
        owns=np.ones(_pes(config), np.bool_),
    )


def _output_tile(output: Axes, config: CartesianConfig) -> Axes:
    height, width = (-(-size // n) for size, n in zip(output, _pes(config), strict=True))
    return height, width


@lru_cache(maxsize=32)
def bank_table(banks: int) -> Counts:
    """Return the bank of filter k and output (w, h): SCNN's hash as DNNsim models it.

    It depends on k modulo 8, w and h modulo 4.

    Returns
    -------
    numpy.ndarray of int64, shape (8, 4, 4)
    """
    k, w, h = np.ix_(range(8), range(4), range(4))
    high = (4 * (k & 4)) ^ (8 * (w & 2)) ^ (8 * (h & 2))
    return np.ascontiguousarray((high + 8 * (w & 1) + 4 * (h & 1) + (k & 3)) % banks, np.int64)


def _halo(conv: Convolution, taps: Axes, output: Axes, tile: Axes, config: CartesianConfig) -> int:
    """Return the size of the largest border that a PE exchanges, for each filter.

    The largest a * b over the nine pairs of (what reaches over the far edge, the tile, the padding
    before) of the two axes, but the pair of the two tiles; negative counts as 0.
    """
    sides = [_reach(conv, axis, taps[axis], tile[axis]) for axis in (0, 1)]
    match config.halo:
        case "reach":
            pass
        case "output":
            own = _output_tile(output, config)
            strides = conv.stride
            sides = [_within(output[i], own[i], strides[i], side) for i, side in enumerate(sides)]
        case _:
            assert_never(config.halo)
    pairs = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    return max(sides[0][i] * sides[1][j] for i, j in pairs)


def _reach(conv: Convolution, axis: int, taps: int, tile: int) -> tuple[int, int, int]:
    before = max(0, -conv.origin[axis])
    span = (taps - 1) * conv.dilation[axis]
    return max(0, span - before), tile, before


def _within(size: int, own: int, stride: int, side: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the sums of pixels on a side: in the output plane, borders outside the own tile."""
    far, tile, near = (-(-pixels // stride) for pixels in side)
    others = size - own
    return min(far, others), min(tile, size), min(near, others)


# ---- tokens --------------------------------------------------------------------------------------


def is_of_tokens(layer: Layer) -> bool:
    """Whether a layer's positions have no neighbours, and lie in a row: they may lie anyhow."""
    alone = layer.R == layer.S == 1 and layer.stride == (1, 1)
    return alone and layer.padded == (layer.H, layer.W) and 1 in (layer.H, layer.W)


@lru_cache(maxsize=1024)
def square(positions: int, pe_h: int, pe_w: int) -> Axes:
    """Return the plane a x b, of which only the last row may be short, for so many positions.

    That whose tiles have the fewest pixels; then the one nearest to a square; then the larger a.
    """
    b = np.arange(1, positions + 1)
    a = -(-positions // b)
    tile = -(-a // pe_h) * -(-b // pe_w)
    best = np.lexsort((-a, np.abs(a - b), tile))[0]
    return int(a[best]), int(b[best])


# ---- wgrad ---------------------------------------------------------------------------------------


def outer_products(op: LoweredOp, config: CartesianConfig) -> Iterator[OuterProduct]:
    """Yield the outer products of the samples and groups of wgrad, to be laid out.

    SCNN has no mapping of wgrad; this one is ours.
    """
    layer, met = op.layer, Met.of_layer(op.layer)
    blocks, pes = blocks_of(layer, config), _pes(config)
    for sample in range(op.samples):
        for group in range(layer.groups):
            yield OuterProduct(op, sample, group, met, blocks, pes)


def blocks_of(layer: Layer, config: CartesianConfig) -> tuple[int, int]:
    """Return the input channels and filters of a PE in wgrad.

    Its accumulators hold a square of them at most, and it has no more than its share.
    """
    square, sizes = isqrt(config.accumulator), (layer.C // layer.groups, layer.K // layer.groups)
    channels, filters = (
        min(square, -(-size // pes)) for size, pes in zip(sizes, _pes(config), strict=True)
    )
    return channels, filters


def patterns(vector: int, modulus: int) -> tuple[Counts, Counts]:
    """Return the ways in which a block of at most `vector` indices can fall modulo `modulus`.

    Returns
    -------
    counts : numpy.ndarray of int64, shape (patterns, modulus)
        How many indices fall on each; pattern 0 is the empty block.
    grown : numpy.ndarray of int64, shape (patterns, modulus)
        The pattern with one index more; -1 for a full block.
    """
    all_counts = [
        tuple(np.bincount(chosen, minlength=modulus).tolist()) if chosen else (0,) * modulus
        for size in range(vector + 1)
        for chosen in combinations_with_replacement(range(modulus), size)
    ]
    index = {counts: i for i, counts in enumerate(all_counts)}
    grown = np.full((len(all_counts), modulus), -1, np.int64)
    for counts, i in index.items():
        for m in range(modulus):
            more = (*counts[:m], counts[m] + 1, *counts[m + 1 :])
            grown[i, m] = index.get(more, -1)
    return np.array(all_counts, np.int64), grown
