"""Processes of this machine that end when they are told to, or when nobody is left to tell them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from types import TracebackType
from typing import Any

#: A pool that is left in its middle is waited for so long; its processes are gone before.
LAST_SECONDS = 0.4


class Pool(ProcessPoolExecutor):
    """A pool that waits for nothing if its block is left by an error or by Ctrl-C.

    Its processes watch a pipe: when its other end closes, because the block is left or because this
    process is gone, they leave at once, whatever they do. A Ctrl-C, which a terminal sends to all
    of them, is this process's business alone.

    Parameters
    ----------
    workers : int
    """

    def __init__(self, workers: int) -> None:
        context = get_context("spawn")
        self._theirs, self._ours = context.Pipe(duplex=False)
        super().__init__(workers, context, initializer=leave_when_told, initargs=(self._theirs,))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a job; a process may be started for it."""
        with undisturbed():
            return super().submit(fn, *args, **kwargs)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            if kind is None:
                self.shutdown()
            else:
                self._ours.close()
                # in a thread: a process that leaves may leave half a result, waited for without end
                last = {"wait": True, "cancel_futures": True}
                ending = threading.Thread(target=self.shutdown, kwargs=last, daemon=True)
                ending.start()
                ending.join(LAST_SECONDS)
        finally:
            self._ours.close()
            self._theirs.close()
        return None


def leave_when_told(told: connection.Connection) -> None:
    """Watch, in a process of a pool, whether it is still wanted."""
    parent = parent_process()
    ends: list[Any] = [told] if parent is None else [told, parent.sentinel]

    def watch() -> None:
        connection.wait(ends)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Start processes that have Ctrl-C blocked from their first moment on."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
