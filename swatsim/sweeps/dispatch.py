"""Handing a sweep's jobs to an executor, as many as it wants, until they are done or time is up."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, inf

from swatsim.errors import ConfigError, SwatsimError
from swatsim.sweeps.cluster import Cluster
from swatsim.sweeps.plan import Group
from swatsim.sweeps.pool import Pool
from swatsim.sweeps.slurm import Submitted
from swatsim.sweeps.task import Task, failed
from swatsim.sweeps.worker import Done

log = logging.getLogger(__name__)

#: Jobs that wait in a pool, for each of its workers; more would only take memory.
WAITING = 4
#: The same of an executor that says nothing of its workers.
WAITING_ELSEWHERE = 64
#: How often a pool whose worker died before it gave anything is started anew, with all jobs.
RESTARTS = 3
#: Then a job has a pool for itself, so often: it fails if it is that one that takes workers down.
ALONE = 2
#: An executor that gave nothing for so long is asked whether it is there, and what time it is.
QUIET_SECONDS = 10


@dataclass(frozen=True, eq=False)
class Piece:
    """Some jobs of a group, by their places: they run in one task."""

    group: Group
    places: range

    @property
    def task(self) -> Task:
        """The task, from its beginning."""
        return Task(tuple(self.group.jobs[place] for place in self.places))

    def failed(self, error: str) -> list[Done]:
        """Return what its jobs give if the task is lost."""
        return [failed(job, error, error) for job in self.task.jobs]


def pieces(groups: Sequence[Group], tasks: int | None) -> list[Piece]:
    """Cut groups into pieces.

    Parameters
    ----------
    groups : sequence of Group
    tasks : int or None
        At least so many, if there are so many jobs, and no more than that needs: whole groups if
        there are enough of them. None: each job is one.
    """
    found = []
    for group in groups:
        jobs = len(group.jobs)
        cuts = jobs if tasks is None else min(jobs, ceil(tasks / len(groups)))
        edges = [jobs * i // cuts for i in range(cuts + 1)]
        found += [Piece(group, range(*pair)) for pair in pairwise(edges)]
    return found


@dataclass(frozen=True)
class Means:
    """On what a sweep runs.

    Parameters
    ----------
    executor : concurrent.futures.Executor or None
        None: a pool of processes.
    workers : int or None
        Processes of that pool, or tasks that an executor has at a time.
    until : float
        In seconds of `time.monotonic`: when no computation is begun any more.
    """

    executor: Executor | None
    workers: int | None
    until: float = inf

    @property
    def late(self) -> bool:
        """Whether no computation is to be begun any more."""
        return time.monotonic() >= self.until

    @property
    def tasks(self) -> int | None:
        """As `pieces` has it: what is submitted to Slurm takes long to begin, so it is large."""
        return self.workers or 1 if isinstance(self.executor, Submitted) else None

    @property
    def waiting(self) -> int:
        """How many tasks are handed out at a time."""
        if self.executor is None:
            return WAITING * (self.workers or 1)
        if self.workers:
            return self.workers
        most = self.executor.most if isinstance(self.executor, Submitted) else None
        return most or WAITING_ELSEWHERE


def completed(
    pending: list[Piece], means: Means
) -> Generator[tuple[Piece, list[Done]], None, None]:
    """Yield each piece's outcome as it comes; what is left in `pending` was not begun.

    A pool of our own is started anew if a worker dies.

    Raises
    ------
    ConfigError
        If an executor broke.
    """
    if means.executor is not None:
        try:
            yield from _through(means.executor, pending, means)
        except BrokenExecutor as error:
            raise ConfigError(
                f"the executor broke ({error}): run the sweep again to go on"
            ) from None
        return
    yield from _through_pools(pending, means)


def _through_pools(
    pending: list[Piece], means: Means
) -> Generator[tuple[Piece, list[Done]], None, None]:
    """Yield outcomes from pools of our own, each in place of one that a worker's death broke."""
    in_vain = 0
    while pending:
        before = len(pending)
        try:
            with Pool(means.workers or 1) as pool:
                yield from _through(pool, pending, means)
                return
        except BrokenExecutor as error:
            log.warning("a worker died (%s): %d jobs are left", error, len(pending))
        in_vain = 0 if len(pending) < before else in_vain + 1
        if in_vain > RESTARTS:
            yield from _alone(pending, means)


def _alone(pending: list[Piece], means: Means) -> Iterator[tuple[Piece, list[Done]]]:
    """Yield the outcome of the first piece, in a pool for itself; of all where no worker lives."""
    first, lives = pending[0], False
    for _ in range(ALONE):
        try:
            with Pool(1) as pool:
                pool.submit(os.getpid).result()
                lives = True
                for outcome in _through(pool, [first], means):
                    pending.remove(first)
                    yield outcome
                return
        except BrokenExecutor:
            continue
    for piece in [first] if lives else list(pending):
        pending.remove(piece)
        yield piece, piece.failed("a worker died each time: too little memory?")


Running = dict[Future[list[Done]], Piece]


def _through(
    executor: Executor, pending: list[Piece], means: Means
) -> Iterator[tuple[Piece, list[Done]]]:
    """Yield outcomes from an executor that is kept busy; finished pieces leave `pending`."""
    queue, running, stopped = list(reversed(pending)), Running(), False
    while True:
        if means.late and not stopped:
            queue += _withdraw(running)
            stopped = True
        if stopped:  # what is computed in part is finished, and nothing else begun
            begun = {id(piece.group) for piece in running.values()}
            queue = [piece for piece in queue if id(piece.group) in begun or piece.group.done]
        while queue and len(running) < means.waiting:
            piece = queue.pop()
            running[executor.submit(piece.task)] = piece
        if not running:
            return
        for future in _finished(executor, running, means):
            try:
                outcome = _outcome(future, running[future])
            except BrokenExecutor:
                # one of these took its worker down: the others come first, next time
                for piece in running.values():
                    pending.remove(piece)
                    pending.append(piece)
                raise
            piece = running.pop(future)
            pending.remove(piece)
            yield piece, outcome


def _withdraw(running: Running) -> list[Piece]:
    """Take back what waits of computations of which nothing has begun."""
    begun = {
        id(piece.group)
        for future, piece in running.items()
        if piece.group.done or future.running() or future.done()
    }
    waiting = [future for future, piece in running.items() if id(piece.group) not in begun]
    return [running.pop(future) for future in waiting if future.cancel()]


def _finished(executor: Executor, running: Running, means: Means) -> set[Future[list[Done]]]:
    """Return what finishes next; none when time is up meanwhile.

    It waits as long as there is somebody to do it.
    """
    while True:
        was_late = means.late
        left = inf if was_late else means.until - time.monotonic()
        finished, _ = wait(running, min(QUIET_SECONDS, max(left, 0)), FIRST_COMPLETED)
        if finished or means.late != was_late:
            return finished
        if isinstance(executor, Cluster):
            executor.check()


def _outcome(future: Future[list[Done]], piece: Piece) -> list[Done]:
    try:
        return future.result()
    except BrokenExecutor:
        raise
    except CancelledError:  # not by us: Dask does it when it has lost its scheduler
        raise BrokenExecutor("it cancelled its jobs: is its scheduler gone?") from None
    except SwatsimError as error:
        return piece.failed(str(error))
    except Exception as error:  # noqa: BLE001  (whatever an executor raises for a lost worker)
        return piece.failed(f"{type(error).__name__}: {error}")
