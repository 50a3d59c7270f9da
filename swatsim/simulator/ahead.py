"""How long the ops of one run will take: some are run, and timed, before the others.

What they give is not thrown away, so that a forecast costs no more than that the other threads wait
meanwhile: `SHARE` of the run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from swatsim.errors import SwatsimError
from swatsim.simulator.abreast import Work
from swatsim.simulator.jobs import Job
from swatsim.store import Looked, Store
from swatsim.tracefile import Step
from swatsim.workload.flops import macs_dense
from swatsim.workload.layer import Layer

#: Steps that are looked at, and of their ops those that may be timed.
STEPS, TIMED = 4, 16
#: Of a run's seconds, those that are spent on its forecast.
SHARE = 0.01
#: A run of fewer seconds has none.
FEW = 5.0

Points = list[tuple[int, float]]


class Ahead(NamedTuple):
    """Seconds that some work takes on one thread, and how many of its ops a store has."""

    seconds: float
    stored: int


def ahead(work: Work, store: Store | None) -> Ahead | None:
    """Return how long some work will take; None: a few seconds, or nobody knows.

    Parameters
    ----------
    work : Work
        Of its ops some are timed.
    store : Store or None
        Where the work looks for what it counts: ops that are there are told from others.
    """
    jobs = work.some(STEPS)
    sizes = [macs(step, layer) for step, layer, _ in jobs]
    timed = _Timed(work, store, sizes)
    smallest, *others = _drawn(sizes, SHARE * sum(sizes) * len(work) / len(jobs))
    timed.add(jobs[smallest], sizes[smallest])
    if others:
        timed.forget()  # kernels were loaded
    for place in others:
        timed.add(jobs[place], sizes[place])
        if timed.spent > SHARE * timed.seconds:
            break
    if timed.seconds / work.threads < FEW:
        return None
    return Ahead(timed.seconds, round(len(work) * timed.stored))


def _drawn(sizes: Sequence[int], most: float) -> list[int]:
    """Return which ops may be timed: the smallest, then some that are not too large by themselves.

    Where all are, the next.
    """
    first, *others = sorted(range(len(sizes)), key=sizes.__getitem__)
    small = [place for place in others if sizes[place] <= most] or others[:1]
    return [first, *random.Random(0).sample(small, min(len(small), TIMED - 1))]


class _Timed:
    """Ops that were timed: those that were counted, and those that a store had."""

    def __init__(self, work: Work, store: Store | None, sizes: Sequence[int]) -> None:
        self._work, self._store, self._sizes = work, store, sizes
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._counted, self._stored, self.spent = Points(), Points(), 0.0

    def add(self, job: Job, size: int) -> None:
        """Run an op, unless it is refused: it will be when its turn comes."""
        before, begun = self._looked, time.perf_counter()
        with suppress(SwatsimError):
            self._work.first(job)
            taken, looked = time.perf_counter() - begun, self._looked.plus(before, -1)
            is_stored = looked.stored == looked.counts > 0
            (self._stored if is_stored else self._counted).append((size, taken))
            self.spent += taken

    @property
    def stored(self) -> float:
        """Which share of the ops a store has."""
        return len(self._stored) / max(1, len(self._counted) + len(self._stored))

    @property
    def seconds(self) -> float:
        """Of the whole work on one thread, if as many are stored as of those that were timed."""
        found = 0.0
        for share, points in ((self.stored, self._stored), (1 - self.stored, self._counted)):
            each, mac = fitted(points)
            found += share * (each * len(self._sizes) + mac * sum(self._sizes))
        return found * len(self._work) / len(self._sizes)

    @property
    def _looked(self) -> Looked:
        return Looked() if self._store is None else self._store.looked


def macs(step: Step, layer: Layer) -> int:
    """Return the multiply-accumulates of a layer's op."""
    return macs_dense(layer, step.samples_of(layer.name))


def fitted(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return a time of each op and one of each multiply-accumulate, neither below nothing."""
    if not points:
        return 0.0, 0.0
    sizes, seconds = (np.array(column, float) for column in zip(*points, strict=True))
    if len(set(sizes)) > 1:
        mac, each = np.polyfit(sizes, seconds, 1)
        if each >= 0 and mac >= 0:
            return float(each), float(mac)
        if each < 0:
            return 0.0, float(seconds.sum() / sizes.sum())
    return float(seconds.mean()), 0.0
