"""What the simulator runs: a mechanism with its configuration, or an object of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from swatsim import provenance
from swatsim.columns import DENSE
from swatsim.counters import Counters
from swatsim.errors import ConfigError
from swatsim.simulator.interface import Busy, Machine, Timeline
from swatsim.simulator.mechanism import MachineConfig, Mechanism
from swatsim.simulator.stored import DENSE_OPERANDS, OP, Basis, Stored, digest_of
from swatsim.simulator.vector import SystemConfig
from swatsim.simulator.versions import version_of
from swatsim.store import Store
from swatsim.workload.layer import Layer, OpName
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.training_ops import Op

#: Where this package's own machines lie.
_MACHINES = "swatsim.simulator.machines."


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
    stored : Stored, optional
        Where what it counts is kept.
    """

    name: str
    mechanism: Mechanism = field(repr=False)
    config: MachineConfig = field(repr=False)
    sources: str = ""
    dtype_is_set: bool = False
    stored: Stored | None = field(default=None, repr=False, compare=False)

    def simulate_op(self, op: Op | LoweredOp) -> Counters:
        """Return the counters of one op."""
        return self._counted(OP, lower(op), self.mechanism.simulate_op)

    def simulate_dense(self, op: Op | LoweredOp) -> Counters:
        """Return the counters of the op's dense baseline."""
        return self._counted(DENSE, lower(op), self.mechanism.simulate_dense)

    def simulate_dense_operands(self, op: LoweredOp) -> Counters:
        """Return the op's counters, skipping as ever, were no value of its operands zero."""
        simulate = self.mechanism.simulate_dense_operands or self._of_dense_operands
        return self._counted(DENSE_OPERANDS, op, simulate)

    def _of_dense_operands(self, op: LoweredOp, config: MachineConfig) -> Counters:
        return self.mechanism.simulate_op(op.without_zeros(), config)

    @property
    def alternatives(self) -> tuple[str, ...]:
        """Names of its other dense baselines."""
        return tuple(self.mechanism.alternatives)

    def simulate_alternatives(self, op: LoweredOp) -> dict[str, Counters]:
        """Return the counters of the op's other dense baselines, by their names."""
        alternatives = self.mechanism.alternatives.items()
        return {name: self._counted(name, op, simulate) for name, simulate in alternatives}

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

    def room(self, layer: Layer, name: OpName) -> int:
        """Return the bytes that an op of a lowered layer takes beside its masks at least."""
        return self.mechanism.room(layer, name, self.config)

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
        busy = self.mechanism.busy
        if busy is None or self.stored is None:
            return busy and busy(op, self.config)
        return self.stored.busy(op, self._basis(op), lambda: busy(op, self.config))

    def _counted(
        self, what: str, op: LoweredOp, count: Callable[[LoweredOp, MachineConfig], Counters]
    ) -> Counters:
        """Return counters of an op: kept ones, if somebody has counted the same."""
        if self.stored is None:
            return count(op, self.config)
        return self.stored.counters(what, op, self._basis(op), lambda: count(op, self.config))

    def is_kept(self, op: LoweredOp) -> bool:
        """Whether its counters of an op are in its store."""
        return self.stored is not None and self.stored.has(OP, op, self._basis(op))

    def _basis(self, op: LoweredOp) -> Basis:
        looks_at = self.mechanism.looks_at
        return Basis(self.code, None if looks_at is None else looks_at(op, self.config))

    @cached_property
    def code(self) -> str:
        """Digest of all that counts depend on beside the op; empty: it can't be told."""
        version = _version(self.mechanism, self.sources)
        own = self.config.model_dump(mode="json", exclude=set(SystemConfig.model_fields))
        return version and digest_of([self.mechanism.name, version, own])

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


def _version(mechanism: Mechanism, sources: str) -> str:
    """Return the version of a mechanism's code; empty: it is somebody's, who says no `sources`."""
    functions = (
        *(mechanism.simulate_op, mechanism.simulate_dense, *mechanism.alternatives.values()),
        *(mechanism.simulate_dense_operands, mechanism.busy),
    )
    modules = {getattr(it, "__module__", None) or "" for it in functions if it is not None}
    if all(name.startswith(_MACHINES) for name in modules):
        return version_of(frozenset(modules))
    return sources and f"{sources} {provenance.sources()}"


@dataclass(frozen=True)
class OwnMachine:
    """A user's object that satisfies `Machine` and no more, as the simulator takes it.

    It has no configuration: its memory system is `NO_MEMORY`, and what asks for more is refused.
    What it counts is kept only if it says a `version` of its code, a text.
    """

    machine: Machine
    config: ClassVar[None] = None
    alternatives: ClassVar[tuple[str, ...]] = ()
    stored: Stored | None = field(default=None, repr=False, compare=False)
    #: What it counts of operands without a zero: all steps want the same.
    _without_zeros: dict[tuple[Any, ...], Counters] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """How the machine is called in results."""
        return self.machine.name

    def simulate_op(self, op: LoweredOp) -> Counters:
        """Return the counters of one op."""
        return self._counted(OP, op, self.machine.simulate_op)

    def simulate_dense(self, op: LoweredOp) -> Counters:
        """Return the counters of the op's dense baseline."""
        return self._counted(DENSE, op, self.machine.simulate_dense)

    def simulate_dense_operands(self, op: LoweredOp) -> Counters:
        """Return the op's counters, skipping as ever, were no value of its operands zero."""
        key = (op.layer, op.name, op.samples, op.of_transposed)
        if key not in self._without_zeros:
            dense = op.without_zeros()
            self._without_zeros[key] = self._counted(OP, dense, self.machine.simulate_op)
        return self._without_zeros[key]

    def is_kept(self, op: LoweredOp) -> bool:
        """Return False: a sweep, which asks, has no such object."""
        return False

    def _counted(
        self, what: str, op: LoweredOp, count: Callable[[LoweredOp], Counters]
    ) -> Counters:
        if self.stored is None:
            return count(op)
        return self.stored.counters(what, op, Basis(self.code, None), lambda: count(op))

    @cached_property
    def code(self) -> str:
        """Digest of the object's version and description; empty: it says no version."""
        version, kind = getattr(self.machine, "version", None), type(self.machine)
        if not isinstance(version, str) or not version:
            return ""
        said = (kind.__module__, kind.__qualname__, version, self.machine.describe())
        return digest_of(said)

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

    def room(self, layer: Layer, name: OpName) -> int:
        """Return 0: the object does not say."""
        return 0

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


def storing(machine: Runnable, store: Store | None) -> Runnable:
    """Return a machine whose counts are kept in a store; None: as the machine itself does it."""
    return machine if store is None else replace(machine, stored=Stored(store))


def _no_timeline(machine: Runnable) -> ConfigError:
    return ConfigError(
        f"{machine.name} has no timeline: choose one of which `swatsim machines NAME` names it"
    )
