"""Run a sweep: what is not finished yet, on any executor."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from contextlib import closing
from pathlib import Path
from typing import Any

from swatsim import provenance
from swatsim.arguments import (
    arguments,
    either,
    flag,
    function,
    instance_of,
    mapping,
    maybe,
    path_like,
    whole_number,
)
from swatsim.columns import Role
from swatsim.errors import ConfigError, SwatsimError
from swatsim.outputs import SWEEP
from swatsim.results import Results, as_csv
from swatsim.sealed import seal
from swatsim.simulator.run import WHERE, threads_of
from swatsim.simulator.sizes import Sums
from swatsim.simulator.systems import Row
from swatsim.store import Where, open_store
from swatsim.sweeps.cluster import Cluster
from swatsim.sweeps.plan import Group, Plan, make_plan
from swatsim.sweeps.pool import Pool
from swatsim.sweeps.spec import Point, Spec, read_spec
from swatsim.sweeps.store import Store
from swatsim.sweeps.summary import Summary, numbers, summarise
from swatsim.sweeps.worker import Done, place_of, work

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

#: Jobs that wait in an executor, for each of its workers; more would only take memory.
WAITING = 4
#: How often a pool whose worker died is started anew.
RESTARTS = 3
#: A cluster that gave nothing for so long is asked whether it is there.
QUIET_SECONDS = 10


@arguments(
    ConfigError,
    spec=either(path_like, mapping, instance_of(Spec)),
    output=path_like,
    overwrite=flag,
    executor=maybe(instance_of(Executor)),
    workers=maybe(whole_number),
    progress=maybe(function),
    announce=maybe(function),
    store=WHERE,
)
def sweep(
    spec: str | os.PathLike[str] | Mapping[str, Any] | Spec,
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    announce: Callable[[Plan], None] | None = None,
    store: Where = True,
) -> Summary:
    """Simulate every point of a sweep that is not finished yet.

    A point that is finished is on disk as a whole, and never done again; one that fails is
    recorded with its error, tried again next time, and does not stop the others.

    Parameters
    ----------
    spec : path, mapping or Spec
        A TOML file, or its entries.
    output : path
        Folder of the sweep.
    overwrite : bool
        Simulate points that are finished anew, too, each of which is replaced when it is done.
    executor : concurrent.futures.Executor, optional
        Where to run: Dask's `Client.get_executor()`, for example. Its workers must see the traces
        under the same paths. By default a pool of processes on this machine, each of which imports
        the script that starts it: there it is called below ``if __name__ == "__main__":``.
    workers : int, optional
        Processes of that pool; one a core by default.
    progress : callable of (int, int), optional
        Told how many of how many jobs are done.
    announce : callable of Plan, optional
        Told what is to do, before it starts.
    store : bool, path or str
        As in `swatsim.simulate`; an executor's workers must see a folder under the same path.

    Raises
    ------
    ConfigError
        If the specification is not allowed.
    TraceError
        If no trace can be opened; points of one that can't, among others that can, fail.
    ResultsError
        If the folder can't be written to.
    """
    processes = threads_of(workers)
    chosen, folder, counts = _spec(spec), Store(Path(output)), open_store(store)
    plan = make_plan(chosen, folder, overwrite)
    plan.store_in(False if counts is None else counts.place)
    if announce:
        announce(plan)
    with folder.open():
        _run(plan, folder, executor, processes, progress)
        for key, point, error in plan.impossible:
            folder.fail(key, _about(point, error))
        summary = summarise(folder, plan.points)
        folder.publish(_files(chosen, summary))
    return summary


def _files(spec: Spec, summary: Summary) -> dict[str, bytes]:
    index = {
        "spec": spec.model_dump(mode="json", by_alias=True),
        "points": summary.rows,
        "warnings": summary.warnings,
        "provenance": provenance.collect({}),
    }
    return {SWEEP: seal(index, indent=1), "summary.csv": as_csv(summary.rows)}


def look(
    spec: str | os.PathLike[str] | Mapping[str, Any] | Spec, output: str | os.PathLike[str]
) -> Plan:
    """Return what a sweep would do, without doing it; raises what `sweep` does."""
    return make_plan(_spec(spec), Store(Path(output)))


def _spec(spec: str | os.PathLike[str] | Mapping[str, Any] | Spec) -> Spec:
    if isinstance(spec, Spec):
        return spec
    return Spec(**spec) if isinstance(spec, Mapping) else read_spec(spec)


# ---- running it ----------------------------------------------------------------------------------


def _run(
    plan: Plan,
    store: Store,
    executor: Executor | None,
    workers: int,
    progress: Progress | None,
) -> None:
    """Run all jobs; a group whose jobs are all done is written at once."""
    pending = [(group, i) for group in plan.groups for i in range(len(group.jobs))]
    total = len(pending)
    if not total:
        return
    # closed whatever happens: a pool that is left alone leaves its workers behind
    with closing(_completed(pending, executor, workers)) as outcomes:
        for count, ((group, i), outcome) in enumerate(outcomes, start=1):
            group.done[i] = outcome
            if len(group.done) == len(group.jobs):
                _finish(group, store)
            if progress:
                progress(count, total)
    gc.collect()  # the pool's semaphores, which the command line would not wait for


Task = tuple[Group, int]


def _completed(
    pending: list[Task], executor: Executor | None, workers: int
) -> Generator[tuple[Task, Done], None, None]:
    """Yield each job's outcome as it comes; a pool of our own is started anew if a worker dies."""
    if executor is not None:
        try:
            yield from _through(executor, pending, 64)
        except BrokenExecutor as error:
            raise ConfigError(
                f"the executor broke ({error}): run the sweep again to go on"
            ) from None
        return
    for attempt in range(RESTARTS + 1):
        try:
            with Pool(workers) as pool:
                yield from _through(pool, pending, WAITING * workers)
        except BrokenExecutor as error:
            log.warning("a worker died (%s): %d jobs are left", error, len(pending))
        if not pending:
            return
        if attempt == RESTARTS:
            for task in list(pending):
                yield task, _failed(task, "a worker died each time: too little memory?")


def _through(executor: Executor, pending: list[Task], waiting: int) -> Iterator[tuple[Task, Done]]:
    """Yield outcomes from an executor that is kept busy; finished tasks leave `pending`."""
    queue = iter(list(pending))
    running: dict[Future[Done], Task] = {}
    while True:
        for task in queue:
            running[executor.submit(work, task[0].jobs[task[1]])] = task
            if len(running) >= waiting:
                break
        if not running:
            return
        for future in _finished(executor, running):
            try:
                outcome = _outcome(future, running[future])
            except BrokenExecutor:
                # one of these took its worker down: the others come first, next time
                for task in running.values():
                    pending.remove(task)
                    pending.append(task)
                raise
            task = running.pop(future)
            pending.remove(task)
            yield task, outcome


def _finished(executor: Executor, running: Mapping[Future[Done], Task]) -> set[Future[Done]]:
    """Return the jobs that finish next; waits as long as there is somebody to do them."""
    while True:
        finished, _ = wait(running, timeout=QUIET_SECONDS, return_when=FIRST_COMPLETED)
        if finished:
            return finished
        if isinstance(executor, Cluster):
            executor.check()


def _outcome(future: Future[Done], task: Task) -> Done:
    try:
        return future.result()
    except BrokenExecutor:
        raise
    except CancelledError:  # not by us: Dask does it when it has lost its scheduler
        raise BrokenExecutor("it cancelled its jobs: is its scheduler gone?") from None
    except SwatsimError as error:
        return _failed(task, str(error))
    except Exception as error:  # noqa: BLE001  (whatever an executor raises for a lost worker)
        return _failed(task, f"{type(error).__name__}: {error}")


def _failed(task: Task, error: str) -> Done:
    machines = len(task[0].points)
    return Done([[] for _ in range(machines)], [error] * machines)


def _finish(group: Group, store: Store) -> None:
    """Write the points of a group whose jobs are all done."""
    place = {name: i for i, name in enumerate(group.layers)}
    for i, (key, point) in enumerate(group.points):
        errors = [done.errors[i] for done in group.done.values() if done.errors[i]]
        if errors:
            store.fail(key, _about(point, errors[0]))
            continue
        rows: list[Row] = [row for done in group.done.values() for row in done.rows[i]]
        mine = {row["machine"] for row in rows if row["role"] == Role.MACHINE}
        assert mine == {point.label}, f"{mine} were simulated for {point.label}"
        rows.sort(key=lambda row: place_of(row, place))
        results = Results(rows, provenance.collect(group.resolved[i]))
        try:
            Sums().add(rows)
        except ConfigError as error:
            store.fail(key, _about(point, str(error)))
            continue
        store.save(key, results, numbers(results))
    group.done.clear()


def _about(point: Point, error: str | None) -> dict[str, Any]:
    return {
        "error": error,
        "trace": point.trace,
        "machine": point.label,
        "preset": point.preset,
        "parameters": dict(point.parameters),
    }
