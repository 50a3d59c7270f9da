"""Steps of format 1, as swatsim 0.1 wrote them: all have the manifest's layers.

They are read, and never written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from swatsim.errors import TraceError, WorkloadError, unknown
from swatsim.tracefile.header import (
    StepHeader,
    check_batch,
    check_masks,
    crc,
    load_notes,
    whole_of,
)
from swatsim.tracefile.plain import canonical, digest, parse
from swatsim.tracefile.schema import Manifest, MaskRecord, StepLayer, check_format


def load_step(metadata: Mapping[str, str], manifest: Manifest) -> StepHeader:
    """Return what a step's file, and the manifest, say of it.

    Raises
    ------
    TraceError, WorkloadError, ValueError, TypeError, RecursionError
        If it is not a step's, is of another version, is damaged, or was recorded under another
        manifest.
    """
    check_format(metadata, ("1",))
    text, batch_size = metadata.get("masks", ""), metadata.get("batch_size", "")
    if metadata.get("crc32") != crc(f"{batch_size} {text}"):
        raise TraceError("its header does not match its checksum: the file is damaged")
    masks, batch = [_mask(item) for item in parse(text)], whole_of(batch_size)
    samples = len(manifest.samples or ())
    check_masks(masks)
    check_batch(batch, samples)
    for record in masks:
        if record.layer not in manifest.by_name:
            raise TraceError(unknown("layer", record.layer, manifest.by_name))
        manifest.by_name[record.layer].check_shape(record.operand, record.shape, samples)
    _check_layers({record.layer for record in masks}, metadata.get("layers_digest"), manifest)
    layers = [
        StepLayer.model_construct(layer=layer, batch=batch, samples=samples)
        for layer in manifest.layers
    ]
    return StepHeader(batch, layers, masks, notes=load_notes(metadata))


def layers_digest(layers: Collection[str], manifest: Manifest) -> str:
    """Return the digest of what some layers' masks mean: batch size, samples, those layers.

    Layers that a later run added don't change it, nor do parameters that a later version knows
    and that have their default.
    """
    chosen = ",".join(text for name, text in manifest.texts.items() if name in layers)
    return digest(f"{canonical([manifest.batch_size, manifest.samples])[:-1]},[{chosen}]]")


def _mask(item: Mapping[str, object]) -> MaskRecord:
    if "dtype" in item:
        raise TraceError("a mask of format 1 has no dtype")
    return MaskRecord(**item)


def _check_layers(layers: Collection[str], stated: str | None, manifest: Manifest) -> None:
    """Refuse a step that was recorded under another manifest; one without a digest says nothing."""
    if stated not in (None, layers_digest(layers, manifest)):
        raise WorkloadError(
            "it was recorded with other layers, another batch size or other samples "
            "(its layers_digest differs)"
        )
