"""A training run of a PyTorch model that is recorded: what `Tracer` and `Observer` share."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from typing import Any, Self

import torch
from torch import Tensor, nn

from swatsim.errors import RecordingError, SwatsimError
from swatsim.policies.interface import Policy
from swatsim.tracer.pytorch.layers import Recording
from swatsim.tracer.pytorch.modules import Layout
from swatsim.tracer.pytorch.saved_tensors import Kept
from swatsim.tracer.pytorch.watch import Handler, Watch
from swatsim.tracer.session import Session
from swatsim.workload.layer import Layer

#: How many runs are in a recorded step, and what knows the compiler's stance before the first.
_eager = 0
_stance: Any = None


class Run:
    """Counts steps, and watches the model in those that are recorded."""

    def __init__(
        self,
        model: nn.Module,
        policy: Policy,
        path: str | os.PathLike[str],
        skip: Collection[str],
        batch_axis: int,
        measure_memory: bool,
        **recording: Any,
    ) -> None:
        self._model, self._axis = model, _checked_axis(batch_axis)
        parameters = {"model": type(model).__name__, "skip": sorted(skip)}
        self._session = Session(policy, path, parameters=parameters, **recording)
        self._measures = bool(measure_memory)
        self._watch: Watch | None = None
        self._saved_tensors: Kept | None = None
        self._open, self._is_eager = True, False
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def number(self) -> int:
        """The current training step's, counted from 0."""
        return self._session.number

    @property
    def error(self) -> SwatsimError | None:
        """What stopped the recording, if anything did."""
        return self._session.error

    def step(self) -> None:
        """End a training step, after the optimizer's: write it if it is one of `steps`.

        After `close` it does nothing.
        """
        if self._open:
            self._session.step(self._end())
            self._begin()

    def close(self) -> None:
        """Leave the model as it was; a step that was not ended is not recorded."""
        if self._open:
            self._open = False
            self._end()
            self._session.close(self._layers())

    def _layers(self) -> list[str]:
        """Return the layers that ought to have run."""
        return []

    def _handlers(self) -> dict[Any, Handler]:
        """Return the functions that are watched in a recorded step, each with its handler."""
        return {}

    def _notes(self) -> dict[str, Any]:
        """Return further notes that are stored with the masks of a recorded step."""
        return {}

    def _begin(self) -> None:
        if self._session.wanted:
            self._watch = Watch(self._model, self._handlers())
            self._saved_tensors = Kept(self._model) if self._measures else None
            self._is_eager = _force_eager()

    def _end(self) -> dict[str, Any]:
        """Stop watching, and return the notes that are stored with the masks."""
        if self._watch is None:
            return {}
        watch, self._watch = self._watch, None
        if self._is_eager:
            _compile_again()
        watch.close()
        notes = {"not_modelled": watch.not_modelled, **self._notes()}
        if self._saved_tensors is not None:
            self._saved_tensors.close()
            notes["kept"] = self._saved_tensors.describe()
        return {key: value for key, value in notes.items() if value}

    def _recording(self, layer: Layer, x: Tensor, axis: int | None = None) -> Recording | None:
        """Return the recording of a layer's run, None for no recording; every step is checked."""
        if x.shape[-1 if layer.kind == "linear" else 1] != layer.C:
            return None  # torch is about to refuse it, and says so best
        axis = self._axis if axis is None else axis
        layout = Layout.of(layer, x, self._session.batch, axis)
        if self._session.batch is None:
            self._session.see_batch(layout.samples)
        kept = min(self._session.samples, layout.samples)
        named, step = self._session.record(layout.layer, layout.samples, kept)
        if step is None:
            return None
        return Recording(step, layout.called(named), kept)


def _checked_axis(batch_axis: int) -> int:
    """Refuse an axis that samples can't be in; before a `Session` locks its directory."""
    if batch_axis in (0, 1) and not isinstance(batch_axis, bool):
        return int(batch_axis)
    raise RecordingError(f"batch_axis={batch_axis!r} is not allowed: must be 0 or 1")


def _force_eager() -> bool:
    """Run compiled functions as they were written from now on; return False if there are none."""
    global _eager, _stance
    if "torch._dynamo" not in sys.modules:
        return False
    if not _eager:
        _stance = torch.compiler.set_stance("force_eager")
    _eager += 1
    return True


def _compile_again() -> None:
    """Restore the compiler's stance, once the last run is done with its step."""
    global _eager
    _eager -= 1
    if not _eager:
        _stance.__exit__(None, None, None)
