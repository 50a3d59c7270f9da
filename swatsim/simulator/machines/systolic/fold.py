"""One fold of an op: which of the matrices' values meet in which PE, in which of its lines.

The closed forms of `machine` need none of this; a timeline shows it. Indices are arrays, one entry
a pair of values. Speaks matrix letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from swatsim.simulator.machines.systolic.config import Dataflow, SystolicConfig
from swatsim.simulator.machines.systolic.mapping import Layout, Product, layout, products
from swatsim.simulator.machines.systolic.matrices import Place, right
from swatsim.workload.lowering import LoweredOp

Places = npt.NDArray[np.int64]


class Fold(NamedTuple):
    """One fold; of the PEs it uses the first rows and columns.

    Parameters
    ----------
    place : Place
        Of which matrix product of the op.
    product : Product
    layout : Layout
    block : pair of int
        Which block of rows, and which of columns.
    first : pair of int
        What lies on the first row, and on the first column.
    used : pair of int
        Rows and columns of PEs that hold something.
    """

    place: Place
    product: Product
    layout: Layout
    block: tuple[int, int]
    first: tuple[int, int]
    used: tuple[int, int]

    @property
    def lines(self) -> int:
        """Lines that it takes."""
        return self.layout.lines

    @property
    def streamed(self) -> int:
        """Pairs of each PE that holds something, a line each."""
        return self.layout.streamed

    def begin(self, row: int, column: int) -> int:
        """Return the line in which a PE has its first pair: a wave goes a PE a line."""
        return self.layout.before + row + column


class Pairs(NamedTuple):
    """Pairs of values that are multiplied: of row m, column n; and the weight's slot along K."""

    m: Places
    n: Places
    slot: Places


def count(op: LoweredOp, config: SystolicConfig, compressed: bool) -> int:
    """Return the folds of an op."""
    every = products(op, config, compressed)
    return sum(one.times * layout(one, config).folds for one in every)


def folds(op: LoweredOp, config: SystolicConfig, compressed: bool) -> Iterator[Fold]:
    """Yield the folds in the order in which they run: blocks of rows are innermost."""
    for index, product in enumerate(products(op, config, compressed)):
        laid = layout(product, config)
        for group in range(product.times):
            for column in range(laid.blocks[1]):
                for row in range(laid.blocks[0]):
                    yield _fold(Place(index, group), product, laid, (row, column), config)


def _fold(
    place: Place, product: Product, laid: Layout, block: tuple[int, int], config: SystolicConfig
) -> Fold:
    first = block[0] * config.rows, block[1] * config.columns
    used = (
        min(config.rows, laid.on_rows - first[0]),
        min(config.columns, laid.on_columns - first[1]),
    )
    return Fold(place, product, laid, block, first, used)


def pairs(fold: Fold, config: SystolicConfig, row: Places, column: Places, t: Places) -> Pairs:
    """Return what PEs (row, column) multiply when the t-th of what streams is there."""
    on_row, on_column = fold.first[0] + row, fold.first[1] + column
    match config.dataflow:
        case Dataflow.OUTPUT:
            return Pairs(on_row, on_column, t)
        case Dataflow.WEIGHT:
            return Pairs(t, on_column, on_row)
        case Dataflow.INPUT:
            return Pairs(on_column, t, on_row)
        case _:
            assert_never(config.dataflow)


def depths(op: LoweredOp, config: SystolicConfig, fold: Fold, of: Pairs) -> Places:
    """Return which index along K each pair has; -1: the slot is empty."""
    if fold.product.kept == fold.product.K:
        return of.slot
    found = np.empty_like(of.slot)
    for n in np.unique(of.n):
        every = np.arange(fold.product.K)
        column = right(op, config.dgrad_lowering, fold.place, every, np.full_like(every, n))
        here = of.n == n
        found[here] = _slots(column, *config.packing or (1, 1))[of.slot[here]]
    return found


def _slots(column: npt.NDArray[np.bool_], kept: int, of: int) -> Places:
    """Return the indices along K that a column's slots hold, -1 in those that are left."""
    slots = np.full((-(-column.size // of), kept), -1)
    for group, taken in enumerate(slots):
        values = group * of + np.flatnonzero(column[group * of : (group + 1) * of])
        taken[: values.size] = values
    return slots.ravel()
