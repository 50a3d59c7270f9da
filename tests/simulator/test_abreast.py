"""Ops on threads: in order, and no more of them at a time than their masks leave room for."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from swatsim.simulator import abreast
from swatsim.workload.layer import Layer, OpName

LAYER = Layer(name="x", kind="linear", C=10, K=20)
#: Bytes of a fprop's masks.
SIZE = 10 * 20 + 3 * 10


class Step:
    """A step of 3 samples."""

    def samples_of(self, layer: str) -> int:
        return 3


JOBS: list[Any] = [(Step(), LAYER, "fprop")] * 4


def test_an_ops_masks_are_counted_as_they_are_in_memory() -> None:
    assert abreast.bytes_of(JOBS[0]) == SIZE
    job: Any = (Step(), LAYER, "wgrad")
    assert abreast.bytes_of(job) == 3 * 10 + 3 * 20


def test_ops_run_together_as_many_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abreast, "MOST_BYTES", 2 * SIZE)
    running, most, both = [0], [0], threading.Barrier(2, timeout=20)
    lock, told = threading.Lock(), list[int]()

    def run(step: Step, layer: Layer, name: OpName) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        both.wait()  # for another that runs
        with lock:
            running[0] -= 1
        return most[0]

    found = abreast.in_order(run, JOBS, 4, lambda done, total: told.append(done))
    assert len(list(found)) == 4
    assert most == [2]
    assert told == [1, 2, 3, 4]


def test_what_is_larger_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abreast, "MOST_BYTES", SIZE // 2)
    alone = threading.Lock()

    def run(step: Step, layer: Layer, name: OpName) -> bool:
        taken = alone.acquire(blocking=False)
        threading.Event().wait(0.01)
        alone.release()
        return taken

    assert list(abreast.in_order(run, JOBS, 4, None)) == [True] * 4


def test_who_waits_for_room_does_not_begin_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abreast, "MOST_BYTES", SIZE)
    begun, go = list[int](), threading.Event()

    def run(step: Step, layer: Layer, name: OpName) -> None:
        begun.append(1)
        if len(begun) == 2:
            go.wait(20)
        raise ValueError

    with pytest.raises(ValueError, match="^$"):
        list(abreast.in_order(run, JOBS, 4, None))
    before = len(begun)
    go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(20)
    assert len(begun) == before
