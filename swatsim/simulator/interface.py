"""What a machine is: an op in, counters out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from pydantic import Field, model_validator

from swatsim.simulator.memory.config import MemoryConfig
from swatsim.workload.streams import Lowering
from swatsim.workload.training_ops import Op

#: Of a machine: lane-cycles of 2**31 cycles are then counted in 63 bits.
MAX_MULTIPLIERS = 2**32


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

    It is given ops of convolutions and of linear layers only: a transposed convolution's comes as
    its adjoint's (`Op.as_convolution`), the layer's fprop as a dgrad for example. `op.own_name` and
    `op.called(operand)` tell what the layer calls it.
    """

    @property
    def name(self) -> str:
        """How the machine is called in results."""

    def simulate_op(self, op: Op) -> Counters:
        """Run one op: a pure function of the op and of the machine's configuration."""

    def simulate_dense(self, op: Op) -> Counters:
        """Run the op's baseline: the same geometry and mapping, with nothing skipped."""

    def describe(self) -> dict[str, Any]:
        """Return the fully resolved configuration, as JSON types, for the provenance."""


class Published(NamedTuple):
    """A factor that a paper gives for a design, on workloads of its own.

    No figure of ours stands beside it: a user's trace is not the paper's workload.
    """

    what: str
    value: float
    source: str


class Preset(NamedTuple):
    """A published design: the parameters of a mechanism, and where they come from.

    `memory` says where those of the memory system come from: papers say less of it.
    """

    citation: str
    parameters: Mapping[str, Any]
    memory: str
    published: tuple[Published, ...] = ()


class MachineConfig(MemoryConfig):
    """Base of the configurations of machines: frozen, its fields and their relations checked.

    Memory system and energy are the same for all; a mechanism adds its geometry.
    """

    presets: ClassVar[Mapping[str, Preset]] = {}

    dgrad_lowering: Annotated[
        Lowering,
        Field(
            description="dgrad of a strided layer: split in stride x stride convolutions over the "
            "dense gradients, or one over gradients dilated with zeros; of a transposed "
            "convolution it is fprop that is lowered"
        ),
    ] = "split"

    @model_validator(mode="after")
    def _can_be_counted(self) -> MachineConfig:
        if self.multipliers > MAX_MULTIPLIERS:
            raise ValueError(
                f"it would have {self.multipliers} multipliers, and of at most {MAX_MULTIPLIERS} "
                "the cycles can be counted: make its array smaller"
            )
        return self

    @property
    def multipliers(self) -> int:
        """Multipliers of all PEs, as `Counters` has them: pes * lanes."""
        raise NotImplementedError

    @property
    def accumulator_bank_kib(self) -> float:
        """Size of a bank of accumulators in a PE; 0: sums stay in registers."""
        return 0.0


@dataclass(frozen=True)
class Mechanism:
    """One entry of MACHINES: a config type and the two functions that use it.

    Parameters
    ----------
    name : str
    summary : str
        One line for people.
    config_type : type of MachineConfig
    simulate_op, simulate_dense : callable of (Op, config) to Counters
    alternatives : mapping of str to callable of (Op, config) to Counters
        Other dense baselines, which a report shows beside the first.
    simulate_dense_operands : callable of (Op, config) to Counters, optional
        `simulate_op` of the op's shapes where no value of the operands is zero, its choices (the
        operand whose zeros are skipped) those that it makes for the op itself. Without it all-ones
        masks are run, and choices are theirs.
    timeline : callable of (Op, config, int) to Timeline, optional
        What one tile does, cycle by cycle; tiles are numbered from 0.
    by_image : callable of (Op, config) to config or None
        With which configuration the op's images, run one by one, give together exactly the op's
        counters, each of them: what is chosen by a look at the whole op must be chosen in it. None
        where no configuration does, as where images share a set of streams; so of a machine that
        does not say.
    in_rounds : callable of (Op, config) to (config, int) or None
        Of an op whose images share the machine: with which configuration, and how many at a time.
        Cut into so many, in order, they take together exactly the op's compute cycles. None: all of
        them at once; so of a machine that does not say.
    reads_images : callable of (Op, config) to bool
        Whether compute cycles depend on the masks of act and grad_out; if not they are the same for
        all images. True of a machine that does not say.
    """

    name: str
    summary: str
    config_type: type[MachineConfig]
    simulate_op: Callable[[Op, Any], Counters]
    simulate_dense: Callable[[Op, Any], Counters]
    alternatives: Mapping[str, Callable[[Op, Any], Counters]] = field(default_factory=dict)
    simulate_dense_operands: Callable[[Op, Any], Counters] | None = None
    timeline: Callable[[Op, Any, int], Timeline] | None = None
    by_image: Callable[[Op, Any], MachineConfig | None] = lambda op, config: None
    reads_images: Callable[[Op, Any], bool] = lambda op, config: True
    in_rounds: Callable[[Op, Any], tuple[MachineConfig, int] | None] = lambda op, config: None


@dataclass(frozen=True)
class ConfiguredMachine:
    """A mechanism with its resolved configuration; satisfies `Machine`."""

    name: str
    mechanism: Mechanism
    config: MachineConfig

    def simulate_op(self, op: Op) -> Counters:
        """Run one op."""
        return self.mechanism.simulate_op(op.as_convolution(), self.config)

    def simulate_dense(self, op: Op) -> Counters:
        """Run the op's dense baseline."""
        return self.mechanism.simulate_dense(op.as_convolution(), self.config)

    def simulate_dense_operands(self, op: Op) -> Counters:
        """Run the op, skipping as ever, were no value of its operands zero."""
        op, simulate = op.as_convolution(), self.mechanism.simulate_dense_operands
        if simulate is None:
            return self.mechanism.simulate_op(op.without_zeros(), self.config)
        return simulate(op, self.config)

    def simulate_alternatives(self, op: Op) -> dict[str, Counters]:
        """Run the op's other dense baselines, by their names."""
        found, op = self.mechanism.alternatives.items(), op.as_convolution()
        return {name: simulate(op, self.config) for name, simulate in found}

    def by_image(self, op: Op) -> ConfiguredMachine | None:
        """Make the machine on which the op's images can run one by one; None: there is none."""
        config = self.mechanism.by_image(op.as_convolution(), self.config)
        return None if config is None else replace(self, config=config)

    def in_rounds(self, op: Op) -> tuple[ConfiguredMachine, int] | None:
        """Make the machine that so many of the op's images share at a time; None: all do."""
        found = self.mechanism.in_rounds(op.as_convolution(), self.config)
        return None if found is None else (replace(self, config=found[0]), found[1])

    def reads_images(self, op: Op) -> bool:
        """Tell whether the op's compute cycles depend on its images."""
        return self.mechanism.reads_images(op.as_convolution(), self.config)

    def describe(self) -> dict[str, Any]:
        """Return mechanism and configuration as JSON types."""
        return {
            "name": self.name,
            "mechanism": self.mechanism.name,
            "parameters": self.config.model_dump(mode="json"),
            "dram": self.config.dram.model_dump(mode="json"),
        }
