"""What the simulator runs: a mechanism with its configuration, or an object of the user's own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from swatsim.counters import Counters
from swatsim.errors import ConfigError
from swatsim.simulator.interface import Busy, Machine, Timeline
from swatsim.simulator.mechanism import MachineConfig, Mechanism
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.training_ops import Op


@dataclass(frozen=True)
class ConfiguredMachine:
    """A mechanism with its resolved configuration; satisfies `Machine`.

    Parameters
    ----------
    name : str
    mechanism : Mechanism
    config : MachineConfig
    sources : str
        Fingerprint of its code, where that is not this package's.
    dtype_is_set : bool
        Whether the user chose the value type: a trace's own then doesn't count.
    """

    name: str
    mechanism: Mechanism = field(repr=False)
    config: MachineConfig = field(repr=False)
    sources: str = ""
    dtype_is_set: bool = False

    def simulate_op(self, op: Op | LoweredOp) -> Counters:
        """Return the counters of one op."""
        return self.mechanism.simulate_op(lower(op), self.config)

    def simulate_dense(self, op: Op | LoweredOp) -> Counters:
        """Return the counters of the op's dense baseline."""
        return self.mechanism.simulate_dense(lower(op), self.config)

    def simulate_dense_operands(self, op: LoweredOp) -> Counters:
        """Return the op's counters, skipping as ever, were no value of its operands zero."""
        simulate = self.mechanism.simulate_dense_operands
        if simulate is None:
            return self.mechanism.simulate_op(op.without_zeros(), self.config)
        return simulate(op, self.config)

    @property
    def alternatives(self) -> tuple[str, ...]:
        """Names of its other dense baselines."""
        return tuple(self.mechanism.alternatives)

    def simulate_alternatives(self, op: LoweredOp) -> dict[str, Counters]:
        """Return the counters of the op's other dense baselines, by their names."""
        alternatives = self.mechanism.alternatives.items()
        return {name: simulate(op, self.config) for name, simulate in alternatives}

    def by_image(self, op: LoweredOp) -> ConfiguredMachine | None:
        """Return the machine on which the op's images can run one by one; None: there is none."""
        config = self.mechanism.by_image(op, self.config)
        return None if config is None else replace(self, config=config)

    def in_rounds(self, op: LoweredOp) -> tuple[ConfiguredMachine, int] | None:
        """Return the machine that so many of the op's images share at a time; None: all do."""
        round_ = self.mechanism.in_rounds(op, self.config)
        return None if round_ is None else (replace(self, config=round_[0]), round_[1])

    def reads_images(self, op: LoweredOp) -> bool:
        """Whether the op's compute cycles depend on its images."""
        return self.mechanism.reads_images(op, self.config)

    def timeline(self, op: LoweredOp, tile: int) -> Timeline:
        """Return what one tile does, cycle by cycle.

        Raises
        ------
        ConfigError
            If the machine has no timeline, or there is no such tile.
        """
        if self.mechanism.timeline is None:
            raise _no_timeline(self)
        return self.mechanism.timeline(op, self.config, tile)

    def busy(self, op: LoweredOp) -> Busy | None:
        """Return what each tile does in the op; None: the machine does not say."""
        return None if self.mechanism.busy is None else self.mechanism.busy(op, self.config)

    def describe(self) -> dict[str, Any]:
        """Return mechanism and configuration as JSON types."""
        return {
            "name": self.name,
            "mechanism": self.mechanism.name,
            **({"sources": self.sources} if self.sources else {}),
            "parameters": self.config.model_dump(mode="json"),
            "dtype_is_set": self.dtype_is_set,
            "dram": self.config.dram.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class OwnMachine:
    """A user's object that satisfies `Machine` and no more, as the simulator takes it.

    It has no configuration: its memory system is `NO_MEMORY`, and what asks for more is refused.
    """

    machine: Machine
    config: ClassVar[None] = None
    alternatives: ClassVar[tuple[str, ...]] = ()
    #: What it counts of operands without a zero: all steps want the same.
    _without_zeros: dict[tuple[Any, ...], Counters] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """How the machine is called in results."""
        return self.machine.name

    def simulate_op(self, op: LoweredOp) -> Counters:
        """Return the counters of one op."""
        return self.machine.simulate_op(op)

    def simulate_dense(self, op: LoweredOp) -> Counters:
        """Return the counters of the op's dense baseline."""
        return self.machine.simulate_dense(op)

    def simulate_dense_operands(self, op: LoweredOp) -> Counters:
        """Return the op's counters, skipping as ever, were no value of its operands zero."""
        key = (op.layer, op.name, op.samples, op.of_transposed)
        if key not in self._without_zeros:
            self._without_zeros[key] = self.machine.simulate_op(op.without_zeros())
        return self._without_zeros[key]

    def simulate_alternatives(self, op: LoweredOp) -> dict[str, Counters]:
        """Return nothing: it names no other baselines."""
        return {}

    def by_image(self, op: LoweredOp) -> ConfiguredMachine | None:
        """Refuse: what an object of the user's own does with images is not known."""
        raise self._unknown_images()

    def in_rounds(self, op: LoweredOp) -> tuple[ConfiguredMachine, int] | None:
        """Refuse: what an object of the user's own does with images is not known."""
        raise self._unknown_images()

    def reads_images(self, op: LoweredOp) -> bool:
        """Refuse: what an object of the user's own does with images is not known."""
        raise self._unknown_images()

    def _unknown_images(self) -> ConfigError:
        return ConfigError(
            f"machine {self.name!r} is an object of your own, and does not say whether its images "
            "follow one another: pass a preset's name or swatsim.machine(..)"
        )

    def timeline(self, op: LoweredOp, tile: int) -> Timeline:
        """Refuse: the object has no timeline."""
        raise _no_timeline(self)

    def busy(self, op: LoweredOp) -> Busy | None:
        """Return nothing: it does not say what its tiles are."""
        return None

    def describe(self) -> dict[str, Any]:
        """Return the object's own description."""
        return self.machine.describe()


#: What the simulator runs.
Runnable = ConfiguredMachine | OwnMachine


def _no_timeline(machine: Runnable) -> ConfigError:
    return ConfigError(
        f"{machine.name} has no timeline: choose one of which `swatsim machines NAME` names it"
    )
