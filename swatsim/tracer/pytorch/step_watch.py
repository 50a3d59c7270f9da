"""Watching one step: modules, operations, and what is known of both at its end."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from threading import local
from typing import Any

from torch import Tensor, nn

from swatsim.tracefile.coverage import Coverage
from swatsim.tracer.pytorch.dispatch import Dispatch
from swatsim.tracer.pytorch.recognition import Recognition, Record
from swatsim.tracer.pytorch.watch import Stack, names
from swatsim.tracer.session import Session

log = logging.getLogger(__name__)


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
        self._guest = local()
        self._dispatch = Dispatch(self._see)
        self._stack = Stack(model, self._moved, self._entered)
        self.recognition = Recognition(names(model), skip, lambda: self._stack.frames, record)
        self._dispatch.enter()

    def close(self) -> None:
        """Stop watching."""
        with self._session.guarded():
            self.recognition.settle()
        self._dispatch.close()
        self._stack.remove()

    def coverage(self, left_alone: Mapping[str, str]) -> Coverage | None:
        """Return how much of what the step multiplied is in the trace; None if that went wrong."""
        with self._session.guarded():
            return self.recognition.coverage(left_alone)
        return None

    def _see(self, func: Any, arguments: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        if self._session.wanted:
            with self._session.guarded():
                self.recognition.see(func, arguments, named, out)

    def _moved(self) -> None:
        with self._session.guarded():
            self.recognition.settle()
        if getattr(self._guest, "here", False) and not self._stack.frames:
            self._guest.here = False
            self._dispatch.leave()

    def _entered(self, module: nn.Module, given: Any) -> None:
        """Note a forward pass of the model, in a thread that may be another than the step's."""
        self._guest.here = self._dispatch.enter() or getattr(self._guest, "here", False)
        with self._session.guarded():
            inputs = list(_tensors(given))
            axis = 1 if _is_sequence_first(module) else self._axis
            batch = self._batch or _batch_of(given, inputs, axis)
            if batch:
                self._session.see_batch(batch)
                axes = [(each, _axis_of(each, axis)) for each in inputs]
                self.recognition.enters(batch, axes)


def _tensors(given: Any) -> Iterator[Tensor]:
    """Yield the tensors in a module's arguments, wherever they are."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, Mapping):
        yield from _tensors(list(given.values()))
    elif isinstance(given, list | tuple):
        for each in given:
            yield from _tensors(each)


def _is_sequence_first(module: nn.Module) -> bool:
    """Whether a module of torch's, alone, takes (T, N, C): attention and recurrences do."""
    kinds = (nn.MultiheadAttention, nn.RNNBase)
    if not type(module).__module__.startswith("torch.nn."):
        return False
    inner = next((each for each in module.modules() if isinstance(each, kinds)), None)
    own = isinstance(module, kinds) or "Transformer" in type(module).__name__
    return own and inner is not None and not inner.batch_first


def _axis_of(tensor: Tensor, axis: int) -> int:
    """Return the axis of samples: the one that the user named is of (T, N, C), or of ids (T, N)."""
    tokens = tensor.dim() == 3 or (tensor.dim() == 2 and not tensor.is_floating_point())
    return axis if tokens else 0


def _batch_of(given: Any, inputs: list[Tensor], axis: int) -> int | None:
    """Return how many samples a forward pass is on: its first input's, or those in a list."""
    first = next(iter(given[0]), None) if given[0] else None
    if isinstance(first, list | tuple) and all(isinstance(each, Tensor) for each in first):
        return len(first)
    shaped = [each for each in inputs if each.dim()]
    return int(shaped[0].shape[_axis_of(shaped[0], axis)]) if shaped else None
