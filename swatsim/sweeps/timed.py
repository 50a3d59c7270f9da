"""What an op of a sweep costs on this machine: some are drawn, and timed."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from swatsim.errors import SwatsimError
from swatsim.simulator.ahead import fitted, macs
from swatsim.simulator.machines import machine
from swatsim.simulator.run import as_machine
from swatsim.simulator.trace_run import Run
from swatsim.store import Store
from swatsim.sweeps.worker import Job
from swatsim.tracefile import Step, open_trace
from swatsim.workload.layer import Layer

#: Of each kind of machine so many ops are timed, as long as all of them took less than `BUDGET`.
TIMED = 4
BUDGET = 2.0
#: Of machines that differ in memory alone, so many are timed together, and one alone.
MACHINES = 4


class Cost(NamedTuple):
    """Seconds of an op, of each of its multiply-accumulates, and of each machine but the first."""

    each: float
    mac: float
    machine: float

    def of(self, job: Job, sizes: Sequence[int]) -> float:
        """Return the seconds of a job, whose ops have so many multiply-accumulates."""
        each = self.each + self.machine * (len(job.machines) - 1)
        return each * max(1, len(sizes)) + self.mac * sum(sizes)


class Traces:
    """Traces, each opened once, and the layers of their ops."""

    def __init__(self) -> None:
        self.open = lru_cache(maxsize=None)(open_trace)
        self._found: dict[tuple[str, int, str], list[tuple[Step, Layer]]] = {}

    def layers(self, job: Job) -> list[tuple[Step, Layer]]:
        """Return a job's layers; none of everything else."""
        key = job.trace, job.step, job.op
        if key not in self._found:
            step = self.open(job.trace).step(job.step)
            self._found[key] = [(step, layer) for layer, op in step.ops() if op == job.op]
        return self._found[key]


def measured(jobs: Sequence[Job], traces: Traces, begun: float, store: Store | None) -> Cost:
    """Return what an op costs, from the longest of a job and some that are drawn.

    Parameters
    ----------
    jobs : sequence of Job
    traces : Traces
    begun : float
        When the first op was timed, by `time.perf_counter`.
    store : Store or None
        One that has what the jobs count; None: it is counted.
    """
    points: list[tuple[int, float]] = []
    machines: list[float] = []
    drawn = random.Random(0)
    for place in range(TIMED if jobs else 0):
        job = drawn.choice(jobs)
        layers = traces.layers(job)
        chosen = max(layers, key=lambda it: macs(*it)) if place == 1 else drawn.choice(layers)
        try:
            if not points:
                _timed(job, *chosen, traces, store, 1)  # kernels load
            points.append((macs(*chosen), _timed(job, *chosen, traces, store, 1)))
            if len(job.machines) > 1:
                some = min(len(job.machines), MACHINES)
                more = _timed(job, *chosen, traces, store, some) - points[-1][1]
                machines.append(max(more, 0.0) / (some - 1))
        except SwatsimError:  # what can't be run takes no time
            continue
        if time.perf_counter() - begun > BUDGET:
            break
    return Cost(*fitted(points), sum(machines) / max(1, len(machines)))


def _timed(
    job: Job, step: Step, layer: Layer, traces: Traces, store: Store | None, number: int
) -> float:
    """Return the seconds that an op takes on some of a job's machines together."""
    machines = [machine(preset, **parameters) for preset, parameters in job.machines[:number]]
    baseline = None if job.baseline is None else as_machine(job.baseline)
    opened = traces.open(job.trace)
    run = Run(opened, machines, baseline, job.energy, job.scope, store=store)
    op: Any = job.op  # never "other" here
    begun = time.perf_counter()
    run.rows(step, layer, op)
    return time.perf_counter() - begun
