"""What an op takes once its operands have to come from DRAM."""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np

from swatsim.counters import MemoryCounters
from swatsim.simulator.memory.config import MemoryConfig
from swatsim.simulator.memory.kernel import Counts
from swatsim.simulator.memory.pipeline import Blocks, PipelineRun, run_pipeline, slots_of
from swatsim.simulator.memory.plan import Plan, find, plan
from swatsim.simulator.memory.stores import Packed, Store, Stores, dense_stores, stores_of
from swatsim.simulator.memory.tensors import (
    ACT,
    GRAD_OUT,
    Cut,
    Shape,
    cut_channels,
    cut_rows,
    ends,
    output_words,
    shape_of,
)
from swatsim.workload import storage
from swatsim.workload.layer import OPERANDS, Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.value_types import DTYPES


class Demand(NamedTuple):
    """What a machine wants of the memory system.

    Parameters
    ----------
    cycles, lanes : int
        Its own cycles, and all its multipliers.
    words_a, words_b : int
        Of each operand.
    words_out : int
        Sums that it writes and reads back; 0: each once, in wgrad once a sample.
    packed : Packed, optional
        The operand that it runs n:m.
    prunes : bool
        Whether that operand is packed anew for this op.
    """

    cycles: int
    lanes: int
    words_a: int
    words_b: int
    words_out: int = 0
    packed: Packed | None = None
    prunes: bool = False


class Schedule(NamedTuple):
    """The blocks of an op in time, as `swatsim.simulator.memory.pipeline.Slots` has them.

    Parameters
    ----------
    ends : numpy.ndarray of int64, shape (blocks + 2,)
        When each slot ends, in whole cycles after the first request: block i, counted from 1, is
        computed from ``ends[i - 1]`` on.
    loaded, drained, computing : numpy.ndarray of int64, shape (blocks + 2,)
    """

    ends: Counts
    loaded: Counts
    drained: Counts
    computing: Counts


#: Of a machine that only moves its operands.
NO_DEMAND = Demand(0, 1, 0, 0)


def simulate_memory(
    op: LoweredOp,
    demand: Demand,
    config: MemoryConfig,
    *,
    dense: bool = False,
    pinned: Operand | None = None,
    resident: bool = False,
) -> MemoryCounters:
    """Simulate an op on buffers and DRAM, block by block.

    Parameters
    ----------
    op : LoweredOp
        Of a transposed convolution its adjoint's, which names operands.
    demand : Demand
        Compute cycles, and the words that PEs take from the operands' buffers.
    config : MemoryConfig
    dense : bool
        Operands travel dense, whatever their format: the dense baseline's do.
    pinned : {"weight", "act", "grad_out"}, optional
        An operand that must be one single block: it stays for the next op.
    resident : bool
        It is there already.

    Raises
    ------
    ConfigError
        If a buffer is too small for one block.
    WorkloadError
        If a mask does not obey the N:M that it is to be stored in.
    """
    if config.memory == "none":
        return MemoryCounters(demand.cycles)
    shape = shape_of(op)
    words_out = demand.words_out or output_words(op)
    on_chip_cycles = _on_chip_cycles(demand, config, words_out)
    where = op.title
    if dense and pinned is None:
        chosen, run = _dense(shape, config, where, on_chip_cycles)
    else:
        stores = stores_of(op, shape, config, dense, demand.packed)
        chosen = plan(shape, stores, config, where, pinned, resident)
        tensor = _resident(pinned, resident)
        run = _run_pipeline(shape, stores, config, chosen, on_chip_cycles, tensor)
    counters = _summed(demand, on_chip_cycles, words_out, chosen, run)
    return _after_pruning(op, demand, config, counters) if demand.prunes else counters


def schedule(
    op: LoweredOp,
    demand: Demand,
    config: MemoryConfig,
    *,
    pinned: Operand | None = None,
    resident: bool = False,
) -> Schedule:
    """Return the blocks of the run that `simulate_memory` counts, in time; it has the arguments.

    What an operand takes that is pruned before the op is not in it.
    """
    if config.memory == "none":
        return at_once(demand.cycles)
    shape, words_out = shape_of(op), demand.words_out or output_words(op)
    stores = stores_of(op, shape, config, False, demand.packed)
    chosen = plan(shape, stores, config, op.title, pinned, resident)
    blocks = _blocks(shape, stores, chosen, _resident(pinned, resident))
    per_cycle = _per_cycle(config)
    on_chip_cycles = _on_chip_cycles(demand, config, words_out)
    slots = slots_of(blocks, on_chip_cycles, per_cycle, DTYPES[config.dtype] // 8)
    times = -(-np.cumsum(slots.lasts) // per_cycle[0])
    return Schedule(times.astype(np.int64), *slots[:3])


def at_once(cycles: int) -> Schedule:
    """Return the schedule of an op whose operands are always there: one block."""
    nothing = np.zeros(3, np.int64)
    computing = np.array([0, cycles, 0], np.int64)
    return Schedule(np.cumsum(computing), nothing, nothing, computing)


def _resident(pinned: Operand | None, resident: bool) -> int:
    """Return which operand is on chip already; -1: none."""
    return OPERANDS.index(pinned) if resident and pinned else -1


def _after_pruning(
    op: LoweredOp, demand: Demand, config: MemoryConfig, counters: MemoryCounters
) -> MemoryCounters:
    """Return the counters of an op before which its packed operand is read dense, and written."""
    if demand.packed is None:
        return counters
    elements, bits = op.operands[demand.packed.operand].size, DTYPES[config.dtype]
    packed = storage.packed(demand.packed.n, demand.packed.m)
    slots = packed.packed(elements) * packed.terms((elements,), bits).entry
    carried = -(-elements * bits // 8) + -(-slots // 8)
    wide, clock, latency = _per_cycle(config)
    cycles = latency + -(-carried * clock // wide)
    return counters._replace(
        cycles=counters.cycles + cycles,
        lane_cycles_prune=cycles * demand.lanes,
        dram_bytes_prune=carried,
    )


def _summed(
    demand: Demand, on_chip_cycles: int, words_out: int, chosen: Plan, run: PipelineRun
) -> MemoryCounters:
    """Return the counters: waiting sorted into buckets, bytes by operand."""
    waits = (
        on_chip_cycles - demand.cycles,
        run.end - run.start - on_chip_cycles,
        run.start + run.total - run.end,
    )
    buffer, dram, fill_drain = (demand.lanes * wait for wait in waits)
    return MemoryCounters(
        cycles=run.total,
        lane_cycles_buffer=buffer,
        lane_cycles_dram=dram,
        lane_cycles_fill_drain=fill_drain,
        loop_order=chosen.order,
        block_groups=chosen.groups,
        block_filters=chosen.filters,
        block_channels=chosen.channels,
        block_rows=chosen.rows,
        blocks=chosen.blocks,
        dram_bytes_weight=run.weight,
        dram_bytes_act=run.act,
        dram_bytes_grad_out=run.grad_out,
        dram_bytes_result=run.result,
        dram_bytes_partial=run.partial,
        words_out=words_out,
    )


@lru_cache(maxsize=10_000)
def _dense(
    shape: Shape, config: MemoryConfig, where: str, on_chip_cycles: int
) -> tuple[Plan, PipelineRun]:
    """Run dense tensors: two baselines, and all steps of a run, often want the same."""
    stores = dense_stores(shape, DTYPES[config.dtype])
    chosen = plan(shape, stores, config, where)
    return chosen, _run_pipeline(shape, stores, config, chosen, on_chip_cycles, -1)


def _run_pipeline(
    shape: Shape,
    stores: Stores,
    config: MemoryConfig,
    chosen: Plan,
    on_chip_cycles: int,
    resident: int,
) -> PipelineRun:
    """Run an op's blocks; times in whole cycles."""
    blocks = _blocks(shape, stores, chosen, resident)
    per_cycle = _per_cycle(config)
    run = run_pipeline(blocks, on_chip_cycles, per_cycle, DTYPES[config.dtype] // 8)
    times = (run.start, run.end, run.total)
    start, end, total = (-(-time // per_cycle[0]) for time in times)
    return run._replace(start=start, end=end, total=total)


def _blocks(shape: Shape, stores: Stores, chosen: Plan, resident: int) -> Blocks:
    return Blocks(
        _tables(shape, stores, chosen, resident),
        shape.output,
        chosen.loops,
        ends(chosen.groups, shape.groups),
        (
            ends(chosen.filters, shape.K),
            ends(chosen.channels, shape.C),
            ends(chosen.rows, shape.rows, shape.samples),
        ),
    )


def _tables(shape: Shape, stores: Stores, chosen: Plan, resident: int) -> list[Counts]:
    """Return the bytes of the operands' blocks, the elements of the output's."""
    filters = cut_channels(chosen.groups * chosen.filters, shape.K, shape.groups)
    channels = cut_channels(chosen.groups * chosen.channels, shape.C, shape.groups)
    across = cut_channels(chosen.channels, shape.C)
    of_act, of_grad = (cut_rows(shape, tensor, chosen.rows) for tensor in (ACT, GRAD_OUT))
    axes = ((filters, across), (channels, of_act), (filters, of_grad))
    return [
        _table(store, rows, columns, store.tensor == shape.output, store.tensor == resident)
        for store, (rows, columns) in zip(stores, axes, strict=True)
    ]


def _table(store: Store, rows: Cut, columns: Cut, is_output: bool, is_resident: bool) -> Counts:
    if is_output or is_resident:
        return rows.size[:, None] * columns.size * (store.cell * is_output)
    return store.bytes(rows, columns)


def can_pin(op: LoweredOp, config: MemoryConfig, operand: Operand, *, dense: bool = False) -> bool:
    """Whether an operand can lie on chip as one single block while the op runs."""
    if config.memory == "none":
        return False
    shape = shape_of(op)
    return find(shape, stores_of(op, shape, config, dense), config, operand) is not None


def _on_chip_cycles(demand: Demand, config: MemoryConfig, words_out: int) -> int:
    """Return the cycles of the op with its operands on chip: what buffers can give bounds it."""
    words = {"a": demand.words_a, "b": demand.words_b, "out": words_out}
    per_cycle: dict[str, int] = {name: getattr(config, f"buffer_{name}_words") for name in words}
    return max(demand.cycles, *(-(-n // per_cycle[name]) for name, n in words.items()))


def _per_cycle(config: MemoryConfig) -> tuple[int, int, int]:
    """Return MB/s and MHz, in lowest terms, and the latency; an ideal DRAM's bytes take no time."""
    if config.dram.ideal:
        return 1, 0, 0
    fast, slow = config.bandwidth_mb_per_s, config.clock_mhz
    common = gcd(fast, slow)
    return fast // common, slow // common, config.latency_cycles
