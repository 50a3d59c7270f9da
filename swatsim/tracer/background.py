"""A step written by a thread of its own, so that training waits neither for zstd nor for a disk.

A program that ends without closing anything loses no step that it had ended: what is still to be
written is waited for at exit. A forked child writes nothing of its parent's.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias
from weakref import WeakSet

from swatsim.errors import TraceError
from swatsim.tracefile.codec import Bytes
from swatsim.tracefile.coverage import Coverage
from swatsim.tracefile.others import OtherWork
from swatsim.tracefile.schema import StepLayer
from swatsim.tracefile.step import Key, StepWriter

Task: TypeAlias = Callable[[], object]

#: Packed masks that may wait to be written; more, and the training waits. One alone may be larger.
QUEUE_BYTES = 64 * 2**20
#: So many wait before the thread begins with them: it and the training take turns in Python, and
#: each turn costs. The end of the step ends the waiting.
WAKE_BYTES = 2**20


class BackgroundStep:
    """Hands a step's masks to a thread that writes them; at most `QUEUE_BYTES` are on their way.

    Nothing is raised here: what goes wrong, on the disk or in the thread, ends the step, removes
    what was written of it, and lets what still comes fall.

    Parameters
    ----------
    step : StepWriter
    failed : callable of TraceError, optional
        Called in the thread when it goes wrong, before `wait` returns.

    Attributes
    ----------
    error : TraceError or None
        What went wrong.
    over : bool
        Whether the step is whole, failed or abandoned: nothing that comes is written any more.
    most_bytes : int
        The most bytes of masks that were on their way at a time.
    """

    def __init__(
        self, step: StepWriter, failed: Callable[[TraceError], object] | None = None
    ) -> None:
        self.error: TraceError | None = None
        self.over = False
        self.most_bytes = 0
        self._step = step
        self._failed = failed
        self._changed = threading.Condition()
        self._tasks: deque[tuple[Task, int]] = deque()
        self._bytes = 0
        self._sealed = self._awake = False
        self._thread: threading.Thread | None = None
        _STEPS.add(self)

    def add(
        self,
        keys: Sequence[Key],
        shape: tuple[int, ...],
        packed: Bytes,
        dtype: str | None = None,
    ) -> None:
        """Queue one mask to be written; waits while too many bytes are on their way.

        One that comes when the step is to be published, or is over, is dropped.
        """
        self._put(partial(self._step.add, keys, shape, packed, dtype), packed.nbytes)

    def publish(
        self,
        before: Task,
        batch_size: int,
        layers: Sequence[StepLayer],
        notes: Mapping[str, Any],
        coverage: Coverage | None,
        others: tuple[OtherWork, ...] | None,
    ) -> None:
        """Queue the making of the step's file, and return at once.

        Parameters
        ----------
        before : callable
            Called in the thread before the file is made.
        batch_size : int
        layers : sequence of StepLayer
        notes : mapping
        coverage : Coverage or None
        others : tuple of OtherWork, or None
        """
        with self._changed:
            self._put(before, 0)
            told = (batch_size, layers, notes, coverage, others)
            self._put(partial(self._step.publish, *told), 0)
            self._seal()

    def abandon(self) -> None:
        """Abandon the step: when this returns, nothing of it is on disk."""
        with self._changed:
            self._tasks.clear()
        self._seal()
        self.wait()

    def wait(self) -> None:
        """Wait until the step is whole, failed or abandoned."""
        with self._changed:
            while not self.over:
                self._changed.wait()

    def settle(self) -> None:
        """End with the program: a step that was ended becomes whole, another is given up."""
        if self._is_shut:
            self.wait()
        else:
            self.abandon()

    def forget(self) -> None:
        """Leave the step to the parent, in a forked child, where there is no thread.

        Whatever held the lock is the parent's too.
        """
        self._changed = threading.Condition()
        self._tasks.clear()
        self.over = True
        self._step.forget()

    @property
    def _is_shut(self) -> bool:
        return self._sealed or self.over

    def _put(self, task: Task, size: int) -> None:
        with self._changed:
            while size and self._bytes and self._bytes + size > QUEUE_BYTES and not self._is_shut:
                if self._awake:
                    self._changed.wait()
                else:  # which may end the step: look again before waiting
                    self._wake()
            if self._is_shut:  # a gradient that comes after the step's end is not of its file
                return
            self._tasks.append((task, size))
            self._bytes += size
            self.most_bytes = max(self.most_bytes, self._bytes)
            if self._bytes >= WAKE_BYTES or not size:
                self._wake()

    def _wake(self) -> None:
        if not self._awake:
            self._start()
            self._awake = True
            self._changed.notify_all()

    def _seal(self) -> None:
        with self._changed:
            self._sealed = True
            self.over = self.over or self._thread is None
            self._changed.notify_all()

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._run, name="swatsim-step", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system has no more threads
            self._fail(error)
            self._end()

    def _run(self) -> None:
        try:
            while self._work():
                pass
        except BaseException as error:  # noqa: BLE001  (nobody else would ever hear of it)
            self._fail(error)
        finally:
            self._end()

    def _work(self) -> bool:
        """Wait for a task and do it; its bytes count until then. Return False if no more come."""
        with self._changed:
            while not self._sealed and not (self._tasks and self._awake):
                self._awake = self._awake and bool(self._tasks)
                self._changed.wait()
            if not self._tasks:
                return False
            task, size = self._tasks.popleft()
        task()
        with self._changed:
            self._bytes -= size
            self._changed.notify_all()
        return True

    def _fail(self, error: BaseException) -> None:
        self._step.discard()
        if not isinstance(error, TraceError):
            error = TraceError(
                f"can't write {self._step.path}: {type(error).__name__}: {error}; what was "
                "written before is whole. Record without this step, or report it"
            )
        error.__context__ = None  # frames of either hold masks
        self.error = error.with_traceback(None)
        if self._failed is not None:
            self._failed(error)

    def _end(self) -> None:
        self._step.discard()
        with self._changed:
            self._tasks.clear()
            self.over = True
            self._changed.notify_all()


#: All that are not forgotten; a thread keeps its own.
_STEPS: WeakSet[BackgroundStep] = WeakSet()


def _settle_all() -> None:
    for step in tuple(_STEPS):
        step.settle()


def _forget_all() -> None:
    for step in tuple(_STEPS):
        step.forget()


atexit.register(_settle_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
