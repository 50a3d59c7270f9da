"""Recording a run into a trace, whatever the framework: layers, then steps, then operands."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from swatsim import provenance
from swatsim.arguments import arguments, either, flag, instance_of, path_like
from swatsim.errors import RecordingError, SwatsimError, TraceError, shown
from swatsim.tracefile.schema import MAX_LAYERS, Manifest, kept
from swatsim.tracefile.writer import TraceWriter
from swatsim.tracer.arguments import (
    checked_batch,
    checked_coverage,
    checked_layer,
    checked_number,
    checked_object,
    checked_others,
    checked_samples,
)
from swatsim.tracer.background import BackgroundStep
from swatsim.tracer.step_record import StepRecord
from swatsim.workload.layer import Layer

log = logging.getLogger(__name__)


class Recorder:
    """Writes a trace while a run goes on. A step is on disk, whole, or it is not there at all.

    Until it is closed nobody else can write the trace; a program's end closes it, too.

    Parameters
    ----------
    path : path, or TraceWriter
        Where the trace goes: a directory that is empty or does not exist.
    batch_size : int
        Samples of a training batch; a step may have a batch of its own.
    samples : sequence of int, optional
        Which of them are recorded, as far as a step has them; all by default.
    policy : mapping, optional
        The policy's name and parameters, for the manifest.
    parameters : mapping, optional
        What else the run was made with, for the provenance.
    append : bool
        Go on with the trace at `path`, if there is one: its policy and samples must be these, its
        format the one that is written now; its layers are known already; its steps stay, and are
        not recorded again.
    overwrite : bool
        Replace the trace at `path`, if there is one, as soon as the first step is written: a run
        that fails before leaves it as it was.

    Attributes
    ----------
    on_failure : callable of int and TraceError, optional
        Called with a step's number, in another thread, when it can't be written.

    Raises
    ------
    RecordingError
        If an argument is not allowed: then nothing is made on disk.
    TraceError
        If something is at `path` already that is neither continued nor replaced, or can't be, or
        another run is writing it.
    """

    @arguments(
        RecordingError,
        path=either(path_like, instance_of(TraceWriter)),
        append=flag,
        overwrite=flag,
    )
    def __init__(
        self,
        path: str | os.PathLike[str] | TraceWriter,
        *,
        batch_size: int,
        samples: Sequence[int] | None = None,
        policy: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        append: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.batch_size = self._first_batch = checked_batch(batch_size)
        self.samples = checked_samples(samples, self.batch_size)
        self.on_failure: Callable[[int, TraceError], None] | None = None
        self._policy = checked_object("policy", policy)
        self._provenance = provenance.collect(checked_object("parameters", parameters))
        self._layers: dict[str, Layer] = {}  # as they were first seen
        self._latest: dict[str, Layer] = {}
        self._open: StepRecord | None = None
        self._ended: BackgroundStep | None = None
        self._manifest: Manifest | None = None
        self._whole_manifest()  # refuses bad arguments before anything is made on disk
        ways = {"append": append, "overwrite": overwrite}
        self._writer = path if isinstance(path, TraceWriter) else TraceWriter(path, **ways)
        try:
            if self._writer.manifest is not None:
                self._continue(self._writer.manifest)
        except TraceError:
            self._writer.close()
            raise

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is on its way to disk, and let others write the trace.

        A step that was not ended is given up. A second time does nothing.

        Raises
        ------
        TraceError
            If the last step that was ended could not be written.
        """
        if self._open is not None:
            self.abandon(self._open)
        try:
            self.wait()
        finally:
            self._writer.close()

    def declare(self, layer: Layer) -> None:
        """Add a layer; in another shape it has that one from the next step on.

        Raises
        ------
        RecordingError
            If there are too many, or it has masks of another shape in a step that has not ended.
        WorkloadError
            If such a layer can't exist.
        """
        layer = checked_layer(layer)
        ran = [own.layer for own in self._open.layers] if self._open else []
        if any(own.name == layer.name and own != layer for own in ran):
            raise RecordingError(
                f"layer {layer.name!r} has masks of another shape in a step that has not ended: "
                f"declare it before the step, or call its second run '{layer.name}@2'"
            )
        self.know(layer)
        self._latest[layer.name] = layer

    def know(self, layer: Layer) -> None:
        """Add a layer to the manifest, in the shape in which it is first seen.

        Raises
        ------
        RecordingError
            If there are too many.
        """
        if layer.name in self._layers:
            return
        if len(self._layers) >= MAX_LAYERS:
            raise RecordingError(
                f"layer {layer.name!r} is one too many: a trace holds at most {MAX_LAYERS}"
            )
        self._layers[layer.name] = layer
        self._manifest = None

    def layer(self, name: str) -> Layer:
        """Return a declared layer, as it was declared last.

        Raises
        ------
        RecordingError
            If it is not declared.
        """
        if not isinstance(name, str) or name not in self._layers:
            raise RecordingError(f"layer {shown(name)} is not declared: call `declare` first")
        return self._latest.get(name, self._layers[name])

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers, in the order in which they were declared or first ran."""
        return tuple(self._layers)

    def kept(self, batch: int) -> int:
        """Return how many samples of such a batch are recorded."""
        return kept(self.samples, batch)

    @contextmanager
    def step(self, number: int, batch_size: int | None = None) -> Iterator[StepRecord]:
        """Yield the record of one step: when the block ends without an error, it is on disk.

        A block that raises leaves nothing there. A step that is in the trace already, where it is
        continued, takes masks and drops them.

        Raises
        ------
        TraceError
            If it can't be written, or this recorder has written it already.
        RecordingError
            If it holds no masks, its number or its batch size is none, or its notes are not JSON.
        """
        record = self.begin(number, batch_size)
        try:
            yield record
        except BaseException:
            self.abandon(record)
            raise
        self.end(record)
        self.wait()

    def begin(self, number: int, batch_size: int | None = None) -> StepRecord:
        """Return the record of a new step, which `end` or `abandon` ends; waits for the one before.

        So a process that is killed loses one step at most.

        Raises
        ------
        TraceError
            If the step before could not be written, or this one is in the trace already.
        RecordingError
            If the step before was not ended, or the number or the batch size is none.
        """
        number, size = checked_number(number), self._batch(batch_size)
        if self._open is not None:
            raise RecordingError(
                f"step {number} can't begin: step {self._open.number} has not ended; end it first"
            )
        self.wait()
        if number in self._writer.recorded:
            log.info("step %d is in the trace already: it is not recorded again", number)
            return StepRecord(self, number, size, None)
        background = BackgroundStep(self._writer.step(number), partial(self._failed, number))
        self._open = StepRecord(self, number, size, background)
        return self._open

    def end(self, record: StepRecord, batch_size: int | None = None) -> None:
        """Queue a step to be written, and return at once; `wait` raises what goes wrong.

        A step that is in the trace already, or has ended, is left as it is.

        Raises
        ------
        RecordingError
            If it holds no masks, its batch size is none, its notes are not JSON, or its coverage is
            none: then it is given up.
        """
        if record is not self._open or record.background is None:
            return
        try:
            if batch_size is not None:
                record.resize(self._batch(batch_size))
            notes, coverage = (
                checked_object("notes", record.notes),
                checked_coverage(record.coverage),
            )
            others = checked_others(record.others)
            if not record.masks:
                raise RecordingError(f"step {record.number} holds no masks: no layer ran in it")
            before = partial(self._write_manifest, self._whole_manifest())
        except SwatsimError:
            self.abandon(record)
            raise
        layers = record.layers
        record.background.publish(before, record.batch_size, layers, notes, coverage, others)
        self._open, self._ended = None, record.background

    def abandon(self, record: StepRecord) -> None:
        """Abandon a step: nothing of it is left on disk."""
        if record is self._open and record.background is not None:
            self._open = None
            record.background.abandon()

    def wait(self) -> None:
        """Wait until the step that was ended last is on disk.

        Raises
        ------
        TraceError
            If it could not be written; said once.
        """
        if self._ended is not None:
            self._ended.wait()
            ended, self._ended = self._ended, None
            if ended.error is not None:
                raise ended.error

    def _batch(self, batch_size: int | None) -> int:
        """Return the size of a step's batch; one of the recorded samples at least is in it."""
        if batch_size is None:
            return self.batch_size
        return checked_batch(batch_size, min(self.samples or (0,)) + 1)

    def _failed(self, number: int, error: TraceError) -> None:
        if self.on_failure is not None:
            self.on_failure(number, error)

    def _write_manifest(self, manifest: Manifest) -> None:
        if manifest is not self._writer.manifest:
            self._writer.write_manifest(manifest)

    def _whole_manifest(self) -> Manifest:
        """Return the manifest of all layers so far; the same one while none is added."""
        if self._manifest is None:
            self._manifest = Manifest(
                layers=tuple(self._layers.values()),
                policy=self._policy,
                batch_size=self._first_batch,
                samples=self.samples,
                provenance=self._provenance,
            )
        return self._manifest

    def _continue(self, manifest: Manifest) -> None:
        """Go on with a trace: its layers first, and where it comes from."""
        own = self._whole_manifest()
        self._writer.check_continued(policy=own.policy, samples=own.samples)
        self._layers = dict(manifest.by_name)
        self._first_batch = manifest.batch_size
        before = manifest.provenance.get("appended")
        runs = [*(before if isinstance(before, list) else []), self._provenance]
        self._provenance = {**manifest.provenance, "appended": runs}
        self._manifest = None
