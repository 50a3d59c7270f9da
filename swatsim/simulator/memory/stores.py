"""How an op's tensors are stored, and so how many bits and bytes their blocks have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, assert_never

import numpy as np

from swatsim.errors import WorkloadError
from swatsim.simulator.memory.config import MemoryConfig
from swatsim.simulator.memory.kernel import Cells, Counts, largest_and_bytes
from swatsim.simulator.memory.sums import Sums
from swatsim.simulator.memory.tensors import GRAD_OUT, WEIGHT, Cut, Cuts, OfBlocks, Shape
from swatsim.workload import storage
from swatsim.workload.layer import OPERANDS, Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.value_types import DTYPES
from swatsim.workload.windows import Mask, as_4d

#: What has a pointer, as the kernel numbers it.
LINES: tuple[storage.Lines, ...] = ("none", "leading", "trailing")
#: Blocks whose bits are held at a time (8 MiB), or those of one of the rows.
MOST_BLOCKS = 2**20
NO_COUNTS = np.zeros(0, np.int64)


def bytes_of_products(
    rows: Cuts, of_rows: OfBlocks, columns: Cuts, of_columns: OfBlocks, bits: int
) -> Counts:
    """Return whole bytes of blocks of as many bits as two numbers' product, times `bits`.

    The numbers are what `of_rows` and `of_columns` return of blocks; shape (cuts of rows, cuts of
    columns).
    """
    total: Counts = np.empty((len(rows), len(columns)), np.int64)
    wides = list(columns.tallies(of_columns))
    for at, high, times_high in rows.tallies(of_rows):
        for across, wide, times_wide in wides:
            whole = (high[:, None] * wide * bits + 7) // 8
            total[at, across] = times_high @ whole @ times_wide.T
    return total


def _size(cut: Cut) -> Counts:
    return cut.size


@lru_cache(maxsize=4096)
def bytes_of_elements(rows: Cuts, columns: Cuts, bits: int) -> Counts:
    """Return whole bytes of blocks that have so many bits for each cell: the same in all steps."""
    return bytes_of_products(rows, _size, columns, _size, bits)


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
    sums : Sums, optional
        Of the entries, where the mask says which there are.
    along : int
        Of slots: the axis of the table that holds the channels, 0 for its rows.
    of_group : int
        Of slots: channels of a group of the layer; no M channels lie across two.
    """

    tensor: int
    cell: int
    format: storage.Format
    terms: storage.Terms
    sums: Sums | None = None
    along: int = 0
    of_group: int = 1

    @property
    def plain(self) -> bool:
        """Whether a block's bits depend on its size alone, and not on what else is stored."""
        return self.format.entries == "elements" and self.format.lines == "none"

    def bits(self, rows: Cut, columns: Cut) -> Counts:
        """Return the bits of all blocks, shape (blocks of rows, blocks of columns)."""
        elements = rows.size[:, None] * columns.size * self.cell
        pointers = self._lines(rows, columns, elements) + 1
        bits: Counts = self.terms.bits(self._entries(rows, columns, elements), elements, pointers)
        return bits

    def most_bits(self, elements: Counts) -> Counts | None:
        """Return a bound of the bits of blocks by their elements; None: there is no bound.

        A value of a run brings padding for zeros that are in other blocks.
        """
        if self.format.entries == "runs":
            return None
        bits: Counts = self.terms.bits(elements, elements, elements + 1)
        return bits

    def largest_and_bytes(self, rows: Cut, columns: Cut) -> tuple[int, int]:
        """Return the most bits that a block has, and the bytes of all blocks."""
        if self.sums is None or not self.sums.whole:
            return self._added_up(rows, columns)
        leading = NO_COUNTS if self.tensor == WEIGHT else columns.samples
        ends = (*rows[:2], *columns[:2])
        lines = LINES.index(self.format.lines)
        terms = self.terms.entry, self.terms.element, self.terms.pointer
        return largest_and_bytes(self.sums.sums, *ends, leading, self.cell, terms, lines)

    def _added_up(self, rows: Cut, columns: Cut) -> tuple[int, int]:
        largest = total = 0
        at_once = max(1, MOST_BLOCKS // len(columns.first))
        for first in range(0, len(rows.first), at_once):
            some = Cut(*(each[first : first + at_once] for each in rows))
            bits = self.bits(some, columns)
            largest = max(largest, int(bits.max()))
            total += int(((bits + 7) // 8).sum())
        return largest, total

    def bytes(self, rows: Cut, columns: Cut) -> Counts:
        """Return the bytes of all blocks: each is a transfer of its own, of whole bytes."""
        return (self.bits(rows, columns) + 7) // 8

    def _entries(self, rows: Cut, columns: Cut, elements: Counts) -> Counts:
        match self.format.entries:
            case "elements":
                return elements
            case "values" | "runs":
                assert self.sums is not None, "entries that depend on the mask are added up"
                return self.sums.inside(rows, columns)
            case "slots":
                if self.along:
                    return self._slots(columns) * rows.size[:, None] * self.cell
                return self._slots(rows)[:, None] * columns.size * self.cell
            case "packed":
                packed: Counts = self.format.packed(elements)
                return packed
            case _:
                assert_never(self.format.entries)

    def _slots(self, channels: Cut) -> Counts:
        """Return the slots of blocks of channels: of each M of the tensor N, or those of it."""
        n, m = self.format.n, self.format.m
        whole = np.maximum(channels.size // self.of_group, 1)  # groups of the layer, or a part
        begin, size = channels.first % self.of_group, channels.size // whole
        first, last = begin // m, (begin + size - 1) // m
        head = np.minimum(n, (first + 1) * m - begin)
        tail = np.minimum(n, begin + size - last * m)
        several: Counts = head + (last - first - 1) * n + tail
        return whole * np.where(first == last, np.minimum(n, size), several)

    def _lines(self, rows: Cut, columns: Cut, elements: Counts) -> Counts:
        """Return the pointers of each block: to indices of its leading dimension, or to places."""
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
        """Return the sum of `bits` for each pair of cuts: shape (cuts of rows, cuts of columns)."""
        elements = rows.total[:, None] * columns.total * self.cell
        blocks = rows.blocks[:, None] * columns.blocks
        pointers = self._lines_in_all(rows, columns) + blocks
        entries = self._entries_in_all(rows, columns, elements)
        bits: Counts = self.terms.bits(entries, elements, pointers)
        return bits

    def bytes_in_all(self, rows: Cuts, columns: Cuts) -> tuple[Counts, bool]:
        """Return the sum of `bytes` for each pair of cuts, or a bound below; and if it is exact.

        What depends on the mask is exact where an entry has whole bytes.
        """
        if self.format.entries == "slots" and not any(self.terms[1:]):
            return self._bytes_of_slots(rows, columns), True
        bits = self.bits_in_all(rows, columns)
        if self.terms.entry % 8 or self.format.entries == "packed":
            return (bits + 7) // 8, False
        if not self.terms.element % 8:
            return bits // 8, True
        beside = self.terms.element * self.cell
        apart = bits - rows.total[:, None] * columns.total * beside
        return apart // 8 + bytes_of_elements(rows, columns, beside), True

    def _bytes_of_slots(self, rows: Cuts, columns: Cuts) -> Counts:
        of_rows, of_columns = (_size, self._slots) if self.along else (self._slots, _size)
        bits = self.terms.entry * self.cell
        return bytes_of_products(rows, of_rows, columns, of_columns, bits)

    def _entries_in_all(self, rows: Cuts, columns: Cuts, elements: Counts) -> Counts:
        match self.format.entries:
            case "elements":
                return elements
            case "values" | "runs":
                assert self.sums is not None, "entries that depend on the mask are added up"
                last = self.sums.of_columns
                inside = columns.add_up(
                    lambda cut: (last[cut.last] - last[cut.first]).astype(np.int64)
                )
                return elements * 0 + inside
            case "slots":
                if self.along:
                    slots = columns.add_up(self._slots)
                    return slots * rows.total[:, None] * self.cell
                slots = rows.add_up(self._slots)
                return slots[:, None] * columns.total * self.cell
            case "packed":
                # each block is rounded up: a bound below
                below: Counts = elements * self.format.n // self.format.m
                return below
            case _:
                assert_never(self.format.entries)

    def _lines_in_all(self, rows: Cuts, columns: Cuts) -> Counts:
        """Return how many pointers all blocks have."""
        high, wide = rows.total[:, None], columns.total
        weight = self.tensor == WEIGHT
        match self.format.lines:
            case "none":
                return high * wide * 0
            case "leading":
                if weight:
                    return high * columns.blocks
                return rows.blocks[:, None] * columns.add_up(lambda cut: cut.samples)
            case "trailing":
                if weight:
                    return rows.blocks[:, None] * wide * self.cell
                places = columns.add_up(lambda cut: cut.size // cut.samples)
                return high * places * self.cell
            case _:
                assert_never(self.format.lines)


Stores = tuple[Store, Store, Store]


def slots_along(stores: Stores) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the M of operands that are stored N:M along filters, and along channels; each once."""
    filters: set[int] = set()
    channels: set[int] = set()
    for store in stores:
        if store.format.entries == "slots":
            of_filters = store.tensor == GRAD_OUT or (store.tensor == WEIGHT and not store.along)
            (filters if of_filters else channels).add(store.format.m)
    return tuple(sorted(filters)), tuple(sorted(channels))


class Packed(NamedTuple):
    """An operand that a machine runs n:m, along whichever axis it reduces over."""

    operand: Operand
    n: int
    m: int


def stores_of(
    op: LoweredOp, shape: Shape, config: MemoryConfig, dense: bool, packed: Packed | None = None
) -> Stores:
    """Return how weight, act and grad_out are stored; the op's output dense.

    Raises
    ------
    WorkloadError
        If a mask does not obey the N:M that it is to be stored in.
    """
    weight, act, grad_out = _stores(op, shape, config, dense, packed)
    return weight, act, grad_out


def dense_stores(shape: Shape, bits: int) -> Stores:
    """Return how the tensors are stored dense, with values of so many bits."""
    dense, terms = storage.FORMATS["dense"], storage.Terms(bits)
    weight, act, grad_out = (
        Store(tensor, shape.cells[tensor], dense, terms) for tensor in range(3)
    )
    return weight, act, grad_out


def _stores(
    op: LoweredOp, shape: Shape, config: MemoryConfig, dense: bool, packed: Packed | None
) -> Iterator[Store]:
    plain = dense_stores(shape, DTYPES[config.dtype])
    for operand, store in zip(OPERANDS, plain, strict=True):
        mask = op.operands.get(operand)
        full = mask is None or dense or op.counts[operand] == mask.size
        format = storage.named(config.format_of(op.called(operand)))
        if packed is not None and packed.operand == operand:
            format = storage.packed(packed.n, packed.m)
        yield store if full else _stored(op, operand, store, format)


def _stored(op: LoweredOp, operand: Operand, plain: Store, format: storage.Format) -> Store:
    """Return how a tensor with zeros is stored."""
    mask = op.operands[operand]
    terms = format.terms(mask.shape, plain.terms.entry)
    store = Store(plain.tensor, plain.cell, format, terms)
    match format.entries:
        case "elements" | "packed":
            return store
        case "values" | "runs":
            runs = format.entries == "runs"
            return replace(store, sums=Sums(_cells(operand, mask), runs))
        case "slots":
            _check_pattern(op, operand, mask, (format.n, format.m))
            axis, groups = op.channels_of(operand)
            along = axis if operand == "weight" else 0
            return replace(store, along=along, of_group=mask.shape[axis] // groups)
        case _:
            assert_never(format.entries)


def _cells(operand: Operand, mask: Mask) -> Cells:
    """Return a view of a mask as (samples, rows, columns, cell)."""
    whole = np.ascontiguousarray(as_4d(mask)).view(np.uint8)
    k, c, r, s = whole.shape
    return whole.reshape(1, k, c, r * s) if operand == "weight" else whole


def _check_pattern(op: LoweredOp, operand: Operand, mask: Mask, nm: tuple[int, int]) -> None:
    try:
        storage.check_pattern(mask, *nm, op.channels_of(operand))
    except WorkloadError as error:
        raise WorkloadError(f"{op.title}, {op.called(operand)}: {error}") from None
