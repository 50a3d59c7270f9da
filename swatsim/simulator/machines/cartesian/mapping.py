"""Cut an op into the convolutions or outer products that a `cartesian` runs one after another.

Speaks convolution letters, and the machine's: X, Y the padded planar operand, x along H.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations_with_replacement
from math import isqrt
from typing import assert_never

import numpy as np

from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.kernel_banks import Array, Axis
from swatsim.simulator.machines.cartesian.kernel_patterns import Bits, Counts
from swatsim.simulator.machines.cartesian.kernel_wanted import Wanted
from swatsim.simulator.machines.cartesian.wanted import (
    on_plane,
    reached,
    wanted_of_groups,
    wanted_sums,
)
from swatsim.workload.convolutions import Convolution, convolutions
from swatsim.workload.layer import Layer
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Axes, Mask, channels_first, crop_or_pad

#: A linear layer's channels are seen as images of this side: one application of a kernel as large.
LINEAR_SIDE = 16


@dataclass(frozen=True, eq=False)
class Planar:
    """One group's convolution, its planar operand padded.

    Parameters
    ----------
    data : numpy.ndarray of bool, shape (C, N, X, Y)
    weight : numpy.ndarray of bool, shape (C, K, R, S)
    first_k : int
        Index of the group's first filter in the layer.
    rows, columns : Axis
    array : Array
    halo : int
        Cycles for each filter of a chunk, after it.
    outputs : int
        Elements of one filter's output plane.
    exists : numpy.ndarray of bool, shape (X, Y)
        Which pixels there are: all, but where positions fill no plane.
    wanted : Wanted, optional
        Which outputs somebody wants; by default all.
    """

    data: Mask
    weight: Mask
    first_k: int
    rows: Axis
    columns: Axis
    array: Array
    halo: int
    outputs: int
    exists: Mask
    wanted: Wanted | None = None

    @property
    def products_valid(self) -> int:
        """Products that fall into the output plane, if no value is zero."""
        samples: int = self.data.shape[1]
        return self.outputs * samples * self.weight.size

    @property
    def halo_cycles(self) -> int:
        """Halo of all chunks and samples."""
        filters: int = self.weight.shape[1]
        if self.wanted is not None:
            first = np.arange(0, filters, self.array.chunk)
            sizes = np.minimum(filters - first, self.array.chunk)
            return self.halo * int((self.wanted.chunks * sizes[:, None]).sum())
        samples: int = self.data.shape[1]
        return self.halo * filters * samples


def planar(op: LoweredOp, config: CartesianConfig) -> Iterator[Planar]:
    """Yield the convolutions of the phases and groups of fprop or dgrad."""
    for conv in convolutions(op, config.dgrad_lowering):
        if op.is_matrix_product:
            conv = _as_images(conv)
            yield from _groups(conv, np.ones(_read(conv), np.bool_), config)
        elif config.positions == "square" and is_of_tokens(op.layer):
            yield from _groups(*as_square(conv, config), config)
        else:
            # fprop pads the whole image; a lowered dgrad holds exactly what its outputs read
            padded = op.layer.padded if op.name == "fprop" else _read(conv)
            yield from _groups(conv, np.ones(padded, np.bool_), config)


def _read(conv: Convolution) -> tuple[int, int]:
    """Return the size of what the outputs read."""
    taps = conv.weight.shape[2:]
    sizes = (
        (conv.output[i] - 1) * conv.stride[i] + (taps[i] - 1) * conv.dilation[i] + 1 for i in (0, 1)
    )
    height, width = sizes
    return height, width


def _as_images(conv: Convolution) -> Convolution:
    """Return a linear layer's channels as 16 x 16 images: channel 256 * block + 16 * x + y."""
    return replace(conv, data=_fold_channels(conv.data), weight=_fold_channels(conv.weight))


def _fold_channels(mask: Mask) -> Mask:
    n, channels = mask.shape[:2]
    area = LINEAR_SIDE**2
    blocks = -(-channels // area)
    filled = np.zeros((n, blocks * area), np.bool_)
    filled[:, :channels] = mask.reshape(n, channels)
    return filled.reshape(n, blocks, LINEAR_SIDE, LINEAR_SIDE)


def _groups(conv: Convolution, exists: Mask, config: CartesianConfig) -> Iterator[Planar]:
    padded = exists.shape
    data = crop_or_pad(conv.data, 2, conv.origin[0], padded[0])
    data = crop_or_pad(data, 3, conv.origin[1], padded[1]).transpose(1, 0, 2, 3)
    rows, columns = (_axis(conv, i, padded[i], pes) for i, pes in enumerate(_pes(config)))
    # PEs that own no pixel do nothing: the kernel need not know them
    array = _array(conv, config)._replace(owns=_owns(exists, (rows.tile, columns.tile)))
    array = array._replace(pe_h=array.owns.shape[0], pe_w=array.owns.shape[1])
    channels, filters = len(data) // conv.groups, len(conv.weight) // conv.groups
    some = wanted_of_groups(conv, padded, array.chunk)
    for group, wanted in enumerate(some):
        weight = channels_first(conv.weight[group * filters : (group + 1) * filters])
        yield Planar(
            data=np.array(data[group * channels : (group + 1) * channels], order="C"),
            weight=weight,
            first_k=group * filters,
            rows=rows,
            columns=columns,
            array=array,
            halo=_halo(conv, (rows.tile, columns.tile), config),
            outputs=conv.output[0] * conv.output[1] - int(np.count_nonzero(~exists)),
            exists=exists,
            wanted=wanted,
        )


def _owns(exists: Mask, tile: Axes) -> Mask:
    """Return which PEs, of those up to the last row and column of pixels, own one."""
    rows = np.logical_or.reduceat(exists, range(0, exists.shape[0], tile[0]), axis=0)
    return np.logical_or.reduceat(rows, range(0, exists.shape[1], tile[1]), axis=1)


def _pes(config: CartesianConfig) -> tuple[int, int]:
    return config.pe_h, config.pe_w


def _array(conv: Convolution, config: CartesianConfig) -> Array:
    """Return the PEs; a chunk has as many filters as accumulators have room for output tiles."""
    height, width = _output_tile(conv, config)
    return Array(
        config.pe_h,
        config.pe_w,
        config.act_vector,
        config.weight_vector,
        bank=bank_table(config.banks),
        chunk=max(1, config.accumulator // (height * width)),
        conflicts=True,
        queue=config.bank_queue,
        owns=np.ones(_pes(config), np.bool_),
    )


def _output_tile(conv: Convolution, config: CartesianConfig) -> Axes:
    height, width = (-(-size // n) for size, n in zip(conv.output, _pes(config), strict=True))
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


def _axis(conv: Convolution, axis: int, size: int, pes: int) -> Axis:
    """Return the pixels of an axis in classes that meet the same taps in the same way.

    Where not all outputs are wanted, each is a class of its own.
    """
    of_axis = conv.weight.shape[2 + axis], conv.stride[axis], conv.dilation[axis]
    return _axis_of(*of_axis, size, conv.output[axis], pes, conv.wanted is None)


@lru_cache(maxsize=1024)
def _axis_of(
    kernel: int, stride: int, dilation: int, size: int, outputs: int, pes: int, joined: bool
) -> Axis:
    taps = np.arange(kernel) * dilation
    output = reached(taps, stride, size, outputs)
    bits, classes = np.where(output >= 0, output & 3, -1), np.arange(size)
    if joined:
        bits, classes = np.unique(bits, axis=0, return_inverse=True)
    return Axis(
        stride=stride,
        tile=-(-size // pes),
        pixel_class=classes.reshape(-1).astype(np.int64),
        output_bits=np.ascontiguousarray(bits, np.int64),
        tap_phase=(taps % stride).astype(np.int64),
    )


def _halo(conv: Convolution, tile: Axes, config: CartesianConfig) -> int:
    """Return the size of the largest border that a PE exchanges, for each filter.

    The largest a * b over the nine pairs of (what reaches over the far edge, the tile, the padding
    before) of the two axes, but the pair of the two tiles; negative counts as 0.
    """
    sides = [_reach(conv, axis, tile[axis]) for axis in (0, 1)]
    match config.halo:
        case "reach":
            pass
        case "output":
            sides = [_within(conv, config, axis, side) for axis, side in enumerate(sides)]
        case _:
            assert_never(config.halo)
    pairs = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    return max(sides[0][i] * sides[1][j] for i, j in pairs)


def _reach(conv: Convolution, axis: int, tile: int) -> tuple[int, int, int]:
    before = max(0, -conv.origin[axis])
    span = (conv.weight.shape[2 + axis] - 1) * conv.dilation[axis]
    return max(0, span - before), tile, before


def _within(
    conv: Convolution, config: CartesianConfig, axis: int, side: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Return the sums of pixels on a side: in the output plane, borders outside the own tile."""
    far, tile, near = (-(-pixels // conv.stride[axis]) for pixels in side)
    size = conv.output[axis]
    others = size - _output_tile(conv, config)[axis]
    return min(far, others), min(tile, size), min(near, others)


# ---- tokens --------------------------------------------------------------------------------------


def is_of_tokens(layer: Layer) -> bool:
    """Whether a layer's positions have no neighbours, and lie in a row: they may lie anyhow."""
    alone = layer.R == layer.S == 1 and layer.stride == (1, 1)
    return alone and layer.padded == (layer.H, layer.W) and 1 in (layer.H, layer.W)


def as_square(conv: Convolution, config: CartesianConfig) -> tuple[Convolution, Mask]:
    """Return a 1 x 1 convolution on the plane `square`, and which of its pixels there are."""
    positions = conv.output[0] * conv.output[1]
    plane = square(positions, config.pe_h, config.pe_w)
    exists = (np.arange(plane[0] * plane[1]) < positions).reshape(plane)
    data = np.zeros((*conv.data.shape[:2], plane[0] * plane[1]), np.bool_)
    data[..., :positions] = conv.data.reshape(*conv.data.shape[:2], positions)
    data = data.reshape(*conv.data.shape[:2], *plane)
    return replace(conv, data=data, output=plane, wanted=on_plane(conv.wanted, plane)), exists


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


@dataclass(frozen=True, eq=False)
class Channels:
    """One group's and sample's wgrad, as an outer product over channels.

    Parameters
    ----------
    act : numpy.ndarray of bool, shape (H * W, C)
    grad : numpy.ndarray of bool, shape (P * Q, K)
    met : numpy.ndarray of int64, shape (R * S, P * Q)
        Input pixel under a tap at an output position, -1 outside.
    block_c, block_k : int
        Channels of a PE.
    wanted : numpy.ndarray of bool, shape (R * S, C, K), optional
        Which sums somebody wants; by default all.
    """

    act: Bits
    grad: Bits
    met: Counts
    block_c: int
    block_k: int
    wanted: Mask | None = None

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of input channels and of out-channels."""
        return -(-self.act.shape[1] // self.block_c), -(-self.grad.shape[1] // self.block_k)


def outer_products(op: LoweredOp, config: CartesianConfig) -> Iterator[Channels]:
    """Yield the outer products of the samples and groups of wgrad.

    SCNN has no mapping of wgrad; this one is ours. A PE's accumulators hold a square of input and
    output channels at most, and no more than its share of them.
    """
    layer = op.layer
    assert op.act is not None, "wgrad reads act"
    assert op.grad_out is not None, "wgrad reads grad_out"
    met, wanted = _met(op), wanted_sums(op)
    channels, filters = layer.C // layer.groups, layer.K // layer.groups
    square = isqrt(config.accumulator)
    for sample in range(op.samples):
        act = op.act[sample].reshape(layer.groups, channels, -1)
        grad = op.grad_out[sample].reshape(layer.groups, filters, -1)
        for group in range(layer.groups):
            yield Channels(
                act=np.array(act[group].T, order="C"),
                grad=np.array(grad[group].T, order="C"),
                met=met,
                block_c=min(square, -(-channels // config.pe_h)),
                block_k=min(square, -(-filters // config.pe_w)),
                wanted=wanted[group],
            )


def _met(op: LoweredOp) -> Counts:
    layer = op.layer
    reached = []
    for axis, (size, taps, outputs) in enumerate(
        ((layer.H, layer.R, layer.P), (layer.W, layer.S, layer.Q))
    ):
        tap = np.arange(taps)[:, None] * layer.dilation[axis] - layer.padding[axis][0]
        place = tap + np.arange(outputs) * layer.stride[axis]
        reached.append(np.where((place >= 0) & (place < size), place, -1))
    rows, columns = reached[0][:, None, :, None], reached[1][None, :, None, :]
    met = np.where((rows >= 0) & (columns >= 0), rows * layer.W + columns, -1)
    return np.ascontiguousarray(met.reshape(layer.R * layer.S, layer.P * layer.Q), np.int64)


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
