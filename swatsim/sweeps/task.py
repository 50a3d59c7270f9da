"""What an executor is handed: jobs of one computation, one after another, and what is logged."""

from __future__ import annotations

import os
import socket
import time
import traceback
from dataclasses import dataclass, field, replace
from typing import Any

from swatsim.errors import SwatsimError
from swatsim.sweeps.worker import Done, Job, looked_by, work


@dataclass
class Task:
    """Some jobs of one computation; called, it returns what each of them gives.

    It depends on nothing but its jobs, and a worker writes no file of a sweep: killed anywhere and
    run again, it gives the same.

    Parameters
    ----------
    jobs : tuple of Job
    done : list of Done
        Of the first of them, in their order. A task that goes on has them already.
    """

    jobs: tuple[Job, ...]
    done: list[Done] = field(default_factory=list)

    def __call__(self) -> list[Done]:
        """Return what each job gives; those that are done already are not done again."""
        for job in self.jobs[len(self.done) :]:
            self.done.append(attempt(job))
        return self.done

    def checkpoint(self) -> Any:
        """Return what submitit submits in its place when its time is nearly over: the rest."""
        from submitit.helpers import DelayedSubmission  # only submitit asks

        return DelayedSubmission(self)


def attempt(job: Job) -> Done:
    """Return what a job gives, whatever it raises, and for its log how long it took and where."""
    begun, before = time.perf_counter(), looked_by(job)
    try:
        done = work(job)
    except SwatsimError as error:
        done = failed(job, str(error))
    except Exception as error:  # noqa: BLE001  (a fault of one job is not the others')
        done = failed(job, f"{type(error).__name__}: {error}", traceback.format_exc())
    took = f"{time.perf_counter() - begun:.3f} s on {_where()}"
    errors = dict.fromkeys(f"\n{error}" for error in done.errors if error)
    log = "".join([took, *errors, f"\n{done.log}" if done.log else ""])
    return replace(done, log=log, looked=looked_by(job).plus(before, -1))


def failed(job: Job, error: str, log: str = "") -> Done:
    """Return what a job gives that failed, on each of its machines alike."""
    return Done([[] for _ in job.machines], [error] * len(job.machines), log)


def _where() -> str:
    """Return which process this is, and of which job of Slurm."""
    parts = [socket.gethostname(), f"process {os.getpid()}"]
    if slurm := os.environ.get("SLURM_JOB_ID"):
        parts.append(f"Slurm job {slurm}")
    return ", ".join(parts)
