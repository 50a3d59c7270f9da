"""One trace on machines that differ in nothing but memory system and value type.

Values are of the type that they had in the run, the wider of an op's two operands; where the trace
does not say, of the machine's. A type that the user set for the machine goes before both, and is
the baseline's too, unless it has one set for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from swatsim.columns import DENSE, Role
from swatsim.counters import Counters, MemoryCounters
from swatsim.errors import ConfigError, TraceError
from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.interface import Busy, checked_busy
from swatsim.simulator.jobs import Job, Jobs, Some
from swatsim.simulator.memory.refusals import BufferTooSmallError
from swatsim.simulator.memory.simulate import Schedule
from swatsim.simulator.other import Share, groups_of, share_of
from swatsim.simulator.recorded_types import (
    type_among,
    type_of,
    type_on,
    types_of_layers,
    types_of_others,
)
from swatsim.simulator.rows import Counted, Counting, checked_counters, cost, count, describe_op
from swatsim.simulator.runnable import Runnable, storing
from swatsim.simulator.sizes import check_before, check_room
from swatsim.simulator.stored import Stored
from swatsim.simulator.systems import NO_MEMORY, Row, System, Types, system_of
from swatsim.store import Store
from swatsim.tracefile import OtherWork, Step, Trace
from swatsim.tracefile.covered import OTHERS_UNKNOWN, held_by_op
from swatsim.workload.layer import OPERANDS, OPS, Layer, OpName
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.training_ops import Op
from swatsim.workload.value_types import narrowest, of_recorded, widest

Read = Callable[[Step, Layer, OpName], Op]

#: Ops that read the same grad_out, one after the other.
PARTNERS: Mapping[OpName, OpName] = {"dgrad": "wgrad", "wgrad": "dgrad"}


class Scope(NamedTuple):
    """What of a step is run.

    Parameters
    ----------
    ops : sequence of {"fprop", "dgrad", "wgrad"}
        What one may keep on chip for another. Without one of them nothing else of a step is run.
    layers_only : bool
        Nothing but what multiplies.
    dense_outputs : bool
        All of what an op makes is wanted, whatever the trace says.
    """

    ops: Sequence[OpName] = OPS
    layers_only: bool = False
    dense_outputs: bool = False

    @property
    def left_out(self) -> str:
        """Why what multiplies nothing is left out; empty: it is not."""
        if self.layers_only:
            return "layers only were asked for"
        return "" if set(OPS) <= set(self.ops) else f"{' and '.join(self.ops)} only were run"


EVERYTHING = Scope()


class Scheduled(NamedTuple):
    """An op on a machine: what is counted of it, its blocks in time; its tiles, where it has."""

    layer: str
    op: OpName
    counters: Counters
    memory: MemoryCounters
    schedule: Schedule
    busy: Busy | None


class Run:
    """One trace on machines that differ in nothing but memory system, vector unit and value type.

    What they count is counted once, and kept in `store` for other runs. `baseline` is None: the
    machine with nothing skipped. `scope` says what is run, `read` gives an op's masks.
    """

    def __init__(
        self,
        trace: Trace,
        machines: Sequence[Runnable],
        baseline: Runnable | None,
        energy: EnergyTable,
        scope: Scope = EVERYTHING,
        read: Read = Step.op,
        store: Store | None = None,
    ) -> None:
        self.trace = trace
        self.machines = [storing(machine, store) for machine in machines]
        self.baseline = None if baseline is None else storing(baseline, store)
        self.energy = energy
        self.scope = scope
        self.store = store
        self._read = read
        self._stored = None if store is None else Stored(store)
        self._all_machines = [*self.machines, *([] if self.baseline is None else [self.baseline])]
        self._systems = _systems(self._all_machines, energy)
        # of steps that are open: of a long trace never of many
        self._held_of = WeakKeyDictionary[Step, Mapping[tuple[str, OpName], float]]()
        self._types_of = WeakKeyDictionary[Step, tuple[set[str | None], set[str | None]]]()
        for machine in machines:
            _check_alike(machine, baseline)

    def read(self, step: Step, layer: Layer, name: OpName) -> Op:
        """Return an op as it is run."""
        op = self._read(step, layer, name)
        return op.of_all_outputs() if self.scope.dense_outputs else op

    def entered(self, op: Op) -> LoweredOp:
        """Return an op as machines take it, its effectual products known if a store has them."""
        return lower(op) if self._stored is None else self._stored.entered(lower(op))

    def jobs(self, steps: Sequence[int]) -> Jobs:
        """Return the ops of the steps; steps are opened, and masks read, when they run."""
        jobs = Jobs(self.trace, steps, self.scope.ops)
        if not jobs:
            raise TraceError(
                f"{self.trace.path}: steps {list(steps)} hold none of {', '.join(self.scope.ops)} "
                "with the masks of both operands: choose other steps or ops, or record again"
            )
        return jobs

    def check_before(self, jobs: Some) -> None:
        """Refuse, before anything is simulated, what is sure to pass 63 bits, or has no room."""
        recorded, ops = set[str | None](), Counter[tuple[Layer, OpName, int]]()
        for step, layer, name in jobs:
            recorded.add(type_of(step, layer, name))
            ops[layer, name, step.samples_of(layer.name)] += 1
        check_room(((layer, name) for layer, name, _ in ops), self._all_machines)
        systems = []
        for one in self._all_machines:
            dtype = type_among(recorded, one, self.machines[0], narrowest)
            systems.append((one.name, self._systems[id(one)].of_values(dtype)))
        check_before(ops, systems)

    def _types(self, step: Step, machine: Runnable, compared: Runnable) -> Types:
        """Return the widest types that a machine meets in a step; see `type_on`."""
        if step not in self._types_of:
            self._types_of[step] = types_of_layers(step), types_of_others(step)
        every = self._types_of[step]
        return Types(*(type_among(recorded, machine, compared) for recorded in every))

    def rows(self, step: Step, layer: Layer, name: OpName) -> list[list[Row]]:
        """Return the rows of one op: of each machine, and of its baselines."""
        with self._in_memory(layer, name):
            return self._rows(step, layer, name)

    def scheduled(self, step: Step, layer: Layer, name: OpName, tiles: bool) -> Scheduled:
        """Return one op on the first machine alone, block by block; `rows` counts the same."""
        with self._in_memory(layer, name):
            op, machine = self.entered(self.read(step, layer, name)), self.machines[0]
            counters = checked_counters(machine.simulate_op(op))
            dtype = type_on(type_of(step, layer, name), machine, machine)
            system = self._systems[id(machine)].of_values(dtype)
            on_chip = system.on_chip(op, self._partner(step, layer, name), False)
            memory = system.simulate_memory(op, counters, False, on_chip)
            schedule = system.schedule(op, counters, on_chip)
            busy = machine.busy(op) if tiles else None
            busy = busy and checked_busy(busy, counters.cycles_compute)
            return Scheduled(layer.name, name, counters, memory, schedule, busy)

    @contextmanager
    def _in_memory(self, layer: Layer, name: OpName) -> Iterator[None]:
        """Refuse in one line an op that takes more memory to simulate than there is."""
        try:
            yield
        except MemoryError:
            names = " or ".join(machine.name for machine in self.machines)
            raise ConfigError(
                f"layer {layer.name!r}, {name}: {names} takes more memory to simulate than there "
                "is: make its array smaller, or take fewer workers"
            ) from None

    def _rows(self, step: Step, layer: Layer, name: OpName) -> list[list[Row]]:
        op = self.read(step, layer, name)
        run = self.entered(op)  # whatever the row calls it
        common = {**self._common(step, op), **describe_op(op, run)}
        costs = self.costs(step, layer, name, run)
        return [[{**common, **row} for row in of_machine] for of_machine in costs]

    def costs(self, step: Step, layer: Layer, name: OpName, run: LoweredOp) -> list[list[Row]]:
        """Return what of an op's rows depends on the machine, of each machine."""
        counted = self._counted(run, step, layer)
        partner = self._partner(step, layer, name)
        return [
            list(self._of_machine(run, machine, counted, partner, (step, layer, name)))
            for machine in self.machines
        ]

    def others(self, step: Step) -> list[list[Row]]:
        """Return the rows of what a step does beside multiplying: of each machine and baseline.

        The policy's own work is the machine's alone: its baseline trains densely.
        """
        own, (samples, of_batch) = self._of_step(step), self._samples(step)
        held = None if own["macs_seen"] is None else 0.0
        shared = {**own, "samples": samples, "macs_held": held}
        groups = [
            ({**group.columns, **shared}, group.works) for group in groups_of(step.others or ())
        ]
        return [
            [
                {**columns, **names, **row}
                for columns, works in groups
                for names, row in self._others_of(step, works, machine, of_batch)
            ]
            for machine in self.machines
        ]

    def _samples(self, step: Step) -> tuple[int, Share]:
        """Return of how many images everything else is run, and which share of the batch's."""
        samples = max((step.samples_of(layer.name) for layer in step.layers), default=1)
        return samples, share_of(step)

    def _others_of(
        self, step: Step, works: Sequence[OtherWork], machine: Runnable, share: Share
    ) -> Iterator[tuple[Row, Row]]:
        """Yield the columns that name each machine, and those that it counts."""
        for variant, role in self._compared():
            if role is not Role.MACHINE and works[0].phase == "policy":
                continue
            another = None if role is Role.MACHINE else self.baseline
            runs = another or machine
            dtypes = [type_on(of_recorded(work.dtype), runs, machine) for work in works]
            types = self._types(step, runs, machine)
            counted = self._systems[id(runs)].other(works, dtypes, share, types)
            if counted is not None:
                yield {"machine": runs.name, "variant": variant, "role": role.value}, counted

    def _compared(self) -> list[tuple[str, Role]]:
        """Return the variants of which an op has rows, each with its role."""
        if self.baseline is not None:
            return [("", Role.MACHINE), ("", Role.BASELINE)]
        others = ((name, Role.ALTERNATIVE) for name in self.machines[0].alternatives)
        return [("", Role.MACHINE), (DENSE, Role.BASELINE), *others]

    def others_left_out(self, coverage: Mapping[str, Any]) -> str:
        """Return why rows have nothing but what multiplies; empty: they have all.

        `coverage` is what `covered.describe` says of the steps.
        """
        if self.scope.left_out:
            return self.scope.left_out
        silent = next((one.name for one in self._all_machines if one.config is None), None)
        if silent is not None:
            return f"{silent} says nothing of a vector unit"
        return str(coverage[OTHERS_UNKNOWN])

    def _common(self, step: Step, op: Op) -> Row:
        densities = {
            f"density_{operand}": step.record(op.layer.name, op.name, operand).density
            for operand in op.operands
        }
        return {
            **self._of_step(step),
            "macs_held": self._held(step).get((op.layer.name, op.name)),
            **dict.fromkeys((f"density_{operand}" for operand in OPERANDS), None),
            **densities,
        }

    def _of_step(self, step: Step) -> Row:
        """Return the columns that are the same in all rows of a step."""
        return {
            "trace": self.trace.name,
            "trace_id": self.trace.id,
            "step": step.number,
            "macs_seen": None if step.coverage is None else float(step.coverage.seen.total),
        }

    def _held(self, step: Step) -> Mapping[tuple[str, OpName], float]:
        """Return what `covered.held_by_op` does, computed once a step."""
        if step not in self._held_of:
            self._held_of[step] = held_by_op(step)
        return self._held_of[step]

    def _counting(self, machine: Runnable, op: LoweredOp, step: Step, layer: Layer) -> Counting:
        """Return what counts an op of a layer on a machine: the machine itself."""
        return machine

    def _counted(self, op: LoweredOp, step: Step, layer: Layer) -> list[tuple[str, Role, Counted]]:
        """Return what does not depend on the memory system: (variant, role, counts)."""
        first = self._counting(self.machines[0], op, step, layer)
        counted = [("", Role.MACHINE, count(op, first))]
        if self.baseline is not None:
            theirs = self._counting(self.baseline, op, step, layer)
            return [*counted, ("", Role.BASELINE, count(op, theirs))]
        dense = {DENSE: (Role.BASELINE, first.simulate_dense(op))}
        others = first.simulate_alternatives(op).items()
        dense |= {name: (Role.ALTERNATIVE, counters) for name, counters in others}
        counted += [
            (name, role, Counted(counters, counters)) for name, (role, counters) in dense.items()
        ]
        return counted

    def _of_machine(
        self,
        op: LoweredOp,
        machine: Runnable,
        counted: list[tuple[str, Role, Counted]],
        partner: LoweredOp | None,
        job: Job,
    ) -> Iterator[Row]:
        """Yield the rows of the machine, and of what it is compared with."""
        dtype = type_of(*job)
        for variant, role, counts in counted:
            another = None if role is Role.MACHINE else self.baseline
            runs = another or machine
            vector = self._types(job[0], runs, machine).vector
            system = self._systems[id(runs)].of_values(type_on(dtype, runs, machine), vector)
            names = {"machine": runs.name, "variant": variant, "role": role.value}
            yield {**names, **_costs(op, system, bool(variant), counts, partner)}

    def refusal(self, error: BufferTooSmallError, jobs: Some) -> BufferTooSmallError:
        """Return a refusal that says which capacity would do for all jobs."""
        recorded = {type_of(*job) for job in jobs}
        for machine in self._all_machines:
            dtype = type_among(recorded, machine, self.machines[0], widest)
            system = self._systems[id(machine)].of_values(dtype)
            ops = (lower(self.read(step, layer, name)) for step, layer, name in jobs)
            error = system.refusal(error, self.baseline is None, ops)
        return error

    def _partner(self, step: Step, layer: Layer, name: OpName) -> LoweredOp | None:
        """Return the op that reads the same grad_out next to this one, if it may stay on chip."""
        if not any(system.keeps_on_chip for system in self._systems.values()):
            return None
        other = PARTNERS.get(name)
        if other is None or other not in self.scope.ops or not step.has(layer.name, other):
            return None
        records = (step.record(layer.name, op, "grad_out") for op in (name, other))
        same = len({record.digest for record in records}) == 1
        # of another type it would be another tensor
        same = same and type_of(step, layer, name) == type_of(step, layer, other)
        return lower(self.read(step, layer, other)) if same else None

    def describe(
        self, machine: Runnable, coverage: Mapping[str, Any], steps: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Return what was run, resolved; of which steps, all by default.

        `coverage` is what `covered.describe` says of them.
        """
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
            "coverage": dict(coverage),
            "dense_outputs": self.scope.dense_outputs,
            "others_left_out": self.others_left_out(coverage),
        }


def _costs(
    op: LoweredOp, system: System, dense: bool, counted: Counted, partner: LoweredOp | None
) -> Row:
    """Return the columns of a machine's counts, with what stays on chip between two ops."""
    on_chip = system.on_chip(op, partner, dense)
    on_chip_dense = system.on_chip(op, partner, True)
    return cost(op, counted, system, dense=dense, on_chip=on_chip, on_chip_dense=on_chip_dense)


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
