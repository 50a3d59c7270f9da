"""The columns of a row of results: what an op is, what a machine makes of it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from swatsim.counters import Counters, MemoryCounters, VectorCounters
from swatsim.counts import declared
from swatsim.errors import ConfigError, unknown
from swatsim.simulator.systems import NOTHING_ON_CHIP, OnChip, Row, System
from swatsim.workload import flops
from swatsim.workload.layer import OPERANDS
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.training_ops import Op

_NUMBERS = tuple(one.column for one in declared(Counters) if one.kind is int)
#: Cycles and words of an op: memory lays them out in 63 bits, with what it adds itself.
MOST_COUNTED = 2**62 - 1


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


class Counting(Protocol):
    """What a run asks of a machine: the counters of an op, and of the same in other ways."""

    def simulate_op(self, op: LoweredOp, /) -> Counters:
        """Return the counters of the op as it is."""

    def simulate_dense(self, op: LoweredOp, /) -> Counters:
        """Return the counters of its dense baseline."""

    def simulate_dense_operands(self, op: LoweredOp, /) -> Counters:
        """Return the counters were no value of its operands zero."""

    def simulate_alternatives(self, op: LoweredOp, /) -> dict[str, Counters]:
        """Return the counters of its other dense baselines, by their names."""


def count(op: LoweredOp, machine: Counting) -> Counted:
    """Return the counts of an op as it is, and were no value of its operands zero."""
    return Counted(machine.simulate_op(op), machine.simulate_dense_operands(op))


def describe_op(op: Op, lowered: LoweredOp) -> Row:
    """Return the columns that depend on the op alone."""
    layer = op.layer
    sizes = {letter: getattr(layer, letter) for letter in "CKHWRSPQ"}
    return {
        "layer": layer.name,
        "op": op.name,
        "function": "",
        "phase": "",
        "density_output": None if op.output is None else float(op.output.mean()),
        "kind": layer.kind,
        "samples": op.samples,
        **sizes,
        "stride_h": layer.stride[0],
        "stride_w": layer.stride[1],
        "groups": layer.groups,
        "macs_dense": flops.macs_dense(layer, op.samples),
        "macs_unpadded": flops.macs_unpadded(layer, op.samples),
        "macs_effectual": lowered.macs_effectual,
    }


def cost(
    op: LoweredOp,
    counted: Counted,
    system: System,
    *,
    dense: bool = False,
    on_chip: OnChip = NOTHING_ON_CHIP,
    on_chip_dense: OnChip = NOTHING_ON_CHIP,
) -> Row:
    """Return the columns that a machine counts, its memory system included.

    Parameters
    ----------
    op : LoweredOp
    counted : Counted
        What the machine counted.
    system : System
        Its memory system.
    dense : bool
        Operands travel dense and all outputs are made: those of the dense baseline.
    on_chip, on_chip_dense : OnChip
        What stays on chip; and what would, were no value zero.

    Raises
    ------
    ConfigError
        If the counters don't add up, a buffer is too small, or the table lacks an event.
    WorkloadError
        If a mask does not obey the N:M that it is to be stored in.
    """
    counters, without_zeros = (checked_counters(of) for of in counted)
    made = op.of_all_outputs() if dense else op
    memory = system.simulate_memory(made, counters, dense, on_chip)
    return {
        **_counts(op, counters, memory),
        "cycles_compute_dense_operands": without_zeros.cycles_compute,
        "cycles_dense_operands": float(memory.cycles)
        if dense
        else system.cycles_of_dense_operands(op, without_zeros, on_chip_dense),
        **system.parameters,
        **system.energy(made, counters, memory),
    }


def _as_recorded(op: LoweredOp, memory: MemoryCounters) -> MemoryCounters:
    """Return the counters with operands named as the recorded layer names them."""
    loaded = {
        f"dram_bytes_{op.called(operand)}": getattr(memory, f"dram_bytes_{operand}")
        for operand in OPERANDS
    }
    return memory._replace(**loaded)


def _counts(op: LoweredOp, counters: Counters, memory: MemoryCounters) -> Row:
    lane_cycles = memory.cycles * counters.pes * counters.lanes
    compressed = next((op.called(it) for it in OPERANDS if it == counters.compressed), "")
    own = {**counters._asdict(), "compressed": compressed}
    rest = {**_as_recorded(op, memory)._asdict(), **VectorCounters()._asdict()}
    return {**own, **rest, "lane_cycles": lane_cycles}


def checked_counters(counters: Counters) -> Counters:
    """Return the counters that a machine gave; refuse what is none, or does not add up."""
    if not isinstance(counters, Counters):
        raise ConfigError(
            f"the machine gave a {type(counters).__name__}: simulate_op and simulate_dense must "
            "give swatsim.Counters"
        )
    if counters.compressed not in ("", *OPERANDS):
        raise ConfigError(unknown("compressed operand", str(counters.compressed), OPERANDS))
    numbers = [getattr(counters, name) for name in _NUMBERS]
    if not all(isinstance(value, int | np.integer) for value in numbers):
        raise ConfigError(f"the machine gave {counters}: counters are whole numbers")
    if min(numbers) < 0:
        raise ConfigError(f"the machine gave {counters}: counters are at least 0")
    if sum(counters.buckets.values()) != counters.lane_cycles:
        raise ConfigError(
            f"the machine gave {counters}: its lane_cycles_* add up to "
            f"{sum(counters.buckets.values())}, must be cycles_compute * pes * lanes = "
            f"{counters.lane_cycles}: put what is not accounted for into lane_cycles_idle"
        )
    # numpy's integers would overflow in sums
    whole: dict[str, Any] = dict(zip(_NUMBERS, map(int, numbers), strict=True))
    found = counters._replace(**whole)
    _check_sizes(found)
    return found


def _check_sizes(counters: Counters) -> None:
    """Refuse what the memory system could not lay out; lane-cycles are added up in any size."""
    sums = counters.sums_written + counters.sums_read
    wanted = {name: getattr(counters, name) for name in ("cycles_compute", "words_a", "words_b")}
    for name, many in {**wanted, "sums_written and sums_read": sums}.items():
        if many > MOST_COUNTED:
            raise ConfigError(
                f"the machine gave {name}={many} for one op: at most {MOST_COUNTED} are taken, so "
                "that with what memory adds they have 63 bits; give fewer"
            )
