"""Run an op, and its two dense baselines: with and without bank conflicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from swatsim.counters import Counters
from swatsim.simulator.interface import Busy
from swatsim.simulator.machines.cartesian import (
    kernel,
    kernel_wgrad,
    kernel_wgrad_queued,
    points,
    queued,
)
from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.kernel import PixelLog, Work
from swatsim.simulator.machines.cartesian.kernel_banks import BANKS
from swatsim.simulator.machines.cartesian.kernel_log import Places
from swatsim.simulator.machines.cartesian.kernel_patterns import Counts, Words
from swatsim.simulator.machines.cartesian.kernel_queue import TO_A_WORD
from swatsim.simulator.machines.cartesian.kernel_wgrad import Outer, OuterLog
from swatsim.simulator.machines.cartesian.kernel_wgrad_queued import (
    WORDS_USED,
    outer_product_queued,
)
from swatsim.simulator.machines.cartesian.kernel_wgrad_wanted import Sums, outer_product_wanted
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
    work, halo = _run(op, config)
    return _counters(op, config, work, halo, op.macs_effectual)


def busy(op: LoweredOp, config: CartesianConfig) -> Busy:
    """Return in how many cycles each PE multiplies, stalls, drains or exchanges borders; or waits.

    PEs are numbered row by row.
    """
    parts, halo = _run(op, config)
    work = queued.added(parts)
    cost, mapped = np.zeros((2, config.pe_h, config.pe_w), np.int64)
    rows, columns = work.cost.shape
    cost[:rows, :columns], mapped[:rows, :columns] = work.cost, work.mapped
    return Busy("PE", (cost + halo).ravel(), (mapped - cost).ravel())


def _run(op: LoweredOp, config: CartesianConfig) -> tuple[Iterator[Work], int]:
    """Return what an op's parts take, and the cycles of its halos."""
    if op.name == "wgrad":
        return _wgrad(op, config, conflicts=True), 0
    parts = list(planar(op, config))
    # pair of blocks by pair of blocks is slow: channels that are alike are run once
    work = (convolve(part) if part.wanted is None else _alike_channels(part) for part in parts)
    return work, sum(part.halo_cycles for part in parts)


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
        met = np.count_nonzero(part.met >= 0, axis=1).tolist()
        work = _times(_alike_positions(part, met, config, conflicts=True), layer.groups)
        return _counters(op, config, iter([work]), 0, valid)
    parts = list(planar(op, config))
    every = (some for part in parts for some in _alike_chunks(part))
    return _counters(op, config, every, sum(part.halo_cycles for part in parts), valid)


def _alike_chunks(part: Planar) -> Iterator[Work]:
    """Yield one of each kind of chunk of filters that are alike."""
    for (size, first_k), times in _kinds_of_chunks(part).items():
        one = replace(part, weight=np.array(part.weight[:, :size], order="C"), first_k=first_k)
        yield _times(_alike_channels(one), times)


def _alike_channels(part: Planar) -> Work:
    """Run one of each kind of channel: all are alike, but the last of a linear layer's images."""
    channels = [
        (data.tobytes(), weight.tobytes())
        for data, weight in zip(part.data, part.weight, strict=True)
    ]
    first = {kind: channels.index(kind) for kind in set(channels)}
    ones: dict[Hashable, Planar] = {
        kind: replace(part, data=part.data[at : at + 1], weight=part.weight[at : at + 1])
        for kind, at in first.items()
    }
    return _in_order(ones, channels)


def _in_order(ones: Mapping[Hashable, Planar], order: Sequence[Hashable]) -> Work:
    """Run channels, each like one of `ones`; where nothing is queued the order doesn't matter."""
    if next(iter(ones.values())).array.queue:
        return queued.convolve_alike(ones, order)
    times = Counter(order)
    return queued.added(_times(convolve(one), times[kind]) for kind, one in ones.items())


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
    work = queued.added(parts)
    lanes, pes = config.lanes, config.pes
    cost, mapped = int(work.cost.sum()), int(work.mapped.sum())
    effectual = op.macs_effectual
    return Counters(
        cycles_compute=work.cycles + halo,
        pes=pes,
        lanes=lanes,
        lane_cycles_effectual=effectual,
        lane_cycles_ineffectual=work.products - effectual,
        lane_cycles_idle=work.pairs * lanes - work.products,
        lane_cycles_bank_conflict=(cost - work.pairs) * lanes,
        lane_cycles_pe_sync=(mapped - cost) * lanes,
        lane_cycles_halo=halo * pes * lanes,
        lane_cycles_unmapped=(work.cycles * pes - mapped) * lanes,
        words_a=work.words_a,
        words_b=work.words_b,
        accumulations=2 * (work.products if valid is None else valid),
    )


def convolve(part: Planar, log: PixelLog | None = None) -> Work:
    """Run one group's convolution, and write it down if there is a log."""
    if part.array.queue or part.wanted is not None:
        return queued.convolve(part, log)
    if log is None and points.is_pointwise(part):
        return points.convolve(part)
    logs = () if log is None else (log,)  # so that it is compiled without one
    run = part.data, part.weight, part.first_k, part.rows, part.columns, part.array
    work: Work = kernel.convolve(*run, *logs)
    return work


def _dense(op: LoweredOp, config: CartesianConfig, conflicts: bool) -> Counters:
    if op.name == "wgrad":
        return _counters(op, config, iter([_wgrad_dense(op, config, conflicts)]), 0, None)
    parts = list(planar(op.of_all_outputs(), config))
    work = (some for part in parts for some in _dense_chunks(part, conflicts))
    valid = sum(part.products_valid for part in parts)
    return _counters(op, config, work, sum(part.halo_cycles for part in parts), valid)


def _dense_chunks(part: Planar, conflicts: bool) -> Iterator[Work]:
    """Yield each kind of chunk: with every value there, all channels and samples are alike.

    Chunks are alike if they have as many filters, and first ones of the same bank.
    """
    channels, samples = part.data.shape[:2]
    taps = part.weight.shape[2:]
    array = part.array if conflicts else part.array._replace(conflicts=False, queue=0)
    for (size, first_k), times in _kinds_of_chunks(part).items():
        one = replace(
            part,
            data=np.array(part.exists[None, None]),
            weight=np.ones((1, size, *taps), np.bool_),
            first_k=first_k,
            array=array,
        )
        yield _times(_in_order({0: one}, [0] * channels), times * samples)


def _times(work: Work, times: int) -> Work:
    return Work._make(value * times for value in work)


def _wgrad(op: LoweredOp, config: CartesianConfig, conflicts: bool) -> Iterator[Work]:
    return (_outer(part, config, conflicts) for part in outer_products(op, config))


def _wgrad_dense(op: LoweredOp, config: CartesianConfig, conflicts: bool) -> Work:
    """Run every position of every tap, also where the tap falls into the padding."""
    part = next(outer_products(op.of_all_outputs(), config))
    taps, positions = part.met.shape
    work = _alike_positions(part, [positions] * taps, config, conflicts)
    return _times(work, op.samples * op.layer.groups)


def _alike_positions(
    part: Channels, positions: Sequence[int], config: CartesianConfig, conflicts: bool
) -> Work:
    """Run wgrad with every value there, which makes all of each tap's `positions` alike."""
    one = replace(
        part,
        act=np.ones((1, part.act.shape[1]), np.bool_),
        grad=np.ones((1, part.grad.shape[1]), np.bool_),
        met=np.zeros((1, 1), np.int64),
    )
    queues = conflicts and config.bank_queue > 0
    work = _times(_outer(one, config, conflicts and not queues), sum(positions))
    if not queues:
        return work
    act, grad, _ = queue(one, config, (None, None))
    alike = queued.Alike(act, grad, part.blocks, Counter(positions))
    waiting = queued.outer_alike(alike, product_table(config), config)
    return work._replace(cycles=waiting.cycles, cost=waiting.cost, mapped=waiting.mapped)


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


def queue_members(
    part: Channels, config: CartesianConfig
) -> tuple[Outer, Outer, Counts, Places, Places]:
    """Queue activations and gradients as `queue` does; the last two are the blocks' channels."""
    act, grad, table = queue(part, config, (None, None))
    acts = np.full((act.patterns.size, config.act_vector), -1, np.int32)
    grads = np.full((grad.patterns.size, config.weight_vector), -1, np.int32)
    queue(part, config, (acts, grads))
    return act, grad, table, acts, grads


def outer_wanted(part: Channels, config: CartesianConfig, log: OuterLog | None = None) -> Work:
    """Run one group's wgrad of which not all sums are wanted, and write it down if asked."""
    assert part.wanted is not None, "nothing is left out"
    act, grad, _, acts, grads = queue_members(part, config)
    constant = all(
        kernel_wgrad.is_constant(it, n) for it, n in zip((act, grad), part.blocks, strict=True)
    )
    sums = Sums(
        part.wanted,
        part.block_c,
        part.block_k,
        act=_places(acts, part.block_c) * np.uint64((part.block_k + 1) * WORDS_USED),
        grad=_places(grads, part.block_k) * np.uint64(WORDS_USED),
        feeds=_feeds(config.banks),
        depth=config.bank_queue,
        alike=constant and not config.bank_queue and log is None,
    )
    logs = () if log is None else (log,)  # so that it is compiled without one
    pes = config.pe_h, config.pe_w
    return outer_product_wanted(act, grad, part.met, *part.blocks, sums, *pes, *logs)


def _places(channels: Places, block: int) -> Words:
    """Return which of its PE's channels each is; where there is none, one more than these."""
    return np.where(channels >= 0, channels % block, block).astype(np.uint64)


def _outer(part: Channels, config: CartesianConfig, conflicts: bool) -> Work:
    if part.wanted is not None:
        return outer_wanted(part, config)
    act, grad, table = queue(part, config, (None, None))
    pes = config.pe_h, config.pe_w
    if conflicts and config.bank_queue:
        made, depth = product_table(config), config.bank_queue
        return outer_product_queued(act, grad, part.met, *part.blocks, made, depth, *pes)
    costs = table if conflicts else np.ones_like(table)
    constant = kernel_wgrad.is_constant(grad, part.blocks[1])
    run = kernel_wgrad.outer_product_constant if constant else kernel_wgrad.outer_product
    return run(act, grad, part.met, *part.blocks, costs, *pes)


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


def product_table(config: CartesianConfig) -> Words:
    """Return what each pair of block patterns feeds into each bank that wgrad has in use."""
    return _product_table(config.act_vector, config.weight_vector, config.banks)


@lru_cache(maxsize=4)
def _product_table(act_vector: int, weight_vector: int, banks: int) -> Words:
    counts = patterns(act_vector, 4)[0], patterns(weight_vector, 8)[0]
    return kernel_wgrad_queued.product_table(*counts, bank_table(banks), _in_use(banks))


def _in_use(banks: int) -> Counts:
    """Return each bank's place among those that wgrad has in use."""
    used = np.bincount(bank_table(banks)[:, :, 0].reshape(-1), minlength=BANKS) > 0
    return np.asarray(np.cumsum(used) - 1, np.int64)


@lru_cache(maxsize=4)
def _feeds(banks: int) -> Words:
    """Return what channels c and k, modulo 4 and 8, feed into each bank that wgrad has in use."""
    at = _in_use(banks)[bank_table(banks)[:, :, 0].T]  # (c, k)
    words, ones = np.arange(WORDS_USED), np.uint64(1) << (8 * (at % TO_A_WORD)).astype(np.uint64)
    return np.where(at[..., None] // TO_A_WORD == words, ones[..., None], np.uint64(0))
