"""What single PEs have to do in an op: in each step all wait for the slowest.

Without queues what a PE takes depends on its own pixels or channels alone: it is run as if nobody
else had any, by the kernels that count. With queues before the banks, of fprop and dgrad, it finds
them as the others' waiting left them: all are run, with a log of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.kernel_patterns import Bits
from swatsim.simulator.machines.cartesian.logged import log_steps
from swatsim.simulator.machines.cartesian.machine import convolve, outer
from swatsim.simulator.machines.cartesian.mapping import (
    Channels,
    Planar,
    one_by_one,
    outer_products,
    planar,
)
from swatsim.simulator.tiles import Tiles
from swatsim.workload.lowering import LoweredOp

Pe = tuple[int, int]


def own(op: LoweredOp, config: CartesianConfig, tiles: Sequence[int]) -> list[int]:
    """Return the cycles in which each of some PEs multiplies, or waits for its banks.

    Queues that it drains at the end of a step are not in it.
    """
    return [sum(_of_parts(op, config, divmod(tile, config.pe_w))) for tile in tiles]


def _of_parts(op: LoweredOp, config: CartesianConfig, pe: Pe) -> Iterator[int]:
    if op.name == "wgrad":
        yield from (_of_channels(part, config, pe) for part in outer_products(op, config))
    elif config.bank_queue:
        parts = (part for one in one_by_one(op) for part in planar(one, config))
        yield from (_of_queued(part, config, pe) for part in parts)
    else:
        yield from (_of_pixels(part, pe) for part in planar(op, config))


def _of_pixels(part: Planar, pe: Pe) -> int:
    here = tuple(
        slice(place * axis.tile, (place + 1) * axis.tile)
        for place, axis in zip(pe, (part.rows, part.columns), strict=True)
    )
    data = np.zeros_like(part.data)
    data[(..., *here)] = part.data[(..., *here)]
    return int(convolve(replace(part, data=data)).cost)


def _of_queued(part: Planar, config: CartesianConfig, pe: Pe) -> int:
    channels, filters = part.weight.shape[:2]
    steps = channels * -(-filters // part.array.chunk)  # drains lie behind them
    return int(np.maximum(log_steps(part, config, pe)[1][:steps], 0).sum())


def _of_channels(part: Channels, config: CartesianConfig, pe: Pe) -> int:
    act = _kept(part.act, part.block_c, pe[0], config.pe_h)
    grad = _kept(part.grad, part.block_k, pe[1], config.pe_w)
    alone = replace(part, act=act, grad=grad)
    if not config.bank_queue:
        return int(outer(alone, config, conflicts=True).cost)
    taken = log_steps(alone, config, pe)[1]
    return int(np.maximum(taken[::2], 0).sum())  # a drain lies behind each


def _kept(values: Bits, block: int, place: int, pes: int) -> Bits:
    """Return values without those of channels that other PEs hold."""
    held = np.arange(values.shape[1]) // block % pes == place
    return np.ascontiguousarray(values & held)


TILES = Tiles("PE", lambda config: config.pes, own)
