"""What single tiles have to do in an op: the row sets that run on each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swatsim.simulator.machines.lane_array import kernel
from swatsim.simulator.machines.lane_array.config import LaneArrayConfig, Scheduled
from swatsim.simulator.machines.lane_array.kernel import Counts
from swatsim.simulator.machines.lane_array.machine import schedule_of, scheduler_of
from swatsim.simulator.machines.lane_array.mapping import passes, scheduled_operand
from swatsim.simulator.machines.lane_array.streams import Pass
from swatsim.simulator.tiles import Tiles
from swatsim.workload.layer import OPERANDS_OF
from swatsim.workload.lowering import LoweredOp


def own(op: LoweredOp, config: LaneArrayConfig, tiles: Sequence[int]) -> list[int]:
    """Return the cycles in which each of some tiles takes lines of its own."""
    scheduled = scheduled_operand(op, config)
    outputs = config.scheduled is not Scheduled.NONE
    spent = np.zeros(config.tiles, np.int64)
    for part in passes(op, config, scheduled or OPERANDS_OF[op.name][0]):
        lines = np.full((part.groups, part.mapped.size), part.length)
        if scheduled:
            schedule, _ = schedule_of(part, scheduler_of(config), kernel.schedule)
            lines = schedule.lines.reshape(lines.shape)
        spent += _wanted(part, lines) if outputs and part.wanted else _all(part, lines)
    return [int(spent[tile]) for tile in tiles]


def _all(part: Pass, lines: Counts) -> Counts:
    """Return what each tile takes where all row sets run with all column sets."""
    of_sets = lines.sum(axis=0)
    places = np.arange(of_sets.size) % part.tiles
    once = np.bincount(places, of_sets, part.tiles).astype(np.int64)
    return part.repeats * part.columns.size * once


def _wanted(part: Pass, lines: Counts) -> Counts:
    """Return the same where some do: those that are left go to consecutive tiles."""
    assert part.wanted is not None, "all are wanted"
    spent = np.zeros(part.tiles, np.int64)
    for group in range(part.groups):
        runs = part.wanted()[:, group].reshape(-1, part.mapped.size)
        places = (runs.cumsum(axis=1) - 1) % part.tiles
        for tile in range(part.tiles):
            spent[tile] += ((runs & (places == tile)) @ lines[group]).sum()
    return spent


TILES = Tiles("tile", lambda config: config.tiles, own)
