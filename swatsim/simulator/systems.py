"""The memory system and energy of a machine, or that it has none: what turns counters into a row.

`system_of` is the one place that asks whether a machine has a configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from swatsim.counters import ENERGY_PARTS, Counters, MemoryCounters
from swatsim.counts import ENERGY
from swatsim.errors import ConfigError
from swatsim.simulator import capacities
from swatsim.simulator.area import area_of
from swatsim.simulator.energy.energy import energies
from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.mechanism import MachineConfig
from swatsim.simulator.memory.refusals import BufferTooSmallError
from swatsim.simulator.memory.simulate import (
    NO_DEMAND,
    Demand,
    Schedule,
    at_once,
    can_pin,
    schedule,
    simulate_memory,
)
from swatsim.simulator.memory.stores import Packed
from swatsim.simulator.other import Share, charged
from swatsim.simulator.runnable import Runnable
from swatsim.tracefile import OtherWork
from swatsim.workload.layer import OPERANDS, Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.value_types import DTYPES

Row = dict[str, Any]


class OnChip(NamedTuple):
    """What lies on chip from one op to the next.

    Parameters
    ----------
    pinned : {"weight", "act", "grad_out"} or None
        As in `swatsim.simulator.memory.simulate.simulate_memory`; also its names.
    resident : bool
    """

    pinned: Operand | None = None
    resident: bool = False


NOTHING_ON_CHIP = OnChip()


class Types(NamedTuple):
    """Types of values that a machine is made for, as large as it is: the widest that it meets.

    Parameters
    ----------
    layers, vector : str or None
        Of what multiplies matrices, and of the vector unit's work. None: the configuration's, and
        the same as of layers.
    """

    layers: str | None
    vector: str | None


class System(Protocol):
    """What a run asks of a machine's memory system."""

    @property
    def memory(self) -> str | None:
        """The configuration's `memory`; None: there is no configuration."""

    @property
    def parameters(self) -> Row:
        """Columns of what machines are told apart by."""

    def of_values(self, dtype: str | None, vector: str | None = None) -> System:
        """Return the same system for values of a type; None: of the type that it has.

        `vector` is the type that the vector unit works in: its area is of that. None: of the same.
        """

    @property
    def keeps_on_chip(self) -> bool:
        """Whether an op may find an operand on chip."""

    def simulate_memory(
        self, op: LoweredOp, counters: Counters, dense: bool, on_chip: OnChip
    ) -> MemoryCounters:
        """Return what the memory system makes of the op."""

    def schedule(self, op: LoweredOp, counters: Counters, on_chip: OnChip) -> Schedule:
        """Return the op's blocks in time, as the memory system runs them."""

    def cycles_of_dense_operands(
        self, op: LoweredOp, counters: Counters, on_chip: OnChip
    ) -> float | None:
        """Return the cycles of operands without a zero, stored dense; None: they don't fit."""

    def energy(self, op: LoweredOp, counters: Counters, memory: MemoryCounters) -> Row:
        """Return the columns of energy, None where it is not known."""

    def other(
        self, works: Sequence[OtherWork], dtypes: Sequence[str | None], share: Share, types: Types
    ) -> Row | None:
        """Return the columns of work that multiplies no matrices; None: there is no vector unit.

        `dtypes` are the values' types, as `of_values` takes them, of each; `types` those of all
        that the machine is made for.
        """

    def on_chip(self, op: LoweredOp, partner: LoweredOp | None, dense: bool) -> OnChip:
        """Return what stays on chip between an op and its partner."""

    def least_lane_cycles(self, elements: int) -> int:
        """Return lane-cycles that an op whose result has so many elements takes at least."""

    def refusal(
        self, error: BufferTooSmallError, dense: bool, ops: Iterable[LoweredOp]
    ) -> BufferTooSmallError:
        """Return a refusal that says which capacity would do for all ops."""


class NoMemory:
    """Of an object without a configuration: operands are always there, energy is not known."""

    memory = None
    keeps_on_chip = False
    parameters: Row = {  # noqa: RUF012  (read)
        **{"dtype": "", "clock_mhz": 0, "dram_mb_per_s": 0},
        **{"area_mm2": None, "leakage_mw": None},
    }

    def of_values(self, dtype: str | None, vector: str | None = None) -> NoMemory:
        """Return itself: of what type values are makes no difference."""
        return self

    def simulate_memory(
        self, op: LoweredOp, counters: Counters, dense: bool, on_chip: OnChip
    ) -> MemoryCounters:
        """Return the compute cycles as they are."""
        return MemoryCounters(counters.cycles_compute)

    def schedule(self, op: LoweredOp, counters: Counters, on_chip: OnChip) -> Schedule:
        """Return one block, which is computed."""
        return at_once(counters.cycles_compute)

    def cycles_of_dense_operands(self, op: LoweredOp, counters: Counters, on_chip: OnChip) -> float:
        """Return the compute cycles as they are."""
        return float(counters.cycles_compute)

    def energy(self, op: LoweredOp, counters: Counters, memory: MemoryCounters) -> Row:
        """Return the columns of energy, None in each."""
        return dict.fromkeys((*ENERGY_PARTS, ENERGY), None)

    def other(
        self, works: Sequence[OtherWork], dtypes: Sequence[str | None], share: Share, types: Types
    ) -> None:
        """Return None: the object says nothing of a vector unit."""

    def on_chip(self, op: LoweredOp, partner: LoweredOp | None, dense: bool) -> OnChip:
        """Return `NOTHING_ON_CHIP`."""
        return NOTHING_ON_CHIP

    def least_lane_cycles(self, elements: int) -> int:
        """Return 0: without a memory system an op may take none."""
        return 0

    def refusal(
        self, error: BufferTooSmallError, dense: bool, ops: Iterable[LoweredOp]
    ) -> BufferTooSmallError:
        """Return the refusal as it is: there is no buffer."""
        return error


NO_MEMORY = NoMemory()


class Modelled:
    """The memory system of `simulator/memory` and the energy of a table.

    Parameters
    ----------
    name : str
        The machine's.
    config : MachineConfig
    table : EnergyTable
    vector : str, optional
        The type that the vector unit works in; by default the configuration's.
    """

    def __init__(
        self, name: str, config: MachineConfig, table: EnergyTable, vector: str | None = None
    ) -> None:
        self._name = name
        self._config = config
        self._table = table
        self.memory = config.memory
        self.keeps_on_chip = config.keep_on_chip
        area = area_of(config, table, vector)
        self.parameters: Row = {
            "dtype": config.dtype,
            "clock_mhz": config.clock_mhz,
            "dram_mb_per_s": config.finite_mb_per_s,
            "area_mm2": area and area.mm2,
            "leakage_mw": area and area.leakage_mw,
        }
        self._of_values: dict[tuple[str, str | None], Modelled] = {(config.dtype, vector): self}

    def of_values(self, dtype: str | None, vector: str | None = None) -> Modelled:
        """Return the same buffers, DRAM and energies for values of a type."""
        wanted = self._config.dtype if dtype is None else dtype
        if (wanted, vector) not in self._of_values:
            config = self._config.model_copy(update={"dtype": wanted})
            found = Modelled(self._name, config, self._table, vector)
            self._of_values[wanted, vector] = found
        return self._of_values[wanted, vector]

    def simulate_memory(
        self, op: LoweredOp, counters: Counters, dense: bool, on_chip: OnChip
    ) -> MemoryCounters:
        """Simulate the op on buffers and DRAM.

        Raises
        ------
        ConfigError
            If the counters are of another geometry than the configuration, a buffer is too
            small, or the table lacks an event.
        WorkloadError
            If a mask does not obey the N:M that it is to be stored in.
        """
        if (counters.pes, counters.lanes) != (self._config.pes, self._config.lanes):
            raise ConfigError(
                f"{self._name} counted on {counters.pes} PEs of {counters.lanes} lanes, and its "
                f"configuration has {self._config.pes} of {self._config.lanes}: give the counters "
                "the configuration's"
            )
        try:
            return simulate_memory(
                op, _demand(counters, self._config), self._config, dense=dense, **on_chip._asdict()
            )
        except BufferTooSmallError as error:
            raise error.of(self._name) from None

    def schedule(self, op: LoweredOp, counters: Counters, on_chip: OnChip) -> Schedule:
        """Return the blocks of what `simulate_memory` counts, in time."""
        demand = _demand(counters, self._config)
        return schedule(op, demand, self._config, **on_chip._asdict())

    def cycles_of_dense_operands(
        self, op: LoweredOp, counters: Counters, on_chip: OnChip
    ) -> float | None:
        """Return the cycles of operands without a zero, all outputs wanted.

        Sparse operands, smaller, may well fit where these don't.
        """
        try:
            return float(self.simulate_memory(op.of_all_outputs(), counters, True, on_chip).cycles)
        except ConfigError:
            return None

    def energy(self, op: LoweredOp, counters: Counters, memory: MemoryCounters) -> Row:
        """Return the columns of energy: each event times its energy."""
        parts = energies(op, counters, memory, self._config, self._table)
        each = dict(zip(ENERGY_PARTS, map(float, parts), strict=True))
        return {**each, ENERGY: float(sum(parts))}

    def other(
        self, works: Sequence[OtherWork], dtypes: Sequence[str | None], share: Share, types: Types
    ) -> Row:
        """Return the columns of work that multiplies no matrices."""
        configs = [self.of_values(dtype)._config for dtype in dtypes]
        row = charged(works, configs, share, self._table)
        return {**self.of_values(*types).parameters, **row}

    def on_chip(self, op: LoweredOp, partner: LoweredOp | None, dense: bool) -> OnChip:
        """Return what stays on chip: of dgrad and wgrad the grad_out, if that saves bytes."""
        if partner is None or not self._keeps(op, partner, dense):
            return NOTHING_ON_CHIP
        return OnChip(op.called("grad_out"), resident=op.name == "wgrad")

    def _keeps(self, op: LoweredOp, partner: LoweredOp, dense: bool) -> bool:
        """Whether dgrad keeps grad_out for wgrad: both can hold it, and it saves bytes."""
        config, pair, shared = self._config, (op, partner), op.called("grad_out")
        if not config.keep_on_chip:
            return False
        if op.of_transposed and not config.buffers_alike:
            return False  # dgrad has it in buffer b, wgrad wants it in a
        if not all(can_pin(one, config, shared, dense=dense) for one in pair):
            return False
        free = sum(simulate_memory(one, NO_DEMAND, config, dense=dense).dram_bytes for one in pair)
        pinned = (
            simulate_memory(
                one, NO_DEMAND, config, dense=dense, pinned=shared, resident=one.name == "wgrad"
            )
            for one in pair
        )
        return sum(counters.dram_bytes for counters in pinned) < free

    def least_lane_cycles(self, elements: int) -> int:
        """Return the lane-cycles in which the first word and the result are on their way."""
        config, cycles = self._config, 1
        if bandwidth := config.finite_mb_per_s:
            size = elements * DTYPES[config.dtype] // 8
            cycles = max(1, config.latency_cycles + size * config.clock_mhz // bandwidth)
        return config.multipliers * cycles

    def refusal(
        self, error: BufferTooSmallError, dense: bool, ops: Iterable[LoweredOp]
    ) -> BufferTooSmallError:
        """Return a refusal that says which capacity would do for all ops, if it is of this one."""
        if error.whose != self._name:
            return error
        return capacities.of_all_ops(error, self._config, dense, ops)


def _demand(counters: Counters, config: MachineConfig) -> Demand:
    return Demand(
        cycles=counters.cycles_compute,
        lanes=counters.pes * counters.lanes,
        words_a=counters.words_a,
        words_b=counters.words_b,
        words_out=counters.sums_written + counters.sums_read,
        packed=_packed(counters, config),
        prunes=config.prunes_each_step,
    )


def _packed(counters: Counters, config: MachineConfig) -> Packed | None:
    """Return the operand that ran n:m, and n and m.

    Raises
    ------
    ConfigError
        If the machine says that one did, and its configuration not which n:m.
    """
    operand = next((it for it in OPERANDS if it == counters.compressed), None)
    if operand is None:
        return None
    if config.packing is None:
        raise ConfigError(
            f"the machine ran {operand} compressed, and its configuration has packing=None: let "
            "it return n and m"
        )
    return Packed(operand, *config.packing)


def system_of(machine: Runnable, table: EnergyTable) -> System:
    """Return a machine's memory system with the energies of a table."""
    if machine.config is None:
        return NO_MEMORY
    return Modelled(machine.name, machine.config, table)
