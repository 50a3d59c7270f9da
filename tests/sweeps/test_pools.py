"""Workers of a sweep's own pool die: however often, only jobs that take them down fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from types import SimpleNamespace
from typing import Any

import pytest

from swatsim.sweeps import dispatch
from swatsim.sweeps.dispatch import Means, completed, pieces
from swatsim.sweeps.plan import Group
from swatsim.sweeps.worker import Done

JOBS = 24


class Mortal(Executor):
    """A pool that breaks at the first job whose `ends` is False, and is broken from then on."""

    started = 0

    def __init__(self, workers: int) -> None:
        Mortal.started += 1
        self.broken = False

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.broken = self.broken or not self.ends(fn)
        if self.broken:
            future.set_exception(BrokenExecutor("it died"))
        else:
            future.set_result([Done([[]], [None])])
        return future

    def ends(self, fn: Any) -> bool:
        return fn is os.getpid or bool(next(fn.jobs[0].ends))


def always(ends: bool) -> Iterator[bool]:
    while True:
        yield ends


def outcomes_of(ends: list[Iterator[bool]]) -> dict[int, str | None]:
    jobs: list[Any] = [SimpleNamespace(machines=("one",), ends=it) for it in ends]
    pending = pieces([Group([], jobs, [], [], [])], None)
    outcomes = [(piece.places[0], done) for piece, done in completed(pending, Means(None, 2))]
    assert not pending
    assert sorted(place for place, _ in outcomes) == list(range(len(ends)))
    return {place: done[0].errors[0] for place, done in outcomes}


@pytest.fixture(autouse=True)
def pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "Pool", Mortal)
    monkeypatch.setattr(Mortal, "started", 0)


@pytest.mark.parametrize("deadly", [{0}, {0, 1, 2, 3, 4}, {1, 6, 11, 16, 21}, {23}, set(range(24))])
def test_jobs_that_take_workers_down_fail_and_no_other(deadly: set[int]) -> None:
    errors = outcomes_of([always(i not in deadly) for i in range(JOBS)])
    assert {place for place, error in errors.items() if error} == deadly
    assert all("too little memory?" in str(errors[place]) for place in deadly)


@pytest.mark.parametrize("every", [1, 2, 5])
def test_workers_that_are_killed_now_and_then_cost_no_job(every: int) -> None:
    def killed_once(i: int) -> Iterator[bool]:
        if i % every == 0:
            yield False
        yield from always(True)

    assert set(outcomes_of([killed_once(i) for i in range(JOBS)]).values()) == {None}
    assert Mortal.started > dispatch.RESTARTS


def test_where_no_worker_lives_all_fail_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mortal, "ends", lambda self, fn: False)
    errors = outcomes_of([always(True) for _ in range(JOBS)])
    assert None not in errors.values()
    assert Mortal.started == 1 + dispatch.RESTARTS + dispatch.ALONE
