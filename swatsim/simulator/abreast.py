"""Ops on threads, in their order, and no more at a time than their masks leave room for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, islice
from math import prod
from typing import Any, NamedTuple, TypeVar

from swatsim.simulator.jobs import Job, Jobs, Some
from swatsim.workload.layer import OPERANDS_OF

#: Bytes of the masks of ops that run at a time; an op with more runs alone.
MOST_BYTES = 2**30
#: Ops that are handed out, for each thread, before what the first of them gives is taken.
AHEAD = 64

Progress = Callable[[int, int], None]
Result = TypeVar("Result")


class Work:
    """Ops that are about to run, of which some may be run before the others.

    Parameters
    ----------
    function : callable of (Step, Layer, op's name)
        Runs one.
    jobs : Jobs or sequence of job
    threads : int
    """

    def __init__(self, function: Callable[..., Any], jobs: Some, threads: int) -> None:
        self.threads = threads
        self._function, self._jobs = function, jobs
        self._done: dict[tuple[int, str, str], Any] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def some(self, steps: int) -> list[Job]:
        """Return the ops of so many steps, or all."""
        return self._jobs.some(steps) if isinstance(self._jobs, Jobs) else list(self._jobs)

    def first(self, job: Job) -> None:
        """Run an op now: what it gives is kept until its turn comes."""
        self._done[_key(job)] = self._function(*job)

    def run(self, job: Job) -> Any:
        """Return what an op gives."""
        key = _key(job)
        return self._done.pop(key) if key in self._done else self._function(*job)


Announce = Callable[[Work], None]


class Told(NamedTuple):
    """Whom a run tells how far it is, and before it begins what it is."""

    progress: Progress | None
    announce: Announce | None


def _key(job: Job) -> tuple[int, str, str]:
    step, layer, name = job
    return step.number, layer.name, name


def in_order(
    function: Callable[..., Result],
    jobs: Some,
    threads: int,
    progress: Progress | None,
    announce: Announce | None = None,
) -> Iterator[Result]:
    """Yield what a function returns for all jobs, run on some threads, in the order of the jobs.

    `announce` is told of the work before it begins.

    Not many more are handed out than threads can run, so that of many steps few are open. After an
    error or Ctrl-C nothing is waited for: what a thread is at, it ends alone.
    """
    pool, room, work = ThreadPoolExecutor(max_workers=threads), _Room(), None
    if announce:
        work = Work(function, jobs, threads)
        announce(work)

    def run(job: Job) -> Result:
        with room.taken(bytes_of(job)):
            return work.run(job) if work else function(*job)

    handed = (pool.submit(run, job) for job in jobs)
    try:
        waiting = deque(islice(handed, min(AHEAD * threads, len(jobs))))
        for done in count(1):
            if not waiting:
                return
            result = waiting.popleft().result()
            waiting.extend(islice(handed, 1))
            yield result
            if progress:
                progress(done, len(jobs))
    finally:
        room.close()
        pool.shutdown(wait=False, cancel_futures=True)


def bytes_of(job: Job) -> int:
    """Return the bytes of an op's masks, as they are in memory."""
    step, layer, name = job
    samples = step.samples_of(layer.name)
    return sum(prod(layer.shape_of(operand, samples)) for operand in OPERANDS_OF[name])


class _Room:
    """Bytes that some threads have taken, together not above `MOST_BYTES`."""

    def __init__(self) -> None:
        self._taken, self._closed, self._changed = 0, False, threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Take so many bytes while a block runs, once there are so many, or nobody has any.

        Raises
        ------
        CancelledError
            If nobody is to begin any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(size))
            if self._closed:
                raise CancelledError
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody begin any more, who waits included."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._taken or self._taken + size <= MOST_BYTES
