"""Run an op, and its two dense baselines: with and without bank conflicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain

import numpy as np

from swatsim.counters import Counters
from swatsim.simulator.interface import Busy
from swatsim.simulator.machines.cartesian import (
    kernel,
    kernel_wgrad,
    kernel_wgrad_queued,
    points,
    queued,
    whole,
)
from swatsim.simulator.machines.cartesian.channels import ONE_POSITION, Channels, OuterProduct
from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.groups import Group, Planar
from swatsim.simulator.machines.cartesian.kernel import PixelLog, Work
from swatsim.simulator.machines.cartesian.kernel_banks import BANKS
from swatsim.simulator.machines.cartesian.kernel_log import Places
from swatsim.simulator.machines.cartesian.kernel_patterns import Counts, Words
from swatsim.simulator.machines.cartesian.kernel_queue import TO_A_WORD, words_of_queues
from swatsim.simulator.machines.cartesian.kernel_wgrad import Held, Outer, OuterLog
from swatsim.simulator.machines.cartesian.kernel_wgrad_queued import (
    BANKS_USED,
    WORDS_USED,
    outer_product_queued,
)
from swatsim.simulator.machines.cartesian.kernel_wgrad_wanted import Sums, outer_product_wanted
from swatsim.simulator.machines.cartesian.mapping import (
    bank_table,
    groups,
    outer_products,
    patterns,
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
    every = list(groups(op, config))
    work = (some for group in every for block in group.blocks() for some in _run_block(block))
    return work, sum(group.halo_cycles for group in every)


def _run_block(block: Iterator[Planar]) -> Iterator[Work]:
    """Yield what the pieces of a block take, which follow one another."""
    first = next(block)
    pieces = chain([first], block)
    if first.array.queue:
        yield queued.convolve_in_turn(pieces)
    elif first.wanted is None:
        yield from map(convolve, pieces)
    else:  # pair of blocks by pair of blocks is slow: channels that are alike are run once
        yield from (_alike_channels([piece]) for piece in pieces)


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
        met = part.met.positions_inside().tolist()
        work = _times(_alike_positions(part, met, config, conflicts=True), layer.groups)
        return _counters(op, config, iter([work]), 0, valid)
    every = list(groups(op, config))
    works = (some for group in every for some in _alike_chunks(group))
    return _counters(op, config, works, sum(group.halo_cycles for group in every), valid)


def _alike_chunks(group: Group) -> Iterator[Work]:
    """Yield one of each kind of chunk of filters that are alike."""
    for filters, times in _kinds_of_chunks(group):
        for pieces in group.blocks(filters):
            yield _times(_alike_channels(pieces), times)


def _alike_channels(pieces: Iterable[Planar]) -> Work:
    """Run one of each kind of channel: all are alike, but the last of a linear layer's images."""
    ones: dict[Hashable, Planar] = {}
    order: list[Hashable] = []
    for piece in pieces:
        for data, weight in zip(piece.data, piece.weight, strict=True):
            kind = queued.kind_of(data, weight)
            if kind not in ones:
                own = np.array(data[None]), np.array(weight[None])
                ones[kind] = replace(piece, data=own[0], weight=own[1])
            order.append(kind)
    return _in_order(ones, order)


def _in_order(ones: Mapping[Hashable, Planar], order: Sequence[Hashable]) -> Work:
    """Run channels, each like one of `ones`; where nothing is queued the order doesn't matter."""
    if next(iter(ones.values())).array.queue:
        return queued.convolve_alike(ones, order)
    times = Counter(order)
    return queued.added(_times(convolve(one), times[kind]) for kind, one in ones.items())


def _kinds_of_chunks(group: Group) -> Iterator[tuple[range, int]]:
    """Yield one chunk of each size and bank of its first filter, and how many of them there are."""
    chunk = group.array.chunk
    chunks = [range(k, min(k + chunk, group.filters)) for k in range(0, group.filters, chunk)]
    kinds = [(len(filters), (group.first_k + filters.start) % 8) for filters in chunks]
    for kind, times in Counter(kinds).items():
        yield chunks[kinds.index(kind)], times


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
    if log is None and whole.is_whole(part):
        return whole.convolve(part)
    logs = () if log is None else (log,)  # so that it is compiled without one
    run = part.data, part.weight, part.first_k, part.rows, part.columns, part.array
    work: Work = kernel.convolve(*run, points.taps_of(part), *logs)
    return work


def _dense(op: LoweredOp, config: CartesianConfig, conflicts: bool) -> Counters:
    if op.name == "wgrad":
        return _counters(op, config, iter([_wgrad_dense(op, config, conflicts)]), 0, None)
    every = list(groups(op.of_all_outputs(), config))
    work = (some for group in every for some in _dense_chunks(group, conflicts))
    valid = sum(group.products_valid for group in every)
    return _counters(op, config, work, sum(group.halo_cycles for group in every), valid)


def _dense_chunks(group: Group, conflicts: bool) -> Iterator[Work]:
    """Yield each kind of chunk: with every value there, all channels and samples are alike.

    Chunks are alike if they have as many filters, and first ones of the same bank.
    """
    array = group.array if conflicts else group.array._replace(conflicts=False, queue=0)
    for filters, times in _kinds_of_chunks(group):
        one = Planar(
            data=np.array(group.layout.exists[None, None]),
            weight=np.ones((1, len(filters), *group.layout.taps), np.bool_),
            first_k=group.first_k + filters.start,
            rows=group.rows,
            columns=group.columns,
            array=array,
            halo=group.halo,
        )
        yield _times(_in_order({0: one}, [0] * group.channels), times * group.samples)


def _times(work: Work, times: int) -> Work:
    return Work._make(value * times for value in work)


def _wgrad(op: LoweredOp, config: CartesianConfig, conflicts: bool) -> Iterator[Work]:
    return (
        work
        for outer in outer_products(op, config)
        for bands in outer.pieces()
        for work in _outer(bands, config, conflicts)
    )


def _wgrad_dense(op: LoweredOp, config: CartesianConfig, conflicts: bool) -> Work:
    """Run every position of every tap, also where the tap falls into the padding."""
    part = next(outer_products(op.of_all_outputs(), config))
    positions = [part.met.positions] * part.met.taps
    work = _alike_positions(part, positions, config, conflicts)
    return _times(work, op.samples * op.layer.groups)


def _alike_positions(
    part: OuterProduct, positions: Sequence[int], config: CartesianConfig, conflicts: bool
) -> Work:
    """Run wgrad with every value there, which makes all of each tap's `positions` alike."""
    act, grad = (np.ones((1, size), np.bool_) for size in part.sizes)
    one = Channels(act, grad, ONE_POSITION, *part.blocks)
    queues = conflicts and config.bank_queue > 0
    work = queued.added(_outer([one], config, conflicts and not queues))
    work = _times(work, sum(positions))
    if not queues:
        return work
    acts, grads, _ = queue(one, config, (None, None))
    alike = queued.Alike(acts, grads, one.blocks, Counter(positions))
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


def outer_wanted(
    part: Channels, config: CartesianConfig, held: Held, log: OuterLog | None = None
) -> Iterator[Work]:
    """Yield what taps take of a wgrad of which not all sums are wanted; all at once with a log."""
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
    for taps in part.met.cuts() if log is None else [range(part.met.taps)]:
        some = sums._replace(wanted=part.wanted[taps.start : taps.stop])
        run = act, grad, part.met.of(taps), *part.blocks, some, config.pe_h, config.pe_w
        yield outer_product_wanted(*run, _of_taps(held, taps), *logs)


def _places(channels: Places, block: int) -> Words:
    """Return which of its PE's channels each is; where there is none, one more than these."""
    return np.where(channels >= 0, channels % block, block).astype(np.uint64)


def new_held(part: Channels, config: CartesianConfig) -> Held:
    """Return what PEs took of a wgrad of as many taps and blocks before its first position."""
    steps = part.met.taps, *part.blocks
    words = words_of_queues(config.bank_queue, BANKS_USED)
    return Held(np.zeros(steps, np.int64), np.zeros((*steps, words), np.uint64), part.last)


def _of_taps(held: Held, taps: range) -> Held:
    some = slice(taps.start, taps.stop)
    return Held(held.spent[some], held.queues[some], held.last)


def _outer(bands: Iterable[Channels], config: CartesianConfig, conflicts: bool) -> Iterator[Work]:
    """Yield what taps take of a piece of a wgrad, some at a time, band by band of its positions."""
    held = None
    for part in bands:
        held = (new_held(part, config) if held is None else held)._replace(last=part.last)
        if part.wanted is not None:
            yield from outer_wanted(part, config, held)
        else:
            yield from _outer_band(part, config, conflicts, held)


def _outer_band(
    part: Channels, config: CartesianConfig, conflicts: bool, held: Held
) -> Iterator[Work]:
    act, grad, table = queue(part, config, (None, None))
    pes = config.pe_h, config.pe_w
    if conflicts and config.bank_queue:
        made = product_table(config), config.bank_queue
        for taps in part.met.cuts():
            own = part.met.of(taps), *part.blocks, *made, *pes, _of_taps(held, taps)
            yield outer_product_queued(act, grad, *own)
        return
    costs = table if conflicts else np.ones_like(table)
    constant = kernel_wgrad.is_constant(grad, part.blocks[1])
    run = kernel_wgrad.outer_product_constant if constant else kernel_wgrad.outer_product
    for taps in part.met.cuts():
        rest = part.met.of(taps), *part.blocks, costs, *pes, _of_taps(held, taps)
        yield run(act, grad, *rest)


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
