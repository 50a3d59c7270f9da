"""One trace on machines that differ in nothing but memory system and value type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from swatsim.columns import DENSE, Role
from swatsim.counters import Counters
from swatsim.errors import ConfigError, TraceError
from swatsim.simulator import needs
from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.interface import ConfiguredMachine, Machine
from swatsim.simulator.memory.feed import NOTHING, can_pin, feed
from swatsim.simulator.memory.refusals import BufferTooSmallError
from swatsim.simulator.rows import Counted, Held, Row, cost, describe_op
from swatsim.simulator.sizes import check_before
from swatsim.tracefile import Step, Trace
from swatsim.workload.layer import OPERANDS, OPS, Layer, OpName
from swatsim.workload.training_ops import Op

Job = tuple[Step, Layer, OpName]
Read = Callable[[Step, Layer, OpName], Op]

#: Ops that read the same grad_out, one after the other.
PARTNERS: Mapping[OpName, OpName] = {"dgrad": "wgrad", "wgrad": "dgrad"}


class Run:
    """One trace on machines that differ in nothing but memory system and value type.

    What they count is counted once. `baseline` is None: the machine with nothing skipped. `ops`
    are those that are run: what one may keep on chip for another. `read` gives an op's masks.
    """

    def __init__(
        self,
        trace: Trace,
        machines: Sequence[Machine],
        baseline: Machine | None,
        energy: EnergyTable,
        ops: Sequence[OpName] = OPS,
        read: Read = Step.op,
    ) -> None:
        self.trace = trace
        self.machines = machines
        self.baseline = baseline
        self.energy = energy
        self.ops: Sequence[OpName] = ops
        self.read = read
        self._without_zeros: dict[tuple[Any, ...], Counters] = {}
        for machine in machines:
            _check_alike(machine, baseline)

    def jobs(self, steps: Sequence[int], ops: Sequence[OpName]) -> list[Job]:
        """List the ops of the steps; their masks are read when they run."""
        opened = [self.trace.step(number) for number in steps]
        jobs = [(step, layer, name) for step in opened for layer, name in step.ops() if name in ops]
        if not jobs:
            raise TraceError(
                f"{self.trace.path}: steps {list(steps)} hold none of {', '.join(ops)} with the "
                "masks of both operands: choose other steps or ops, or record again"
            )
        return jobs

    def check_before(self, jobs: Sequence[Job]) -> None:
        """Refuse, before anything is simulated, what is sure to pass 63 bits."""
        machines = [*self.machines, *([] if self.baseline is None else [self.baseline])]
        ops = [(layer, name) for _, layer, name in jobs]
        check_before(ops, len(self.trace.manifest.samples), machines)

    def rows(self, step: Step, layer: Layer, name: OpName) -> list[list[Row]]:
        """Simulate one op: the rows of each machine, and of its baselines."""
        try:
            return self._rows(step, layer, name)
        except MemoryError:
            names = " or ".join(machine.name for machine in self.machines)
            raise ConfigError(
                f"layer {layer.name!r}, {name}: {names} takes more memory to simulate than there "
                "is: make its array smaller, or take fewer workers"
            ) from None

    def _rows(self, step: Step, layer: Layer, name: OpName) -> list[list[Row]]:
        op = self.read(step, layer, name)
        common = {**self._common(step, op), **describe_op(op)}
        op = op.as_convolution()  # what is run, whatever the row calls it
        counted = self._counted(op)
        partner = self._partner(step, layer, name)
        return [
            [{**common, **row} for row in self._of_machine(op, machine, counted, partner)]
            for machine in self.machines
        ]

    def _common(self, step: Step, op: Op) -> Row:
        densities = {
            f"density_{operand}": step.record(op.layer.name, op.name, operand).density
            for operand in op.operands
        }
        return {
            "trace": self.trace.name,
            "trace_id": self.trace.id,
            "step": step.number,
            **dict.fromkeys((f"density_{operand}" for operand in OPERANDS), None),
            **densities,
        }

    def _counted(self, op: Op) -> list[tuple[str, Role, Counted]]:
        """Count what does not depend on the memory system: (variant, role, counts)."""
        first, theirs = self.machines[0], self.baseline
        found = [("", Role.MACHINE, self._skipping(op, first))]
        if theirs is not None:
            return [*found, ("", Role.BASELINE, self._skipping(op, theirs))]
        dense = {DENSE: (Role.BASELINE, first.simulate_dense(op))}
        if isinstance(first, ConfiguredMachine):
            others = first.simulate_alternatives(op).items()
            dense |= {name: (Role.ALTERNATIVE, counters) for name, counters in others}
        found += [(name, role, Counted(it, it)) for name, (role, it) in dense.items()]
        return found

    def _skipping(self, op: Op, machine: Machine) -> Counted:
        """Count the op as it is, and were no value of its operands zero."""
        counters = machine.simulate_op(op)
        if isinstance(machine, ConfiguredMachine):
            return Counted(counters, machine.simulate_dense_operands(op))
        key = (machine.name, op.layer, op.name, op.samples, op.of_transposed)
        if key not in self._without_zeros:  # all steps want the same
            self._without_zeros[key] = machine.simulate_op(op.without_zeros())
        return Counted(counters, self._without_zeros[key])

    def _of_machine(
        self,
        op: Op,
        machine: Machine,
        counted: list[tuple[str, Role, Counted]],
        partner: Op | None,
    ) -> Iterator[Row]:
        """Feed the machine, and what it is compared with."""
        for variant, role, counts in counted:
            another = None if role is Role.MACHINE else self.baseline
            yield self._row(op, another or machine, variant, role, counts, partner)

    def _row(
        self,
        op: Op,
        machine: Machine,
        variant: str,
        role: Role,
        counted: Counted,
        partner: Op | None,
    ) -> Row:
        dense = bool(variant)
        pair = (machine, self.baseline or machine, *self.machines)
        try:
            row = cost(
                op,
                counted,
                machine,
                self.energy,
                dense=dense,
                held=_held(op, partner, machine, dense),
                held_dense=_held(op, partner, machine, True),
                compute_only=not all(isinstance(one, ConfiguredMachine) for one in pair),
            )
        except BufferTooSmallError as error:
            raise error.of(machine.name) from None
        return {"machine": machine.name, "variant": variant, "role": role.value, **row}

    def refusal(self, error: BufferTooSmallError, jobs: Sequence[Job]) -> BufferTooSmallError:
        """Say which capacity would do for all jobs."""
        ops = (self.read(step, layer, name) for step, layer, name in jobs)
        for machine in (*self.machines, self.baseline):
            if isinstance(machine, ConfiguredMachine) and machine.name == error.whose:
                return needs.for_all(error, machine, self.baseline is None, ops)
        return error

    def _partner(self, step: Step, layer: Layer, name: OpName) -> Op | None:
        """Find the op that reads the same grad_out just before or after, if that may be kept."""
        machines = (*self.machines, self.baseline)
        if not any(isinstance(m, ConfiguredMachine) and m.config.keep_on_chip for m in machines):
            return None
        other = PARTNERS.get(name)
        if other is None or other not in self.ops or (layer, other) not in step.ops():
            return None
        records = (step.record(layer.name, op, "grad_out") for op in (name, other))
        same = len({record.digest for record in records}) == 1
        return self.read(step, layer, other).as_convolution() if same else None

    def describe(self, machine: Machine) -> dict[str, Any]:
        """Return what was run, resolved."""
        dense = "the same machine with nothing skipped"
        return {
            "trace": {"name": self.trace.name, "id": self.trace.id},
            "policy": self.trace.manifest.policy,
            "samples": list(self.trace.manifest.samples),
            "batch_size": self.trace.manifest.batch_size,
            "machine": machine.describe(),
            "baseline": self.baseline.describe() if self.baseline else dense,
            "energy": self.energy.model_dump(mode="json"),
        }


def _held(op: Op, partner: Op | None, machine: Machine, dense: bool) -> Held:
    """Say what stays on chip between an op and its partner."""
    if partner is None or not _keeps(op, partner, machine, dense):
        return Held()
    return Held(op.called("grad_out"), kept=op.name == "wgrad")


def _keeps(op: Op, partner: Op, machine: Machine, dense: bool) -> bool:
    """Tell whether dgrad keeps grad_out for wgrad: both can hold it, and it saves bytes."""
    if not isinstance(machine, ConfiguredMachine) or not machine.config.keep_on_chip:
        return False
    config, pair, shared = machine.config, (op, partner), op.called("grad_out")
    if op.of_transposed and not config.buffers_alike:
        return False  # dgrad has it in buffer b, wgrad wants it in a
    if not all(can_pin(it, config, shared, dense=dense) for it in pair):
        return False
    free = sum(feed(it, NOTHING, config, dense=dense).dram_bytes for it in pair)
    kept = sum(
        feed(it, NOTHING, config, dense=dense, pinned=shared, kept=it.name == "wgrad").dram_bytes
        for it in pair
    )
    return kept < free


def _check_alike(machine: Machine, baseline: Machine | None) -> None:
    """Refuse to compare a machine that is fed with one that need not be."""
    pair = [one for one in (machine, baseline) if isinstance(one, ConfiguredMachine)]
    if len({one.config.memory for one in pair}) > 1:
        words = " and ".join(f"{one.name} memory={one.config.memory}" for one in pair)
        raise ConfigError(f"{words} can't be compared: set memory of both to the same")
