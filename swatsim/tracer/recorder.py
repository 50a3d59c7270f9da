"""Recording a run into a trace, whatever the framework: layers, then steps, then operands."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from swatsim import provenance
from swatsim.errors import RecordingError
from swatsim.tracefile.schema import Manifest
from swatsim.tracefile.writer import Key, TraceWriter
from swatsim.workload.layer import OPERANDS_OF, Layer, Operand, OpName
from swatsim.workload.training_ops import Mask

log = logging.getLogger(__name__)


class StepRecord:
    """The masks of one step, until they are written. `Recorder.step` makes one."""

    def __init__(self, recorder: Recorder, number: int) -> None:
        self.number = number
        self.masks: dict[Key, Mask] = {}
        self._recorder = recorder

    def operand(self, layer: str, op: OpName, operand: Operand, mask: Mask) -> None:
        """Record which elements of an operand an op reads as non-zero.

        Parameters
        ----------
        layer : str
            A declared layer's name.
        op, operand : str
            fprop reads weight and act, dgrad weight and grad_out, wgrad act and grad_out.
        mask : numpy.ndarray of bool
            In the shape of `Layer.shape_of`, for the samples kept. Not copied.

        Raises
        ------
        RecordingError
            If the layer is not declared, or the operand is recorded twice in one step.
        WorkloadError
            If the mask has not its layer's shape.
        """
        if op not in OPERANDS_OF or operand not in OPERANDS_OF[op]:
            raise RecordingError(
                f"layer {layer!r}: {op!r} does not read {operand!r}: fprop reads weight and act, "
                "dgrad weight and grad_out, wgrad act and grad_out"
            )
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise RecordingError(
                f"layer {layer!r}: {operand} mask is {getattr(mask, 'dtype', type(mask).__name__)},"
                " expected a numpy array of bool: pass `values != 0`"
            )
        key: Key = (layer, op, operand)
        if key in self.masks:
            raise RecordingError(
                f"layer {layer!r}: {operand} of {op} comes twice in step {self.number}: a layer "
                "that runs twice in a step can't be recorded"
            )
        shape = np.shape(mask)
        self._recorder.layer(layer).check_shape(operand, shape, len(self._recorder.samples))
        self.masks[key] = mask


class Recorder:
    """Writes a trace while a run goes on. A step is on disk, whole, or it is not there at all.

    Parameters
    ----------
    path : path
        Where the trace goes: a directory that is empty or does not exist.
    batch_size : int
        Samples of a training batch.
    samples : sequence of int, optional
        Which of them are kept; all by default.
    policy : mapping, optional
        The policy's name and parameters, for the manifest.
    parameters : mapping, optional
        What else the run was made with, for the provenance.

    Raises
    ------
    TraceError
        If something is at `path` already.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        batch_size: int,
        samples: Sequence[int] | None = None,
        policy: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.samples = tuple(range(batch_size) if samples is None else samples)
        self._policy = dict(policy or {})
        self._parameters = dict(parameters or {})
        self._layers: dict[str, Layer] = {}
        self._written_layers = 0
        self._writer = TraceWriter(path)
        self._manifest()

    def declare(self, layer: Layer) -> None:
        """Add a layer; declaring the same one again changes nothing.

        Raises
        ------
        RecordingError
            If the name is another layer's.
        """
        known = self._layers.setdefault(layer.name, layer)
        if known != layer:
            raise RecordingError(
                f"layer {layer.name!r} was {known} and is now {layer}: a trace holds one shape a "
                "layer; record runs of different input sizes separately"
            )

    def layer(self, name: str) -> Layer:
        """Look up a declared layer.

        Raises
        ------
        RecordingError
            If it is not declared.
        """
        if name not in self._layers:
            raise RecordingError(f"layer {name!r} is not declared: call `declare` first")
        return self._layers[name]

    @contextmanager
    def step(self, number: int, batch_size: int | None = None) -> Iterator[StepRecord]:
        """Collect one step's masks; it is written when the block ends without an error."""
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise RecordingError(f"step {number!r} is not allowed: steps are counted from 0")
        record = StepRecord(self, number)
        yield record
        self.write(record, batch_size)

    def write(self, record: StepRecord, batch_size: int | None = None) -> None:
        """Write a step.

        Raises
        ------
        TraceError
            If it can't be written, or is in the trace already.
        RecordingError
            If it holds no masks.
        """
        if not record.masks:
            raise RecordingError(f"step {record.number} holds no masks: no layer ran in it")
        if self._written_layers != len(self._layers):
            self._writer.write_manifest(self._manifest())
            self._written_layers = len(self._layers)
        path = self._writer.write_step(record.number, record.masks, batch_size or self.batch_size)
        log.info("step %d recorded: %d masks in %s", record.number, len(record.masks), path)

    def _manifest(self) -> Manifest:
        return Manifest(
            layers=tuple(self._layers.values()),
            policy=self._policy,
            batch_size=self.batch_size,
            samples=self.samples,
            provenance=provenance.collect(self._parameters),
        )
