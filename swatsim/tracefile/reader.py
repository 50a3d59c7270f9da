"""Reading a trace: nothing in it is executed, and nothing it promises is believed unchecked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from swatsim.arguments import is_whole, whole
from swatsim.errors import SwatsimError, TraceError, WorkloadError, listed, shown, unknown
from swatsim.files import read_bounded
from swatsim.printable import printable
from swatsim.tracefile import codec
from swatsim.tracefile.coverage import Coverage
from swatsim.tracefile.passes import alive
from swatsim.tracefile.schema import (
    MANIFEST,
    STEPS,
    SUFFIX,
    Manifest,
    MaskRecord,
    check_layers,
    check_number,
    check_step,
    load_manifest,
    load_notes,
    load_records,
)
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer, Operand, OpName
from swatsim.workload.training_ops import Op
from swatsim.workload.windows import Mask

#: What reading malformed JSON, headers and tensors raises.
_MALFORMED = (ValueError, TypeError, RecursionError)

#: A manifest larger than this is refused; 100,000 layers take a tenth of it.
MAX_MANIFEST_BYTES = 256 * 2**20


class Step:
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
    notes : dict
        The run's notes of this step, as JSON; empty if there are none.
    layers_digest : str or None
        Of the layers, batch size and samples that it was recorded under; None in a step of a
        swatsim that wrote none.

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
            self._file = safe_open(path, framework="numpy")
            metadata = self._file.metadata() or {}
            self._tensors = frozenset(self._file.keys())
            records, self.batch_size = load_records(metadata)
            self._records = {record.key: record for record in records}
            self.header = metadata["masks"]
            self.notes = load_notes(metadata)
            self.layers_digest = metadata.get("layers_digest")
            self._check(records)
        except (OSError, SwatsimError, SafetensorError, *_MALFORMED) as error:
            raise self._refuse(error) from None

    def _check(self, records: list[MaskRecord]) -> None:
        check_step(records, self.batch_size, self.manifest)
        check_layers(records, self.layers_digest, self.manifest)
        for record in records:
            if record.tensor is not None and record.tensor not in self._tensors:
                raise TraceError(f"tensor {record.tensor!r} is missing")
            if record.tensor is not None:
                self._check_bytes(record.tensor)

    def _check_bytes(self, tensor: str) -> None:
        stored = self._file.get_slice(tensor)
        if stored.get_dtype() != "U8" or len(stored.get_shape()) != 1:
            got = f"{stored.get_dtype()} {stored.get_shape()}"
            raise TraceError(f"tensor {tensor!r} is {got}, expected bytes (U8, one axis)")

    def _refuse(self, error: Exception) -> TraceError:
        if isinstance(error, OSError):
            return TraceError(f"step {self.number}: can't read {self.path}: {error.strerror}")
        if isinstance(error, WorkloadError):
            advice = (
                "it does not fit manifest.json: one of them is of another trace, or was changed"
            )
        else:
            advice = "remove this file to use the other steps, or record the run again"
        return TraceError(f"step {self.number} ({self.path}): {error}; {advice}")

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that ran in it, in the order in which they did, in this step's shapes."""
        return self.manifest.layers

    @property
    def coverage(self) -> Coverage | None:
        """How much of its multiplications it holds; None if nobody counted."""
        return None

    def batch_of(self, layer: str) -> int:
        """Return how many samples a layer's whole batch has; 1 if its rows are of one sample.

        Raises
        ------
        TraceError
            If the step has no such layer.
        """
        return self.batch_size

    def samples_of(self, layer: str) -> int:
        """Return how many samples of a layer's batch, the first ones, its masks hold.

        Raises
        ------
        TraceError
            If the step has no such layer.
        """
        return len(self.manifest.samples)

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
            frame = self._file.get_tensor(record.tensor)
            return codec.unpack(np.ascontiguousarray(frame), record)
        except (SwatsimError, OSError, SafetensorError, ValueError) as error:
            what = TraceError(f"mask {'/'.join(record.key)}: {error}")
            raise self._refuse(what) from None

    def ops(self) -> list[tuple[Layer, OpName]]:
        """Return the ops whose two masks are recorded, in the order of the layers."""
        return [
            (layer, op)
            for layer in self.manifest.layers
            for op in OPS
            if all((layer.name, op, operand) in self._records for operand in OPERANDS_OF[op])
        ]

    def op(self, layer: Layer, name: OpName) -> Op:
        """Return one op, with its two masks."""
        reads = OPERANDS_OF[name]
        masks = {operand: self.mask(layer.name, name, operand) for operand in reads}
        ones = {operand: self.record(layer.name, name, operand).ones for operand in reads}
        return Op(layer, name, **masks, known=ones)

    def kept(self) -> Iterator[tuple[Layer, Operand, Mask, bool]]:
        """Yield what each layer saves for its backward pass, for `footprint.of_masks`.

        That is the act that wgrad reads and the weight that dgrad reads (fprop's, where the layer
        has no dgrad). The last value says whether the mask is a policy's: an act that is not what
        fprop reads, a weight with zeros, unless training was dense. Of several runs of a layer
        those are there that keep something at once: of gradient accumulation, one.
        """
        dense = self.manifest.policy.get("name") == "dense"
        held = alive(self.records)
        for layer in (it for it in self.manifest.layers if it.name in held):
            ahead = self._records.get((layer.name, "fprop", "act"))
            act = self._records.get((layer.name, "wgrad", "act"))
            if act is not None:
                own = ahead is None or act.digest != ahead.digest
                yield layer, "act", self.mask(*act.key), own
            weight = self._records.get((layer.name, "dgrad", "weight"))
            weight = weight or self._records.get((layer.name, "fprop", "weight"))
            if weight is not None:
                own = weight.digest is not None and not dense
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


class Trace:
    """A recorded training run. `open_trace` makes one.

    Parameters
    ----------
    path : pathlib.Path
    manifest : Manifest
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._id: str | None = None
        self._seen: dict[int, bytes] = {}

    @property
    def name(self) -> str:
        """The directory's name, made printable: it stands in every row of results."""
        return printable(self.path.resolve().name)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """In the order in which the network runs them."""
        return self.manifest.layers

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Numbers of the steps that are present, ascending; what a killed run left is not."""
        return step_numbers(self.path)

    @cached_property
    def _numbers(self) -> frozenset[int]:
        return frozenset(self.steps)

    def step(self, number: int) -> Step:
        """Return one step, opened.

        Raises
        ------
        TraceError
            If it is not in the trace, or damaged; if it was replaced since this object first opened
            it: what is remembered of the trace, its id for one, would be another's.
        """
        wanted = whole(number)
        if not is_whole(wanted) or wanted not in self._numbers:
            there = listed(map(str, self.steps)) or "none"
            raise TraceError(f"{self.path} has no step {shown(number)}: recorded are {there}")
        step = Step(self.path / STEPS / f"{wanted}{SUFFIX}", wanted, self.manifest)
        self._same(wanted, step.header)
        return step

    def _same(self, number: int, header: str) -> None:
        """Refuse a step that is not what it was when it was first opened."""
        digest = hashlib.blake2b(header.encode(), digest_size=16).digest()
        if self._seen.setdefault(number, digest) != digest:
            raise TraceError(
                f"step {number} of {self.path} was replaced since the trace was opened: open the "
                "trace again"
            )

    def opened(self) -> Iterator[Step | TraceError]:
        """Yield all steps, opened one at a time; in place of one that can't be, its error.

        At the end the trace's id is known: who needs both reads each step once.
        """
        what = self.manifest.model_dump_json(include={"layers", "batch_size", "samples"})
        seen = hashlib.blake2b(what.encode(), digest_size=8)
        for number in self.steps:
            step: Step | TraceError
            try:
                step = self.step(number)
                header = step.header
            except TraceError as error:
                step, header = error, "unreadable"
                self._same(number, header)
            seen.update(f"{number}:{header}".encode())
            yield step
        self._id = seen.hexdigest()

    @property
    def id(self) -> str:
        """Digest of the layers, the samples and the digests of all masks (16 hex digits).

        Where and when a run was recorded does not count: equal recordings have equal ids. A step
        that can't be read counts by its number only: the others can still be used.
        """
        if self._id is None:
            for _ in self.opened():
                pass
        assert self._id is not None, "all steps were opened"
        return self._id


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Return a trace, its manifest checked.

    Raises
    ------
    TraceError
        If there is none, it is of another schema version, or it holds no steps.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise TraceError(f"{path!r} is no path: name the directory of a recorded trace")
    folder = Path(path)
    trace = Trace(folder, read_manifest(folder))
    if not trace.steps:
        raise TraceError(
            f"{folder} has no steps: the run that recorded it ended before its first recorded "
            "step was whole; record again, with `steps` that the run reaches"
        )
    return trace


def step_numbers(path: Path) -> tuple[int, ...]:
    """Return the steps that are present in a trace's directory, ascending.

    Raises
    ------
    TraceError
        If it can't be read; one that is not there has none.
    """
    folder = path / STEPS
    try:
        files = [Path(entry.name) for entry in os.scandir(folder)]
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise TraceError(f"can't read {folder}: {error.strerror}") from None
    names = [file.stem for file in files if file.suffix == SUFFIX and file.stem.isdecimal()]
    numbers = sorted(int(name) for name in names if str(int(name)) == name)
    if numbers:
        check_number(numbers[-1])
    return tuple(numbers)


def read_manifest(folder: Path) -> Manifest:
    """Return a trace's manifest, checked.

    Raises
    ------
    TraceError
        If there is none, it is damaged, or of another schema version.
    """
    path = folder / MANIFEST
    try:
        if not folder.is_dir():
            raise TraceError(_missing(folder))
        if not path.exists():
            names = sorted(entry.name for entry in folder.iterdir())
            there = listed(names, 5) or "nothing"
            raise TraceError(f"{folder} is not a trace: it has no {MANIFEST} (it holds {there})")
        return load_manifest(read_bounded(path, MAX_MANIFEST_BYTES))
    except OSError as error:
        raise TraceError(f"can't read {error.filename or path}: {error.strerror}") from None
    except _MALFORMED as error:
        raise TraceError(f"{path} is not JSON of a manifest: {error}") from None
    except SwatsimError as error:
        where = "" if str(folder) in str(error) else f"{folder}: "
        raise TraceError(f"{where}{error}") from None


def _missing(folder: Path) -> str:
    if folder.exists():
        return (
            f"{folder} is a file: a trace is a directory; name the directory that holds {MANIFEST}"
        )
    return f"{folder} does not exist: name the directory of a recorded trace"


def _check_file(path: Path) -> None:
    """Refuse what is not a file that can be read; a pipe would block for ever."""
    if not path.is_file():
        raise TraceError("it is not a file")
    path.open("rb").close()
