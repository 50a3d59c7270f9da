"""Which steps of a run are recorded, and what happens when one can't be; for any framework."""

from __future__ import annotations

import json
import logging
import operator
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from swatsim.errors import RecordingError, TraceError
from swatsim.policies.interface import Policy
from swatsim.tracefile.writer import TraceWriter
from swatsim.tracer.recorder import Recorder, StepRecord
from swatsim.workload.layer import Layer

log = logging.getLogger(__name__)

Steps: TypeAlias = Collection[int] | Callable[[int], bool]


class Session:
    """Counts the steps of a run, asks the policy, and writes the steps that are wanted.

    The trace begins with the first step that is recorded. What goes wrong on disk is logged and
    ends the recording, never the run.

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
        If something is at `path` already.
    """

    def __init__(
        self,
        policy: Policy,
        path: str | os.PathLike[str],
        *,
        steps: Steps,
        images: int | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.number = 0
        self.error: TraceError | None = None
        self._policy, self._description = policy, describe_policy(policy)
        self._images = _checked_images(images)
        self._wanted, self._steps = _checked_steps(steps)
        self._path = _writable(path)
        self._parameters = {**(parameters or {}), "steps": self._steps, "images": images}
        self._recorder: Recorder | None = None
        self._step: StepRecord | None = None
        self._batch: int | None = None
        self._begun = False
        self._runs: dict[str, int] = {}
        self._notes: dict[str, Any] = {}
        self._shapes: dict[str, Layer] = {}
        self._seen: set[str] = set()
        self._written = 0
        self._recording = self._wanted(0)

    @property
    def samples(self) -> int:
        """How many samples of a batch are recorded; 0 until that is known."""
        return len(self._recorder.samples) if self._recorder else 0

    @property
    def wanted(self) -> bool:
        """Whether the current step is to be recorded."""
        return self._recording and self.error is None

    def note(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep something beside the masks of the current step, as JSON; nothing if it is empty."""
        if value:
            self._notes[key] = dict(value)

    @property
    def batch(self) -> int | None:
        """How many samples the current step's batch has; None until a layer ran."""
        return self._batch

    def record(self, layer: Layer, samples: int) -> tuple[Layer, StepRecord | None]:
        """Give the record of the current step to a layer that runs forward in training.

        A layer that runs a second time in a step is one more layer, ``name@2``, and so on: its ops
        are computed again. Every step is checked, recorded or not, unless none is wanted: what
        can't be recorded is refused in the first one, not when the first recorded one comes.

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
            If such an input can't be recorded.
        """
        if self.error is not None or self._steps == []:
            return layer, None
        layer = self._named(layer)
        self._check(layer, samples)
        if not self._recording:
            return layer, None
        if self._step is None and not self._begun:
            self._step = self._begin(samples)
            self._begun = True
        if self._step is None or self._recorder is None or samples < self.samples:
            return layer, None
        self._recorder.declare(layer)
        self._seen.add(layer.name)
        return layer, self._step

    def step(self) -> None:
        """End a step: write it if it is wanted."""
        if self._step is not None and self._step.masks:
            self._write(self._step)
        elif self._recording and not self._runs and self.error is None:
            log.warning("step %d is not recorded: no layer ran forward in training", self.number)
        self._step = self._batch = None
        self._begun = False
        self._runs.clear()
        self._notes = {}
        self.number += 1
        self._recording = self._wanted(self.number)

    def close(self, layers: Sequence[str]) -> None:
        """Say in the log what is not recorded; a step that was not ended is not.

        Parameters
        ----------
        layers : sequence of str
            The names of all layers that could have been.
        """
        if self.error is not None:
            return
        if self._step is not None:
            log.warning("step %d is not recorded: step() did not end it", self.number)
            self._step = None
        if not self._written:
            message = "nothing is recorded: steps=%s, and the run had %d steps, counted from 0"
            log.warning(message, self._steps, self.number)
        elif missing := [name for name in layers if name not in self._seen]:
            log.warning("not in the trace, for they never ran: %s", ", ".join(missing))

    def run(self, layer: str) -> int:
        """Tell which run of a layer in this step the last one was, counted from 1."""
        return self._runs.get(layer, 1)

    def _named(self, layer: Layer) -> Layer:
        """Count a run of a layer, and name it after its number."""
        run = self._runs[layer.name] = self._runs.get(layer.name, 0) + 1
        return layer if run == 1 else layer.model_copy(update={"name": f"{layer.name}@{run}"})

    def _check(self, layer: Layer, samples: int) -> None:
        """Refuse what a trace can't hold."""
        alone = f"leave it alone with skip=({layer.name.partition('@')[0]!r},)"
        self._batch = self._batch or samples
        if samples != self._batch and layer.name in self._runs:
            raise RecordingError(
                f"layer {layer.name!r} ran on {samples} samples in a step whose batch is "
                f"{self._batch}: its samples are not the batch's; {alone}"
            )
        if self._shapes.setdefault(layer.name, layer) != layer:
            raise RecordingError(
                f"layer {layer.name!r} was {self._shapes[layer.name]} and is now {layer}: a trace "
                "holds one shape a layer; record runs of different input sizes separately, or "
                f"{alone}"
            )

    def _begin(self, batch: int) -> StepRecord | None:
        """Begin to record a step, or say why not."""
        needed = self.samples or self._images or 1
        if batch < needed:
            message = "step %d is not recorded: its batch of %d has less than %d samples"
            log.warning(message, self.number, batch, needed)
            return None
        try:
            self._recorder = self._recorder or self._new_recorder(batch)
        except TraceError as error:
            self._stop(error)
            return None
        return StepRecord(self._recorder, self.number)

    def _new_recorder(self, batch: int) -> Recorder:
        return Recorder(
            self._path,
            batch_size=batch,
            samples=range(self._images or batch),
            policy=self._description,
            parameters=self._parameters,
        )

    def _write(self, step: StepRecord) -> None:
        assert self._recorder is not None, "a step is of a recorder"
        layers = dict.fromkeys(layer for layer, _, _ in step.masks)
        unlearnt = [name for name in layers if (name, "wgrad", "act") not in step.masks]
        if unlearnt:
            message = "step %d has no weight gradient of %s: it is recorded without"
            log.warning(message, step.number, ", ".join(unlearnt))
        try:
            self._recorder.write(step, self._batch)
            self._written += 1
        except TraceError as error:
            self._stop(error)

    def _stop(self, error: TraceError) -> None:
        self.error = error
        log.error("step %d is not recorded, nor is any later one: %s", self.number, error)


def _writable(path: str | os.PathLike[str]) -> Path:
    """Make the trace's directory now: a run of days must not find out later that it can't be."""
    folder = TraceWriter(path).path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TraceError(f"can't write to {path}: {error.strerror}; choose another path") from None
    if not os.access(folder, os.W_OK):
        raise TraceError(f"can't write to {path}: no permission; choose another path")
    return folder


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Take a policy's description of itself, and refuse what is no policy."""
    if not all(callable(getattr(policy, name, None)) for name in ("density", "describe")):
        raise RecordingError(
            f"policy={policy!r} is not allowed: must have the methods density and describe, "
            "as SwatU(0.8) has"
        )
    try:
        description: dict[str, Any] = json.loads(json.dumps(dict(policy.describe())))
    except (TypeError, ValueError) as error:
        message = f"policy={policy!r}: its describe() must give a dict of JSON: {error}"
        raise RecordingError(message) from None
    return description


def _checked_images(images: int | None) -> int | None:
    if images is None or (_is_count(images) and images >= 1):
        return images
    raise RecordingError(f"images={images!r} is not allowed: must be at least 1, or None for all")


def _checked_steps(steps: Steps) -> tuple[Callable[[int], bool], Any]:
    """Make a question of `steps`, and a description of it in JSON."""
    if callable(steps):
        return lambda number: bool(steps(number)), getattr(steps, "__qualname__", repr(steps))
    if isinstance(steps, range):
        return steps.__contains__, repr(steps)
    iterable = isinstance(steps, Collection) and not isinstance(steps, str)
    if not iterable or not all(_is_count(number) for number in steps):
        raise RecordingError(
            f"steps={steps!r} is not allowed: must be step numbers counted from 0, such as "
            "(0, 500), a range, or a function of the number"
        )
    numbers = frozenset(map(operator.index, steps))
    return numbers.__contains__, sorted(numbers)


def _is_count(value: Any) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and value >= 0
