"""An op's tensors as the memory system sees them: their loops, and how these are cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from swatsim.simulator.memory.kernel import Counts
from swatsim.workload.layer import OPERANDS, OUTPUT_OF
from swatsim.workload.lowering import LoweredOp

#: Blocks of cuts that are laid out at once (8 MiB), or those of one cut.
MOST_LAID = 2**18

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


def cut_channels(extent: int, inner: int, outer: int = 1) -> Cut:
    """Return the blocks of an axis of filters or channels, of `outer` groups of `inner`."""
    begins = ends(extent, inner, outer)
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


#: What each of some blocks has.
OfBlocks = Callable[[Cut], Counts]


class Some(NamedTuple):
    """Cuts that follow one another: which, their blocks, and where those of each begin."""

    which: slice
    every: Cut
    starts: Counts

    def add_up(self, values: Counts) -> Counts:
        """Return the sum of the values of the blocks, cut by cut."""
        return np.add.reduceat(values, self.starts)


class Tally(NamedTuple):
    """How often each value comes up in the blocks of some cuts: `times` is (cuts, values)."""

    which: slice
    values: Counts
    times: Counts


class Cuts:
    """Several cuts of an axis, put together so that they can be summed at once.

    Those of a long axis are made anew when they are asked for: together they have some twenty
    times as many blocks as the axis is long.

    Parameters
    ----------
    make : callable
        Cuts the axis in blocks of an extent.
    extents : sequence of int
    """

    def __init__(self, make: Callable[[int], Cut], extents: Sequence[int]) -> None:
        self._make, self._extents = make, extents
        #: All cuts, if they are few blocks together.
        self._held: Some | None = None
        #: Blocks of each cut, rows or columns of all of them, and of the largest.
        self.blocks, self.total, self.largest = np.empty((3, len(extents)), np.int64)
        #: The first block of each cut.
        self.leading = Cut(*np.empty((3, len(extents)), np.int64))
        for some in self._laid_out():
            which, every, starts = some
            self.blocks[which] = np.diff(starts, append=len(every.first))
            self.total[which] = some.add_up(every.size)
            self.largest[which] = np.maximum.reduceat(every.size, starts)
            for own, part in zip(self.leading, every, strict=True):
                own[which] = part[starts]
            if which == slice(0, len(extents)) and len(every.first) <= MOST_LAID:
                self._held = some

    def __len__(self) -> int:
        return len(self._extents)

    def __getitem__(self, at: int) -> Cut:
        """Return one of the cuts."""
        if self._held is None:
            return self._make(self._extents[at])
        begin = self._held.starts[at]
        return Cut(*(part[begin : begin + self.blocks[at]] for part in self._held.every))

    def add_up(self, of: OfBlocks) -> Counts:
        """Return the sum of what blocks have, cut by cut."""
        sums = np.empty(len(self), np.int64)
        for some in self._parts():
            sums[some.which] = some.add_up(of(some.every))
        return sums

    def tallies(self, of: OfBlocks) -> Iterator[Tally]:
        """Yield how often each value of what blocks have comes up in each cut, some at a time."""
        for which, every, starts in self._parts():
            values, at = np.unique(of(every), return_inverse=True)
            cut = np.repeat(np.arange(len(starts)), self.blocks[which])
            size = len(starts) * len(values)
            times = np.bincount(cut * len(values) + at.reshape(-1), minlength=size)
            yield Tally(which, values, times.reshape(len(starts), len(values)))

    def _parts(self) -> Iterable[Some]:
        return self._laid_out() if self._held is None else (self._held,)

    def _laid_out(self) -> Iterator[Some]:
        cuts: list[Cut] = []
        begin = blocks = 0
        for at, extent in enumerate(self._extents):
            cut = self._make(extent)
            if cuts and blocks + len(cut.first) > MOST_LAID:
                yield _together(begin, cuts)
                begin, blocks, cuts = at, 0, []
            blocks += len(cut.first)
            cuts.append(cut)
        yield _together(begin, cuts)


def _together(begin: int, cuts: list[Cut]) -> Some:
    every = Cut(*(np.concatenate(parts) for parts in zip(*cuts, strict=True)))
    starts = np.append(0, np.cumsum([len(cut.first) for cut in cuts])[:-1])
    return Some(slice(begin, begin + len(cuts)), every, starts.astype(np.int64))
