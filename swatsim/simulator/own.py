"""A user's object as a machine: it counts compute cycles, and is refused what asks for more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

from swatsim.counters import Counters
from swatsim.errors import ConfigError
from swatsim.simulator.interface import Machine, no_timeline
from swatsim.workload.lowering import LoweredOp


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

    def by_image(self, op: LoweredOp) -> NoReturn:
        """Refuse: what an object of the user's own does with images is not known."""
        raise self._unknown_images()

    def in_rounds(self, op: LoweredOp) -> NoReturn:
        """Refuse: what an object of the user's own does with images is not known."""
        raise self._unknown_images()

    def reads_images(self, op: LoweredOp) -> NoReturn:
        """Refuse: what an object of the user's own does with images is not known."""
        raise self._unknown_images()

    def _unknown_images(self) -> ConfigError:
        return ConfigError(
            f"machine {self.name!r} is an object of your own, and does not say whether its images "
            "follow one another: pass a preset's name or swatsim.machine(..)"
        )

    def tiles(self, op: LoweredOp) -> None:
        """Return nothing: of which tiles the object is made is not known."""

    def timeline(self, op: LoweredOp, tile: int) -> NoReturn:
        """Refuse: the object has no timeline."""
        raise no_timeline(self.name)

    def describe(self) -> dict[str, Any]:
        """Return the object's own description."""
        return self.machine.describe()
