"""Writing a trace: the manifest, then one file a step, each of them whole or absent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from swatsim.errors import TraceError
from swatsim.files import publish
from swatsim.tracefile import codec
from swatsim.tracefile.schema import MANIFEST, STEPS, SUFFIX, Manifest, MaskRecord, dump_records
from swatsim.workload.layer import Operand, OpName
from swatsim.workload.training_ops import Mask

Key = tuple[str, OpName, Operand]


class TraceWriter:
    """Writes a new trace into a directory that is empty or does not exist yet.

    A trace without steps, as a run leaves that was stopped before its first one, is no trace yet.

    Parameters
    ----------
    path : path
        The trace's directory; its parents are made too.

    Raises
    ------
    TraceError
        If something is there already: a trace is never written over.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._manifest: Manifest | None = None
        if not os.fspath(path):
            raise TraceError("'' is no path: name a directory for the trace")
        if self.path.exists() and not _is_free(self.path):
            raise TraceError(
                f"{self.path} exists already: a trace is never written over; "
                "choose another path, or remove it"
            )

    def write_manifest(self, manifest: Manifest) -> None:
        """Write or replace ``manifest.json``; steps already written stay as they are."""
        self._manifest = manifest
        text = manifest.model_dump_json(indent=1)
        try:
            (self.path / STEPS).mkdir(parents=True, exist_ok=True)
            publish(self.path / MANIFEST, text.encode())
        except OSError as error:
            raise _not_written(self.path / MANIFEST, error) from None

    def write_step(self, number: int, masks: Mapping[Key, Mask], batch_size: int) -> Path:
        """Write one step: each mask checked against its layer, equal masks stored once.

        Parameters
        ----------
        number : int
            The training step's, counted from 0.
        masks : mapping of (layer, op, operand) to numpy.ndarray of bool
        batch_size : int
            Of this step; the last one of an epoch may be smaller.

        Raises
        ------
        WorkloadError
            If a mask has not its layer's shape.
        TraceError
            If the step exists already or can't be written; steps written before are untouched.
        """
        target = self.path / STEPS / f"{number}{SUFFIX}"
        if target.exists():
            raise TraceError(f"{target} exists already: a step is never written over")
        self._check(masks)
        records, tensors = _encode(masks)
        content = save(tensors, metadata=dump_records(records, batch_size))
        try:
            publish(target, content)
        except OSError as error:
            raise _not_written(target, error) from None
        return target

    def _check(self, masks: Mapping[Key, Mask]) -> None:
        assert self._manifest is not None, "write_manifest comes first"
        layers = {layer.name: layer for layer in self._manifest.layers}
        for (layer, _, operand), mask in masks.items():
            layers[layer].check_shape(operand, mask.shape, len(self._manifest.samples))


def _is_free(path: Path) -> bool:
    """Tell whether nothing would be lost: an empty directory, or a trace without steps."""
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()}
    steps = path / STEPS
    empty = not steps.is_dir() or not any(steps.glob(f"*{SUFFIX}"))
    return names <= {MANIFEST, STEPS} and empty


def _encode(
    masks: Mapping[Key, Mask],
) -> tuple[list[MaskRecord], dict[str, np.ndarray]]:
    """Make the records and tensors of a step; of equal masks the first is stored."""
    tensors: dict[str, np.ndarray] = {}
    stored: dict[str, str] = {}
    records = []
    for key, mask in masks.items():
        packed = codec.pack(mask)
        if (ones := codec.popcount(packed)) == mask.size:
            records.append(_record(key, mask, ones, codec="ones"))
            continue
        digest = codec.digest(packed)
        tensor = stored.setdefault(digest, "/".join(key))
        if tensor not in tensors:
            tensors[tensor] = codec.compress(packed)
        records.append(_record(key, mask, ones, codec="zstd", tensor=tensor, digest=digest))
    return records, tensors


def _record(key: Key, mask: Mask, ones: int, **storage: str) -> MaskRecord:
    layer, op, operand = key
    return MaskRecord(layer=layer, op=op, operand=operand, shape=mask.shape, ones=ones, **storage)


def _not_written(path: Path, error: OSError) -> TraceError:
    return TraceError(
        f"can't write {path}: {error.strerror or error}; what was written before is whole. "
        "Make room, or choose another place"
    )
