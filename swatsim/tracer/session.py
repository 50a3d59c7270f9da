"""Which steps of a run are recorded, and what happens when one can't be; for any framework."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from swatsim.errors import RecordingError, TraceError
from swatsim.policies.interface import Policy
from swatsim.tracefile.schema import MAX_LAYERS
from swatsim.tracefile.writer import TraceWriter
from swatsim.tracer.arguments import (
    Steps,
    checked_images,
    checked_object,
    checked_start,
    checked_steps,
    describe_policy,
    unrecordable,
)
from swatsim.tracer.recorder import Recorder, StepRecord
from swatsim.workload.layer import Layer

log = logging.getLogger(__name__)

#: Of a layer in one step. More, and the end of the step was forgotten, or it is too large a step.
MAX_RUNS = 256
NOTHING_RAN = "no layer ran forward in training (is the model in eval mode, step() called twice?)"


class Session:
    """Counts the steps of a run, asks the policy, and writes the steps that are wanted.

    The trace begins with the first step that is recorded. A step is written in the background:
    the run waits only where the next recorded step begins before that is done, or masks come
    faster than they can be written. What goes wrong on disk is logged and ends the recording,
    never the run. In a forked child nothing is recorded.

    Parameters
    ----------
    policy : Policy
    path : path
        Where the trace goes: a directory that is empty or does not exist.
    steps : collection of int, range, or callable of int to bool
        Which steps are recorded, counted from 0.
    images : int, optional
        How many samples of the batch, the first ones, are recorded; all by default.
    parameters : mapping, optional
        What else the run was made with, as JSON, for the provenance.
    append : bool
        Go on with the trace at `path`, if there is one: its policy, batch size and samples must be
        this run's. Its steps are not recorded again.
    start : int
        The first step's number: a run that goes on from a checkpoint after 5000 steps says 5000.
    sees_all : bool
        Whether `record` is called in every step, or only in those that are wanted.

    Attributes
    ----------
    number : int
        The current step's.
    error : TraceError or None
        What stopped the recording, if anything did.

    Raises
    ------
    RecordingError
        If an argument is not allowed.
    TraceError
        If something is at `path` already that is not continued, or can't be, or another run is
        writing it.
    """

    def __init__(
        self,
        policy: Policy,
        path: str | os.PathLike[str],
        *,
        steps: Steps,
        images: int | None = None,
        parameters: Mapping[str, Any] | None = None,
        append: bool = False,
        start: int = 0,
        sees_all: bool = True,
    ) -> None:
        self.number = self._start = checked_start(start)
        self.error: TraceError | None = None
        self._description = describe_policy(policy)
        self._images = checked_images(images)
        self._wanted, self._steps = checked_steps(steps)
        stated = {"steps": self._steps, "images": self._images}
        self._parameters = {**checked_object("parameters", parameters), **stated}
        self._recorder: Recorder | None = None
        self._step: StepRecord | None = None
        self._batch: int | None = None
        self._first: int | None = None
        self._begun = False
        self._runs: dict[str, int] = {}
        self._shapes: dict[str, Layer] = {}
        self._ended: set[int] = set()
        self._known = 0
        self._idle = not sees_all
        # last of all: from here on the directory is locked
        self._writer = TraceWriter(path, append=append)
        try:
            self._continue()
            self._recording = self._wants(self.number)
        except BaseException:
            self._writer.close()
            raise

    @property
    def samples(self) -> int:
        """How many samples of a batch are recorded; 0 until that is known."""
        return len(self._recorder.samples) if self._recorder else 0

    @property
    def wanted(self) -> bool:
        """Whether the current step is to be recorded."""
        return self._recording and self.error is None

    @property
    def batch(self) -> int | None:
        """How many samples the current step's batch has; None until a layer ran."""
        return self._batch

    def record(self, layer: Layer, samples: int) -> tuple[Layer, StepRecord | None]:
        """Return the current step's record, for a layer that runs forward in training.

        A layer that runs a second time in a step is one more layer, ``name@2``, and so on: its ops
        are computed again. The first step in which a layer runs is checked, recorded or not, unless
        none is wanted: what can't be recorded is refused there, not when the first recorded one
        comes. Later a training is not ended for it: the step is left out, with a warning.

        Parameters
        ----------
        layer : Layer
            Declared here, in the order of the calls.
        samples : int
            In its input.

        Returns
        -------
        Layer
            As it is called in the trace.
        StepRecord or None
            None if this step, or this run of the layer, is not recorded.

        Raises
        ------
        RecordingError
            In the first step, if such an input can't be recorded.
        TraceError
            In the first step, if its batch is larger than that of the trace that is continued.
        """
        if self.error is not None or self._steps == [] or not self._writer.is_open:
            return layer, None
        layer = self._named(layer)
        if self._runs[layer.name.partition("@")[0]] >= MAX_RUNS:
            self._ask_for_step(layer)
            return layer, None
        if self._first is None:
            self._first = self.number
        if self._batch is None:
            self._check_trace(samples)
            self._batch = samples
        if wrong := self._wrong(layer, samples):
            self._refuse(wrong)
            return layer, None
        if not self._recording:
            return layer, None
        if self._step is None and not self._begun:
            self._step = self._begin(samples)
            self._begun = True
        if self._step is None or self._recorder is None or samples < self.samples:
            return layer, None
        self._recorder.declare(layer)
        self._shapes[layer.name] = layer
        return layer, self._step

    def step(self, notes: Mapping[str, Any] | None = None) -> None:
        """End a step: queue it to be written if it is wanted, and return at once.

        Parameters
        ----------
        notes : mapping, optional
            What else is known of the step, as JSON: stored with it, if it is recorded.

        Raises
        ------
        RecordingError
            If the notes are not JSON; then the step has not ended.
        """
        checked = checked_object("notes", notes)
        if self._step is not None:
            self._end(self._step, checked)
        elif self._recording and not self._runs and self.error is None:
            log.warning("step %d is not recorded: %s", self.number, NOTHING_RAN)
        elif not self._runs and not self._idle and self.error is None and self._steps != []:
            self._idle = True
            log.warning("step %d: %s; said once", self.number, NOTHING_RAN)
        self._turn_to(self.number + 1)

    def go_on(self, number: int) -> None:
        """Set the current step's number, as `start` does; what was recorded of it is dropped."""
        self._give_up()
        self._known = 0
        self._start = checked_start(number)
        self._turn_to(self._start)

    def close(self, layers: Sequence[str]) -> None:
        """Wait for what is being written, and log what is not recorded.

        A step that was not ended is not. Others may write the trace from now on.

        Parameters
        ----------
        layers : sequence of str
            The names of all layers that could have been.
        """
        if self._step is not None and self.error is None:
            log.warning("step %d is not recorded: step() did not end it", self.number)
        self._step = None
        try:
            (self._recorder or self._writer).close()
        except TraceError as error:
            self._stop(self.number, error)
        if self.error is not None or self._steps == []:
            return
        if not self._ended and not self._known:
            message = "nothing is recorded: steps=%s, and the run had %d steps, counted from %d"
            log.warning(message, self._steps, self.number - self._start, self._start)
        elif missing := [name for name in layers if name not in self._shapes]:
            log.warning("not in the trace, for they never ran: %s", ", ".join(missing))

    def _turn_to(self, number: int) -> None:
        self._step = self._batch = None
        self._begun = False
        self._runs.clear()
        self.number = number
        self._recording = self._wants(number)

    def run(self, layer: str) -> int:
        """Return the number of a layer's last run in this step, counted from 1."""
        return self._runs.get(layer, 1)

    def _named(self, layer: Layer) -> Layer:
        """Return the layer of a new run, named after the run's number."""
        run = self._runs[layer.name] = self._runs.get(layer.name, 0) + 1
        return layer if run == 1 else layer.model_copy(update={"name": f"{layer.name}@{run}"})

    def _wants(self, number: int) -> bool:
        """Whether a step is recorded: it is wanted, and not in the trace already."""
        if not self._wanted(number):
            return False
        if number in self._writer.recorded or number in self._ended:
            log.info("step %d is in the trace already: it is not recorded again", number)
            self._known += 1
            return False
        return True

    def _continue(self) -> None:
        """Refuse to go on with a trace of another run, as far as this one is known yet."""
        manifest = self._writer.manifest
        if manifest is None:
            return
        samples = tuple(range(self._images or manifest.batch_size))
        self._writer.check_continued(policy=self._description, samples=samples)
        self._shapes = {layer.name: layer for layer in manifest.layers}

    def _wrong(self, layer: Layer, samples: int) -> str | None:
        """Return what of a layer's run a trace can't hold; None if it can hold all."""
        if layer.name not in self._shapes and (wrong := self._unknown(layer, samples)):
            return wrong
        alone = f"leave it alone with skip=({layer.name.partition('@')[0]!r},)"
        if samples != self._batch and layer.name in self._runs:
            return (
                f"layer {layer.name!r} ran on {samples} samples in a step whose batch is "
                f"{self._batch}: its samples are not the batch's; if they are in another axis of "
                f"its input, name that one (batch_axis=0 or 1), or {alone}"
            )
        if self._shapes.get(layer.name, layer) != layer:
            return (
                f"layer {layer.name!r} had {_changes(self._shapes[layer.name], layer)}: a trace "
                "holds one shape a layer; record runs of different input sizes separately, or "
                f"{alone}"
            )
        return None

    def _unknown(self, layer: Layer, samples: int) -> str | None:
        """Return why a layer can't be in the trace that is not there yet; None if it can."""
        if len(self._shapes) >= MAX_LAYERS:
            return f"layer {layer.name!r} is one too many: a trace holds at most {MAX_LAYERS}"
        recorded = self.samples or self._images
        if samples < (recorded or 1):
            return None  # an empty batch, say: `_begin` leaves its step out
        return unrecordable(layer, samples, recorded or samples)

    def _refuse(self, wrong: str) -> None:
        """Refuse a run in the first step; later leave the step out, if it is to be recorded."""
        if self.number == self._first:
            raise RecordingError(wrong)
        if self._recording and (self._step is not None or not self._begun):
            log.warning("step %d is not recorded: %s", self.number, wrong)
            self._give_up()
            self._begun = True

    def _ask_for_step(self, layer: Layer) -> None:
        """Leave a step out that ought to have ended, with a warning."""
        if self._step is not None:
            message = "step %d is not recorded: layer %r ran %d times in it; is step() missing?"
            log.warning(message, self.number, layer.name.partition("@")[0], MAX_RUNS)
            self._give_up()

    def _give_up(self) -> None:
        """Drop what was recorded of the current step."""
        if self._step is not None and self._recorder is not None:
            self._recorder.abandon(self._step)
        self._step = None

    def _check_trace(self, batch: int) -> None:
        """Refuse, in the first step, a batch that a trace can't be continued with.

        A smaller one may be the last of an epoch: of those no step is recorded until one fits.
        """
        manifest = self._writer.manifest
        if self.number == self._start and manifest and batch > manifest.batch_size:
            self._writer.check_continued(batch_size=batch)

    def _begin(self, batch: int) -> StepRecord | None:
        """Begin to record a step, or log why not."""
        manifest = self._writer.manifest
        if self._recorder is None and manifest is not None and batch != manifest.batch_size:
            message = "step %d is not recorded: its batch of %d is not the trace's of %d"
            log.warning(message, self.number, batch, manifest.batch_size)
            return None
        needed = self.samples or self._images or 1
        if batch < needed:
            message = "step %d is not recorded: its batch of %d has less than %d samples"
            log.warning(message, self.number, batch, needed)
            return None
        try:
            self._recorder = self._recorder or self._new_recorder(batch)
            return self._recorder.begin(self.number)
        except TraceError as error:
            self._stop(self.number, error)
            return None

    def _new_recorder(self, batch: int) -> Recorder:
        recorder = Recorder(
            self._writer,
            batch_size=batch,
            samples=range(self._images or batch),
            policy=self._description,
            parameters=self._parameters,
        )
        recorder.on_failure = self._stop
        return recorder

    def _end(self, step: StepRecord, notes: Mapping[str, Any]) -> None:
        assert self._recorder is not None, "a step is of a recorder"
        if not step.masks:
            self._recorder.abandon(step)
            return
        layers = dict.fromkeys(layer for layer, _, _ in step.masks)
        # a run again without a gradient is a checkpoint's recomputation
        firsts = [name for name in layers if "@" not in name]
        unlearnt = [name for name in firsts if (name, "wgrad", "grad_out") not in step.masks]
        if unlearnt:
            message = "step %d has no weight gradient of %s: it is recorded without"
            log.warning(message, step.number, ", ".join(unlearnt))
        step.notes.update(notes)
        try:
            self._recorder.end(step, self._batch)
            self._ended.add(step.number)
        except TraceError as error:
            self._stop(step.number, error)

    def _stop(self, number: int, error: TraceError) -> None:
        """Record no more; also called from the thread that writes, as soon as it fails."""
        if self.error is None:
            self.error = error
            log.error("step %d is not recorded, nor is any later one: %s", number, error)


def _changes(old: Layer, new: Layer) -> str:
    """Return what differs between two layers, in words."""
    before, after = old.model_dump(), new.model_dump()
    changed = [key for key in before if before[key] != after[key]]
    return " and ".join(f"{key}={before[key]}, now {after[key]}" for key in changed)
