"""Slurm, through submitit, as an executor: whatever it submits to, jobs that are lost come back."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from swatsim.errors import ConfigError, unknown
from swatsim.simulator.run import threads_of

if TYPE_CHECKING:
    import submitit

log = logging.getLogger(__name__)

#: Of a sweep's folder: what is submitted, and what each job of Slurm prints.
FOLDER = "slurm"
#: A job of Slurm that nobody gave a time has so many minutes; submitit gives 5.
MINUTES = 60
#: Tasks that an array has at most; Slurm's own default is one more.
ARRAY = 1000
#: Whether a result is there is looked after so often; the queue is asked less often.
POLL_SECONDS, QUEUE_SECONDS = 0.2, 5.0
#: A job that is gone from the queue has so long until its result shows on a shared disk.
LOST_SECONDS = 15.0
#: How often a job that ended without a result is submitted.
TRIES = 3
#: Commands of Slurm answer within so long, or not at all.
ANSWER_SECONDS = 30
#: Cancelling what is left takes less, if Slurm is there.
LAST_SECONDS = 0.5
#: The state of a job that is not in the queue.
GONE = ""


@dataclass(eq=False)
class _Task:
    """What is to be run, who waits for it, and the job that runs it, once it is submitted."""

    function: Callable[[], Any]
    future: Future[Any]
    job: Any = None
    tries: int = 0
    #: When it was first missed.
    gone: float | None = None


class Submitted(Executor):
    """What submitit submits to, as an executor of `concurrent.futures`.

    What is submitted at about the same time becomes one array. A job that ends without a result,
    for it was killed, its node failed or its memory ended, is submitted again, `TRIES` times in
    all. Slurm may run a job again itself, under its own number: the result is that of either.

    Parameters
    ----------
    executor : submitit.Executor
    """

    def __init__(self, executor: submitit.Executor) -> None:
        self._executor = executor
        self._new: deque[_Task] = deque()
        self._running: list[_Task] = []
        self._asked, self._queue = float("-inf"), dict[str, str]()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def most(self) -> int:
        """How many tasks it should have at a time: of jobs on this machine, one a core."""
        import submitit  # this object has one of its executors

        where = getattr(self._executor, "cluster", "")
        is_slurm = where == "slurm" or isinstance(self._executor, submitit.SlurmExecutor)
        return ARRAY if is_slurm else threads_of(None)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of a function without arguments, which is submitted at the next look.

        What submitit asks for a checkpoint, when the job's time is nearly over, is that function.
        """
        assert not args, "it has none"
        assert not kwargs, "it has none"
        task = _Task(fn, Future())
        self._new.append(task)
        return task.future

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._closed.set()
        self._thread.join(LAST_SECONDS)
        return None

    def _serve(self) -> None:
        """Submit what is new and look after what runs, until closed; then cancel what is left."""
        while not self._closed.wait(POLL_SECONDS):
            try:
                self._submit()
                self._look()
            except Exception as error:  # noqa: BLE001  (it is anybody's: submitit, Slurm, a disk)
                text = str(error).strip() or type(error).__name__
                broken = BrokenExecutor(f"submitit: {text.splitlines()[-1]}")
                for task in (*self._new, *self._running):
                    _settle(task, broken)
                break
        self._cancel([task.job for task in self._running])

    def _submit(self) -> None:
        tasks = [self._new.popleft() for _ in range(min(len(self._new), ARRAY))]
        tasks = [task for task in tasks if not task.future.cancelled()]
        if not tasks:
            return
        self._running += tasks  # before: an error concerns them, too
        jobs = self._executor.submit_array([task.function for task in tasks])
        for task, job in zip(tasks, jobs, strict=True):
            task.job, task.gone = job, None
            task.tries += 1

    def _look(self) -> None:
        """Hand over results that are there, and miss what is gone without one."""
        cancelled = [task for task in self._running if task.future.cancelled()]
        self._cancel([task.job for task in cancelled])
        queue = self._states()
        for task in list(self._running):
            if task in cancelled or self._is_over(task, _state(task.job, queue)):
                self._running.remove(task)

    def _is_over(self, task: _Task, state: str | None) -> bool:
        """Whether a task is not looked after any more: it gave something, or is submitted again."""
        if state == "RUNNING" and not task.future.running():
            task.future.set_running_or_notify_cancel()
        if task.job.paths.result_pickle.exists() and (_is_slurm(task.job) or state == GONE):
            _give(task)
            return True
        if state != GONE:
            task.gone = None if state else task.gone
            return False
        task.gone = task.gone or time.monotonic()
        if time.monotonic() - task.gone < LOST_SECONDS:
            return False
        self._lost(task)
        return True

    def _lost(self, task: _Task) -> None:
        """Submit a task again, or give up."""
        words = f"job {task.job.job_id} ended without a result ({_last_words(task.job)})"
        if task.tries < TRIES:
            log.warning("%s: it is submitted again", words)
            self._new.append(task)
        else:
            _settle(task, RuntimeError(f"{words}, {TRIES} times"))

    def _states(self) -> Mapping[str, str] | None:
        """Return the state of each job in Slurm's queue; None if there is no new answer.

        Not by `sacct`, which submitit asks: that needs a data base, which small clusters lack.
        """
        slurm = any(_is_slurm(task.job) for task in self._running)
        if not slurm or time.monotonic() - self._asked < QUEUE_SECONDS:
            return None
        self._asked = time.monotonic()
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i %T"]
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
        if found.returncode:
            log.warning("squeue: %s", found.stderr.strip())
            return None
        return dict(line.split(maxsplit=1) for line in found.stdout.splitlines())

    def _cancel(self, jobs: Iterable[Any]) -> None:
        """Cancel jobs that wait or run."""
        slurm = [job.job_id for job in jobs if _is_slurm(job)]
        if slurm:
            with suppress(OSError, subprocess.SubprocessError):
                subprocess.run(["scancel", "--quiet", *slurm], timeout=ANSWER_SECONDS, check=False)
        for job in jobs:
            if job is not None and not _is_slurm(job):
                job.cancel()


def _is_slurm(job: Any) -> bool:
    return type(job).__name__ == "SlurmJob"


def _state(job: Any, queue: Mapping[str, str] | None) -> str | None:
    """Return a job's state in Slurm's words, or `GONE`; None: it was not asked for now."""
    if not _is_slurm(job):
        return GONE if job.done() else "RUNNING"
    return None if queue is None else queue.get(job.job_id, GONE)


def _give(task: _Task) -> None:
    """Hand a task's result or error to who waits for it; what was pickled for it is not kept."""
    try:
        outcome = task.job.result()
    except Exception as error:  # noqa: BLE001  (whatever a job may end by)
        told = [line for line in str(error).splitlines() if line.strip(" -")]
        words = next((line for line in reversed(told) if "Error: " in line), type(error).__name__)
        outcome = RuntimeError(f"job {task.job.job_id}: {words.strip()}")
    _settle(task, outcome)
    for path in (task.job.paths.result_pickle, task.job.paths.submitted_pickle):
        with suppress(OSError):
            path.unlink()


def _settle(task: _Task, outcome: object) -> None:
    """Hand an outcome to who waits for it, if anybody still does."""
    with suppress(InvalidStateError):
        if isinstance(outcome, Exception):
            task.future.set_exception(outcome)
        else:
            task.future.set_result(outcome)


def _last_words(job: Any) -> str:
    """Return the last line that a job printed, and where the others are."""
    with suppress(OSError):
        lines = job.paths.stderr.read_text(errors="replace").splitlines()
        if lines:
            return f"{lines[-1].strip()}; {job.paths.stderr}"
    return f"see {job.paths.stderr}"


def is_submitit(value: object) -> bool:
    """Whether an object is one of submitit's executors; it is not imported for that."""
    module = sys.modules.get("submitit")
    return module is not None and isinstance(value, module.Executor)


def slurm(folder: Path, parameters: Mapping[str, Any]) -> submitit.Executor:
    """Return submitit's executor for Slurm.

    Parameters
    ----------
    folder : pathlib.Path
        Of the sweep, on a disk that all nodes share.
    parameters : mapping
        As submitit calls those of `sbatch`: partition, time (minutes), mem, cpus_per_task.

    Raises
    ------
    ConfigError
        If submitit or Slurm is missing, or there is no such parameter.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError(
            "--slurm needs the package submitit: pip install swatsim[slurm]"
        ) from None
    try:
        executor = submitit.SlurmExecutor(folder / FOLDER)
    except RuntimeError:
        raise ConfigError(
            "--slurm: there is no srun: run it where jobs are submitted from, or without --slurm"
        ) from None
    try:
        executor.update_parameters(**{"job_name": "swatsim", "time": MINUTES, **parameters})
    except ValueError as error:
        raise ConfigError(f"--slurm: {_refusal(str(error), parameters)}") from None
    return executor


def _refusal(text: str, parameters: Mapping[str, Any]) -> str:
    """Return in a line what submitit refuses, which lists what it knows with all defaults."""
    known = re.findall(r"- (\w+) \(default", text)
    wrong = [name for name in parameters if name not in known]
    if known and wrong:
        return unknown("parameter", wrong[0], known)
    return " ".join(text.split())
