"""Play a trace through a machine: every op of every step, dense baseline beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from swatsim import provenance
from swatsim.errors import ConfigError, TraceError, WorkloadError, unknown
from swatsim.results import Results
from swatsim.simulator.interface import ConfiguredMachine, Counters, Machine
from swatsim.simulator.machines import machine as find_machine
from swatsim.tracefile import Step, Trace, open_trace
from swatsim.workload import flops
from swatsim.workload.layer import OPERANDS, OPS, Layer, OpName
from swatsim.workload.training_ops import Op

Progress = Callable[[int, int], None]
Row = dict[str, Any]


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
        If the machine is unknown.
    """
    source = trace if isinstance(trace, Trace) else open_trace(trace)
    run = _Run(source, as_machine(machine), None if baseline is None else as_machine(baseline))
    resolved = _checked(run.describe())
    chosen = _chosen("steps", source.steps if steps is None else steps)
    jobs = run.jobs(chosen, _chosen("ops", ops, OPS))
    rows: list[Row] = []
    with ThreadPoolExecutor(max_workers=_threads(workers)) as pool:
        try:
            for done, pair in enumerate(pool.map(run.rows, *zip(*jobs, strict=True)), start=1):
                rows.extend(pair)
                if progress:
                    progress(done, len(jobs))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return Results(rows, provenance.collect(resolved))


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

    def __init__(self, trace: Trace, machine: Machine, baseline: Machine | None) -> None:
        self.trace = trace
        self.machine = machine
        self.baseline = baseline

    def jobs(self, steps: Sequence[int], ops: Sequence[OpName]) -> list[tuple[Step, Layer, OpName]]:
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
        ours = self.machine.simulate_op(op)
        if self.baseline is None:
            theirs, name_of_baseline = self.machine.simulate_dense(op), f"{self.machine.name} dense"
        else:
            theirs, name_of_baseline = self.baseline.simulate_op(op), self.baseline.name
        return [
            {**common, "machine": self.machine.name, "role": "machine", **count(ours)},
            {**common, "machine": name_of_baseline, "role": "baseline", **count(theirs)},
            *self._alternatives(op, common),
        ]

    def _alternatives(self, op: Op, common: Row) -> list[Row]:
        """Run the machine's other dense baselines, if it has any."""
        if not isinstance(self.machine, ConfiguredMachine) or self.baseline is not None:
            return []
        return [
            {
                **common,
                "machine": f"{self.machine.name} {name}",
                "role": "alternative",
                **count(found),
            }
            for name, found in self.machine.simulate_alternatives(op).items()
        ]

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
        }


def describe_op(op: Op) -> Row:
    """Fill the columns that depend on the op alone."""
    layer = op.layer
    sizes = {letter: getattr(layer, letter) for letter in "CKHWRSPQ"}
    return {
        "layer": layer.name,
        "op": op.name,
        "kind": layer.kind,
        "samples": op.samples,
        **sizes,
        "stride_h": layer.stride[0],
        "stride_w": layer.stride[1],
        "groups": layer.groups,
        "macs_dense": flops.macs_dense(layer, op.samples),
        "macs_effectual": flops.macs_effectual(op),
    }


def count(counters: Counters) -> Row:
    """Fill the columns that a machine counts.

    Raises
    ------
    ConfigError
        If a machine of the user's own gives something else than counters that add up.
    """
    if not isinstance(counters, Counters):
        raise ConfigError(
            f"the machine gave a {type(counters).__name__}: simulate_op and simulate_dense must "
            "give swatsim.Counters"
        )
    if not all(isinstance(value, int | np.integer) for value in counters):
        raise ConfigError(f"the machine gave {counters}: counters are whole numbers")
    if sum(counters.buckets.values()) != counters.lane_cycles:
        raise ConfigError(
            f"the machine gave {counters}: its lane_cycles_* add up to "
            f"{sum(counters.buckets.values())}, must be cycles_compute * pes * lanes = "
            f"{counters.lane_cycles}: put what is not accounted for into lane_cycles_idle"
        )
    return {**counters._asdict(), "lane_cycles": counters.lane_cycles}
