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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swatsim import provenance
from swatsim.arguments import (
    arguments,
    either,
    function,
    instance_of,
    mapping,
    maybe,
    path_like,
    whole_number,
)
from swatsim.columns import Role
from swatsim.errors import ConfigError, SwatsimError
from swatsim.results import Results, as_csv
from swatsim.sealed import seal
from swatsim.simulator.energy.table import EnergyTable, energy_table
from swatsim.simulator.memory.dram import Dram
from swatsim.simulator.run import as_machine, checked, threads_of
from swatsim.simulator.sizes import Sums
from swatsim.simulator.systems import Row
from swatsim.simulator.trace_run import Run
from swatsim.sweeps.cluster import Cluster
from swatsim.sweeps.pool import Pool
from swatsim.sweeps.spec import Point, Spec, read_spec
from swatsim.sweeps.store import INDEX, Store
from swatsim.sweeps.summary import Summary, numbers, summarise
from swatsim.sweeps.worker import SOURCES, Done, Job, drams_of, place_of, work
from swatsim.tracefile import Trace, covered, open_trace
from swatsim.workload.layer import OPS
from swatsim.workload.phases import OTHER

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

#: Jobs that wait in an executor, for each of its workers; more would only take memory.
WAITING = 4
#: How often a pool whose worker died is started anew.
RESTARTS = 3
#: A cluster that gave nothing for so long is asked whether it is there.
QUIET_SECONDS = 10


@dataclass
class Group:
    """Points that differ in nothing but memory: what they share is computed once.

    `done` has, for each job that is done, its rows for each point.
    """

    points: list[tuple[str, Point]]
    jobs: list[Job]
    resolved: list[dict[str, Any]]
    layers: list[str]
    drams: list[Dram]
    done: dict[int, Done] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All points, in order; those to do by what they share; and those that can't be, with why."""

    points: list[tuple[str, Point]]
    groups: list[Group]
    impossible: list[tuple[str, Point, str]]

    def words(self) -> str:
        """Return the plan's counts, in words."""
        to_do = sum(len(group.points) for group in self.groups)
        done = len(self.points) - to_do - len(self.impossible)
        parts = [f"{len(self.points)} points", f"{done} finished before", f"{to_do} to do"]
        parts.append(f"{len(self.groups)} different computations")
        if self.impossible:
            parts.append(f"{len(self.impossible)} that no machine can be")
        return ", ".join(parts)


@arguments(
    ConfigError,
    spec=either(path_like, mapping, instance_of(Spec)),
    output=path_like,
    executor=maybe(instance_of(Executor)),
    workers=maybe(whole_number),
    progress=maybe(function),
    announce=maybe(function),
)
def sweep(
    spec: str | os.PathLike[str] | Mapping[str, Any] | Spec,
    output: str | os.PathLike[str],
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    announce: Callable[[Plan], None] | None = None,
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
    executor : concurrent.futures.Executor, optional
        Where to run: Dask's `Client.get_executor()`, for example. Its workers must see the traces
        under the same paths. By default a pool of processes on this machine.
    workers : int, optional
        Processes of that pool; one a core by default.
    progress : callable of (int, int), optional
        Told how many of how many jobs are done.
    announce : callable of Plan, optional
        Told what is to do, before it starts.

    Returns
    -------
    Summary
        A row a point; `Summary.frame` is a pandas frame.

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
    chosen, store = _spec(spec), Store(Path(output))
    plan = make_plan(chosen, store)
    if announce:
        announce(plan)
    with store.open():
        _run(plan, store, executor, processes, progress)
        for key, point, error in plan.impossible:
            store.fail(key, _about(point, error))
        summary = summarise(store, plan.points)
        store.publish(_files(chosen, summary))
    return summary


def _files(spec: Spec, summary: Summary) -> dict[str, bytes]:
    index = {
        "spec": spec.model_dump(mode="json", by_alias=True),
        "points": summary.rows,
        "warnings": summary.warnings,
        "provenance": provenance.collect({}),
    }
    return {INDEX: seal(index, indent=1), "summary.csv": as_csv(summary.rows)}


def look(
    spec: str | os.PathLike[str] | Mapping[str, Any] | Spec, output: str | os.PathLike[str]
) -> Plan:
    """Return what a sweep would do, without doing it; raises what `sweep` does."""
    return make_plan(_spec(spec), Store(Path(output)))


def _spec(spec: str | os.PathLike[str] | Mapping[str, Any] | Spec) -> Spec:
    if isinstance(spec, Spec):
        return spec
    return Spec(**spec) if isinstance(spec, Mapping) else read_spec(spec)


# ---- what is to do -------------------------------------------------------------------------------


def make_plan(spec: Spec, store: Store) -> Plan:
    """Return the points sorted: finished, impossible, and the rest by what they share."""
    table = energy_table(spec.energy)
    traces = {path: _opened(path, spec) for path in spec.traces}
    opened = {path: trace for path, trace in traces.items() if isinstance(trace, Trace)}
    if not opened:
        raise next(error for error in traces.values() if isinstance(error, SwatsimError))
    shares = {path: covered.describe(it, spec.steps or it.steps) for path, it in opened.items()}
    baseline = None if spec.baseline is None else as_machine(spec.baseline)
    plan = Plan([], [], [])
    groups: dict[str, Group] = {}
    for point in spec.points():
        trace = traces[point.trace]
        try:
            if isinstance(trace, SwatsimError):
                raise trace
            run = Run(trace, [point.machine()], baseline, table, spec.scope)
        except SwatsimError as error:
            key = Store.key({"trace": point.trace, "label": point.label})
            plan.points.append((key, point))
            plan.impossible.append((key, point, str(error)))
            continue
        share = shares[point.trace]
        resolved = checked(run.describe(run.machines[0], share, spec.steps))
        resolved |= {"steps": spec.steps, "ops": spec.ops, "sources": SOURCES}
        key = Store.key(resolved)
        plan.points.append((key, point))
        if store.is_done(key):
            continue
        group = groups.setdefault(point.computation(), Group([], [], [], [], []))
        group.points.append((key, point))
        group.resolved.append(resolved)
        group.drams.extend(drams_of(run.machines))
    for group in groups.values():
        group.drams.extend(drams_of([baseline]))
        _add_jobs(group, spec, table, opened[group.points[0][1].trace])
    plan.groups.extend(groups.values())
    return plan


def _opened(path: str, spec: Spec) -> Trace | SwatsimError:
    """Return a trace and the steps to run, opened; a damaged one does not stop the others."""
    try:
        trace = open_trace(path)
        steps = trace.steps if spec.steps is None else spec.steps
        there = {op for number in steps for _, op in trace.step(number).ops()}
        wanted = spec.ops or OPS
        if not there & set(wanted):
            raise ConfigError(
                f"{path} holds none of the ops {', '.join(wanted)} with both masks: choose other "
                "steps or ops"
            )
    except SwatsimError as error:
        return error
    return trace


def _add_jobs(group: Group, spec: Spec, table: EnergyTable, trace: Trace) -> None:
    """Cut a group into its steps and ops."""
    first = group.points[0][1]
    machines = tuple((point.preset, point.parameters) for _, point in group.points)
    group.layers.extend(layer.name for layer in trace.manifest.layers)
    for number in trace.steps if spec.steps is None else spec.steps:
        there = {op for _, op in trace.step(number).ops()}
        counted = () if group.resolved[0]["others_left_out"] else (OTHER,)
        for op in (*(op for op in spec.ops or OPS if op in there), *counted):
            where = first.trace, trace.id, machines
            drams = tuple(group.drams)
            group.jobs.append(Job(*where, spec.baseline, table, number, op, spec.scope, drams))


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
