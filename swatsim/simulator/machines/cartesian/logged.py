"""A part of an op run with a log of one PE, by the kernels that count."""

from __future__ import annotations

import numpy as np

from swatsim.simulator.machines.cartesian import kernel_wgrad
from swatsim.simulator.machines.cartesian.channels import Channels
from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.groups import Planar
from swatsim.simulator.machines.cartesian.kernel import PixelLog
from swatsim.simulator.machines.cartesian.kernel_log import Log, new_log
from swatsim.simulator.machines.cartesian.kernel_patterns import Counts
from swatsim.simulator.machines.cartesian.kernel_wgrad import OuterLog
from swatsim.simulator.machines.cartesian.kernel_wgrad_queued import outer_product_queued
from swatsim.simulator.machines.cartesian.machine import (
    convolve,
    new_held,
    outer_wanted,
    product_table,
    queue_members,
)
from swatsim.simulator.machines.cartesian.mapping import bank_table


def log_steps(
    part: Planar | Channels, config: CartesianConfig, pe: tuple[int, int]
) -> tuple[Counts, Counts]:
    """Return what each step of one sample's part takes, and what this PE's share of it takes.

    In the kernel's order: with queues fprop and dgrad have their drains at the end, one a chunk,
    and wgrad one after each step. A PE's share is -1 where it has none.
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
        log = new_log(pe, first, end, vectors, 3, config.bank_queue > 0)
        places = np.empty((part.data[0, 0].size + 1, 2), np.int64)
        convolve(part, PixelLog(log, places))
        return log
    log = new_log(pe, first, end, vectors, 2, config.bank_queue > 0)
    act, grad, table, acts, grads = queue_members(part, config)
    given = OuterLog(log, acts, grads, bank_table(config.banks))
    pes, met = (config.pe_h, config.pe_w), part.met.of(range(part.met.taps))
    held = new_held(part, config)
    if part.wanted is not None:
        list(outer_wanted(part, config, held, given))
    elif config.bank_queue:
        made, depth = product_table(config), config.bank_queue
        outer_product_queued(act, grad, met, *part.blocks, made, depth, *pes, held, given)
    else:
        kernel_wgrad.outer_product(act, grad, met, *part.blocks, table, *pes, held, given)
    return log


def _most_steps(part: Planar | Channels) -> int:
    """Return a bound of the steps, drains among them: the log has room for as many, and no more."""
    if isinstance(part, Planar):
        channels, filters = part.weight.shape[:2]
        chunks: int = -(-filters // part.array.chunk)
        return int((channels + 1) * chunks)
    rounds: int = part.blocks[0] * part.blocks[1]
    return 2 * part.met.taps * rounds
