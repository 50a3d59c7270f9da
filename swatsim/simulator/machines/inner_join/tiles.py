"""What single clusters have to do in an op."""

from __future__ import annotations

from collections.abc import Sequence

from swatsim.simulator.machines.inner_join.config import InnerJoinConfig
from swatsim.simulator.machines.inner_join.machine import run
from swatsim.simulator.machines.inner_join.mapping import passes
from swatsim.simulator.tiles import Tiles
from swatsim.workload.lowering import LoweredOp


def own(op: LoweredOp, config: InnerJoinConfig, tiles: Sequence[int]) -> list[int]:
    """Return the cycles in which each of some clusters joins, its slowest PE's."""
    taken = [run(part, config).cycles.sum(axis=(0, 2)) for part in passes(op, config)]
    return [int(sum(of[tile] for of in taken)) for tile in tiles]


TILES = Tiles("cluster", lambda config: config.clusters, own)
