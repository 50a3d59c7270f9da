"""A pool of processes of this machine that is never waited for when it is not wanted any more."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from types import TracebackType
from typing import Any

from swatsim.signals import undisturbed

#: What is left of a pool that was left in its middle is waited for so long.
LAST_SECONDS = 0.4


class _Spawn(SpawnContext):
    """Starts processes, and knows them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        """Return a new process, as a pool asks for it."""
        self.started.append(SpawnProcess(*args, **kwargs))
        return self.started[-1]


class Pool(ProcessPoolExecutor):
    """A pool whose processes are killed if its block is left by an error or by Ctrl-C.

    They leave by themselves when this process is gone. A Ctrl-C, which a terminal sends to all of
    them, is this process's business alone.

    Parameters
    ----------
    workers : int
    """

    def __init__(self, workers: int) -> None:
        self._context = _Spawn()
        super().__init__(workers, self._context, initializer=leave_with_parent)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of a job, submitted; a process may be started for it."""
        with undisturbed():
            return super().submit(fn, *args, **kwargs)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if kind is None:
            self.shutdown()
            return None
        for process in self._context.started:
            if process.pid is not None:
                process.kill()
        # in a thread: one that is killed may leave half a result, which is waited for without end
        last = {"wait": True, "cancel_futures": True}
        ending = threading.Thread(target=self.shutdown, kwargs=last, daemon=True)
        ending.start()
        ending.join(LAST_SECONDS)
        return None


def leave_with_parent() -> None:
    """Watch the process that started this one: without it there is nobody to work for."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
