"""An op's tensors as the memory system sees them: how their loops are cut, how each is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, assert_never

import numpy as np

from swatsim.errors import WorkloadError
from swatsim.simulator.memory.config import MemoryConfig
from swatsim.simulator.memory.kernel import Cells, Counts, add_up, runs_in
from swatsim.workload import storage
from swatsim.workload.layer import OPERANDS, Layer, Operand, OpName
from swatsim.workload.streams import as_4d
from swatsim.workload.training_ops import Mask, Op

#: Tensors, by their tables: weight (k, c), act (c, n), grad_out (k, n).
WEIGHT, ACT, GRAD_OUT = 0, 1, 2

#: The tensor that an op makes lies like this operand.
MADE: dict[OpName, Operand] = {"fprop": "grad_out", "dgrad": "act", "wgrad": "weight"}


class Shape(NamedTuple):
    """The loops of an op: `groups` of `K` filters and `C` channels each, `samples` of `rows` rows.

    `made` is the tensor that the op makes: 0 weight, 1 act, 2 grad_out. `cells` are the elements
    of a cell of each, what is never cut: the taps, or a row of the image. `reach` is
    (R - 1) * dilation.
    """

    made: int
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


def shape_of(layer: Layer, op: OpName, samples: int) -> Shape:
    """Give the loops of an op."""
    assert not layer.transposed, "a transposed convolution runs as its adjoint"
    return Shape(
        made=OPERANDS.index(MADE[op]),
        groups=layer.groups,
        K=layer.K // layer.groups,
        C=layer.C // layer.groups,
        samples=samples,
        rows={"fprop": layer.P, "dgrad": layer.H, "wgrad": layer.P}[op],
        H=layer.H,
        P=layer.P,
        cells=(layer.R * layer.S, layer.W, layer.Q),
        reach=(layer.R - 1) * layer.dilation[0],
        stride=layer.stride[0],
        pad=layer.padding[0][0],
    )


def output_words(op: Op) -> int:
    """Count the accesses of the output's buffer by PEs."""
    return output_writes(op) + output_reads(op)


def output_writes(op: Op) -> int:
    """Count the sums that PEs write: each of the output's once, in wgrad for each sample."""
    layer = op.layer
    match op.name:
        case "fprop":
            return op.samples * layer.K * layer.P * layer.Q
        case "dgrad":
            return op.samples * layer.C * layer.H * layer.W
        case "wgrad":
            return op.samples * layer.weights
        case _:
            assert_never(op.name)


def output_reads(op: Op) -> int:
    """Count the sums that PEs read to add to them: wgrad adds up its samples in the buffer."""
    return (op.samples - 1) * op.layer.weights if op.name == "wgrad" else 0


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
    """Cut an axis of `outer` times `inner`: slices of an inner one, or several of them whole.

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
    """Cut an axis of filters or channels."""
    first, last = begins[:-1], begins[1:]
    return Cut(first, last, np.ones_like(first))


def cut_rows(shape: Shape, tensor: int, extent: int) -> Cut:
    """Cut the columns of act's or grad_out's table: the rows that each block of n touches."""
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
    """Find the rows, from low to below high, that slices of the rows n touch."""
    if tensor == ACT and shape.made != ACT:
        low = first * shape.stride - shape.pad
        behind = np.maximum(shape.reach + 1 - shape.stride, 0)
        high = last * shape.stride - shape.pad + behind
        return np.clip(low, 0, shape.H), np.clip(high, 0, shape.H)
    if tensor == GRAD_OUT and shape.made == ACT:
        low = -((shape.reach - first - shape.pad) // shape.stride)
        high = (last - 1 + shape.pad) // shape.stride + 1
        return np.clip(low, 0, shape.P), np.clip(high, 0, shape.P)
    return first, last


class Cuts:
    """Several ways to cut an axis, put together so that they can be summed at once.

    Parameters
    ----------
    ways : sequence of Cut
    """

    def __init__(self, ways: Sequence[Cut]) -> None:
        self.ways = tuple(ways)
        self.every = Cut(*(np.concatenate(parts) for parts in zip(*ways, strict=True)))
        self.blocks = np.array([len(way.first) for way in ways], np.int64)
        self._starts = np.append(0, self.blocks.cumsum()[:-1])
        self.total = self.add_up(self.every.size)
        #: The first block of each way.
        self.leading = Cut(*(part[self._starts] for part in self.every))

    def add_up(self, values: Counts) -> Counts:
        """Sum values of the blocks of `every`, way by way."""
        return np.add.reduceat(values, self._starts)


# ---- how tensors are stored ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Store:
    """How a tensor is stored, and so how many bits a block of it has.

    Parameters
    ----------
    tensor : int
        WEIGHT, ACT or GRAD_OUT.
    cell : int
        Elements of a cell of its table.
    format : storage.Format
    terms : storage.Terms
        The format's bits, of the whole tensor.
    sums : numpy.ndarray of int64, optional
        Of the entries, as `kernel.add_up` gives them, where the mask says which there are.
    along : int
        Of slots: the axis of the table that holds the channels, 0 for its rows.
    of_group : int
        Of slots: channels of a group of the layer; no M channels lie across two.
    """

    tensor: int
    cell: int
    format: storage.Format
    terms: storage.Terms
    sums: Counts | None = None
    along: int = 0
    of_group: int = 1

    @property
    def whole_bytes(self) -> bool:
        """Whether a block of any size has no bits beside whole bytes."""
        return not any(bits % 8 for bits in self.terms)

    @property
    def plain(self) -> bool:
        """Whether a block's bits depend on its size alone, and not on what else is stored."""
        return self.format.entries == "elements" and self.format.lines == "none"

    def bits(self, rows: Cut, columns: Cut) -> Counts:
        """Count the bits of all blocks, shape (blocks of rows, blocks of columns)."""
        elements = rows.size[:, None] * columns.size * self.cell
        pointers = self._lines(rows, columns, elements) + 1
        bits: Counts = self.terms.bits(self._entries(rows, columns, elements), elements, pointers)
        return bits

    def bytes(self, rows: Cut, columns: Cut) -> Counts:
        """Count the bytes of all blocks: each is a transfer of its own, of whole bytes."""
        return (self.bits(rows, columns) + 7) // 8

    def _entries(self, rows: Cut, columns: Cut, elements: Counts) -> Counts:
        match self.format.entries:
            case "elements":
                return elements
            case "values" | "runs":
                return self._summed(rows, columns)
            case "slots":
                if self.along:
                    return self._slots(columns) * rows.size[:, None] * self.cell
                return self._slots(rows)[:, None] * columns.size * self.cell
            case _:
                assert_never(self.format.entries)

    def _slots(self, channels: Cut) -> Counts:
        """Count the slots of blocks of channels: of each M of the tensor N, or those of it."""
        n, m = self.format.n, self.format.m
        whole = np.maximum(channels.size // self.of_group, 1)  # groups of the layer, or a part
        begin, size = channels.first % self.of_group, channels.size // whole
        first, last = begin // m, (begin + size - 1) // m
        head = np.minimum(n, (first + 1) * m - begin)
        tail = np.minimum(n, begin + size - last * m)
        several: Counts = head + (last - first - 1) * n + tail
        return whole * np.where(first == last, np.minimum(n, size), several)

    def _summed(self, rows: Cut, columns: Cut) -> Counts:
        sums = self.sums
        assert sums is not None, "entries that depend on the mask are added up"
        low, high = rows.first[:, None], rows.last[:, None]
        right = sums[high, columns.last] - sums[low, columns.last]
        left = sums[high, columns.first] - sums[low, columns.first]
        entries: Counts = (right - left).astype(np.int64)
        return entries

    def _lines(self, rows: Cut, columns: Cut, elements: Counts) -> Counts:
        """Count what has a pointer in each block: indices of its leading dimension, or places."""
        lead = rows.size[:, None] if self.tensor == WEIGHT else columns.samples
        match self.format.lines:
            case "none":
                return elements * 0
            case "leading":
                return elements * 0 + lead
            case "trailing":
                return elements // lead
            case _:
                assert_never(self.format.lines)

    def bits_in_all(self, rows: Cuts, columns: Cuts) -> Counts:
        """Sum up `bits` for each pair of ways to cut: shape (ways of rows, ways of columns)."""
        elements = rows.total[:, None] * columns.total * self.cell
        blocks = rows.blocks[:, None] * columns.blocks
        pointers = self._lines_in_all(rows, columns) + blocks
        entries = self._entries_in_all(rows, columns, elements)
        bits: Counts = self.terms.bits(entries, elements, pointers)
        return bits

    def _entries_in_all(self, rows: Cuts, columns: Cuts, elements: Counts) -> Counts:
        match self.format.entries:
            case "elements":
                return elements
            case "values" | "runs":
                assert self.sums is not None, "entries that depend on the mask are added up"
                last = self.sums[-1]
                inside = (last[columns.every.last] - last[columns.every.first]).astype(np.int64)
                return elements * 0 + columns.add_up(inside)
            case "slots":
                if self.along:
                    slots = columns.add_up(self._slots(columns.every))
                    return slots * rows.total[:, None] * self.cell
                slots = rows.add_up(self._slots(rows.every))
                return slots[:, None] * columns.total * self.cell
            case _:
                assert_never(self.format.entries)

    def _lines_in_all(self, rows: Cuts, columns: Cuts) -> Counts:
        """Count what has a pointer in all blocks."""
        high, wide = rows.total[:, None], columns.total
        weight = self.tensor == WEIGHT
        match self.format.lines:
            case "none":
                return high * wide * 0
            case "leading":
                if weight:
                    return high * columns.blocks
                return rows.blocks[:, None] * columns.add_up(columns.every.samples)
            case "trailing":
                if weight:
                    return rows.blocks[:, None] * wide * self.cell
                places = columns.every.size // columns.every.samples
                return high * columns.add_up(places) * self.cell
            case _:
                assert_never(self.format.lines)


Stores = tuple[Store, Store, Store]


def stores_of(op: Op, shape: Shape, config: MemoryConfig, dense: bool) -> Stores:
    """Say how weight, act and grad_out are stored; the one that the op makes, dense.

    Raises
    ------
    WorkloadError
        If a mask does not obey the N:M that it is to be stored in.
    """
    weight, act, grad_out = _stores(op, shape, config, dense)
    return weight, act, grad_out


def dense_stores(shape: Shape, bits: int) -> Stores:
    """Say how the tensors are stored dense, with values of so many bits."""
    dense, terms = storage.FORMATS["dense"], storage.Terms(bits)
    weight, act, grad_out = (Store(it, shape.cells[it], dense, terms) for it in range(3))
    return weight, act, grad_out


def _stores(op: Op, shape: Shape, config: MemoryConfig, dense: bool) -> Iterator[Store]:
    plain = dense_stores(shape, storage.DTYPES[config.dtype])
    for operand, store in zip(OPERANDS, plain, strict=True):
        mask = op.operands.get(operand)
        full = mask is None or dense or op.nonzero(operand) == mask.size
        format = storage.named(config.format_of(op.called(operand)))
        yield store if full else _stored(op, operand, store, format)


def _stored(op: Op, operand: Operand, plain: Store, format: storage.Format) -> Store:
    """Say how a tensor with zeros is stored."""
    mask = op.operands[operand]
    terms = format.terms(mask.shape, plain.terms.entry)
    store = Store(plain.tensor, plain.cell, format, terms)
    match format.entries:
        case "elements":
            return store
        case "values":
            return replace(store, sums=_sums(_cells(operand, mask)))
        case "runs":
            runs: Counts = runs_in(_cells(operand, mask)).cumsum(axis=0).cumsum(axis=1)
            return replace(store, sums=runs)
        case "slots":
            _check_pattern(op, operand, mask, (format.n, format.m))
            axis, groups = op.channels_of(operand)
            along = axis if operand == "weight" else 0
            return replace(store, along=along, of_group=mask.shape[axis] // groups)
        case _:
            assert_never(format.entries)


def _sums(cells: Cells) -> Counts:
    """Add up the values, in the smallest type that holds them."""
    samples, rows, columns, _ = cells.shape
    kind = np.int32 if cells.size < 2**31 else np.int64
    sums: Counts = np.empty((rows + 1, samples * columns + 1), kind)
    add_up(cells, sums)
    return sums


def _cells(operand: Operand, mask: Mask) -> Cells:
    """View a mask as (samples, rows, columns, cell)."""
    whole = np.ascontiguousarray(as_4d(mask)).view(np.uint8)
    k, c, r, s = whole.shape
    return whole.reshape(1, k, c, r * s) if operand == "weight" else whole


def _check_pattern(op: Op, operand: Operand, mask: Mask, nm: tuple[int, int]) -> None:
    try:
        storage.check_pattern(mask, *nm, op.channels_of(operand))
    except WorkloadError as error:
        raise WorkloadError(f"{op.title}, {op.called(operand)}: {error}") from None
