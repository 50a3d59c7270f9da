"""The columns of a row of results: what an op is, what a machine makes of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from swatsim.counters import ENERGY, ENERGY_PARTS, Counters, MemoryCounters
from swatsim.errors import ConfigError
from swatsim.simulator.energy.energy import energies
from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.interface import ConfiguredMachine, Machine, MachineConfig
from swatsim.simulator.memory.feed import Demand, feed
from swatsim.workload import flops
from swatsim.workload.layer import OPERANDS, Operand
from swatsim.workload.training_ops import Op

Row = dict[str, Any]


class Counted(NamedTuple):
    """What a machine counts of an op.

    Parameters
    ----------
    counters : Counters
        As it is.
    dense_operands : Counters
        Were no value of its operands zero, and the machine skipped as ever. Of a dense baseline
        the same: nothing of it depends on values.
    """

    counters: Counters
    dense_operands: Counters


class Held(NamedTuple):
    """What lies on chip from one op to the next.

    Parameters
    ----------
    pinned : {"weight", "act", "grad_out"} or None
        As in `swatsim.simulator.memory.feed.feed`; also its names.
    kept : bool
    """

    pinned: Operand | None = None
    kept: bool = False


def describe_op(op: Op) -> Row:
    """Fill the columns that depend on the op alone."""
    layer = op.layer
    sizes = {letter: getattr(layer, letter) for letter in "CKHWRSPQ"}
    return {
        "layer": layer.name,
        "op": op.name,
        "kind": layer.kind,
        "samples": op.samples,
        **sizes,
        "stride_h": layer.stride[0],
        "stride_w": layer.stride[1],
        "groups": layer.groups,
        "macs_dense": flops.macs_dense(layer, op.samples),
        "macs_unpadded": flops.macs_unpadded(layer, op.samples),
        "macs_effectual": flops.macs_effectual(op),
    }


def cost(
    op: Op,
    counted: Counted,
    machine: Machine,
    table: EnergyTable,
    *,
    dense: bool = False,
    held: Held = Held(),  # noqa: B008  (frozen)
    held_dense: Held = Held(),  # noqa: B008
    compute_only: bool = False,
) -> Row:
    """Fill the columns that a machine counts, its memory system included.

    Parameters
    ----------
    op : Op
        As the machine ran it: of a transposed convolution, its adjoint's.
    counted : Counted
        What the machine counted.
    machine : Machine
        Whose memory system and value type count; an object of a user's own has none.
    table : EnergyTable
    dense : bool
        Operands travel dense: those of the dense baseline.
    held, held_dense : Held
        What stays on chip; and what would, were no value zero.
    compute_only : bool
        Leave memory and energy out: it is compared with a machine that has none.

    Raises
    ------
    ConfigError
        If the counters don't add up, a buffer is too small, or the table lacks an event.
    WorkloadError
        If a mask does not obey the N:M that it is to be stored in.
    """
    counters, without_zeros = (_checked(of) for of in counted)
    own: Row = {"cycles_compute_dense_operands": without_zeros.cycles_compute}
    if compute_only or not isinstance(machine, ConfiguredMachine):
        unknown = dict.fromkeys((*ENERGY_PARTS, ENERGY), None)
        counts = _counts(counters, MemoryCounters(counters.cycles_compute))
        own["cycles_dense_operands"] = float(without_zeros.cycles_compute)
        nothing = {"dtype": "", "clock_mhz": 0, "dram_mb_per_s": 0}
        return {**counts, **own, **nothing, **unknown}
    config = machine.config
    fed = feed(op, _demand(counters), config, dense=dense, **held._asdict())
    parts = energies(op, counters, fed, config, table)
    return {
        **_counts(counters, _named(op, fed)),
        **own,
        "cycles_dense_operands": float(fed.cycles)
        if dense
        else _fed_dense(op, without_zeros, config, held_dense),
        "dtype": config.dtype,
        "clock_mhz": config.clock_mhz,
        "dram_mb_per_s": config.finite_mb_per_s,
        **dict(zip(ENERGY_PARTS, map(float, parts), strict=True)),
        ENERGY: float(sum(parts)),
    }


def _demand(counters: Counters) -> Demand:
    lanes = counters.pes * counters.lanes
    return Demand(counters.cycles_compute, lanes, counters.words_a, counters.words_b)


def _fed_dense(op: Op, counters: Counters, config: MachineConfig, held: Held) -> float | None:
    """Take the cycles of operands without a zero, which are stored dense; None: they don't fit."""
    try:
        return float(feed(op, _demand(counters), config, dense=True, **held._asdict()).cycles)
    except ConfigError:  # sparse ones, which are smaller, may well fit
        return None


def _named(op: Op, fed: MemoryCounters) -> MemoryCounters:
    """Name the operands as the op's layer does."""
    loaded = {f"dram_bytes_{op.called(it)}": getattr(fed, f"dram_bytes_{it}") for it in OPERANDS}
    return fed._replace(**loaded)


def _counts(counters: Counters, fed: MemoryCounters) -> Row:
    lane_cycles = fed.cycles * counters.pes * counters.lanes
    return {**counters._asdict(), **fed._asdict(), "lane_cycles": lane_cycles}


def _checked(counters: Counters) -> Counters:
    """Refuse what a machine of the user's own gives, if it is no counters that add up."""
    if not isinstance(counters, Counters):
        raise ConfigError(
            f"the machine gave a {type(counters).__name__}: simulate_op and simulate_dense must "
            "give swatsim.Counters"
        )
    if not all(isinstance(value, int | np.integer) for value in counters):
        raise ConfigError(f"the machine gave {counters}: counters are whole numbers")
    if sum(counters.buckets.values()) != counters.lane_cycles:
        raise ConfigError(
            f"the machine gave {counters}: its lane_cycles_* add up to "
            f"{sum(counters.buckets.values())}, must be cycles_compute * pes * lanes = "
            f"{counters.lane_cycles}: put what is not accounted for into lane_cycles_idle"
        )
    return Counters(*map(int, counters))  # numpy's integers would overflow in sums
