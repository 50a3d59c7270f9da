"""An op's tensors as the memory system sees them: their loops, and how these are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from swatsim.simulator.memory.kernel import Counts
from swatsim.workload.layer import OPERANDS, OUTPUT_OF
from swatsim.workload.lowering import LoweredOp

#: Tensors, by their tables: weight (k, c), act (c, n), grad_out (k, n).
WEIGHT, ACT, GRAD_OUT = 0, 1, 2


class Shape(NamedTuple):
    """The loops of an op: `groups` of `K` filters and `C` channels each, `samples` of `rows` rows.

    `output` is the tensor that the op makes: 0 weight, 1 act, 2 grad_out. `cells` are the elements
    of a cell of each, what is never cut: the taps, or a row of the image. `reach` is
    (R - 1) * dilation.
    """

    output: int
    groups: int
    K: int
    C: int
    samples: int
    rows: int
    H: int
    P: int
    cells: tuple[int, int, int]
    reach: int
    stride: int
    pad: int


def shape_of(op: LoweredOp) -> Shape:
    """Return the loops of an op."""
    layer = op.layer
    return Shape(
        output=OPERANDS.index(OUTPUT_OF[op.name]),
        groups=layer.groups,
        K=layer.K // layer.groups,
        C=layer.C // layer.groups,
        samples=op.samples,
        rows={"fprop": layer.P, "dgrad": layer.H, "wgrad": layer.P}[op.name],
        H=layer.H,
        P=layer.P,
        cells=(layer.R * layer.S, layer.W, layer.Q),
        reach=(layer.R - 1) * layer.dilation[0],
        stride=layer.stride[0],
        pad=layer.padding[0][0],
    )


def output_words(op: LoweredOp) -> int:
    """Return the accesses of the output's buffer by PEs."""
    return output_writes(op) + output_reads(op)


def output_writes(op: LoweredOp) -> int:
    """Return the sums that PEs write: each output that is wanted, in wgrad for each sample."""
    return op.outputs_wanted * (op.samples if op.name == "wgrad" else 1)


def output_reads(op: LoweredOp) -> int:
    """Return the sums that PEs read to add to them: wgrad adds up its samples in the buffer."""
    return op.outputs_wanted * (op.samples - 1) if op.name == "wgrad" else 0


# ---- how loops are cut ---------------------------------------------------------------------------


class Cut(NamedTuple):
    """The blocks of one axis of a tensor's table: where each begins and ends, and its samples."""

    first: Counts
    last: Counts
    samples: Counts

    @property
    def size(self) -> Counts:
        """Rows or columns of each block."""
        return self.last - self.first


def ends(extent: int, inner: int, outer: int = 1) -> Counts:
    """Return where an axis of `outer` times `inner` is cut: in slices of an inner one, or several.

    Returns
    -------
    numpy.ndarray of int64, shape (blocks + 1,)
        Where each block begins, and the end of the last.
    """
    if extent < inner:
        slices = np.arange(0, inner, extent)
        begins = (np.arange(outer)[:, None] * inner + slices).reshape(-1)
    else:
        begins = np.arange(0, outer, extent // inner) * inner
    return np.append(begins, outer * inner)


def cut_channels(begins: Counts) -> Cut:
    """Return the blocks of an axis of filters or channels."""
    first, last = begins[:-1], begins[1:]
    return Cut(first, last, np.ones_like(first))


def cut_rows(shape: Shape, tensor: int, extent: int) -> Cut:
    """Return the columns of act's or grad_out's table: the rows that each block of n touches."""
    begins = ends(extent, shape.rows, shape.samples)
    own = shape.H if tensor == ACT else shape.P
    sample = begins[:-1] // shape.rows
    if extent >= shape.rows:
        samples = np.diff(begins) // shape.rows
        return Cut(sample * own, (sample + samples) * own, samples)
    first, last = begins[:-1] - sample * shape.rows, begins[1:] - sample * shape.rows
    low, high = _touched(shape, tensor, first, last)
    # what no output reads travels with its neighbours: slices leave no row out
    low, high = np.where(first == 0, 0, low), np.where(last == shape.rows, own, high)
    return Cut(sample * own + low, sample * own + np.maximum(low, high), np.ones_like(sample))


def _touched(shape: Shape, tensor: int, first: Counts, last: Counts) -> tuple[Counts, Counts]:
    """Return the rows, from low to below high, that slices of the rows n touch."""
    if tensor == ACT and shape.output != ACT:
        low = first * shape.stride - shape.pad
        behind = np.maximum(shape.reach + 1 - shape.stride, 0)
        high = last * shape.stride - shape.pad + behind
        return np.clip(low, 0, shape.H), np.clip(high, 0, shape.H)
    if tensor == GRAD_OUT and shape.output == ACT:
        low = -((shape.reach - first - shape.pad) // shape.stride)
        high = (last - 1 + shape.pad) // shape.stride + 1
        return np.clip(low, 0, shape.P), np.clip(high, 0, shape.P)
    return first, last


class Cuts:
    """Several cuts of an axis, put together so that they can be summed at once.

    Parameters
    ----------
    cuts : sequence of Cut
    """

    def __init__(self, cuts: Sequence[Cut]) -> None:
        self.cuts = tuple(cuts)
        self.every = Cut(*(np.concatenate(parts) for parts in zip(*cuts, strict=True)))
        self.blocks = np.array([len(cut.first) for cut in cuts], np.int64)
        self._starts = np.append(0, self.blocks.cumsum()[:-1])
        self.total = self.add_up(self.every.size)
        #: Rows or columns of the largest block of each cut.
        self.largest = np.maximum.reduceat(self.every.size, self._starts)
        #: The first block of each cut.
        self.leading = Cut(*(part[self._starts] for part in self.every))

    def add_up(self, values: Counts) -> Counts:
        """Return the sum of the values of the blocks of `every`, cut by cut."""
        return np.add.reduceat(values, self._starts)

    def tally(self, values: Counts) -> tuple[Counts, Counts]:
        """Return how often each value comes up in the blocks of each cut.

        Returns
        -------
        values : numpy.ndarray of int64, shape (distinct,)
        times : numpy.ndarray of int64, shape (cuts, distinct)
        """
        distinct, at = np.unique(values, return_inverse=True)
        cut = np.repeat(np.arange(len(self.cuts)), self.blocks)
        size = len(self.cuts) * len(distinct)
        times = np.bincount(cut * len(distinct) + at.reshape(-1), minlength=size)
        return distinct, times.reshape(len(self.cuts), len(distinct))
