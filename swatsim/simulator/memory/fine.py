"""Blocks of other sizes, where powers of two move too many bytes.

An axis is cut into any extents if it is short, else into the fewest elements that make j blocks,
ceil(n / j), for every j: what moves depends on how many blocks there are. Where it matters where
blocks begin (N:M, strides) multiples of that are there too. Of each number of channels and rows
only the most filters that fit are looked at: with more of them nothing is loaded more often. What
the masks bear on is bounded at first, and counted for those blocks that may be chosen.

Legend of dimensions: k, c, n extents of filters, channels, rows, descending; o loop orders; m all
that is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.simulator.memory.candidates import Extents, cut_axes, fine_extents, times_of
from swatsim.simulator.memory.kernel import Counts
from swatsim.simulator.memory.pipeline import LACKS, SUM_BYTES
from swatsim.simulator.memory.stores import Store, Stores
from swatsim.simulator.memory.tensors import ACT, GRAD_OUT, Cuts, Shape

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
    of_filters, of_channels : tuple of int
        The M of operands stored N:M along them.
    """

    shape: Shape
    orders: tuple[str, ...]
    extents: tuple[int | str, int | str, int | str]
    limits: tuple[int, int, int]
    value_bytes: int
    single: int
    loaded: tuple[int, ...]
    grain: int
    of_filters: tuple[int, ...]
    of_channels: tuple[int, ...]


class Blocks(NamedTuple):
    """Blocks: loop order, groups, filters, channels, rows, and how many there are."""

    order: str
    groups: int
    filters: int
    channels: int
    rows: int
    blocks: int


class Grid(NamedTuple):
    """What is looked at; it depends on no mask.

    Groups come first: blocks of several are rows of the tables as those of a part of one are.

    Parameters
    ----------
    extents : Extents
    rows, columns : three of Cuts
        Of the tables of weight (k, c), act (c, n), grad_out (k, n).
    choices : tuple of numpy.ndarray of int64
        Filters among which the most that fit are looked at: all, and multiples of each step.
    """

    extents: Extents
    rows: tuple[Cuts, Cuts, Cuts]
    columns: tuple[Cuts, Cuts, Cuts]
    choices: tuple[Counts, ...]


@lru_cache(maxsize=512)
def grid_of(
    shape: Shape,
    extents: tuple[int | str, int | str, int | str],
    of_filters: tuple[int, ...],
    of_channels: tuple[int, ...],
) -> Grid:
    """Return what is looked at for an op."""
    every = fine_extents(shape, *extents, of_filters, of_channels)
    groups, ks, cs, ns = every
    filters = [g * shape.K for g in groups] + ks
    channels = [g * shape.C for g in groups] + cs
    rows, columns = cut_axes(shape, filters, channels, cs, ns)
    choices = (
        [len(groups) + i for i, k in enumerate(ks) if k % step == 0 or k == shape.K]
        for step in (1, *of_filters)
    )
    some = tuple(np.array(choice, np.int64) for choice in choices if choice)
    return Grid(every, rows, columns, some)


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
        largest, size = self.store.largest_and_bytes(self.rows[i], self.columns[j])
        right = bool(largest <= self.limit and size == self.total_bytes[i, j])
        self.fit[i, j] &= largest <= self.limit
        self.total_bytes[i, j] = size
        self.sure[i, j] = self.known[i, j] = True
        return right


class _Cells(NamedTuple):
    """What is looked at: of each number of channels and rows the most filters that fit.

    Parameters
    ----------
    k, c, across, n : numpy.ndarray of int64, shape (m,)
        Which cut of the filters, of the channels, of those of a group, of the rows.
    blocks : numpy.ndarray of int64, shape (m,)
    moved : numpy.ndarray of int64, shape (m, o)
        Bytes; NO_LIMIT where nothing fits.
    """

    k: Counts
    c: Counts
    across: Counts
    n: Counts
    blocks: Counts
    moved: Counts

    @property
    def least(self) -> int:
        """The fewest bytes."""
        return int(self.moved.min())

    @property
    def places(self) -> tuple[tuple[Counts, Counts], ...]:
        """Rows and columns of the tables of weight, act and grad_out."""
        return (self.k, self.across), (self.c, self.n), (self.k, self.n)


class Fine:
    """The fine grid of one op.

    Parameters
    ----------
    stores : tuple of Store
    constraints : Constraints
    """

    def __init__(self, stores: Stores, constraints: Constraints) -> None:
        self.constraints = constraints
        steps = constraints.of_filters, constraints.of_channels
        self.grid = grid_of(constraints.shape, constraints.extents, *steps)
        self.tables = [_Table(store, self.grid, constraints) for store in stores]
        self.cells = self._cells()

    @property
    def bound(self) -> int:
        """The fewest bytes that blocks of the grid may move."""
        return self.cells.least

    def best(self) -> tuple[Blocks, int]:
        """Return the blocks chosen among those that move few bytes, and the fewest bytes."""
        self._settle(lambda cells: np.argsort(cells.moved.min(axis=1), kind="stable"))
        least = self.cells.least
        at = self._settle(lambda cells: self._ranked(cells, least))
        near = self.cells.moved[at] <= least + least // self.constraints.grain
        order = self.constraints.orders[int(near.argmax())]
        return Blocks(order, *self._extents(at), int(self.cells.blocks[at])), least

    def _extents(self, at: int) -> tuple[int, int, int, int]:
        groups, ks, cs, ns = self.grid.extents
        k, across, n = (int(one[at]) for one in (self.cells.k, self.cells.across, self.cells.n))
        whole = len(groups)
        filters = ks[k - whole] if k >= whole else self.constraints.shape.K
        return groups[k] if k < whole else 1, filters, cs[across], ns[n]

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
        places = zip(self.tables, self.cells.places, strict=True)
        right = [table.verify(int(row[at]), int(column[at])) for table, (row, column) in places]
        return all(right)  # all of them are looked at

    def _ranked(self, cells: _Cells, least: int) -> Counts:
        """Return those that move few bytes, by what nothing overlaps with, then by their blocks."""
        near = np.flatnonzero(cells.moved.min(axis=1) <= least + least // self.constraints.grain)
        k, c, across, n, blocks = (one[near] for one in cells[:5])
        places = (k, across), (c, n), (k, n)
        first = np.maximum(self._unoverlapped(places), least // self.constraints.grain)
        ranked: Counts = near[np.lexsort((n, c, k, blocks, first))]
        return ranked

    def _unoverlapped(self, places: tuple[tuple[Counts, Counts], ...]) -> Counts:
        """Return the bytes of the first block's operands and of a result."""
        first = 0 * places[0][0]
        for table, (i, j) in zip(self.tables, places, strict=True):
            tensor = table.store.tensor
            if tensor == self.constraints.shape.output:
                first = first + table.largest[i, j] * self.constraints.value_bytes
            elif tensor in self.constraints.loaded:
                leading = table.store.bytes(table.rows.leading, table.columns.leading)
                first = first + leading[i, j]
        return first

    def _cells(self) -> _Cells:
        """Put together what fits, of one group's part and of several groups."""
        parts = [self._in_a_group(some) for some in self.grid.choices]
        if self.grid.extents.groups:
            parts.append(self._of_groups())
        k, c, across, n, fit = (np.concatenate([part[i] for part in parts]) for i in range(5))
        shape, (groups, ks, cs, _) = self.constraints.shape, self.grid.extents
        of_groups = np.array([-(-shape.groups // g) for g in groups] + [shape.groups] * len(ks))
        of_filters = np.array([1] * len(groups) + [-(-shape.K // one) for one in ks])
        of_channels = np.array([-(-shape.C // one) for one in cs])
        of_rows = self.grid.columns[GRAD_OUT if shape.output != ACT else ACT].blocks
        loops = of_filters[k], of_channels[across], of_rows[n]
        blocks = of_groups[k] * loops[0] * loops[1] * loops[2]
        moved = np.where(fit[:, None], self._moved(((k, across), (c, n), (k, n)), loops), NO_LIMIT)
        return _Cells(k, c, across, n, blocks, moved)

    def _in_a_group(self, filters: Counts) -> tuple[npt.NDArray[Any], ...]:
        """Return, for each number of channels and rows, the most of some filters that fit."""
        weight, act, grad_out = (table.fit for table in self.tables)
        whole = len(self.grid.extents.groups)
        fit = weight[filters][:, :, None] & grad_out[filters][:, None, :]
        k, there = filters[fit.argmax(axis=0)], fit.any(axis=0) & act[whole:]
        across, n = np.indices(k.shape)
        return tuple(one.reshape(-1) for one in (k, whole + across, across, n, there))

    def _of_groups(self) -> tuple[npt.NDArray[Any], ...]:
        """Return all numbers of groups and rows."""
        weight, act, grad_out = (table.fit for table in self.tables)
        g = slice(len(self.grid.extents.groups))
        there = weight[g, :1] & act[g] & grad_out[g]
        groups, n = np.indices(there.shape)
        return tuple(one.reshape(-1) for one in (groups, groups, 0 * groups, n, there))

    def _moved(
        self, places: tuple[tuple[Counts, Counts], ...], loops: tuple[Counts, Counts, Counts]
    ) -> Counts:
        """Return the bytes that move in each order."""
        moved = np.zeros((len(loops[0]), len(self.constraints.orders)), np.int64)
        for tensor, (i, j) in enumerate(places):
            times = times_of(loops, self.constraints.orders, LACKS[tensor])
            table = self.tables[tensor]
            if tensor == self.constraints.shape.output:
                per = self.constraints.value_bytes + 2 * SUM_BYTES * (times - 1)
                moved += table.elements * per
            elif tensor in self.constraints.loaded:
                moved += table.total_bytes[i, j][:, None] * times
        return moved
