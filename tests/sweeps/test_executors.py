"""Workers of each executor are killed: the results are those of a run that nobody disturbed.

A pool of the sweep's own and Dask are in `test_sweep.py`.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit

import swatsim
from swatsim.errors import ConfigError
from swatsim.sweeps import dispatch, slurm
from swatsim.sweeps.dispatch import Means, completed, pieces
from swatsim.sweeps.plan import Group
from swatsim.sweeps.slurm import Submitted
from swatsim.sweeps.task import Task
from swatsim.sweeps.worker import Done
from swatsim.workload.layer import Layer
from tests.sweeps.test_sweep import Here, command_of, points
from tests.traces import make_trace, wait_until

#: Of a machine in closed form: no kernels of one are loaded.
MACHINES = [{"preset": "scale-sim-ws", "grid": {"rows": [4, 8], "dram": ["hbm2", "ddr4-3200"]}}]
LAYERS = (Layer(name="fc", kind="linear", C=24, K=16),)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    trace = make_trace(tmp_path_factory.mktemp("executors") / "t", layers=LAYERS)
    return {"traces": [str(trace.path)], "machines": MACHINES}


@pytest.fixture(scope="module")
def undisturbed(
    spec: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Any]]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    return out, swatsim.sweep(spec, out, executor=Here()).rows


def descendants(pid: int) -> list[int]:
    """Return the processes that any thread of a process started, and those below them."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found + [below for child in found for below in descendants(child)]


def killing(of: str) -> Callable[[], list[int]]:
    """Kill the first process below this one in whose command some words are."""
    killed: list[int] = []

    def look() -> None:
        while not killed:
            for pid in descendants(os.getpid()):
                if of in command_of(pid):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
            time.sleep(0.005)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    return lambda: killed


# ---- submitit ------------------------------------------------------------------------------------


def test_a_job_of_submitit_that_is_killed_is_submitted_again(
    spec: dict[str, Any],
    undisturbed: tuple[Path, list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(slurm, "LOST_SECONDS", 0.0)
    killed = killing("submitit.core._submit")
    executor = submitit.LocalExecutor(tmp_path / "out" / "slurm")
    rows = swatsim.sweep(spec, tmp_path / "out", executor=executor, workers=1).rows
    assert killed()
    assert "ended without a result" in caplog.text
    assert "submitted again" in caplog.text
    assert rows == undisturbed[1]
    assert points(tmp_path / "out") == points(undisturbed[0])
    jobs = [path.name for path in (tmp_path / "out" / "slurm").glob("*_log.out")]
    assert len(jobs) == 3, "a computation a task, and one of them twice"
    assert not list((tmp_path / "out" / "slurm").glob("*_result.pkl"))


class Job:
    """A job of submitit's as far as it is looked after; it ends when told to."""

    def __init__(self, folder: Path, name: str, give: Any = None) -> None:
        self.job_id, self.give, self.cancelled = name, give, False
        self.paths = SimpleNamespace(
            **{it: folder / f"{name}_{it}" for it in ("result_pickle", "submitted_pickle")},
            stderr=folder / f"{name}_log.err",
        )

    def done(self) -> bool:
        return True

    def cancel(self) -> None:
        self.cancelled = True

    def result(self) -> Any:
        if isinstance(self.give, Exception):
            raise self.give
        return self.give


SlurmJob = type("SlurmJob", (Job,), {})


class Submits:
    """An executor of submitit's that hands out given jobs."""

    def __init__(self, *jobs: Any) -> None:
        self.jobs = list(jobs)

    def submit_array(self, functions: list[Any]) -> list[Any]:
        if not self.jobs:
            raise RuntimeError("sbatch: error: invalid partition specified: none")
        return [self.jobs.pop(0) for _ in functions]


def submitted(*jobs: Any) -> Any:
    return Submitted(Submits(*jobs))  # type: ignore[arg-type]


def test_a_job_that_never_gives_a_result_fails_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "LOST_SECONDS", 0.0)
    lost = [Job(tmp_path, str(number)) for number in range(slurm.TRIES)]
    lost[-1].paths.stderr.write_text("begun\nslurmstepd: CANCELLED DUE TO TIME LIMIT\n")
    failed = Job(tmp_path, "8", RuntimeError("trace:\nImportError: no module\n----\n"))
    failed.paths.result_pickle.touch()
    with submitted(failed) as one, submitted(*lost) as two:
        with pytest.raises(RuntimeError, match="^job 8: ImportError: no module$"):
            one.submit(print).result(timeout=20)
        with pytest.raises(RuntimeError, match="without a result .slurmstepd.*LIMIT.*, 3 times"):
            two.submit(print).result(timeout=20)


def test_jobs_are_looked_for_in_the_queue_of_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.0)
    monkeypatch.setattr(slurm, "LOST_SECONDS", 0.0)
    queue = ["7_1 PENDING\n9 RUNNING\n"]
    commands: list[list[str]] = []

    def answered(command: list[str], **_: Any) -> Any:
        commands.append(command)
        return SimpleNamespace(returncode=0, stdout=queue[0], stderr="")

    monkeypatch.setattr(subprocess, "run", answered)
    jobs = [SlurmJob(tmp_path, name, "it") for name in ("7_1", "9", "again")]
    with submitted(*jobs) as executor:
        waits, runs = executor.submit(print), executor.submit(print)
        wait_until(runs.running)
        assert not waits.running()
        assert waits.cancel()
        wait_until(lambda: ["scancel", "--quiet", "7_1"] in commands)
        queue[0] = "again RUNNING\n"  # 9 is gone, and is submitted again
        wait_until(lambda: not executor._executor.jobs)
        jobs[-1].paths.result_pickle.touch()
        assert runs.result(timeout=20) == "it"
        with pytest.raises(BrokenExecutor, match="submitit: sbatch: error: invalid partition"):
            executor.submit(print).result(timeout=20)


def test_what_slurm_is_told_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: -1))
    with pytest.raises(ConfigError, match="there is no srun"):
        slurm.slurm(tmp_path, {})
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    with pytest.raises(ConfigError, match="unknown parameter 'partitio': did you mean 'partition'"):
        slurm.slurm(tmp_path, {"partitio": "cpu"})
    executor = slurm.slurm(tmp_path, {"time": 7, "partition": "cpu"})
    assert executor.parameters == {"job_name": "swatsim", "time": 7, "partition": "cpu"}
    assert Submitted(executor).most == slurm.ARRAY


def test_a_task_whose_time_is_over_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    worked: list[Any] = []

    def work(job: Any) -> Done:
        worked.append(job.step)
        if job.step == 2:
            raise ZeroDivisionError("here")
        return Done([[]], [None])

    monkeypatch.setattr("swatsim.sweeps.task.work", work)
    jobs: Any = tuple(
        SimpleNamespace(step=step, machines=("one",), store=False) for step in range(3)
    )
    task = Task(jobs, [Done([[]], [None], "from before")])
    again = pickle.loads(pickle.dumps(task.checkpoint())).function
    found = again()
    assert worked == [1, 2]
    assert [done.log.partition(" ")[0] for done in found[:1]] == ["from"]
    assert found[2].errors == ["ZeroDivisionError: here"]
    assert "Traceback" in found[2].log


# ---- concurrent.futures --------------------------------------------------------------------------


def test_a_process_pool_that_is_killed_is_one_line_and_the_next_goes_on(
    spec: dict[str, Any], undisturbed: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    with ProcessPoolExecutor(1, dispatch.Pool(1)._mp_context) as pool:
        killed = killing("spawn_main")
        with pytest.raises(ConfigError, match="the executor broke .*run the sweep again"):
            swatsim.sweep(spec, tmp_path / "out", executor=pool)
    assert killed()
    # whatever it had done, on another one
    rows = swatsim.sweep(spec, tmp_path / "out", executor=Here()).rows
    assert rows == undisturbed[1]
    assert points(tmp_path / "out") == points(undisturbed[0])


# ---- parts, time and logs ------------------------------------------------------------------------


def test_parts_of_a_sweep_are_the_whole(
    spec: dict[str, Any], undisturbed: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    out, here = tmp_path / "out", [Here(), Here()]
    first = swatsim.sweep(spec, out, executor=here[0], shard=(1, 2))
    assert [row["status"] for row in first.rows] == ["done", "done", "left", "left"]
    assert len(first.left) == 2
    assert not (out / "sweep.json").exists(), "not before all is done"
    assert "4 points, 2 done, 0 failed, 2 left" in repr(first)
    assert swatsim.sweep(spec, out, executor=here[0], shard=(1, 2)).rows == first.rows
    rows = swatsim.sweep(spec, out, executor=here[1], shard=[2, 2]).rows
    assert rows == undisturbed[1]
    assert (out / "sweep.json").exists()
    for one in here:
        assert len(one.jobs) == 2 * 3, "each computes its own, once"
        assert {len(job.machines) for job in one.jobs} == {2}, "on both memories"


class Late(Here):
    """An executor on which time is up when the first job is done."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if len(self.jobs) < 1:
            return super().submit(fn)
        self.jobs += fn.jobs
        self.last: Future[Any] = Future()
        return self.last


def test_when_time_is_up_nothing_is_begun(
    spec: dict[str, Any],
    undisturbed: tuple[Path, list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("swatsim.sweeps.run.time.monotonic", lambda: now[0])

    def progress(done: int, total: int) -> None:
        now[0] += 1200.0

    here = Here()
    left = swatsim.sweep(
        spec, tmp_path / "out", executor=here, workers=1, max_hours=0.5, progress=progress
    )
    assert [row["status"] for row in left.rows] == ["done", "done", "left", "left"]
    assert len(here.jobs) == 2 * 3, "what was begun is finished, and nothing else"
    assert not (tmp_path / "out" / "sweep.json").exists()
    rows = swatsim.sweep(spec, tmp_path / "out", executor=here).rows
    assert rows == undisturbed[1]
    assert len(here.jobs) == 2 * 2 * 3


def test_what_waits_when_time_is_up_is_taken_back() -> None:
    class Queues(Executor):
        def __init__(self) -> None:
            self.futures: list[Future[Any]] = []

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            self.futures.append(Future())
            return self.futures[-1]

    job: Any = SimpleNamespace(machines=("one",))
    groups = [Group([], [job] * 3, [], [], []) for _ in range(3)]
    queues, until = Queues(), time.monotonic() + 0.2
    pending = pieces(groups, None)
    outcomes = completed(pending, Means(queues, 5, until))

    def finish() -> None:
        begun = queues.futures[0]
        begun.set_running_or_notify_cancel()
        time.sleep(0.4)
        for future in queues.futures:
            if not future.cancelled() and not future.done():
                future.set_result([Done([[]], [None])])

    threading.Thread(target=lambda: (time.sleep(0.05), finish())).start()
    done = [piece for piece, _ in outcomes]
    assert {id(piece.group) for piece in done} == {id(groups[0])}
    assert [future.cancelled() for future in queues.futures] == [False] * 3 + [True] * 2
    assert len(pending) == 6


def test_groups_are_cut_into_as_many_pieces_as_are_asked_for() -> None:
    job: Any = SimpleNamespace(machines=("one",))
    groups = [Group([], [job] * 5, [], [], []) for _ in range(2)]
    for tasks, sizes in ((None, [1] * 10), (1, [5, 5]), (4, [2, 3, 2, 3]), (99, [1] * 10)):
        assert [len(piece.places) for piece in pieces(groups, tasks)] == sizes


def test_each_point_has_a_log(spec: dict[str, Any], tmp_path: Path) -> None:
    class Fails(Here):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if fn.jobs[0].op == "dgrad" and fn.jobs[0].step == 7:
                future: Future[Any] = Future()
                future.set_exception(OSError("the node is on fire"))
                return future
            return super().submit(fn)

    rows = swatsim.sweep(spec, tmp_path / "out", executor=Fails()).rows
    assert {row["status"] for row in rows} == {"failed"}
    logs = {path.stem: path.read_text() for path in (tmp_path / "out" / "logs").iterdir()}
    assert set(logs) == {row["point"] for row in rows}
    for text in logs.values():
        assert len(text.splitlines()) == 2 * 3
        assert f" s on {os.uname().nodename}, process {os.getpid()}" in text
        assert "step 7 dgrad: OSError: the node is on fire" in text
