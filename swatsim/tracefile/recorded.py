"""One recorded step, opened: nothing in it is executed, and nothing it promises is believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from swatsim.described import policy_at
from swatsim.displayed import Displayed
from swatsim.errors import SwatsimError, TraceError, WorkloadError, unknown
from swatsim.tracefile import codec
from swatsim.tracefile.format_1 import load_step
from swatsim.tracefile.header import StepHeader, load_header, text_of
from swatsim.tracefile.passes import alive
from swatsim.tracefile.schema import Manifest, MaskRecord, StepLayer
from swatsim.workload.layer import OPERANDS_OF, OPS, OUTPUT_OF, Layer, Operand, OpName
from swatsim.workload.training_ops import Op
from swatsim.workload.windows import Mask

#: What reading malformed JSON, headers and tensors raises.
MALFORMED = (ValueError, TypeError, RecursionError)
#: Elements of a mask that is read through a handle of its own (16 MiB packed).
LARGE = 2**27


class Step(Displayed):
    """One recorded training step. Reading a mask touches that mask's bytes only.

    Parameters
    ----------
    path : pathlib.Path
        Its file.
    number : int
        The training step's, counted from 0.
    manifest : Manifest
        The trace's.

    Attributes
    ----------
    batch_size : int
        Of this step.
    coverage : Coverage or None
        How much of its multiplications it holds; None if nobody counted, as in format 1.
    others : tuple of OtherWork, or None
        What else the step did; None if nobody noted it.
    notes : dict
        The run's notes of this step, as JSON; empty if there are none.
    header : str
        What of its file the trace's id depends on.
    layers_digest : str or None
        In format 1, of the layers, batch size and samples that it was recorded under; None in a
        step of a swatsim that wrote none.

    Raises
    ------
    TraceError
        If the file is missing, damaged, or does not fit the manifest.
    """

    def __init__(self, path: Path, number: int, manifest: Manifest) -> None:
        self.path = path
        self.number = number
        self.manifest = manifest
        try:
            _check_file(path)
            self._version = _version_of(path)
            self._file = safe_open(path, framework="numpy")
            metadata = self._file.metadata() or {}
            header = self._load(metadata)
            self._check_tensors(header.masks, frozenset(self._file.keys()))
        except (OSError, SwatsimError, SafetensorError, *MALFORMED) as error:
            raise self._refuse(error) from None
        self._records = {record.key: record for record in header.masks}
        self._layers = header.by_name
        self.batch_size, self.coverage = header.batch_size, header.coverage
        self.others = header.others
        self.notes = dict(header.notes)
        self.layers_digest = metadata.get("layers_digest")

    def _lines(self) -> list[str]:
        held = self.coverage.share if self.coverage else None
        share = "" if held is None else f", {100 * held:.4g} % of its multiplications"
        return [
            f"Step {self.number} of {self.path.parent.parent}: {len(self.records)} masks of "
            f"{len(self._layers)} layers, a batch of {self.batch_size}{share}"
        ]

    @property
    def is_as_opened(self) -> bool:
        """Whether its file is the one that was opened, untouched."""
        try:
            return _version_of(self.path) == self._version
        except OSError:
            return False

    def _load(self, metadata: Mapping[str, str]) -> StepHeader:
        if self.manifest.schema_version == 1:
            of_old = load_step(metadata, self.manifest)
            self.header = metadata["masks"]
            return of_old
        header = load_header(metadata)
        header.check(self.manifest)
        self.header = text_of(metadata)
        return header

    def _check_tensors(self, records: Sequence[MaskRecord], tensors: frozenset[str]) -> None:
        for tensor in {record.tensor: None for record in records if record.tensor is not None}:
            if tensor not in tensors:
                raise TraceError(f"tensor {tensor!r} is missing")
            stored = self._file.get_slice(tensor)
            if stored.get_dtype() != "U8" or len(stored.get_shape()) != 1:
                got = f"{stored.get_dtype()} {stored.get_shape()}"
                raise TraceError(f"tensor {tensor!r} is {got}, expected bytes (U8, one axis)")

    def _refuse(self, error: Exception) -> TraceError:
        if isinstance(error, OSError):
            return TraceError(f"step {self.number}: can't read {self.path}: {error.strerror}")
        if isinstance(error, WorkloadError):
            advice = "it does not fit its layers: one of them is of another trace, or was changed"
        else:
            advice = "remove this file to use the other steps, or record the run again"
        return TraceError(f"step {self.number} ({self.path}): {error}; {advice}")

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that ran in it, in the order in which they did, in this step's shapes.

        In format 1 those of the manifest.
        """
        return tuple(own.layer for own in self._layers.values())

    def batch_of(self, layer: str) -> int:
        """Return how many samples a layer's whole batch has; 1 if its rows are of one sample.

        Raises
        ------
        TraceError
            If the step has no such layer.
        """
        return self._layer(layer).batch

    def samples_of(self, layer: str) -> int:
        """Return how many samples of a layer's batch, the first ones, its masks hold.

        Raises
        ------
        TraceError
            If the step has no such layer.
        """
        return self._layer(layer).samples

    def _layer(self, name: str) -> StepLayer:
        try:
            return self._layers[name]
        except KeyError:
            message = f"step {self.number} ({self.path}): {unknown('layer', name, self._layers)}"
            raise TraceError(message) from None

    @property
    def records(self) -> list[MaskRecord]:
        """What is recorded of each mask, without reading any."""
        return list(self._records.values())

    def record(self, layer: str, op: OpName, operand: Operand) -> MaskRecord:
        """Return one mask's record.

        Raises
        ------
        TraceError
            If the step holds no such mask.
        """
        try:
            return self._records[layer, op, operand]
        except KeyError:
            wanted = f"{layer}/{op}/{operand}"
            known = ("/".join(key) for key in self._records)
            message = f"step {self.number} ({self.path}): {unknown('mask', wanted, known)}"
            raise TraceError(message) from None

    def mask(self, layer: str, op: OpName, operand: Operand) -> Mask:
        """Return one mask, read-only, in the shape of `Layer.shape_of`.

        Raises
        ------
        TraceError
            If its bytes are damaged.
        """
        record = self.record(layer, op, operand)
        if record.tensor is None:
            return codec.all_ones(record.shape)
        try:
            return codec.unpack(self._frame(record.tensor, record.elements > LARGE), record)
        except (SwatsimError, OSError, SafetensorError, ValueError) as error:
            what = TraceError(f"mask {'/'.join(record.key)}: {error}")
            raise self._refuse(what) from None

    def _frame(self, tensor: str, large: bool) -> codec.Bytes:
        """Return a tensor's bytes; what was read of a file stays in memory while that is open."""
        if not large:
            return np.ascontiguousarray(self._file.get_tensor(tensor))
        with safe_open(self.path, framework="numpy") as own:
            return np.ascontiguousarray(own.get_tensor(tensor))

    def ops(self) -> list[tuple[Layer, OpName]]:
        """Return the ops whose two masks are recorded, in the order of the layers."""
        return [(layer, op) for layer in self.layers for op in OPS if self.has(layer.name, op)]

    def has(self, layer: str, op: OpName) -> bool:
        """Whether the two masks of an op are recorded; asked of one op, it looks at no other."""
        return all((layer, op, operand) in self._records for operand in OPERANDS_OF[op])

    def op(self, layer: Layer, name: OpName) -> Op:
        """Return one op, with its two masks, and that of its output if there is one."""
        reads = OPERANDS_OF[name]
        masks = {operand: self.mask(layer.name, name, operand) for operand in reads}
        ones = {operand: self.record(layer.name, name, operand).ones for operand in reads}
        return Op(layer, name, **masks, output=self.output(layer.name, name), known=ones)

    def output(self, layer: str, op: OpName) -> Mask | None:
        """Return which elements of what an op makes are wanted, as `mask` does; None: all.

        Raises
        ------
        TraceError
            If its bytes are damaged.
        """
        record = self.output_record(layer, op)
        return None if record is None else self.mask(*record.key)

    def output_record(self, layer: str, op: OpName) -> MaskRecord | None:
        """Return the record of the mask of what an op makes; None: all of it is wanted."""
        return self._records.get((layer, op, OUTPUT_OF[op]))

    def kept(self) -> Iterator[tuple[Layer, Operand, Mask, bool]]:
        """Yield what each layer saves for its backward pass, for `footprint.of_masks`.

        That is the act that wgrad reads and the weight that dgrad reads (fprop's, where the layer
        has no dgrad): of a product of two activations both factors. The last value says whether the
        mask is a policy's: an act that is not what fprop reads, a weight with zeros, unless
        training was dense. Of several runs of a layer those are there that keep something at once:
        of gradient accumulation, one.
        """
        dense = policy_at(self.manifest.policy, self.number).get("name") == "dense"
        held = alive(self.records)
        for layer in (it for it in self.layers if it.name in held):
            ahead = self._records.get((layer.name, "fprop", "act"))
            act = self._records.get((layer.name, "wgrad", "act"))
            if act is not None:
                own = ahead is None or act.digest != ahead.digest
                yield layer, "act", self.mask(*act.key), own
            weight = self._records.get((layer.name, "dgrad", "weight"))
            weight = weight or self._records.get((layer.name, "fprop", "weight"))
            if weight is not None:
                own = weight.digest is not None and not dense and not layer.multiplies_activations
                yield layer, "weight", self.mask(*weight.key), own

    def check(self) -> Iterator[MaskRecord]:
        """Yield each mask's record, after reading and checking the mask.

        Raises
        ------
        TraceError
            At the first one that is damaged.
        """
        for record in self.records:
            self.mask(*record.key)
            yield record


def _version_of(path: Path) -> tuple[int, ...]:
    """Return what differs once a file was written or replaced."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _check_file(path: Path) -> None:
    """Refuse what is not a file that can be read; a pipe would block for ever."""
    if not path.is_file():
        raise TraceError("it is not a file")
    path.open("rb").close()
