"""How long a sweep will take: some of its ops are run and timed before it begins.

It is an estimate: processes share a machine's memory, and the ops that are drawn are few. What the
first jobs take corrects it (`Forecast.left`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log10
from typing import Any, NamedTuple

import numpy as np

from swatsim.errors import SwatsimError
from swatsim.simulator.machines import machine
from swatsim.simulator.run import as_machine
from swatsim.simulator.trace_run import Run
from swatsim.sweeps.plan import Plan
from swatsim.sweeps.worker import Job
from swatsim.tracefile import Step, open_trace
from swatsim.workload.layer import Layer
from swatsim.workload.phases import OTHER

#: Of each kind of machine so many ops are timed, as long as all of them took less than `BUDGET`.
TIMED = 4
BUDGET = 2.0
#: Of machines that differ in memory alone, so many are timed together, and one alone.
MACHINES = 4
#: Fewer seconds are some.
SHORT = 10
#: A sweep's machines are of few kinds.
KINDS = 8


@dataclass(frozen=True)
class Forecast:
    """How long a sweep's jobs will take, at the rates of this machine.

    Parameters
    ----------
    jobs : sequence of float
        Seconds of each on one process, in their order.
    processes : int or None
        None: how many there will be is not known.
    """

    jobs: Sequence[float]
    processes: int | None

    @property
    def cpu_seconds(self) -> float:
        """Of all jobs, on one process."""
        return sum(self.jobs)

    @property
    def seconds(self) -> float:
        """Of all jobs, on all processes."""
        return self.cpu_seconds / (self.processes or 1)

    def left(self, first: int, done: int, elapsed: float) -> float:
        """Return the seconds that are left, if jobs from `first` up to `done` took so many."""
        before, after = sum(self.jobs[first:done]), sum(self.jobs[done:])
        return elapsed * after / before if before else self.seconds

    @property
    def words(self) -> str:
        """It, in words."""
        cpu = duration(self.cpu_seconds, "CPU ")
        if self.processes is None:
            return f"{cpu} at the rates of this machine"
        processes = f"{self.processes} process{'es' * (self.processes != 1)}"
        wall = f"{duration(self.seconds)} on {processes}"
        return wall if self.cpu_seconds < SHORT else f"{cpu}, {wall}"


def duration(seconds: float, of: str = "") -> str:
    """Return a time in words, as exact as a forecast is; `of`: what stands before its unit."""
    if seconds < SHORT:
        return f"some {of}seconds"
    for unit, name, above in ((1, "seconds", 0), (60, "minutes", 100), (3600, "hours", 6000)):
        if seconds >= above:
            value, word = seconds / unit, name
    rounded = round(value, 1 - int(log10(value)))
    return f"about {rounded:g} {of}{word}"


def forecast(plan: Plan, processes: int | None) -> Forecast:
    """Return how long a plan will take; of each kind of machine some ops are run here for it.

    A job computes once what its machines share, and runs the memory system of each.

    Raises
    ------
    SwatsimError
        If a trace can't be read.
    """
    jobs = [job for group in plan.groups for job in group.jobs]
    traces, begun = _Traces(), time.perf_counter()
    costs: dict[str, _Cost] = {}
    for kind in list(dict.fromkeys(map(_kind, jobs)))[:KINDS]:
        own = [job for job in jobs if _kind(job) == kind and job.op != OTHER]
        costs[kind] = _measured(own, traces, begun)
    seconds = []
    for job in jobs:
        sizes = [_macs(step, layer) for step, layer in traces.layers(job)]
        cost = costs.get(_kind(job), next(iter(costs.values())))
        each = cost.each + cost.machine * (len(job.machines) - 1)
        seconds.append(each * max(1, len(sizes)) + cost.mac * sum(sizes))
    return Forecast(seconds, processes)


class _Cost(NamedTuple):
    """Seconds of an op, of each of its multiply-accumulates, and of each machine but the first."""

    each: float
    mac: float
    machine: float


class _Traces:
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


def _kind(job: Job) -> str:
    return job.machines[0][0]


def _macs(step: Step, layer: Layer) -> int:
    kernel = layer.C // layer.groups * layer.R * layer.S
    return step.samples_of(layer.name) * layer.K * layer.P * layer.Q * kernel


def _measured(jobs: Sequence[Job], traces: _Traces, begun: float) -> _Cost:
    """Return what an op costs, from the longest of a job and some that are drawn."""
    points: list[tuple[int, float]] = []
    machines: list[float] = []
    drawn = random.Random(0)
    for place in range(TIMED if jobs else 0):
        job = drawn.choice(jobs)
        layers = traces.layers(job)
        chosen = max(layers, key=lambda it: _macs(*it)) if place == 1 else drawn.choice(layers)
        try:
            if not points:
                _timed(job, *chosen, traces, 1)  # kernels load
            points.append((_macs(*chosen), _timed(job, *chosen, traces, 1)))
            if len(job.machines) > 1:
                some = min(len(job.machines), MACHINES)
                more = _timed(job, *chosen, traces, some) - points[-1][1]
                machines.append(max(more, 0.0) / (some - 1))
        except SwatsimError:  # what can't be run takes no time
            continue
        if time.perf_counter() - begun > BUDGET:
            break
    return _Cost(*_fitted(points), sum(machines) / max(1, len(machines)))


def _fitted(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return a time of each op and one of each multiply-accumulate, neither below nothing."""
    if not points:
        return 0.0, 0.0
    macs, seconds = (np.array(column, float) for column in zip(*points, strict=True))
    if len(set(macs)) > 1:
        mac, each = np.polyfit(macs, seconds, 1)
        if each >= 0 and mac >= 0:
            return float(each), float(mac)
        if each < 0:
            return 0.0, float(seconds.sum() / macs.sum())
    return float(seconds.mean()), 0.0


def _timed(job: Job, step: Step, layer: Layer, traces: _Traces, number: int) -> float:
    """Return the seconds that an op takes on some of a job's machines together."""
    machines = [machine(preset, **parameters) for preset, parameters in job.machines[:number]]
    baseline = None if job.baseline is None else as_machine(job.baseline)
    run = Run(traces.open(job.trace), machines, baseline, job.energy, job.scope)
    op: Any = job.op  # never "other" here
    begun = time.perf_counter()
    run.rows(step, layer, op)
    return time.perf_counter() - begun
