"""An op's GEMMs as blocks of their outputs, computed wave by wave. Matrix letters throughout."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt

from swatsim.simulator.machines.tensor_core.config import TensorCoreConfig
from swatsim.simulator.n_of_m import kept_of
from swatsim.workload.gemm import Gemm, gemms, wanted
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """The GEMMs of all groups on a machine; what is counted is of all of them.

    Parameters
    ----------
    gemm : Gemm
    kept : int
        Values of K that are multiplied: all, or what one compressed operand keeps.
    blocks : Blocks
        Of an output, those that are computed.
    cores : int
    steps : int
        Of a block.
    products, macs : int
        Of a step in a whole block; multiplications of a core and cycle.
    """

    gemm: Gemm
    kept: int
    blocks: Blocks
    cores: int
    steps: int
    products: int
    macs: int

    @property
    def waves(self) -> int:
        """In which the cores compute all blocks."""
        return -(-self.blocks.count // self.cores)

    @property
    def cycles(self) -> int:
        """Cycles of a wave."""
        return self.ends(self.steps - 1)

    def ends(self, step: int) -> int:
        """Return the cycle of its wave at which a step is done."""
        return -(-(step + 1) * self.products // self.macs)

    @property
    def macs_computed(self) -> int:
        """Products that are computed, whatever their factors are."""
        return self.blocks.outputs * self.kept

    def words(self, side: int, packed: bool) -> int:
        """Return the values that cores take of an operand, 0 the left and 1 the right."""
        return self.blocks.lines[side] * (self.kept if packed else self.gemm.depth)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of the outputs of GEMMs alike, numbered group by group, row by row.

    Parameters
    ----------
    shape : tuple of three int
        Groups; of each, blocks along M and along N.
    outputs : int
        In those that are computed.
    lines : pair of int
        Rows that these take of the left operand, and columns of the right one.
    live : numpy.ndarray of bool, of that shape, optional
        Which are computed; by default all.
    """

    shape: tuple[int, int, int]
    outputs: int
    lines: tuple[int, int]
    live: Mask | None = None

    @property
    def count(self) -> int:
        """How many are computed, of all groups."""
        return prod(self.shape) if self.live is None else int(np.count_nonzero(self.live))

    def counts_of(self, images: int) -> Counts:
        """Return how many are computed of each of so many equal parts of the groups."""
        if self.live is None:
            return np.full(images, self.count // images)
        return np.asarray(np.count_nonzero(self.live.reshape(images, -1), axis=1))

    def place(self, number: int) -> tuple[int, int, int]:
        """Return the group, the row and the column of one of those that are computed."""
        if self._numbers is not None:
            number = int(self._numbers[number])
        group, block = divmod(number, self.shape[1] * self.shape[2])
        return group, *divmod(block, self.shape[2])

    @cached_property
    def _numbers(self) -> Counts | None:
        return None if self.live is None else np.flatnonzero(self.live)


def parts(op: LoweredOp, config: TensorCoreConfig, compressed: bool) -> list[Part]:
    """Return an op's GEMMs as a machine runs them, dense or with one operand compressed."""
    every = zip(gemms(op, config.dgrad_lowering), wanted(op, config.dgrad_lowering), strict=True)
    return [_part(gemm, outputs, config, compressed) for gemm, outputs in every]


def _part(gemm: Gemm, outputs: Mask | None, config: TensorCoreConfig, compressed: bool) -> Part:
    kept = kept_of(gemm.depth, config.packing if compressed else None)
    tile = config.tile_m, config.tile_n
    return Part(
        gemm=gemm,
        kept=kept,
        blocks=_all_blocks(gemm, tile) if outputs is None else _live_blocks(outputs, tile),
        cores=config.cores,
        steps=-(-kept // config.k_step),
        products=config.tile_m * config.tile_n * config.k_step,
        macs=config.macs,
    )


def _all_blocks(gemm: Gemm, tile: tuple[int, int]) -> Blocks:
    down, across = -(-gemm.rows // tile[0]), -(-gemm.columns // tile[1])
    lines = gemm.times * across * gemm.rows, gemm.times * down * gemm.columns
    return Blocks((gemm.times, down, across), gemm.times * gemm.rows * gemm.columns, lines)


def _live_blocks(outputs: Mask, tile: tuple[int, int]) -> Blocks:
    """Return the blocks that have an output of (groups, rows, columns) that is wanted."""
    rows, columns = (np.arange(0, outputs.shape[1 + axis], tile[axis]) for axis in (0, 1))
    some = np.logical_or.reduceat(np.logical_or.reduceat(outputs, columns, axis=2), rows, axis=1)
    down, across = (
        np.diff(firsts, append=size)
        for firsts, size in zip((rows, columns), outputs.shape[1:], strict=True)
    )
    live = some.sum(axis=0, dtype=np.int64)  # of all groups
    lines = int((live.sum(axis=1) * down).sum()), int((live.sum(axis=0) * across).sum())
    return Blocks(some.shape, int(down @ live @ across), lines, some)
