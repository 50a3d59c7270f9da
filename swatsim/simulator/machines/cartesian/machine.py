"""Run an op, and its two dense baselines: with and without bank conflicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from swatsim.counters import Counters
from swatsim.simulator.machines.cartesian import kernel, kernel_wgrad
from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.kernel import Work
from swatsim.simulator.machines.cartesian.kernel_log import Places
from swatsim.simulator.machines.cartesian.kernel_patterns import Counts
from swatsim.simulator.machines.cartesian.kernel_wgrad import Outer
from swatsim.simulator.machines.cartesian.mapping import (
    Channels,
    Planar,
    bank_table,
    outer_products,
    patterns,
    planar,
)
from swatsim.workload.layer import Layer, OpName
from swatsim.workload.lowering import LoweredOp


def simulate_op(op: LoweredOp, config: CartesianConfig) -> Counters:
    """Return an op's counters on a `cartesian`, the zeros of both operands skipped."""
    valid = op.macs_effectual
    if op.name == "wgrad":
        return _counters(op, config, _wgrad(op, config, conflicts=True), 0, valid)
    parts = list(planar(op, config))
    work = (_convolve(part) for part in parts)
    return _counters(op, config, work, sum(part.halo_cycles for part in parts), valid)


def simulate_dense(op: LoweredOp, config: CartesianConfig) -> Counters:
    """Return the counters with every pixel and weight, without bank conflicts, as DNNsim counts."""
    return _dense(op, config, conflicts=False)


def simulate_dense_with_conflicts(op: LoweredOp, config: CartesianConfig) -> Counters:
    """Return the counters with every pixel and weight, bank conflicts included."""
    return _dense(op, config, conflicts=True)


def simulate_dense_operands(op: LoweredOp, config: CartesianConfig) -> Counters:
    """Return the counters were no value zero: padding is skipped, and banks are waited for."""
    anonymous = op.layer.model_copy(update={"name": "dense"})
    return _without_zeros(anonymous, op.name, config).times(op.samples)


@lru_cache(maxsize=10_000)
def _without_zeros(layer: Layer, name: OpName, config: CartesianConfig) -> Counters:
    """Run one image: samples follow one another."""
    op = LoweredOp.dense(layer, name, 1)
    valid = op.macs_effectual
    if name == "wgrad":
        part = next(outer_products(op, config))  # groups are alike
        work = _times(_outer(part, config, conflicts=True), layer.groups)
        return _counters(op, config, iter([work]), 0, valid)
    parts = list(planar(op, config))
    every = (some for part in parts for some in _alike_channels(part))
    return _counters(op, config, every, sum(part.halo_cycles for part in parts), valid)


def _alike_channels(part: Planar) -> Iterator[Work]:
    """Yield one of each kind of channel: all are alike, but the last of a linear layer's images."""
    channels = [
        (data.tobytes(), weight.tobytes())
        for data, weight in zip(part.data, part.weight, strict=True)
    ]
    for kind, times in Counter(channels).items():
        at = channels.index(kind)
        one = replace(part, data=part.data[at : at + 1], weight=part.weight[at : at + 1])
        for work in _alike_chunks(one):
            yield _times(work, times)


def _alike_chunks(part: Planar) -> Iterator[Work]:
    """Yield one of each kind of chunk of filters that are alike."""
    for (size, first_k), times in _kinds_of_chunks(part).items():
        one = replace(part, weight=np.array(part.weight[:, :size], order="C"), first_k=first_k)
        yield _times(_convolve(one), times)


def _kinds_of_chunks(part: Planar) -> Counter[tuple[int, int]]:
    """Return how many chunks have each size and bank of their first filter."""
    filters, chunk = part.weight.shape[1], part.array.chunk
    firsts = range(0, filters, chunk)
    return Counter((min(chunk, filters - k), (part.first_k + k) % 8) for k in firsts)


def _counters(
    op: LoweredOp, config: CartesianConfig, parts: Iterator[Work], halo: int, valid: int | None
) -> Counters:
    """Return the sum of the parts, lane-cycles sorted into their buckets.

    `valid` are the products that reach an accumulator; None: all of them.
    """
    nothing = Work(*(0 for _ in Work._fields))
    work = Work(*(int(sum(column)) for column in zip(*parts, nothing, strict=True)))
    lanes, pes = config.lanes, config.pes
    effectual = op.macs_effectual
    return Counters(
        cycles_compute=work.cycles + halo,
        pes=pes,
        lanes=lanes,
        lane_cycles_effectual=effectual,
        lane_cycles_ineffectual=work.products - effectual,
        lane_cycles_idle=work.pairs * lanes - work.products,
        lane_cycles_bank_conflict=(work.cost - work.pairs) * lanes,
        lane_cycles_pe_sync=(work.mapped - work.cost) * lanes,
        lane_cycles_halo=halo * pes * lanes,
        lane_cycles_unmapped=(work.cycles * pes - work.mapped) * lanes,
        words_a=work.words_a,
        words_b=work.words_b,
        accumulations=2 * (work.products if valid is None else valid),
    )


def _convolve(part: Planar) -> Work:
    work: Work = kernel.convolve(
        part.data, part.weight, part.first_k, part.rows, part.columns, part.array
    )
    return work


def _dense(op: LoweredOp, config: CartesianConfig, conflicts: bool) -> Counters:
    if op.name == "wgrad":
        return _counters(op, config, _wgrad_dense(op, config, conflicts), 0, None)
    parts = list(planar(op, config))
    work = (some for part in parts for some in _dense_chunks(part, conflicts))
    valid = sum(part.products_valid for part in parts)
    return _counters(op, config, work, sum(part.halo_cycles for part in parts), valid)


def _dense_chunks(part: Planar, conflicts: bool) -> Iterator[Work]:
    """Yield one channel of each kind of chunk: with every value there, all channels are alike.

    Chunks are alike if they have as many filters, and first ones of the same bank.
    """
    channels, samples, height, width = part.data.shape
    taps = part.weight.shape[2:]
    for (size, first_k), times in _kinds_of_chunks(part).items():
        one = replace(
            part,
            data=np.ones((1, 1, height, width), np.bool_),
            weight=np.ones((1, size, *taps), np.bool_),
            first_k=first_k,
            array=part.array._replace(conflicts=conflicts),
        )
        yield _times(_convolve(one), times * channels * samples)


def _times(work: Work, times: int) -> Work:
    return Work(*(value * times for value in work))


def _wgrad(op: LoweredOp, config: CartesianConfig, conflicts: bool) -> Iterator[Work]:
    return (_outer(part, config, conflicts) for part in outer_products(op, config))


def _wgrad_dense(op: LoweredOp, config: CartesianConfig, conflicts: bool) -> Iterator[Work]:
    """Yield one position of one tap: with every value there, all of them are alike.

    Every position of every tap is one, also where the tap falls into the padding.
    """
    part = next(outer_products(op, config))
    one = replace(
        part,
        act=np.ones((1, part.act.shape[1]), np.bool_),
        grad=np.ones((1, part.grad.shape[1]), np.bool_),
        met=np.zeros((1, 1), np.int64),
    )
    yield _times(_outer(one, config, conflicts), part.met.size * op.samples * op.layer.groups)


def queue(
    part: Channels, config: CartesianConfig, members: tuple[Places | None, Places | None]
) -> tuple[Outer, Outer, Counts]:
    """Queue activations and gradients as blocks; and tabulate what pairs of blocks cost.

    The channels of each block are written into `members`, of activations and of gradients.
    """
    table, act_grown, grad_grown = _table(config.act_vector, config.weight_vector, config.banks)
    act = kernel_wgrad.queue_blocks(
        part.act, part.block_c, config.act_vector, act_grown, members[0]
    )
    grad = kernel_wgrad.queue_blocks(
        part.grad, part.block_k, config.weight_vector, grad_grown, members[1]
    )
    return Outer(*act), Outer(*grad), table


def _outer(part: Channels, config: CartesianConfig, conflicts: bool) -> Work:
    act, grad, table = queue(part, config, (None, None))
    costs = table if conflicts else np.ones_like(table)
    constant = kernel_wgrad.is_constant(grad, part.blocks[1])
    run = kernel_wgrad.outer_product_constant if constant else kernel_wgrad.outer_product
    return run(act, grad, part.met, *part.blocks, costs, config.pe_h, config.pe_w)


@lru_cache(maxsize=32)
def _table(act_vector: int, weight_vector: int, banks: int) -> tuple[Counts, Counts, Counts]:
    """Return the costs of all pairs of block patterns, and how patterns of either side grow."""
    act_counts, act_grown = patterns(act_vector, 4)
    grad_counts, grad_grown = patterns(weight_vector, 8)
    return (
        kernel_wgrad.cost_table(act_counts, grad_counts, bank_table(banks)),
        act_grown,
        grad_grown,
    )
