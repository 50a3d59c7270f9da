"""Which computations of a sweep are in a store already: a few ops of each are looked up."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from swatsim.simulator.ahead import macs
from swatsim.simulator.machines import machine
from swatsim.simulator.runnable import storing
from swatsim.store import Store, open_store
from swatsim.sweeps.plan import Group
from swatsim.sweeps.timed import Traces
from swatsim.sweeps.worker import Job
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.phases import OTHER

#: So long is looked, at computations that are drawn; of the others it is estimated.
SECONDS = 1.0


class Kept(NamedTuple):
    """Of each group of a sweep the share of its jobs that is stored; whether all were looked at."""

    shares: Sequence[float]
    exact: bool = True

    @property
    def computations(self) -> int:
        """Groups that are stored, all of them."""
        return sum(share == 1 for share in self.shares)


def kept(groups: Sequence[Group], traces: Traces) -> Kept:
    """Return what a store has of some groups: the smallest op of their first and last job."""
    where = groups[0].jobs[0].store if groups else False
    store, begun = open_store(where), time.perf_counter()
    if store is None:
        return Kept([0.0] * len(groups))
    look, found = _Look(store, traces), dict[int, float]()
    for i in random.Random(0).sample(range(len(groups)), len(groups)):
        found[i] = look.share(groups[i])
        if time.perf_counter() - begun > SECONDS:
            break
    typical = sorted(found.values())[len(found) // 2]
    return Kept([found.get(i, typical) for i in range(len(groups))], len(found) == len(groups))


class _Look:
    """Looks jobs up; the ops that they share are read once."""

    def __init__(self, store: Store, traces: Traces) -> None:
        self._store, self._traces = store, traces
        self._ops: dict[tuple[str, int, str, bool], LoweredOp | None] = {}

    def share(self, group: Group) -> float:
        jobs = [job for job in group.jobs if job.op != OTHER]
        some = [jobs[0], jobs[-1]] if len(jobs) > 1 else jobs
        return sum(map(self._has, some)) / max(1, len(some))

    def _has(self, job: Job) -> bool:
        preset, parameters = job.machines[0]
        op = self._op(job)
        return op is not None and storing(machine(preset, **parameters), self._store).is_kept(op)

    def _op(self, job: Job) -> LoweredOp | None:
        key = job.trace, job.step, job.op, job.scope.dense_outputs
        if key not in self._ops:
            self._ops[key] = self._read(job)
        return self._ops[key]

    def _read(self, job: Job) -> LoweredOp | None:
        layers = self._traces.layers(job)
        if not layers or job.op == OTHER:
            return None
        step, layer = min(layers, key=lambda it: macs(*it))
        op = step.op(layer, job.op)
        return lower(op.of_all_outputs() if job.scope.dense_outputs else op)
