"""Play a trace through a machine: every op of every step, dense baseline beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from swatsim import provenance
from swatsim.errors import ConfigError, TraceError, WorkloadError, unknown
from swatsim.results import Results
from swatsim.simulator.energy.table import EnergyTable, energy_table
from swatsim.simulator.interface import ConfiguredMachine, Counters, Machine
from swatsim.simulator.machines import machine as find_machine
from swatsim.simulator.memory.feed import can_pin
from swatsim.simulator.rows import Row, cost, describe_op
from swatsim.tracefile import Step, Trace, open_trace
from swatsim.workload.layer import OPERANDS, OPS, Layer, OpName
from swatsim.workload.training_ops import Op

Progress = Callable[[int, int], None]
Job = tuple[Step, Layer, OpName]


def as_machine(machine: str | Machine) -> Machine:
    """Look up a preset by its name; pass any other machine through.

    Raises
    ------
    ConfigError
        If the preset is unknown, or the object is not a machine.
    """
    if isinstance(machine, str):
        return find_machine(machine)
    if isinstance(machine, Machine):
        return machine
    raise ConfigError(
        f"{type(machine).__name__} is not a machine: pass a preset's name, swatsim.machine(..), or "
        "an object with name, simulate_op, simulate_dense and describe"
    )


def simulate_op(op: Op, machine: str | Machine) -> Counters:
    """Run one op on a machine; no trace is needed.

    Parameters
    ----------
    op : Op
        A layer's shape, the op's name and the boolean masks of its two operands.
    machine : str or Machine
        A preset's name, `swatsim.machine(..)`, or an object of your own.

    Returns
    -------
    Counters
        Cycles, and where the lane-cycles went. The dense baseline is
        ``machine.simulate_dense(op)``.

    Raises
    ------
    ConfigError
        If the machine is unknown.
    WorkloadError
        If `op` is none.
    """
    if not isinstance(op, Op):
        raise WorkloadError(f"{type(op).__name__} is no op: make one with swatsim.Op(layer, ..)")
    return as_machine(machine).simulate_op(op)


def simulate(
    trace: str | os.PathLike[str] | Trace,
    machine: str | Machine,
    *,
    baseline: str | Machine | None = None,
    energy: str | os.PathLike[str] | EnergyTable = "45nm",
    steps: Sequence[int] | None = None,
    ops: Sequence[OpName] = OPS,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Results:
    """Run every recorded op of a trace on a machine, and on its baseline.

    Parameters
    ----------
    trace : path or Trace
    machine : str or Machine
        A preset's name, `swatsim.machine(..)`, or an object of your own.
    baseline : str or Machine, optional
        What to compare with. By default the same machine with nothing skipped: same geometry,
        same operand on the rows.
    energy : str, path or EnergyTable
        Energies of events: "45nm", "7nm", or a TOML file of your own.
    steps : sequence of int, optional
        Which recorded steps; all by default.
    ops : sequence of {"fprop", "dgrad", "wgrad"}, optional
        Which ops; all by default.
    workers : int, optional
        Threads; one a core by default. Counts do not depend on it.
    progress : callable of (int, int), optional
        Told how many of how many ops are done.

    Returns
    -------
    Results
        Two rows an op: role "machine" and role "baseline"; where a machine has another dense
        baseline, a row of role "alternative" for it.

    Raises
    ------
    TraceError, WorkloadError
        If the trace, or a mask in it, is missing or damaged.
    ConfigError
        If the machine or the table is unknown, a buffer is too small, or the table lacks an event.
    """
    source = trace if isinstance(trace, Trace) else open_trace(trace)
    other = None if baseline is None else as_machine(baseline)
    run = _Run(source, as_machine(machine), other, energy_table(energy))
    resolved = _checked(run.describe())
    chosen = _chosen("steps", source.steps if steps is None else steps)
    jobs = run.jobs(chosen, _chosen("ops", ops, OPS))
    return Results(_spread(run, jobs, _threads(workers), progress), provenance.collect(resolved))


def _spread(run: _Run, jobs: Sequence[Job], threads: int, progress: Progress | None) -> list[Row]:
    """Run all jobs on some threads; their rows stay in order."""
    rows: list[Row] = []
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            for done, some in enumerate(pool.map(run.rows, *zip(*jobs, strict=True)), start=1):
                rows.extend(some)
                if progress:
                    progress(done, len(jobs))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return rows


def _checked(description: dict[str, Any]) -> dict[str, Any]:
    """Refuse a machine that can't be written down, before it is simulated."""
    try:
        json.dumps(description)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the machine's describe() must give JSON types only, for the provenance: {error}"
        ) from None
    return description


def _chosen(what: str, values: Any, known: Sequence[str] | None = None) -> list[Any]:
    """Take each of a choice once, in order."""
    if isinstance(values, str | int) or not all(isinstance(v, str | int) for v in values):
        raise ConfigError(f"{what}={values!r} is not allowed: must be a sequence of them")
    for value in values:
        if known is not None and value not in known:
            raise ConfigError(unknown("op", str(value), known))
    if not values:
        raise ConfigError(f"{what}={values!r} is not allowed: must hold at least one")
    return list(dict.fromkeys(values))


def _threads(workers: int | None) -> int:
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ConfigError(f"workers={workers!r} is not allowed: must be at least 1, or None")
    return workers or os.cpu_count() or 1


class _Run:
    """One trace, one machine, one baseline (None: the machine with nothing skipped)."""

    def __init__(
        self, trace: Trace, machine: Machine, baseline: Machine | None, energy: EnergyTable
    ) -> None:
        self.trace = trace
        self.machine = machine
        self.baseline = baseline
        self.energy = energy

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

    def rows(self, step: Step, layer: Layer, name: OpName) -> list[Row]:
        """Simulate one op on both machines."""
        op = step.op(layer, name)
        densities = {
            f"density_{operand}": step.record(layer.name, name, operand).density
            for operand in op.operands
        }
        common = {
            "trace": self.trace.name,
            "trace_id": self.trace.id,
            "step": step.number,
            **dict.fromkeys((f"density_{operand}" for operand in OPERANDS), None),
            **densities,
            **describe_op(op),
        }
        partner = self._partner(step, layer, name)
        return [{**common, **row} for row in self._machines(op, partner)]

    def _machines(self, op: Op, partner: Op | None) -> Iterator[Row]:
        """Run the op on the machine, its baseline, and its other dense baselines if it has any."""
        ours, theirs = self.machine, self.baseline
        yield self._row(op, ours, ours.name, "machine", ours.simulate_op(op), partner)
        if theirs is not None:
            yield self._row(op, theirs, theirs.name, "baseline", theirs.simulate_op(op), partner)
            return
        dense = {"dense": ours.simulate_dense(op)}
        if isinstance(ours, ConfiguredMachine):
            dense |= ours.simulate_alternatives(op)
        for number, (label, counters) in enumerate(dense.items()):
            role = "alternative" if number else "baseline"
            yield self._row(op, ours, f"{ours.name} {label}", role, counters, partner, dense=True)

    def _row(
        self,
        op: Op,
        machine: Machine,
        name: str,
        role: str,
        counters: Counters,
        partner: Op | None,
        dense: bool = False,
    ) -> Row:
        pinned = partner is not None and _both_hold(op, partner, machine, dense)
        row = cost(
            op,
            counters,
            machine,
            self.energy,
            dense=dense,
            pinned="grad_out" if pinned else None,
            kept=pinned and op.name == "wgrad",
        )
        return {"machine": name, "role": role, **row}

    def _partner(self, step: Step, layer: Layer, name: OpName) -> Op | None:
        """Find the op that reads the same grad_out just before or after, if that may be kept."""
        other = {"dgrad": "wgrad", "wgrad": "dgrad"}.get(name)
        machines = (self.machine, self.baseline)
        if not any(isinstance(m, ConfiguredMachine) and m.config.keep_on_chip for m in machines):
            return None
        if (layer, other) not in step.ops():
            return None
        partner: OpName = "wgrad" if name == "dgrad" else "dgrad"
        records = (step.record(layer.name, op, "grad_out") for op in (name, partner))
        same = len({record.digest for record in records}) == 1
        return step.op(layer, partner) if same else None

    def describe(self) -> dict[str, Any]:
        """Return what was run, resolved."""
        dense = "the same machine with nothing skipped"
        return {
            "trace": {"name": self.trace.name, "id": self.trace.id},
            "policy": self.trace.manifest.policy,
            "samples": list(self.trace.manifest.samples),
            "batch_size": self.trace.manifest.batch_size,
            "machine": self.machine.describe(),
            "baseline": self.baseline.describe() if self.baseline else dense,
            "energy": self.energy.model_dump(mode="json"),
        }


def _both_hold(op: Op, partner: Op, machine: Machine, dense: bool) -> bool:
    """Tell whether dgrad and wgrad can each have grad_out on chip as a whole."""
    if not isinstance(machine, ConfiguredMachine) or not machine.config.keep_on_chip:
        return False
    return all(can_pin(it, machine.config, "grad_out", dense=dense) for it in (op, partner))
