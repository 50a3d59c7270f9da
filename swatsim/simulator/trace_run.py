"""One trace on machines that differ in nothing but memory system and value type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from swatsim.columns import DENSE, Role
from swatsim.errors import ConfigError, TraceError
from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.mechanism import Runnable
from swatsim.simulator.memory.refusals import BufferTooSmallError
from swatsim.simulator.rows import Counted, cost, describe_op
from swatsim.simulator.sizes import check_before
from swatsim.simulator.systems import NO_MEMORY, Row, System, system_of
from swatsim.tracefile import Step, Trace
from swatsim.workload.layer import OPERANDS, OPS, Layer, OpName
from swatsim.workload.lowering import LoweredOp, lower
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
        machines: Sequence[Runnable],
        baseline: Runnable | None,
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
        self._all_machines = [*machines, *([] if baseline is None else [baseline])]
        self._systems = _systems(self._all_machines, energy)
        for machine in machines:
            _check_alike(machine, baseline)

    def jobs(self, steps: Sequence[int], ops: Sequence[OpName]) -> list[Job]:
        """Return the ops of the steps; their masks are read when they run."""
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
        ops = [(layer, name, step.samples_of(layer.name)) for step, layer, name in jobs]
        systems = [(one.name, self._systems[id(one)]) for one in self._all_machines]
        check_before(ops, systems)

    def rows(self, step: Step, layer: Layer, name: OpName) -> list[list[Row]]:
        """Return the rows of one op: of each machine, and of its baselines."""
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
        run = lower(op)  # whatever the row calls it
        common = {**self._common(step, op), **describe_op(op, run)}
        counted = self._counted(run)
        partner = self._partner(step, layer, name)
        return [
            [{**common, **row} for row in self._of_machine(run, machine, counted, partner)]
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

    def _counted(self, op: LoweredOp) -> list[tuple[str, Role, Counted]]:
        """Return what does not depend on the memory system: (variant, role, counts)."""
        first, theirs = self.machines[0], self.baseline
        counted = [("", Role.MACHINE, self._skipping(op, first))]
        if theirs is not None:
            return [*counted, ("", Role.BASELINE, self._skipping(op, theirs))]
        dense = {DENSE: (Role.BASELINE, first.simulate_dense(op))}
        others = first.simulate_alternatives(op).items()
        dense |= {name: (Role.ALTERNATIVE, counters) for name, counters in others}
        counted += [
            (name, role, Counted(counters, counters)) for name, (role, counters) in dense.items()
        ]
        return counted

    def _skipping(self, op: LoweredOp, machine: Runnable) -> Counted:
        """Return the counts of the op as it is, and were no value of its operands zero."""
        return Counted(machine.simulate_op(op), machine.simulate_dense_operands(op))

    def _of_machine(
        self,
        op: LoweredOp,
        machine: Runnable,
        counted: list[tuple[str, Role, Counted]],
        partner: LoweredOp | None,
    ) -> Iterator[Row]:
        """Yield the rows of the machine, and of what it is compared with."""
        for variant, role, counts in counted:
            another = None if role is Role.MACHINE else self.baseline
            yield self._row(op, another or machine, variant, role, counts, partner)

    def _row(
        self,
        op: LoweredOp,
        machine: Runnable,
        variant: str,
        role: Role,
        counted: Counted,
        partner: LoweredOp | None,
    ) -> Row:
        system, dense = self._systems[id(machine)], bool(variant)
        on_chip = system.on_chip(op, partner, dense)
        on_chip_dense = system.on_chip(op, partner, True)
        row = cost(op, counted, system, dense=dense, on_chip=on_chip, on_chip_dense=on_chip_dense)
        return {"machine": machine.name, "variant": variant, "role": role.value, **row}

    def refusal(self, error: BufferTooSmallError, jobs: Sequence[Job]) -> BufferTooSmallError:
        """Return a refusal that says which capacity would do for all jobs."""
        for system in self._systems.values():
            ops = (lower(self.read(step, layer, name)) for step, layer, name in jobs)
            error = system.refusal(error, self.baseline is None, ops)
        return error

    def _partner(self, step: Step, layer: Layer, name: OpName) -> LoweredOp | None:
        """Return the op that reads the same grad_out next to this one, if it may stay on chip."""
        if not any(system.keeps_on_chip for system in self._systems.values()):
            return None
        other = PARTNERS.get(name)
        if other is None or other not in self.ops or (layer, other) not in step.ops():
            return None
        records = (step.record(layer.name, op, "grad_out") for op in (name, other))
        same = len({record.digest for record in records}) == 1
        return lower(self.read(step, layer, other)) if same else None

    def describe(self, machine: Runnable, steps: Sequence[int] | None = None) -> dict[str, Any]:
        """Return what was run, resolved; of which steps, all by default."""
        samples = self.trace.manifest.samples
        dense = "the same machine with nothing skipped"
        return {
            "trace": {"name": self.trace.name, "id": self.trace.id},
            "policy": self.trace.manifest.policy,
            "samples": None if samples is None else list(samples),
            "batch_size": self.trace.largest_batch(steps),
            "machine": machine.describe(),
            "baseline": self.baseline.describe() if self.baseline else dense,
            "energy": self.energy.model_dump(mode="json"),
        }


def _check_alike(machine: Runnable, baseline: Runnable | None) -> None:
    """Refuse to compare a machine that has a memory system with one that has none."""
    pair = [one for one in (machine, baseline) if one is not None and one.config is not None]
    if len({one.config.memory for one in pair if one.config}) > 1:
        words = " and ".join(f"{one.name} memory={one.config.memory}" for one in pair if one.config)
        raise ConfigError(f"{words} can't be compared: set memory of both to the same")


def _systems(machines: Sequence[Runnable], energy: EnergyTable) -> dict[int, System]:
    """Return the memory systems by the machines' identities; where one has none, none has."""
    systems = {id(machine): system_of(machine, energy) for machine in machines}
    if any(system.memory is None for system in systems.values()):
        return dict.fromkeys(systems, NO_MEMORY)
    return systems
