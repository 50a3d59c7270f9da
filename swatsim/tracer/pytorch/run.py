"""A training run of a PyTorch model that is recorded: what `Tracer` and `Observer` share."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from typing import Any, Self

import torch
from torch import Tensor, nn

from swatsim.arguments import flag, maybe, path_like, string, whole_number
from swatsim.displayed import Displayed
from swatsim.errors import RecordingError, SwatsimError
from swatsim.policies.interface import Policy
from swatsim.tracefile.coverage import Coverage
from swatsim.tracefile.others import OtherWork
from swatsim.tracer.arguments import checked_batch
from swatsim.tracer.pytorch.dispatch import leave_closed
from swatsim.tracer.pytorch.heads import Heads
from swatsim.tracer.pytorch.layout import Layout
from swatsim.tracer.pytorch.ranks import ranked
from swatsim.tracer.pytorch.recording import Recording
from swatsim.tracer.pytorch.samples import MIXED
from swatsim.tracer.pytorch.saved_tensors import Kept
from swatsim.tracer.pytorch.step_watch import Watch
from swatsim.tracer.session import Session
from swatsim.workload.layer import Layer

#: What is said of a recording, checked before anything is touched.
RECORDING = {
    "path": path_like,
    "batch_axis": whole_number,
    "rows": string,
    "rank": maybe(whole_number),
    "measure_memory": flag,
    "append": flag,
    "overwrite": flag,
}

#: How many runs are in a recorded step, and what knows the compiler's stance before the first.
_eager = 0
_stance: Any = None


class Run(Displayed):
    """Counts steps, and watches the model in those that are recorded."""

    def __init__(
        self,
        model: nn.Module,
        policy: Policy,
        path: str | os.PathLike[str],
        *,
        skip: Collection[str],
        batch_axis: int,
        batch: int | None,
        rows: str,
        rank: int | None,
        measure_memory: bool,
        **recording: Any,
    ) -> None:
        self._model, self._skip = model, skip
        self._axis = _checked_axis(batch_axis)
        self._batch = None if batch is None else checked_batch(batch)
        self._tokens = _checked_rows(rows) == "tokens"
        path, recording["steps"], where = ranked(path, recording["steps"], rank)
        parameters = {"model": type(model).__name__, "skip": sorted(skip), **where}
        self._session = Session(policy, path, parameters=parameters, **recording)
        self._measures = measure_memory
        self._watch: Watch | None = None
        self._saved_tensors: Kept | None = None
        self._open, self._is_eager = True, False
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _lines(self) -> list[str]:
        """Return the model, where its trace goes, and how far it is."""
        how = "" if self._open else "; closed"
        how += "" if self.error is None else f"; recording ended: {self.error}"
        return [f"{type(self).__name__} of {type(self._model).__name__} into {self._session}{how}"]

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
            self._session.step(*self._end())
            self._begin()

    def close(self) -> None:
        """Leave the model as it was; a step that was not ended is not recorded."""
        if self._open:
            self._open = False
            self._end()
            leave_closed()
            self._session.close(self._layers())

    def _layers(self) -> list[str]:
        """Return the layers that ought to have run."""
        return []

    def _left_alone(self) -> dict[str, str]:
        """Return the modules and layers that are left alone, and why."""
        return {}

    def _notes(self) -> dict[str, Any]:
        """Return further notes that are stored with the masks of a recorded step."""
        return {}

    def _begin(self) -> None:
        if self._session.wanted:
            with self._session.guarded():
                self._saved_tensors = Kept(self._model) if self._measures else None
                self._watch = Watch(
                    self._model, self._session, self._skip, self._recording, self._axis, self._batch
                )
                self._is_eager = force_eager()

    def _end(self) -> tuple[dict[str, Any], Coverage | None, list[OtherWork] | None]:
        """Stop watching, and return notes, coverage and other work, to be stored with the masks."""
        watch, self._watch = self._watch, None
        if self._is_eager:
            self._is_eager = False
            compile_again()
        if watch is None:
            return {}, None, None
        watch.close()
        notes = self._notes()
        if self._saved_tensors is not None:
            self._saved_tensors.close()
            notes["kept"] = self._saved_tensors.describe()
        coverage = watch.coverage(self._left_alone())
        others = watch.other_works()
        return {key: value for key, value in notes.items() if value}, coverage, others

    def _recording(
        self, layer: Layer, x: Tensor, axis: int | None = None, place: Any = None, depth: Any = None
    ) -> Recording | None:
        """Return the recording of a layer's run, None for no recording.

        Parameters
        ----------
        layer : Layer
            Without the positions that a linear layer is applied to.
        x : torch.Tensor
            Its input.
        axis : int, optional
            Where its samples are in an input of three axes, if it is known; else as the user says.
        place : Place or MIXED, optional
            Where they are, if somebody followed them.
        depth : Depth, optional
            Of a convolution of three dimensions.
        """
        watch = self._watch
        if watch is None or not self._session.wanted:
            return None
        with self._session.guarded():
            place = watch.recognition.place(x) if place is None else place
            place = MIXED if self._tokens and layer.kind == "linear" else place
            axis = self._axis if axis is None else axis
            if layer.multiplies_activations:
                layout: Layout = Heads.laid(layer, len(x), place)
            else:
                layout = Layout.of(layer, x, place, watch.recognition.batch, axis, depth)
            if not layout.batch:
                return None
            kept = layout.kept(self._session.samples or layout.batch)
            named, step = self._session.record(layout.layer, layout.batch, kept)
            if step is not None:
                seen = watch.recognition
                seen.recorded.add(layer.name)
                hands = (seen.computing, seen.computed, watch.others.add)
                return Recording(step, layout.called(named), kept, *hands)
        return None


def _checked_axis(batch_axis: int) -> int:
    """Refuse an axis that samples can't be in; before a `Session` locks its directory."""
    if batch_axis in (0, 1) and not isinstance(batch_axis, bool):
        return int(batch_axis)
    raise RecordingError(f"batch_axis={batch_axis!r} is not allowed: must be 0 or 1")


def _checked_rows(rows: str) -> str:
    if rows in ("samples", "tokens"):
        return rows
    raise RecordingError(f"rows={rows!r} is not allowed: must be 'samples' or 'tokens'")


def force_eager() -> bool:
    """Run compiled functions as they were written from now on; return False if there are none."""
    global _eager, _stance
    if "torch._dynamo" not in sys.modules:
        return False
    if not _eager:
        _stance = torch.compiler.set_stance("force_eager")
    _eager += 1
    return True


def compile_again() -> None:
    """Restore the compiler's stance, once the last run is done with its step."""
    global _eager
    _eager -= 1
    if not _eager:
        _stance.__exit__(None, None, None)
