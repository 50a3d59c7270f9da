"""How long the ops of one run will take: some are run, and timed, before the others.

What they give is not thrown away, so that a forecast costs no more than that the other threads wait
meanwhile: `SHARE` of the run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from swatsim.errors import SwatsimError
from swatsim.simulator.abreast import Work
from swatsim.simulator.jobs import Job
from swatsim.store import Looked, Store
from swatsim.sweeps.timed import fitted, macs

if TYPE_CHECKING:
    from swatsim.sweeps.forecast import Forecast

#: Steps that are looked at, and of their ops those that may be timed.
STEPS, TIMED = 4, 16
#: Of a run's seconds, those that are spent on its forecast.
SHARE = 0.01
#: A run of fewer seconds has none.
FEW = 5.0

Points = list[tuple[int, float]]


def ahead(work: Work, store: Store | None) -> Forecast | None:
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
    return None if timed.seconds / work.threads < FEW else _forecast(work, timed)


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


def _forecast(work: Work, timed: _Timed) -> Forecast:
    from swatsim.sweeps.forecast import Forecast  # a moment that short runs do without

    stored = round(len(work) * timed.stored)
    return Forecast([timed.seconds], work.threads, stored, exact=False, on="thread")
