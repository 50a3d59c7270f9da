"""Lay the matrix products of an op on the array: its folds, how long they take, their words.

Speaks matrix letters: M x K times K x N.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, assert_never

from swatsim.simulator.machines.systolic.config import Dataflow, SystolicConfig
from swatsim.simulator.n_of_m import kept_of
from swatsim.workload.gemm import gemms
from swatsim.workload.lowering import LoweredOp


class Product(NamedTuple):
    """Matrix products of the same sizes, one after another.

    Parameters
    ----------
    M, N, K : int
    kept : int
        Of the K, those that are multiplied: K', where weights run compressed.
    times : int
        How many such there are.
    """

    M: int
    N: int
    K: int
    kept: int
    times: int


class Layout(NamedTuple):
    """How a product lies on the array.

    Parameters
    ----------
    on_rows, on_columns : int
        How much lies on the rows and on the columns of PEs, of all folds.
    streamed : int
        What streams past in a fold, T.
    blocks : pair of int
        Blocks of rows and of columns: a fold is one of each.
    before : int
        Lines of a fold before the first values enter the array: the held ones come in.
    lines : int
        Lines of a fold, L.
    """

    on_rows: int
    on_columns: int
    streamed: int
    blocks: tuple[int, int]
    before: int
    lines: int

    @property
    def folds(self) -> int:
        """Folds of a product."""
        return self.blocks[0] * self.blocks[1]

    @property
    def held(self) -> int:
        """PEs that hold something, summed over the folds."""
        return self.on_rows * self.on_columns


class Words(NamedTuple):
    """Values of a product that PEs take from buffers, and sums that they exchange with one."""

    left: int
    right: int
    written: int
    read: int


def products(op: LoweredOp, config: SystolicConfig, compressed: bool) -> Iterator[Product]:
    """Yield the products that compute an op; compressed, with the weights that are kept."""
    packing = config.packing if compressed else None
    for gemm in gemms(op, config.dgrad_lowering):
        kept = kept_of(gemm.depth, packing)
        yield Product(gemm.rows, gemm.columns, gemm.depth, kept, gemm.times)


def ceil(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


def layout(product: Product, config: SystolicConfig) -> Layout:
    """Return how a product lies on the array, as the README has it of each dataflow."""
    on_rows, on_columns, streamed, before = _sides(product, config)
    return Layout(
        on_rows,
        on_columns,
        streamed,
        (ceil(on_rows, config.rows), ceil(on_columns, config.columns)),
        before,
        before + streamed + config.rows + config.columns - 2,
    )


def _sides(product: Product, config: SystolicConfig) -> tuple[int, int, int, int]:
    """Return what is on rows and on columns, what streams, and lines until the held values lie."""
    match config.dataflow:
        case Dataflow.OUTPUT:
            return product.M, product.N, product.kept, 0
        case Dataflow.WEIGHT:
            return product.kept, product.N, product.M, config.rows
        case Dataflow.INPUT:
            return product.kept, product.M, product.N, config.rows
        case _:
            assert_never(config.dataflow)


def words(product: Product, config: SystolicConfig) -> Words:
    """Return the words of one product; left values are never compressed."""
    M, N, K, kept, _ = product
    row_blocks, column_blocks = layout(product, config).blocks
    match config.dataflow:
        case Dataflow.OUTPUT:
            return Words(column_blocks * M * K, row_blocks * kept * N, M * N, 0)
        case Dataflow.WEIGHT:
            left, right = column_blocks * M * K, kept * N
        case Dataflow.INPUT:
            left, right = M * K, column_blocks * kept * N
        case _:
            assert_never(config.dataflow)
    return Words(left, right, row_blocks * M * N, (row_blocks - 1) * M * N)
