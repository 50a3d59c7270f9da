"""Recording a run into a trace, whatever the framework: layers, then steps, then operands."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from swatsim import provenance
from swatsim.errors import RecordingError, SwatsimError, TraceError, shown
from swatsim.tracefile import codec
from swatsim.tracefile.schema import MAX_LAYERS, Manifest
from swatsim.tracefile.step import Key
from swatsim.tracefile.writer import TraceWriter
from swatsim.tracer.arguments import (
    checked_batch,
    checked_layer,
    checked_mask,
    checked_number,
    checked_object,
    checked_ops,
    checked_samples,
    too_large,
)
from swatsim.tracer.background import BackgroundStep
from swatsim.workload.layer import Layer, Operand, OpName
from swatsim.workload.windows import Mask

log = logging.getLogger(__name__)


class StepRecord:
    """One step while it is recorded: its masks are written as they come. A `Recorder` makes one.

    Attributes
    ----------
    number : int
        The step's.
    masks : dict of (layer, op, operand) to None
        Which masks came, in order; the masks themselves are not stored here.
    notes : dict
        What else is known of the step, as JSON: written with it.
    """

    def __init__(self, recorder: Recorder, number: int, background: BackgroundStep | None) -> None:
        self.number = number
        self.masks: dict[Key, None] = {}
        self.notes: dict[str, Any] = {}
        self.background = background
        self._recorder = recorder

    def operand(
        self, layer: str, op: OpName | Sequence[OpName], operand: Operand, mask: Mask
    ) -> None:
        """Record which elements of an operand an op reads as non-zero.

        Waits while more masks are on their way to disk than may be. A step that can't be written,
        or is in the trace already, takes none.

        Parameters
        ----------
        layer : str
            A declared layer's name.
        op, operand : str
            fprop reads weight and act, dgrad weight and grad_out, wgrad act and grad_out. Of ops
            that read an operand alike a sequence, such as ("fprop", "dgrad"): it is packed once.
        mask : numpy.ndarray of bool
            In the shape of `Layer.shape_of`, of the recorded samples. It may change afterwards.

        Raises
        ------
        RecordingError
            If the layer is not declared, the operand is recorded twice in one step or not read by
            such an op, or the mask is none or too large.
        WorkloadError
            If the mask has not its layer's shape.
        """
        known = self._recorder.layer(layer)
        ops = checked_ops(layer, op, operand)
        keys: list[Key] = [(layer, each, operand) for each in ops]
        bits = checked_mask(layer, operand, mask)
        self._check(known, keys, operand, bits.shape)
        if self.background is not None and not self.background.over:
            self.background.add(keys, bits.shape, codec.pack(bits))
        self.masks.update(dict.fromkeys(keys))

    @property
    def is_over(self) -> bool:
        """Whether masks that come are not recorded any more."""
        return self.background is None or self.background.over

    def _check(
        self, layer: Layer, keys: Sequence[Key], operand: Operand, shape: tuple[int, ...]
    ) -> None:
        samples = len(self._recorder.samples)
        for key in keys:
            if key in self.masks:
                raise RecordingError(
                    f"layer {layer.name!r}: {operand} of {key[1]} comes twice in step "
                    f"{self.number}: a layer that runs twice in a step can't be recorded"
                )
        layer.check_shape(operand, shape, samples)
        if wrong := too_large(layer, samples):
            raise RecordingError(wrong)


class Recorder:
    """Writes a trace while a run goes on. A step is on disk, whole, or it is not there at all.

    Until it is closed nobody else can write the trace; a program's end closes it, too.

    Parameters
    ----------
    path : path, or TraceWriter
        Where the trace goes: a directory that is empty or does not exist.
    batch_size : int
        Samples of a training batch.
    samples : sequence of int, optional
        Which of them are recorded; all by default.
    policy : mapping, optional
        The policy's name and parameters, for the manifest.
    parameters : mapping, optional
        What else the run was made with, for the provenance.
    append : bool
        Go on with the trace at `path`, if there is one: its policy, batch size and samples must be
        these; its layers are known already; its steps stay, and are not recorded again.

    Attributes
    ----------
    on_failure : callable of int and TraceError, optional
        Called with a step's number, in another thread, when it can't be written.

    Raises
    ------
    RecordingError
        If an argument is not allowed: then nothing is made on disk.
    TraceError
        If something is at `path` already that is not continued, or can't be, or another run is
        writing it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | TraceWriter,
        *,
        batch_size: int,
        samples: Sequence[int] | None = None,
        policy: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        append: bool = False,
    ) -> None:
        self.batch_size = checked_batch(batch_size)
        self.samples = checked_samples(samples, self.batch_size)
        self.on_failure: Callable[[int, TraceError], None] | None = None
        self._policy = checked_object("policy", policy)
        self._provenance = provenance.collect(checked_object("parameters", parameters))
        self._layers: dict[str, Layer] = {}
        self._open: StepRecord | None = None
        self._ended: BackgroundStep | None = None
        self._manifest: Manifest | None = None
        self._whole_manifest()  # refuses bad arguments before anything is made on disk
        self._writer = path if isinstance(path, TraceWriter) else TraceWriter(path, append=append)
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
        """Add a layer; declaring the same one again changes nothing.

        Raises
        ------
        RecordingError
            If the name is another layer's, or there are too many.
        WorkloadError
            If such a layer can't exist.
        """
        layer = checked_layer(layer)
        if layer.name not in self._layers:
            if len(self._layers) == MAX_LAYERS:
                raise RecordingError(
                    f"layer {layer.name!r} is one too many: a trace holds at most {MAX_LAYERS}"
                )
            self._layers[layer.name] = layer
            self._manifest = None
        known = self._layers[layer.name]
        if known != layer:
            raise RecordingError(
                f"layer {layer.name!r} was {known} and is now {layer}: a trace holds one shape a "
                "layer; record runs of different input sizes separately"
            )

    def layer(self, name: str) -> Layer:
        """Return a declared layer.

        Raises
        ------
        RecordingError
            If it is not declared.
        """
        if not isinstance(name, str) or name not in self._layers:
            raise RecordingError(f"layer {shown(name)} is not declared: call `declare` first")
        return self._layers[name]

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
        self._batch(batch_size)  # before anything of it is on disk
        record = self.begin(number)
        try:
            yield record
        except BaseException:
            self.abandon(record)
            raise
        self.end(record, batch_size)
        self.wait()

    def begin(self, number: int) -> StepRecord:
        """Return the record of a new step, which `end` or `abandon` ends; waits for the one before.

        So a process that is killed loses one step at most.

        Raises
        ------
        TraceError
            If the step before could not be written, or this one is in the trace already.
        RecordingError
            If the step before was not ended, or the number is none.
        """
        number = checked_number(number)
        if self._open is not None:
            raise RecordingError(
                f"step {number} can't begin: step {self._open.number} has not ended; end it first"
            )
        self.wait()
        if number in self._writer.recorded:
            log.info("step %d is in the trace already: it is not recorded again", number)
            return StepRecord(self, number, None)
        background = BackgroundStep(self._writer.step(number), partial(self._failed, number))
        self._open = StepRecord(self, number, background)
        return self._open

    def end(self, record: StepRecord, batch_size: int | None = None) -> None:
        """Queue a step to be written, and return at once; `wait` raises what goes wrong.

        A step that is in the trace already, or has ended, is left as it is.

        Raises
        ------
        RecordingError
            If it holds no masks, its batch size is none, or its notes are not JSON: then it is
            given up.
        """
        if record is not self._open or record.background is None:
            return
        try:
            size, notes = self._batch(batch_size), checked_object("notes", record.notes)
            if not record.masks:
                raise RecordingError(f"step {record.number} holds no masks: no layer ran in it")
            before = partial(self._write_manifest, self._whole_manifest())
        except SwatsimError:
            self.abandon(record)
            raise
        record.background.publish(before, size, notes)
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
        """Return the size of a step's batch; all recorded samples are in it."""
        if batch_size is None:
            return self.batch_size
        return checked_batch(batch_size, max(self.samples) + 1)

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
                batch_size=self.batch_size,
                samples=self.samples,
                provenance=self._provenance,
            )
        return self._manifest

    def _continue(self, manifest: Manifest) -> None:
        """Go on with a trace: its layers first, and where it comes from."""
        own = self._whole_manifest()
        self._writer.check_continued(
            policy=own.policy, batch_size=own.batch_size, samples=own.samples
        )
        self._layers = {layer.name: layer for layer in manifest.layers}
        before = manifest.provenance.get("appended")
        runs = [*(before if isinstance(before, list) else []), self._provenance]
        self._provenance = {**manifest.provenance, "appended": runs}
        self._manifest = None
