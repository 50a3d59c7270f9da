"""Blocks of any size, where powers of two move too many bytes.

An axis of n is cut into the fewest elements that make j blocks, ceil(n / j), for every j: what
moves depends on how many blocks there are. Of each number of channels and rows only the most
filters that fit are looked at: with more of them nothing is loaded more often. What the masks bear
on is bounded at first, and counted for those blocks that may be chosen.

Legend of dimensions: k, c, n extents of filters, channels, rows, descending; o loop orders.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.simulator.memory.candidates import cut_axes, fine_extents, times_of
from swatsim.simulator.memory.kernel import Counts
from swatsim.simulator.memory.pipeline import LACKS, SUM_BYTES
from swatsim.simulator.memory.stores import Store, Stores
from swatsim.simulator.memory.tensors import ACT, GRAD_OUT, WEIGHT, Cuts, Shape

Bools = npt.NDArray[np.bool_]

#: More than any op moves.
NO_LIMIT = 2**62


class Constraints(NamedTuple):
    """What bears on the blocks beside the stores.

    Parameters
    ----------
    shape : Shape
    orders : tuple of str
    extents : tuple of (int or "auto")
        Filters, channels, rows.
    limits : tuple of int
        Bits that a block of weight, act, grad_out may have.
    value_bytes : int
        Of a result.
    single : int
        The tensor that must be one block; -1: none.
    loaded : tuple of int
        The tensors that come from DRAM.
    grain : int
        What is less than one in so many does not matter.
    """

    shape: Shape
    orders: tuple[str, ...]
    extents: tuple[int | str, int | str, int | str]
    limits: tuple[int, int, int]
    value_bytes: int
    single: int
    loaded: tuple[int, ...]
    grain: int


class Blocks(NamedTuple):
    """Blocks: loop order, filters, channels, rows, and how many there are."""

    order: str
    filters: int
    channels: int
    rows: int
    blocks: int


class Grid(NamedTuple):
    """What is looked at; it depends on no mask.

    Parameters
    ----------
    extents : three of numpy.ndarray of int64
        Of filters, channels, rows.
    blocks : three of numpy.ndarray of int64
        Of each extent, in all.
    rows, columns : three of Cuts
        Of the tables of weight (k, c), act (c, n), grad_out (k, n).
    """

    extents: tuple[Counts, Counts, Counts]
    blocks: tuple[Counts, Counts, Counts]
    rows: tuple[Cuts, Cuts, Cuts]
    columns: tuple[Cuts, Cuts, Cuts]


@lru_cache(maxsize=512)
def grid_of(shape: Shape, extents: tuple[int | str, int | str, int | str]) -> Grid:
    """Return what is looked at for an op."""
    ks, cs, ns = fine_extents(shape, *extents)
    rows, columns = cut_axes(shape, ks, cs, cs, ns)
    loops = columns[GRAD_OUT if shape.output != ACT else ACT].blocks
    k, c, n = (np.array(it, np.int64) for it in (ks, cs, ns))
    return Grid((k, c, n), (-(-shape.K // k), -(-shape.C // c), loops), rows, columns)


class _Table:
    """One tensor's blocks for all pairs of cuts: which fit, and bytes, as far as known.

    Parameters
    ----------
    fit, sure : numpy.ndarray of bool
        Whether all blocks fit, or may; whether that is known.
    total_bytes, known : numpy.ndarray
        Bytes of all blocks, or a bound below; whether they are counted.
    """

    def __init__(self, store: Store, grid: Grid, constraints: Constraints) -> None:
        self.store, self.limit = store, constraints.limits[store.tensor]
        self.rows, self.columns = grid.rows[store.tensor], grid.columns[store.tensor]
        self.largest = self.rows.largest[:, None] * self.columns.largest * store.cell
        self.elements = int(self.rows.total[0] * self.columns.total[0]) * store.cell
        if store.tensor == constraints.shape.output:
            self.fit: Bools = self.largest * 8 * SUM_BYTES <= self.limit
            self.sure, self.total_bytes = np.ones_like(self.fit), self.largest * 0
            self.known = self.sure
        else:
            self._bound()
        if store.tensor == constraints.single:
            self.fit &= (self.rows.blocks[:, None] == 1) & (self.columns.blocks == 1)

    def _bound(self) -> None:
        blocks = self.rows.blocks[:, None] * self.columns.blocks
        # if the mean block does not fit, there is one that does not
        self.fit = self.store.bits_in_all(self.rows, self.columns) <= self.limit * blocks
        bound = self.store.most_bits(self.largest)
        self.sure = ~self.fit if bound is None else ~self.fit | (bound <= self.limit)
        self.total_bytes, exact = self.store.bytes_in_all(self.rows, self.columns)
        self.known = np.full(self.total_bytes.shape, exact)

    def verify(self, i: int, j: int) -> bool:
        """Whether what was known of a pair of cuts was right; its blocks are counted now."""
        if self.sure[i, j] and self.known[i, j]:
            return True
        bits = self.store.bits(self.rows.cuts[i], self.columns.cuts[j])
        size = int(((bits + 7) // 8).sum())
        right = bool(bits.max() <= self.limit) and size == self.total_bytes[i, j]
        self.fit[i, j] &= bits.max() <= self.limit
        self.total_bytes[i, j] = size
        self.sure[i, j] = self.known[i, j] = True
        return right


class _Cells(NamedTuple):
    """Of each number of channels and rows (c, n): the most filters that fit, and what moves.

    Parameters
    ----------
    filters : numpy.ndarray of int64, shape (c, n)
        Which extent.
    blocks : numpy.ndarray of int64, shape (c, n)
    moved : numpy.ndarray of int64, shape (c, n, o)
        Bytes; NO_LIMIT where nothing fits.
    """

    filters: Counts
    blocks: Counts
    moved: Counts

    @property
    def least(self) -> int:
        """The fewest bytes."""
        return int(self.moved.min())


class Fine:
    """The fine grid of one op.

    Parameters
    ----------
    stores : tuple of Store
    constraints : Wanted
    """

    def __init__(self, stores: Stores, constraints: Constraints) -> None:
        self.constraints, self.grid = constraints, grid_of(constraints.shape, constraints.extents)
        self.tables = [_Table(store, self.grid, constraints) for store in stores]
        self.cells = self._cells()

    @property
    def bound(self) -> int:
        """The fewest bytes that blocks of the grid may move."""
        return self.cells.least

    def best(self) -> tuple[Blocks, int]:
        """Return the blocks chosen among those that move few bytes, and the fewest bytes."""
        self._settle(lambda cells: np.argsort(cells.moved.min(axis=2), axis=None, kind="stable"))
        least = self.cells.least
        at = self._settle(lambda cells: self._ranked(cells, least))
        c, n = np.unravel_index(at, self.cells.filters.shape)
        near = self.cells.moved[c, n] <= least + least // self.constraints.grain
        ks, cs, ns = self.grid.extents
        extents = int(ks[self.cells.filters[c, n]]), int(cs[c]), int(ns[n])
        order = self.constraints.orders[int(near.argmax())]
        return Blocks(order, *extents, int(self.cells.blocks[c, n])), least

    def _settle(self, ranked: Callable[[_Cells], Counts]) -> int:
        """Verify cells in the order of a rank until the first one was right; return it."""
        while True:
            first = True
            for at in ranked(self.cells):
                if self._verify(int(at)):
                    if first:
                        return int(at)
                    break
                first = False
            self.cells = self._cells()

    def _verify(self, at: int) -> bool:
        c, n = (int(index) for index in np.unravel_index(at, self.cells.filters.shape))
        k = int(self.cells.filters[c, n])
        places = {WEIGHT: (k, c), ACT: (c, n), GRAD_OUT: (k, n)}
        right = [self.tables[tensor].verify(*place) for tensor, place in places.items()]
        return all(right)  # all of them are looked at

    def _ranked(self, cells: _Cells, least: int) -> Counts:
        """Return those that move few bytes, by what nothing overlaps with, then by their blocks."""
        near = cells.moved.min(axis=2) <= least + least // self.constraints.grain
        c, n = np.nonzero(near)
        k = cells.filters[c, n]
        first = np.maximum(self._unoverlapped(k, c, n), least // self.constraints.grain)
        order = np.lexsort((n, c, k, cells.blocks[c, n], first))
        ranked: Counts = np.ravel_multi_index((c[order], n[order]), cells.filters.shape)
        return ranked

    def _unoverlapped(self, k: Counts, c: Counts, n: Counts) -> Counts:
        """Return the bytes of the first block's operands and of a result."""
        places = ((k, c), (c, n), (k, n))
        first = 0 * k
        for table, (i, j) in zip(self.tables, places, strict=True):
            tensor = table.store.tensor
            if tensor == self.constraints.shape.output:
                first = first + table.largest[i, j] * self.constraints.value_bytes
            elif tensor in self.constraints.loaded:
                leading = table.store.bytes(table.rows.leading, table.columns.leading)
                first = first + leading[i, j]
        return first

    def _cells(self) -> _Cells:
        weight, act, grad_out = self.tables
        fit = weight.fit[:, :, None] & grad_out.fit[:, None, :]
        k, there = fit.argmax(axis=0), fit.any(axis=0) & act.fit
        filters, channels, rows = self.grid.blocks
        loops = filters[k], channels[:, None], rows[None, :]
        c, n = np.arange(len(channels))[:, None], np.arange(len(rows))[None, :]
        total_bytes = weight.total_bytes[k, c], act.total_bytes, grad_out.total_bytes[k, n]
        moved = np.zeros((*k.shape, len(self.constraints.orders)), np.int64)
        for tensor in range(3):
            times = times_of(loops, self.constraints.orders, LACKS[tensor])
            if tensor == self.constraints.shape.output:
                per = self.constraints.value_bytes + 2 * SUM_BYTES * (times - 1)
                moved += self.tables[tensor].elements * per
            elif tensor in self.constraints.loaded:
                moved += total_bytes[tensor][:, :, None] * times
        blocks = self.constraints.shape.groups * loops[0] * loops[1] * loops[2]
        return _Cells(k, blocks, np.where(there[:, :, None], moved, NO_LIMIT))
