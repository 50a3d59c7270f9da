"""What the array has to do in an op: it is one, and waits for no other."""

from __future__ import annotations

from collections.abc import Sequence

from swatsim.simulator.machines.systolic.config import SystolicConfig
from swatsim.simulator.machines.systolic.machine import simulate_op
from swatsim.simulator.tiles import Tiles
from swatsim.workload.lowering import LoweredOp


def own(op: LoweredOp, config: SystolicConfig, tiles: Sequence[int]) -> list[int]:
    """Return all of the op's cycles."""
    return [simulate_op(op, config).cycles_compute] * len(tiles)


TILES = Tiles("array", lambda config: 1, own)
