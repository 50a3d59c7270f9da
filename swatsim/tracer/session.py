"""Which steps of a run are recorded, and what happens when one can't be; for any framework."""

from __future__ import annotations

import logging
import os
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from swatsim.errors import RecordingError, SwatsimError, TraceError, as_own, listed
from swatsim.policies.interface import Policy
from swatsim.printable import one_line
from swatsim.tracefile.coverage import Coverage
from swatsim.tracefile.others import OtherWork
from swatsim.tracefile.schema import MAX_SAMPLES
from swatsim.tracefile.writer import TraceWriter
from swatsim.tracer.arguments import (
    Steps,
    checked_images,
    checked_object,
    checked_start,
    checked_steps,
    describe_policy,
)
from swatsim.tracer.recorder import Recorder
from swatsim.tracer.runs import Runs
from swatsim.tracer.step_record import StepRecord
from swatsim.workload.layer import Layer

log = logging.getLogger(__name__)

#: Of the model, in one recorded step. More, and the end of the step was forgotten.
MAX_PASSES = 256
NOTHING_RAN = "no layer ran forward in training (is the model in eval mode, step() called twice?)"


class Session:
    """Counts the steps of a run, asks the policy, and writes the steps that are wanted.

    The trace begins with the first step that is recorded. A step is written in the background:
    the run waits only where the next recorded step begins before that is done, or masks come
    faster than they can be written. Whatever goes wrong, on disk or here, is logged and ends the
    recording, never the run. In a forked child nothing is recorded. Any thread may use it.

    Parameters
    ----------
    policy : Policy
    path : path
        Where the trace goes: a directory that is empty or does not exist.
    steps : collection of int, range, or callable of int to bool
        Which steps are recorded, counted from 0.
    images : int, optional
        How many samples of a batch, the first ones, are recorded, or all of a smaller one; all by
        default.
    parameters : mapping, optional
        What else the run was made with, as JSON, for the provenance.
    append, overwrite : bool
        Go on with the trace at `path`, if there is one: its policy and samples must be this run's.
        Its steps are not recorded again. Or replace it, as `TraceWriter` does.
    start : int
        The first step's number: a run that goes on from a checkpoint after 5000 steps says 5000.

    Attributes
    ----------
    number : int
        The current step's.
    error : SwatsimError or None
        What ended the recording, if anything did.

    Raises
    ------
    RecordingError
        If an argument is not allowed.
    TraceError
        If something is at `path` already that is neither continued nor replaced, or can't be, or
        another run is writing it.
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
        overwrite: bool = False,
        start: int = 0,
    ) -> None:
        self.number = self._start = checked_start(start)
        self.error: SwatsimError | None = None
        self._description = describe_policy(policy)
        self._images = checked_images(images)
        self._wanted, self._steps = checked_steps(steps)
        counted = self._images is not None and self._images <= MAX_SAMPLES
        self._samples = range(self._images or 0) if counted else None
        stated = {"steps": self._steps, "images": self._images}
        self._parameters = {**checked_object("parameters", parameters), **stated}
        self._lock = threading.RLock()
        self._recorder: Recorder | None = None
        self._step: StepRecord | None = None
        self._batch: int | None = None
        self._begun = False
        self._passes = 0
        self._runs = Runs()
        self._left_out: dict[str, str] = {}
        self._said: set[tuple[str, str]] = set()
        self._ever: set[str] = set()
        self._ended: set[int] = set()
        self._known = 0
        # last of all: from here on the directory is locked
        self._writer = TraceWriter(path, append=append, overwrite=overwrite)
        try:
            self._continue()
            self._recording = self._wants(self.number)
        except BaseException:
            self._writer.close()
            raise

    def __str__(self) -> str:
        """Return in words where the trace goes, and how far it is."""
        steps = listed(map(str, sorted(self._writer.recorded | self._ended)), 10) or "none"
        return f"{self._writer.path}: at step {self.number}, recorded steps {steps}"

    @property
    def samples(self) -> int:
        """How many samples of the current step's batch are recorded; 0 until that is known."""
        if self._batch is None:
            return 0
        return self._batch if self._images is None else min(self._images, self._batch)

    @property
    def wanted(self) -> bool:
        """Whether the current step is to be recorded."""
        return self._recording and self._is_on

    @property
    def batch(self) -> int | None:
        """How many samples the current step's batch has; None until a layer ran."""
        return self._batch

    def see_batch(self, samples: int) -> None:
        """Note that the model runs forward on a batch, of which its layers' runs are a part.

        Parameters
        ----------
        samples : int
            In the batch. The first one of a step counts: further ones are accumulation.
        """
        if not self._is_on:
            return
        with self._lock, self.guarded():
            self._passes += 1
            if self._batch is None and samples > 0:
                self._batch = int(samples)
            if self._passes > MAX_PASSES and self._step is not None:
                message = "step %d is not recorded: its model ran %d times; is step() missing?"
                log.warning(message, self.number, self._passes)
                self._give_up()

    def record(self, layer: Layer, batch: int, kept: int) -> tuple[Layer, StepRecord | None]:
        """Return the current step's record, for a layer that runs forward in training.

        A layer that runs a second time in a step is one more layer, ``name@2``, and so on: its ops
        are computed again. What a trace can't hold is left out, and named when the step ends.

        Parameters
        ----------
        layer : Layer
            In this run's shape.
        batch : int
            N of its whole batch; 1 if its rows are positions of one sample, 0 if there is nothing.
        kept : int
            How many of these are recorded, the first ones.

        Returns
        -------
        Layer
            As it is called in the trace.
        StepRecord or None
            None if this step, or this run of the layer, is not recorded.
        """
        if self._is_on:
            with self._lock, self.guarded():
                return self._record(layer, batch, kept)
        return layer, None

    def step(
        self,
        notes: Mapping[str, Any] | None = None,
        coverage: Coverage | None = None,
        others: Sequence[OtherWork] | None = None,
    ) -> None:
        """End a step: queue it to be written if it is wanted, and return at once.

        Parameters
        ----------
        notes : mapping, optional
            What else is known of the step, as JSON: stored with it, if it is recorded. Others are
            left out, with a warning.
        coverage : Coverage, optional
            How much of the step's multiplications are of recorded layers.
        others : sequence of OtherWork, optional
            What the step did beside.
        """
        if not self._is_on:
            self.number += 1
            return
        with self._lock:
            with self.guarded():
                self._finish(notes, coverage, others)
            self._turn_to(self.number + 1)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """End the recording, never the training, for an exception in the block: it goes no further.

        Whoever records, in a hook say, does it in such a block.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001  (whatever it is, a training is not ended for it)
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End the recording for an exception."""
        with self._lock:
            self._give_up()
            self._stop(self.number, error)

    def go_on(self, number: int) -> None:
        """Set the current step's number, as `start` does; what was recorded of it is dropped."""
        self._give_up()
        self._known = 0
        self._start = checked_start(number)
        with self._lock:
            self._turn_to(self._start)

    def close(self, layers: Sequence[str]) -> None:
        """Wait for what is being written, log what is not recorded and what comes next.

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
            return
        known = self._ever.union(name for kind, name in self._said if kind == "left out")
        if missing := ", ".join(name for name in layers if name not in known):
            log.warning("not in the trace, for they never ran: %s", missing)
        message = "trace: {0}; next: swatsim simulate {0} -m tensordash"
        log.info(message.format(one_line(shlex.quote(str(self._writer.path)))))

    @property
    def _is_on(self) -> bool:
        """Whether anything is to be recorded, by this process."""
        return self.error is None and self._steps != [] and self._writer.is_open

    def _turn_to(self, number: int) -> None:
        self._step = self._batch = None
        self._begun, self._passes = False, 0
        self._runs.clear()
        self._left_out.clear()
        self.number = number
        self._recording = False
        with self.guarded():  # it may be a function of the user's
            self._recording = self._wants(number)

    def _record(self, layer: Layer, batch: int, kept: int) -> tuple[Layer, StepRecord | None]:
        name = self._runs.begin(layer.name)
        if not self._recording or not batch:
            return layer, None
        self._batch = batch if self._batch is None else self._batch
        if self._step is None and not self._begun:
            self._begun = True
            self._step = self._begin(self._batch)
        named = layer if name == layer.name else layer.model_copy(update={"name": name})
        if self._step is None:
            return named, None
        try:
            self._step.declare(named, batch, kept)
        except SwatsimError as error:
            self._left_out.setdefault(layer.name, str(error))
            return named, None
        self._ever.add(layer.name)
        return named, self._step

    def _finish(
        self,
        notes: Mapping[str, Any] | None,
        coverage: Coverage | None,
        others: Sequence[OtherWork] | None,
    ) -> None:
        """End the current step, or say why there is none."""
        if self._step is not None:
            self._step.coverage, self._step.others = coverage, others
            self._end(self._step, notes)
        elif self._recording and not self._runs:
            log.warning("step %d is not recorded: %s", self.number, NOTHING_RAN)

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
        samples = None if self._samples is None else tuple(self._samples)
        self._writer.check_continued(policy=self._description, samples=samples)
        self._ever.update(manifest.by_name)

    def _give_up(self) -> None:
        """Drop what was recorded of the current step."""
        step, self._step = self._step, None
        if step is not None and self._recorder is not None:
            self._recorder.abandon(step)

    def _begin(self, batch: int) -> StepRecord:
        """Begin to record a step."""
        if self._recorder is None:
            self._recorder = Recorder(
                self._writer,
                batch_size=batch,
                samples=self._samples,
                policy=self._description,
                parameters=self._parameters,
            )
            self._recorder.on_failure = self._stop
        return self._recorder.begin(self.number, batch)

    def _end(self, step: StepRecord, notes: Mapping[str, Any] | None) -> None:
        assert self._recorder is not None, "a step is of a recorder"
        self._name_left_out(step)
        if not step.masks:
            log.warning("step %d is not recorded: it has no masks", step.number)
            self._recorder.abandon(step)
            return
        self._name_unlearnt(step)
        try:
            step.notes.update(checked_object("notes", notes))
        except RecordingError as error:
            log.warning("step %d is recorded without its notes: %s", step.number, error)
        if self._left_out:
            step.notes["not_recorded"] = dict(self._left_out)
        self._recorder.end(step)
        self._ended.add(step.number)

    def _name_left_out(self, step: StepRecord) -> None:
        """Warn of the layers that a trace can't hold, each once in a run."""
        new = [name for name in self._left_out if ("left out", name) not in self._said]
        if new:
            self._said.update(("left out", name) for name in new)
            each = listed((f"{name!r} ({self._left_out[name]})" for name in new), 20)
            log.warning("step %d is recorded without %s", step.number, each)

    def _name_unlearnt(self, step: StepRecord) -> None:
        """Warn of the layers whose weights get no gradient, each once in a run."""
        found = self._runs.without_gradient(step.layers, step.masks)
        unlearnt = [name for name in found if ("unlearnt", name) not in self._said]
        if unlearnt:
            self._said.update(("unlearnt", name) for name in unlearnt)
            message = "step %d has no weight gradient of %s: it is recorded without"
            log.warning(message, step.number, ", ".join(unlearnt))

    def _stop(self, number: int, error: Exception) -> None:
        """Record no more; also called from the thread that writes, as soon as it fails."""
        if self.error is None:
            self.error = as_own(error, "record without this step or layer, or report it")
            message = "step %d is not recorded, nor is any later one: %s"
            log.error(message, number, self.error)
