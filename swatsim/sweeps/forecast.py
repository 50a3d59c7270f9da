"""How long a sweep will take: some of its ops are run and timed before it begins.

It is an estimate: processes share a machine's memory, and the ops that are drawn are few. What the
first jobs take corrects it (`Forecast.left`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import log10
from typing import Literal

from swatsim.simulator.ahead import macs
from swatsim.store import Store, open_store
from swatsim.sweeps.kept import kept
from swatsim.sweeps.plan import Plan
from swatsim.sweeps.timed import Cost, Traces, measured
from swatsim.sweeps.worker import Job
from swatsim.workload.phases import OTHER

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
    stored : int
        Computations that a store has already.
    exact : bool
        Whether all of them were looked up.
    on : {"process", "thread"}
        On what it runs.
    """

    jobs: Sequence[float]
    processes: int | None
    stored: int = 0
    exact: bool = True
    on: Literal["process", "thread"] = "process"

    @property
    def kept(self) -> str:
        """How many computations a store has, in words; empty: none."""
        about = "" if self.exact else "about "
        return f"{about}{self.stored} of them stored" if self.stored else ""

    @property
    def cpu_seconds(self) -> float:
        """Of all jobs, on one process."""
        return self._before[-1]

    @cached_property
    def _before(self) -> Sequence[float]:
        """Seconds of all jobs before each, and of all."""
        return [0.0, *accumulate(self.jobs)]

    def seconds_of(self, first: int, end: int) -> float:
        """Return the seconds of some jobs, on one process."""
        last = len(self._before) - 1  # a count may go on behind what was foreseen
        return self._before[min(end, last)] - self._before[min(first, last)]

    @property
    def seconds(self) -> float:
        """Of all jobs, on all processes."""
        return self.cpu_seconds / (self.processes or 1)

    def left(self, first: int, done: int, elapsed: float) -> float:
        """Return the seconds that are left, if jobs from `first` up to `done` took so many."""
        before, after = self.seconds_of(first, done), self.seconds_of(done, len(self.jobs))
        return elapsed * after / before if before else self.seconds

    @property
    def words(self) -> str:
        """It, in words."""
        cpu = duration(self.cpu_seconds, "CPU ")
        if self.processes is None:
            return f"{cpu} at the rates of this machine"
        several = "es" if self.on == "process" else "s"
        processes = f"{self.processes} {self.on}{several * (self.processes != 1)}"
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

    A job computes once what its machines share, unless its store has it, and runs the memory system
    of each.

    Raises
    ------
    SwatsimError
        If a trace can't be read.
    """
    traces, begun = Traces(), time.perf_counter()
    found = kept(plan.groups, traces)
    shares = [
        share for share, group in zip(found.shares, plan.groups, strict=True) for _ in group.jobs
    ]
    jobs = [job for group in plan.groups for job in group.jobs]
    seconds = [0.0] * len(jobs)
    for are_kept in (False, True):
        weights = [share if are_kept else 1 - share for share in shares]
        some = [job for job, weight in zip(jobs, weights, strict=True) if weight]
        store = open_store(some[0].store) if are_kept and some else None
        costs = _costs(some, traces, begun, store)
        for i, (job, weight) in enumerate(zip(jobs, weights, strict=True)):
            if weight and costs:
                sizes = [macs(step, layer) for step, layer in traces.layers(job)]
                cost = costs.get(_kind(job), next(iter(costs.values())))
                seconds[i] += weight * cost.of(job, sizes)
    return Forecast(seconds, processes, found.computations, found.exact)


def _costs(
    jobs: Sequence[Job], traces: Traces, begun: float, store: Store | None
) -> dict[str, Cost]:
    """Return what an op costs on each kind of machine."""
    costs: dict[str, Cost] = {}
    for kind in list(dict.fromkeys(map(_kind, jobs)))[:KINDS]:
        own = [job for job in jobs if _kind(job) == kind and job.op != OTHER]
        costs[kind] = measured(own, traces, begun, store)
    return costs


def _kind(job: Job) -> str:
    return job.machines[0][0]
