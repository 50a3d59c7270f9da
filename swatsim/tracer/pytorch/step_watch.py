"""Watching one step: modules, operations, and what is known of both at its end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from threading import local
from typing import Any

from torch import Tensor, nn

from swatsim.tracefile.coverage import Coverage
from swatsim.tracefile.others import OtherWork
from swatsim.tracer.pytorch.activations import Record
from swatsim.tracer.pytorch.dispatch import Dispatch
from swatsim.tracer.pytorch.inputs import samples_of
from swatsim.tracer.pytorch.other_work import OtherWorks
from swatsim.tracer.pytorch.private import unseen
from swatsim.tracer.pytorch.recognition import Recognition
from swatsim.tracer.pytorch.watch import Stack
from swatsim.tracer.session import Session


class _Thread(local):
    """Whether this thread shows its operations while it runs the model, and no longer."""

    is_guest = False


class Watch:
    """Sees what a step computes, in each thread that runs the model, until it is closed.

    Parameters
    ----------
    model : torch.nn.Module
    session : Session
        Told of each batch; what goes wrong here ends its recording, and nothing else.
    skip : collection of str
        Names of modules that are left alone.
    record : callable
    axis : int
        Where the samples are in an input of three axes.
    batch : int, optional
        Samples of the batch; by default as many as the model's first input has.
    """

    def __init__(
        self,
        model: nn.Module,
        session: Session,
        skip: Collection[str],
        record: Record,
        axis: int,
        batch: int | None,
    ) -> None:
        self._session, self._axis, self._batch = session, axis, batch
        self._thread = _Thread()
        self._dispatch = Dispatch(self._see, self._precede)
        self._stack = Stack(model, self._moved, self._entered)
        hands = (lambda: self._stack.frames, record, session.guarded)
        self.recognition = Recognition(model, skip, *hands)
        self.others = OtherWorks(model, self.recognition.names, hands[0])
        self._dispatch.enter()

    def close(self) -> None:
        """Stop watching."""
        with self._session.guarded():
            self.recognition.settle()
        self._dispatch.close()
        self._stack.remove()
        self.others.close()

    def coverage(self, left_alone: Mapping[str, str]) -> Coverage | None:
        """Return how much of what the step multiplied is in the trace; None if that went wrong."""
        found: list[Coverage] = []
        with self._session.guarded():
            found.append(self.recognition.coverage(left_alone))
        return found[0] if found else None

    def other_works(self) -> list[OtherWork] | None:
        """Return what the step did beside multiplying matrices; None if that went wrong."""
        found: list[list[OtherWork]] = []
        with self._session.guarded():
            found.append(self.others.works())
        return found[0] if found else None

    def _see(self, func: Any, arguments: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        if self._session.wanted:
            try:  # not `guarded`, which takes longer than all else of most operations
                seen = self.recognition.see(func, arguments, named, out)
                if seen is not None:
                    self.others.see(func, arguments, named, out, *seen)
            except Exception as error:  # noqa: BLE001  (no fault of ours ends a training)
                self._session.fail(error)

    def _precede(self, func: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self.recognition.waits and self._session.wanted:
            with self._session.guarded():
                self.recognition.precede(func, arguments, named)

    def _moved(self) -> None:
        self.others.moves()
        if self.recognition.waits:
            with self._session.guarded(), unseen():
                self.recognition.settle()
        if self._thread.is_guest and not self._stack.frames:
            self._thread.is_guest = False
            self._dispatch.leave()

    def _entered(self, module: nn.Module, given: Any) -> None:
        """Note a forward pass of the model, in a thread that may be another than the step's."""
        self._thread.is_guest |= self._dispatch.enter()
        with self._session.guarded(), unseen():
            self.others.enters(module)
            found, axes = samples_of(module, given, self._axis)
            batch = self._batch or found
            if batch:
                if self._session.batch is None or not _goes_on(each.tensor for each in axes):
                    self._session.see_batch(batch)
                self.recognition.enters(batch, axes)


def _goes_on(inputs: Iterable[Tensor]) -> bool:
    """Whether a forward pass of a part of the model is one step of a recurrence, or the like.

    It takes what another one gave: a run that forgets to end its steps begins with data.
    """
    return any(each.grad_fn is not None for each in inputs)
