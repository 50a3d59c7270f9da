"""Run a sweep: what is not finished yet, on any executor."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swatsim import provenance
from swatsim.arguments import (
    arguments,
    either,
    exact,
    flag,
    function,
    instance_of,
    mapping,
    maybe,
    path_like,
    several,
    whole_number,
)
from swatsim.columns import Role
from swatsim.errors import ConfigError
from swatsim.outputs import SWEEP
from swatsim.results import Results, as_csv
from swatsim.sealed import seal
from swatsim.simulator.run import WHERE, threads_of
from swatsim.store import Looked, Where, open_store
from swatsim.sweeps.dispatch import Means, completed, pieces
from swatsim.sweeps.logs import Logs
from swatsim.sweeps.plan import WHOLE, Group, Plan, Shard, make_plan
from swatsim.sweeps.slurm import Submitted, is_submitit
from swatsim.sweeps.spec import Point, Spec, read_spec
from swatsim.sweeps.store import Store
from swatsim.sweeps.summary import Summary, numbers, summarise
from swatsim.table import column_of, where

if TYPE_CHECKING:
    import submitit

Progress = Callable[[int, int], None]
#: Longer than anybody waits for.
MOST_HOURS = 1e6
Source = str | os.PathLike[str] | Mapping[str, Any] | Spec


def _an_executor(value: Any) -> Any:
    """Allow an executor of `concurrent.futures`, or of submitit."""
    if not isinstance(value, Executor) and not is_submitit(value):
        raise ValueError("must be an Executor of concurrent.futures or submitit")
    return value


def _hours(value: Any) -> float:
    """Allow a number of hours."""
    known: Fraction | float = exact(value)
    hours = float(known) if known < MOST_HOURS else MOST_HOURS
    if hours <= 0:
        raise ValueError("must be a number above 0")
    return hours


def _shard(value: Any) -> Shard:
    """Allow (3, 8): the third of eight parts."""
    numbers = several(whole_number, "the part, from 1, and of how many, such as (3, 8)")(value)
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise ValueError("must be the part, from 1, and of how many, such as (3, 8)")
    return Shard(*numbers)


@arguments(
    ConfigError,
    spec=either(path_like, mapping, instance_of(Spec)),
    output=path_like,
    overwrite=flag,
    executor=maybe(_an_executor),
    workers=maybe(whole_number),
    max_hours=maybe(_hours),
    shard=maybe(_shard),
    progress=maybe(function),
    announce=maybe(function),
    store=WHERE,
)
def sweep(
    spec: Source,
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    executor: Executor | submitit.Executor | None = None,
    workers: int | None = None,
    max_hours: float | None = None,
    shard: tuple[int, int] | None = None,
    progress: Progress | None = None,
    announce: Callable[[Plan], None] | None = None,
    store: Where = True,
) -> Summary:
    """Simulate every point of a sweep that is not finished yet; its folder has a log of each.

    A point that is finished is on disk as a whole, and never done again; one that fails is
    recorded with its error, tried again next time, and does not stop the others.

    Parameters
    ----------
    spec : path, mapping or Spec
        A TOML file, or its entries.
    output : path
        Folder of the sweep. Its index (sweep.json) is written when no point is left.
    overwrite : bool
        Simulate points that are finished anew, too, each of which is replaced when it is done.
    executor : concurrent.futures.Executor or submitit.Executor, optional
        Where to run: Dask's `Client.get_executor()`, for example, whose workers see the same paths.
        By default processes here, which a script starts below ``if __name__ == "__main__":``.
    workers : int, optional
        Processes of that pool, one a core by default; tasks that an executor has at a time.
    max_hours : float, optional
        After so long no point is begun any more, and what was begun is finished.
    shard : (int, int), optional
        ``(3, 8)``: the third of eight parts alone. Parts may run at once, anywhere, on one folder.
    progress, announce : callable of (int, int), callable of Plan, optional
        Told how many of how many jobs are done; before it starts, what is to do.
    store : bool, path or str
        As in `swatsim.simulate`.

    Returns
    -------
    Summary
        A row a point; `Summary.frame` is a pandas frame.

    Raises
    ------
    ConfigError
        If the specification is not allowed, or an executor broke.
    TraceError, ResultsError
        If no trace can be opened (of some that can't, points fail), or the folder not written to.
    """
    until = inf if max_hours is None else time.monotonic() + 3600 * max_hours
    chosen, folder, processes = _spec(spec), Store(Path(output)), threads_of(workers)
    plan = _planned(chosen, folder, overwrite, shard, store)
    if announce:
        announce(plan)
    with folder.open(alone=shard is None), _running(executor) as runs:
        found = _run(plan, folder, Means(runs, workers if runs else processes, until), progress)
        return replace(_concluded(chosen, plan, folder), looked=found)


def _planned(
    spec: Spec, folder: Store, anew: bool, shard: tuple[int, int] | None, store: Where
) -> Plan:
    """Return what is to do, with where its jobs keep what they count."""
    counts, plan = open_store(store), make_plan(spec, folder, anew, _part(shard))
    plan.store_in(False if counts is None else counts.place)
    return plan


def _concluded(spec: Spec, plan: Plan, store: Store) -> Summary:
    """Return a sweep's summary; its index is written if no point is left."""
    for key, point, error in plan.impossible:
        store.fail(key, _about(point, error))
    if plan.elsewhere:
        store.refresh()
    summary = summarise(store, plan.points)
    if not summary.left:
        store.publish(_files(spec, summary))
    return summary


def _part(shard: tuple[int, int] | None) -> Shard:
    return WHOLE if shard is None else Shard(*shard)


def _running(
    executor: Executor | submitit.Executor | None,
) -> AbstractContextManager[Executor | None]:
    """Return an executor of `concurrent.futures`; one that is made here ends with its block."""
    if executor is None or isinstance(executor, Executor):
        return nullcontext(executor)
    return Submitted(executor)


def _files(spec: Spec, summary: Summary) -> dict[str, bytes]:
    index = {
        "spec": spec.model_dump(mode="json", by_alias=True),
        "points": summary.rows,
        "warnings": summary.warnings,
        "provenance": provenance.collect({}),
    }
    return {SWEEP: seal(index, indent=1), "summary.csv": as_csv(summary.rows)}


def look(
    spec: Source,
    output: str | os.PathLike[str],
    shard: tuple[int, int] | None = None,
    store: Where = True,
) -> Plan:
    """Return what a sweep would do, without doing it; raises what `sweep` does."""
    return _planned(_spec(spec), Store(Path(output)), False, shard, store)


def _spec(spec: Source) -> Spec:
    if isinstance(spec, Spec):
        return spec
    return Spec(**spec) if isinstance(spec, Mapping) else read_spec(spec)


# ---- running it ----------------------------------------------------------------------------------


def _run(plan: Plan, store: Store, means: Means, progress: Progress | None) -> Looked:
    """Run all jobs; a group whose jobs are all done is written at once.

    Returns what they looked for in the store of counts.
    """
    pending = pieces(plan.groups, means.tasks)
    total, count, logs = sum(len(group.jobs) for group in plan.groups), 0, Logs(store.folder)
    found = Looked()
    if not total:
        return found
    # closed whatever happens: a pool that is left alone leaves its workers behind
    with closing(completed(pending, means)) as outcomes:
        for piece, outcome in outcomes:
            group, keys = piece.group, [key for key, _ in piece.group.points]
            for place, done in zip(piece.places, outcome, strict=True):
                job, found = group.jobs[place], found.plus(done.looked)
                group.add(place, done)
                logs.add(keys, f"step {job.step} {job.op}: {done.log}")
            count += len(piece.places)
            if len(group.done) == len(group.jobs):
                _finish(group, store)
            if progress:
                progress(count, total)
    gc.collect()  # the pool's semaphores, which the command line would not wait for
    return found


def _finish(group: Group, store: Store) -> None:
    """Write the points of a group whose jobs are all done."""
    rows, errors = group.outcome.rows(), group.outcome.errors
    for i, (key, point) in enumerate(group.points):
        if errors[i]:
            store.fail(key, _about(point, errors[i]))
            continue
        mine = {*column_of(where(rows[i], "role", lambda it: it == Role.MACHINE), "machine")}
        assert mine == {point.label}, f"{mine} were simulated for {point.label}"
        results = Results(rows[i], provenance.collect(group.resolved[i]))
        store.save(key, results, numbers(results))
    group.clear()


def _about(point: Point, error: str | None) -> dict[str, Any]:
    return {
        "error": error,
        "trace": point.trace,
        "machine": point.label,
        "preset": point.preset,
        "parameters": dict(point.parameters),
    }
