"""A part of an op run with a log of one PE, by the kernels that count."""

from __future__ import annotations

import numpy as np

from swatsim.simulator.machines.cartesian import kernel, kernel_wgrad
from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.kernel import PixelLog
from swatsim.simulator.machines.cartesian.kernel_log import Log, new_log
from swatsim.simulator.machines.cartesian.kernel_patterns import Counts
from swatsim.simulator.machines.cartesian.kernel_wgrad import OuterLog
from swatsim.simulator.machines.cartesian.machine import queue
from swatsim.simulator.machines.cartesian.mapping import Channels, Planar, bank_table


def log_steps(
    part: Planar | Channels, config: CartesianConfig, pe: tuple[int, int]
) -> tuple[Counts, Counts]:
    """Return what each step of one sample's part takes, and what this PE's share of it takes.

    In the kernel's order; a PE's share is -1 where it has none.
    """
    nothing = np.zeros(_most_steps(part), np.int64)
    log = log_pairs(part, config, pe, nothing, nothing)
    steps = int(log.size[0])
    return log.cycles[:steps], log.own[:steps]


def log_pairs(
    part: Planar | Channels,
    config: CartesianConfig,
    pe: tuple[int, int],
    first: Counts,
    end: Counts,
) -> Log:
    """Return a log of a PE's pairs of blocks in the cycles `first` to `end` of each step."""
    vectors = config.act_vector, config.weight_vector
    if isinstance(part, Planar):
        log = new_log(pe, first, end, vectors, letters=3)
        places = np.empty((part.data[0, 0].size + 1, 2), np.int64)
        kernel.convolve(
            part.data,
            part.weight,
            part.first_k,
            part.rows,
            part.columns,
            part.array,
            PixelLog(log, places),
        )
        return log
    log = new_log(pe, first, end, vectors, letters=2)
    act, grad, table = queue(part, config, (None, None))
    acts, grads = (
        np.full((queued.patterns.size, vector), -1, np.int32)
        for queued, vector in zip((act, grad), vectors, strict=True)
    )
    queue(part, config, (acts, grads))
    given = OuterLog(log, acts, grads, bank_table(config.banks))
    kernel_wgrad.outer_product(
        act, grad, part.met, *part.blocks, table, config.pe_h, config.pe_w, given
    )
    return log


def _most_steps(part: Planar | Channels) -> int:
    """Return a bound of the steps: the log has room for as many, and refuses more."""
    if isinstance(part, Planar):
        channels, filters = part.weight.shape[:2]
        chunks: int = -(-filters // part.array.chunk)
        return int(channels * chunks)
    rounds: int = part.blocks[0] * part.blocks[1]
    return len(part.met) * rounds
