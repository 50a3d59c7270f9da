"""What a machine is: an op in, counters out; and what it may show, cycle by cycle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from swatsim.workload.lowering import LoweredOp


class Counters(NamedTuple):
    """What one op costs on one machine, and what it asks of the memory system.

    A *lane-cycle* is one lane (one multiplier) of one PE for one cycle. Each is in exactly one of
    the buckets ``lane_cycles_*``, and they add up to ``cycles_compute * pes * lanes``.

    Parameters
    ----------
    cycles_compute : int
        From the first line of the op to its last.
    pes, lanes : int
        PEs of the machine, and multipliers in each.
    lane_cycles_effectual : int
        Both values non-zero: equals the op's effectual MACs.
    lane_cycles_ineffectual : int
        The lane multiplied, but a value was zero.
    lane_cycles_idle : int
        The lane had no value to work on, others of its PE had.
    lane_cycles_row_sync : int
        The row had nothing left in its window and waited for the other rows of its tile.
    lane_cycles_tile_sync : int
        The tile had finished and waited for the slowest tile.
    lane_cycles_pe_sync : int
        The PE had finished and waited for the slowest PE.
    lane_cycles_bank_conflict : int
        Products waited for a bank of accumulators.
    lane_cycles_halo : int
        PEs exchanged the sums at the borders of their tiles.
    lane_cycles_unmapped : int
        The PE had no stream: the op's sizes don't fill the array.
    words_a, words_b : int
        Values that the PEs take from the buffers of the first and the second operand, in the order
        weight, act, grad_out; in wgrad of a transposed convolution grad_out comes before act.
    multiplexed : int
        Products whose values went through multiplexers of a zero-skipping front end.
    schedules : int
        Lines that a hardware scheduler looked at, of one row.
    accumulations : int
        Accesses of accumulator banks.
    """

    cycles_compute: int
    pes: int
    lanes: int
    lane_cycles_effectual: int = 0
    lane_cycles_ineffectual: int = 0
    lane_cycles_idle: int = 0
    lane_cycles_row_sync: int = 0
    lane_cycles_tile_sync: int = 0
    lane_cycles_pe_sync: int = 0
    lane_cycles_bank_conflict: int = 0
    lane_cycles_halo: int = 0
    lane_cycles_unmapped: int = 0
    words_a: int = 0
    words_b: int = 0
    multiplexed: int = 0
    schedules: int = 0
    accumulations: int = 0

    @property
    def lane_cycles(self) -> int:
        """All lane-cycles of the machine while the op runs."""
        return self.cycles_compute * self.pes * self.lanes

    @property
    def buckets(self) -> dict[str, int]:
        """The lane-cycles by where they went."""
        return {name: getattr(self, name) for name in BUCKETS}

    @property
    def utilisation(self) -> float:
        """Share of the lane-cycles that did effectual work."""
        return self.lane_cycles_effectual / self.lane_cycles if self.lane_cycles else 0.0

    @property
    def products(self) -> int:
        """Products that were computed."""
        return self.lane_cycles_effectual + self.lane_cycles_ineffectual

    def times(self, repeats: int) -> Counters:
        """Count the same, over and over, on the same machine."""
        all_of_it = Counters(*(value * repeats for value in self))
        return all_of_it._replace(pes=self.pes, lanes=self.lanes)


BUCKETS: tuple[str, ...] = tuple(n for n in Counters._fields if n.startswith("lane_cycles_"))


class Event(NamedTuple):
    """What a thread of a timeline does for some cycles; 0 cycles: what happens there, an instant.

    Events of one thread don't overlap. Neighbours of one name and without `details` are drawn as
    one.

    Parameters
    ----------
    thread : int
        Index in `Timeline.threads`.
    name : str
    category : str
        The bucket of its lane-cycles, without "lane_cycles", or "product", "step", "dropped".
    begin, cycles : int
    details : mapping
        JSON types.
    """

    thread: int
    name: str
    category: str
    begin: int
    cycles: int
    details: Mapping[str, Any]


class Timeline(NamedTuple):
    """What one tile, or one PE, does cycle by cycle.

    Parameters
    ----------
    threads : tuple of str
        Names, in the order in which they are shown.
    cycles : int
        All of it, waiting for others included.
    events : callable of range to iterator of Event
        At least the events of a range of cycles, in any order.
    about : mapping
        Which part of the op it is, as JSON types.
    """

    threads: tuple[str, ...]
    cycles: int
    events: Callable[[range], Iterator[Event]]
    about: Mapping[str, Any]


@runtime_checkable
class Machine(Protocol):
    """What `swatsim.simulate` asks of a machine; any object that has these will do.

    It is given ops as `swatsim.lower` makes them: of convolutions and of linear layers only. A
    transposed convolution's comes as its adjoint's, the layer's fprop as a dgrad for example;
    `op.own_name` and `op.called(operand)` tell what the layer calls it.

    Such an object has compute cycles alone. A memory system, energy, sweeps, estimates and a
    timeline come with a `Mechanism` and a `MachineConfig`.
    """

    @property
    def name(self) -> str:
        """How the machine is called in results."""

    def simulate_op(self, op: LoweredOp) -> Counters:
        """Run one op: a pure function of the op and of the machine's configuration."""

    def simulate_dense(self, op: LoweredOp) -> Counters:
        """Run the op's baseline: the same geometry and mapping, with nothing skipped."""

    def describe(self) -> dict[str, Any]:
        """Return the fully resolved configuration, as JSON types, for the provenance."""
