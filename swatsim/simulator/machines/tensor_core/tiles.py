"""What single cores have to do in an op."""

from __future__ import annotations

from collections.abc import Sequence

from swatsim.simulator.machines.tensor_core.config import TensorCoreConfig
from swatsim.simulator.machines.tensor_core.machine import compressed, obeying
from swatsim.simulator.machines.tensor_core.mapping import parts
from swatsim.simulator.tiles import Tiles
from swatsim.workload.lowering import LoweredOp


def own(op: LoweredOp, config: TensorCoreConfig, tiles: Sequence[int]) -> list[int]:
    """Return the cycles in which each of some cores has a block: it takes every so manyth one."""
    packed = compressed(op, config, obeying(op, config)) is not None
    run = parts(op, config, packed)
    return [
        sum(part.cycles * len(range(tile, part.blocks.count, config.cores)) for part in run)
        for tile in tiles
    ]


TILES = Tiles("core", lambda config: config.cores, own)
