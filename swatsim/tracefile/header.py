"""A step's header: its layers, its masks, how much of the step they are, a digest of all that."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from swatsim.arguments import is_whole
from swatsim.errors import TraceError, unknown
from swatsim.tracefile.coverage import Coverage
from swatsim.tracefile.others import MAX_OTHERS, OtherWork
from swatsim.tracefile.plain import digest, parse
from swatsim.tracefile.schema import (
    FORMAT,
    MAX_BATCH,
    MAX_LAYERS,
    SCHEMA_VERSION,
    Manifest,
    MaskRecord,
    StepLayer,
    check_format,
)


@dataclass(frozen=True)
class StepHeader:
    """What a step's file says of the step.

    Parameters
    ----------
    batch_size : int
        Of the step, whatever is kept of it.
    layers : sequence of StepLayer
        In the order in which they ran.
    masks : sequence of MaskRecord
    coverage : Coverage or None
        None: nobody counted.
    others : tuple of OtherWork, or None
        What else the step did. None: nobody noted it.
    notes : mapping
        What else is known of the step, as JSON.
    """

    batch_size: int
    layers: Sequence[StepLayer]
    masks: Sequence[MaskRecord]
    coverage: Coverage | None = None
    others: tuple[OtherWork, ...] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def check(self, manifest: Manifest) -> None:
        """Refuse what no reader could use, when it is written and when it is read.

        Raises
        ------
        TraceError, WorkloadError
        """
        by_name = self.by_name
        if len(by_name) != len(self.layers) or len(by_name) > MAX_LAYERS:
            raise TraceError(f"two of its layers have one name, or there are over {MAX_LAYERS}")
        check_masks(self.masks)
        check_batch(self.batch_size)
        for name in by_name:
            if name not in manifest.by_name:
                raise TraceError(unknown("layer", name, manifest.by_name))
        for record in self.masks:
            if record.layer not in by_name:
                raise TraceError(unknown("layer", record.layer, by_name))
            own = by_name[record.layer]
            own.layer.check_shape(record.operand, record.shape, own.samples)
        _check_number(self.others or ())
        if idle := by_name.keys() - {record.layer for record in self.masks}:
            raise TraceError(f"layer {min(idle)!r} has no masks")

    @cached_property
    def by_name(self) -> dict[str, StepLayer]:
        """The layers by their names."""
        return {own.layer.name: own for own in self.layers}


def _check_number(others: Sequence[Any]) -> None:
    if len(others) > MAX_OTHERS:
        raise TraceError(f"it notes more than {MAX_OTHERS} other works")


def check_masks(masks: Sequence[MaskRecord]) -> None:
    """Refuse a step without masks, or with two of the same.

    Raises
    ------
    TraceError
    """
    if not masks or len({record.key for record in masks}) != len(masks):
        raise TraceError("it holds no masks, or one of them twice")


def check_batch(batch_size: int, samples: int = 1) -> None:
    """Refuse a batch that can't be, or that has less samples than are kept.

    Raises
    ------
    TraceError
    """
    if not is_whole(batch_size) or not samples <= batch_size <= MAX_BATCH:
        raise TraceError(
            f"its batch of {batch_size} has less than the {samples} samples that are kept, or more "
            f"than {MAX_BATCH}"
        )


def dump_header(header: StepHeader) -> dict[str, str]:
    """Return the metadata of a step's safetensors header, with digests of itself.

    Notes have a checksum of their own: a trace's id does not depend on them.
    """
    metadata = {
        "format": FORMAT,
        "schema_version": str(SCHEMA_VERSION),
        "batch_size": str(header.batch_size),
        "layers": json.dumps([_plain(own) for own in header.layers], sort_keys=True),
        "masks": json.dumps([_of_mask(record) for record in header.masks], sort_keys=True),
    }
    if header.coverage is not None:
        metadata["coverage"] = json.dumps(header.coverage.model_dump(mode="json"), sort_keys=True)
    if header.others is not None:
        metadata["others"] = json.dumps([_of_other(work) for work in header.others], sort_keys=True)
    metadata["digest"] = digest(text_of(metadata))
    if header.notes:
        metadata["notes"] = json.dumps(dict(header.notes), sort_keys=True)
        metadata["notes_crc32"] = crc(metadata["notes"])
    return metadata


def _plain(own: StepLayer) -> dict[str, Any]:
    layer = own.layer.model_dump(mode="json", exclude_defaults=True)
    return {"layer": layer, "batch": own.batch, "samples": own.samples}


def _of_other(work: OtherWork) -> dict[str, Any]:
    return work.model_dump(mode="json", exclude_defaults=True)


def _of_mask(record: MaskRecord) -> dict[str, Any]:
    return record.model_dump(mode="json")


def text_of(metadata: Mapping[str, str]) -> str:
    """Return what a step's digest is of, and a trace's id: all but the notes."""
    keys = ("batch_size", "layers", "masks", "coverage")
    texts = [metadata.get(key, "") for key in keys]
    if "others" in metadata:  # which earlier versions did not write
        texts.append(metadata["others"])
    return "\n".join(texts)


def load_header(metadata: Mapping[str, str]) -> StepHeader:
    """Return what a step's file says of it.

    Raises
    ------
    TraceError, WorkloadError, ValueError, TypeError, RecursionError
        If it is not a step's, is of another version, or does not match its digest.
    """
    check_format(metadata, (str(SCHEMA_VERSION),))
    if metadata.get("digest") != digest(text_of(metadata)):
        raise TraceError("its header does not match its digest: the file is damaged")
    coverage, others = metadata.get("coverage"), metadata.get("others")
    return StepHeader(
        batch_size=whole_of(metadata.get("batch_size", "")),
        layers=[StepLayer(**item) for item in parse(metadata.get("layers", ""))],
        masks=[MaskRecord(**item) for item in parse(metadata.get("masks", ""))],
        coverage=None if coverage is None else Coverage(**parse(coverage)),
        others=None if others is None else _others_of(parse(others)),
        notes=load_notes(metadata),
    )


def _others_of(items: Any) -> tuple[OtherWork, ...]:
    """Return what else a step does; refuse before any is read what is no list, or too long."""
    if not isinstance(items, list):
        raise TraceError(f"its others are a {type(items).__name__}, expected a list")
    _check_number(items)
    return tuple(OtherWork(**item) for item in items)


def whole_of(text: str) -> int:
    """Return a batch's size; there is one text of each number.

    Raises
    ------
    TraceError, ValueError
    """
    if str(number := int(text)) != text:
        raise TraceError(f"its batch size is {text!r}, expected a whole number")
    return number


def load_notes(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the notes in a step's header; most steps have none.

    Raises
    ------
    TraceError
        If they do not match their checksum, or are no object.
    """
    text, checksum = metadata.get("notes"), metadata.get("notes_crc32")
    if text is None and checksum is None:
        return {}
    if text is None or checksum != crc(text):
        raise TraceError("its notes do not match their checksum: the file is damaged")
    notes = parse(text)
    if not isinstance(notes, dict):
        raise TraceError(f"its notes are a {type(notes).__name__}, expected an object")
    return notes


def crc(text: str) -> str:
    """Return the CRC-32 of a text (8 hex digits)."""
    return f"{zlib.crc32(text.encode()):08x}"
