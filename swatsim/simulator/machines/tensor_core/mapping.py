"""An op's GEMMs as blocks of their outputs, computed wave by wave. Matrix letters throughout."""

from __future__ import annotations

from dataclasses import dataclass

from swatsim.simulator.machines.tensor_core.config import TensorCoreConfig
from swatsim.simulator.n_of_m import kept_of
from swatsim.workload.gemm import Gemm, gemms
from swatsim.workload.lowering import LoweredOp


@dataclass(frozen=True)
class Part:
    """A GEMM on a machine.

    Parameters
    ----------
    gemm : Gemm
    kept : int
        Values of K that are multiplied: all, or what one compressed operand keeps.
    blocks : pair of int
        Blocks of the output, along M and along N.
    waves : int
        In which the cores compute them.
    steps : int
        Of a block.
    products, macs : int
        Of a step in a whole block; multiplications of a core and cycle.
    """

    gemm: Gemm
    kept: int
    blocks: tuple[int, int]
    waves: int
    steps: int
    products: int
    macs: int

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
        return self.gemm.rows * self.gemm.columns * self.kept

    def words(self, side: int, packed: bool) -> int:
        """Return the values that cores take of an operand, 0 the left and 1 the right.

        The left one is taken anew for each column of blocks, the right one for each row.
        """
        lines = (self.gemm.rows, self.gemm.columns)[side]
        return self.blocks[1 - side] * lines * (self.kept if packed else self.gemm.depth)


def parts(op: LoweredOp, config: TensorCoreConfig, compressed: bool) -> list[Part]:
    """Return an op's GEMMs as a machine runs them, dense or with one operand compressed."""
    return [_part(gemm, config, compressed) for gemm in gemms(op, config.dgrad_lowering)]


def _part(gemm: Gemm, config: TensorCoreConfig, compressed: bool) -> Part:
    kept = kept_of(gemm.depth, config.packing if compressed else None)
    blocks = -(-gemm.rows // config.tile_m), -(-gemm.columns // config.tile_n)
    return Part(
        gemm=gemm,
        kept=kept,
        blocks=blocks,
        waves=-(-blocks[0] * blocks[1] // config.cores),
        steps=-(-kept // config.k_step),
        products=config.tile_m * config.tile_n * config.k_step,
        macs=config.macs,
    )
