"""What an executor runs: one op of one step, on machines that count alike."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from swatsim.errors import SwatsimError
from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.interface import ConfiguredMachine
from swatsim.simulator.machines import machine
from swatsim.simulator.rows import Row
from swatsim.simulator.run import Run, as_machine
from swatsim.sweeps.expression import Value
from swatsim.tracefile import Step, Trace, open_trace
from swatsim.workload.layer import Layer, OpName
from swatsim.workload.training_ops import Op

#: Masks of so many bytes are kept for the next job: many machines meet the same ones.
MAX_KEPT = 2**29


@dataclass(frozen=True)
class Job:
    """All layers of one op of one step, on machines that differ only in memory.

    Parameters
    ----------
    trace : str
    trace_id : str
        It must still be this one.
    machines : tuple of (str, mapping)
        Preset and parameters of each machine.
    baseline : str or None
    energy : EnergyTable
    step : int
    op : {"fprop", "dgrad", "wgrad"}
    ops : tuple of such
        All that the sweep runs.
    """

    trace: str
    trace_id: str
    machines: tuple[tuple[str, Mapping[str, Value]], ...]
    baseline: str | None
    energy: EnergyTable
    step: int
    op: OpName
    ops: tuple[OpName, ...]


@dataclass(frozen=True)
class Done:
    """What a job gives for each of its machines: rows, or why there are none."""

    rows: list[list[Row]]
    errors: list[str | None]


def work(job: Job) -> Done:
    """Simulate a job; a machine that can't run is no reason for the others not to."""
    trace = _trace(job.trace, job.trace_id)
    step = trace.step(job.step)
    machines = [machine(preset, **parameters) for preset, parameters in job.machines]
    try:
        return Done(_rows(trace, step, machines, job), [None] * len(machines))
    except SwatsimError as error:
        if len(machines) == 1:
            return Done([[]], [str(error)])
    alone = [_alone(trace, step, one, job) for one in machines]
    return Done([rows for rows, _ in alone], [error for _, error in alone])


def leave_with_parent() -> None:
    """Watch the process that started this one: without it there is nobody to work for."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _alone(
    trace: Trace, step: Step, one: ConfiguredMachine, job: Job
) -> tuple[list[Row], str | None]:
    try:
        return _rows(trace, step, [one], job)[0], None
    except SwatsimError as error:
        return [], str(error)


def _rows(
    trace: Trace, step: Step, machines: Sequence[ConfiguredMachine], job: Job
) -> list[list[Row]]:
    baseline = None if job.baseline is None else as_machine(job.baseline)
    run = Run(trace, machines, baseline, job.energy, job.ops, KEPT.read)
    layers = [layer for layer, op in step.ops() if op == job.op]
    found = [run.rows(step, layer, job.op) for layer in layers]
    return [[row for of_layer in found for row in of_layer[i]] for i in range(len(machines))]


@lru_cache(maxsize=8)
def _trace(path: str, trace_id: str) -> Trace:
    found = open_trace(path)
    if found.id != trace_id:
        raise SwatsimError(f"{path} is another trace than the sweep began with: sweep again")
    return found


class _Kept:
    """Ops that were read, with what was counted of them, while there is room."""

    def __init__(self) -> None:
        self._ops: dict[tuple[str, int, str, OpName], Op] = {}
        self._bytes = 0

    def read(self, step: Step, layer: Layer, name: OpName) -> Op:
        """Read an op, unless it is kept."""
        key = (str(step.path), step.number, layer.name, name)
        if key in self._ops:
            return self._ops[key]
        found = step.op(layer, name)
        size = sum(mask.nbytes for mask in found.operands.values())
        if self._bytes + size <= MAX_KEPT:
            self._ops[key] = found
            self._bytes += size
        return found


#: Of this process.
KEPT = _Kept()
