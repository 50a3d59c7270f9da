"""What a trace holds, and what is refused."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from swatsim.arguments import is_whole
from swatsim.errors import SwatsimError, TraceError, WorkloadError, shown, unknown
from swatsim.tracefile.plain import MAX_DEPTH, canonical, digest, parse, plain
from swatsim.validation import FrozenRecord, Whole
from swatsim.workload.layer import OPERANDS_OF, Layer, Operand, OpName

FORMAT = "swatsim-trace"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
STEPS = "steps"
SUFFIX = ".safetensors"

#: A mask of more elements is refused before anything is allocated for it (128 MiB packed, 1 GiB
#: unpacked).
MAX_ELEMENTS = 2**30

#: More layers, or recorded samples, are refused: a manifest is read as a whole.
MAX_LAYERS = 100_000
MAX_SAMPLES = 2**22
MAX_BATCH = 2**31
#: A step's number is below it: results hold 64 bits.
MAX_STEP = 2**63

#: What a value may be stored as, in torch's names. Of quantized values the type of the stored one.
VALUE_TYPES = frozenset(
    [
        *("float64", "float32", "bfloat16", "float16"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
        *("float4_e2m1fn_x2", "bool", "complex128", "complex64", "complex32", "bcomplex32"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (*range(1, 9), 16, 32, 64)),
        *("qint32", "qint8", "quint8", "quint4x2", "quint2x4"),
        *("bits16", "bits8", "bits4x2", "bits2x4", "bits1x8"),
    ]
)


def _value_type(name: str) -> str:
    if name not in VALUE_TYPES:
        raise ValueError("must be the name of a value type in torch, such as float32 or bfloat16")
    return name


Index = Annotated[Whole, Field(ge=0, lt=2**63)]
Stated = Annotated[dict[str, Any], BeforeValidator(partial(plain, left=MAX_DEPTH - 1))]


class Manifest(FrozenRecord):
    """``manifest.json``: what all steps of a trace share.

    Parameters
    ----------
    layers : list of Layer
        In the order in which the network runs them.
    policy : dict
        The policy's name and parameters, for people; nothing is computed from it.
    batch_size : int
        Samples of a training batch, of which some are recorded.
    samples : list of int
        Which samples of the batch the masks of act and grad_out hold.
    provenance : dict
        Where the trace comes from: versions, command line, time.
    digest : str or None
        Of all the rest, as it was written; None in a trace of a swatsim that wrote none.
    """

    error_type: ClassVar[type[SwatsimError]] = TraceError

    format: Literal["swatsim-trace"] = "swatsim-trace"
    schema_version: Literal[1] = 1
    layers: Annotated[tuple[Layer, ...], Field(max_length=MAX_LAYERS)]
    policy: Stated = Field(default_factory=dict)
    batch_size: Annotated[Whole, Field(ge=1, le=MAX_BATCH)]
    samples: Annotated[tuple[Index, ...], Field(min_length=1, max_length=MAX_SAMPLES)]
    provenance: Stated = Field(default_factory=dict)
    digest: str | None = None

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return the file's name, for refusals."""
        return MANIFEST

    @model_validator(mode="after")
    def _relations(self) -> Manifest:
        seen: set[str] = set()
        for layer in self.layers:
            if layer.name in seen:
                raise ValueError(f"two layers are called {layer.name!r}: names must be unique")
            seen.add(layer.name)
        if len(set(self.samples)) != len(self.samples) or max(self.samples) >= self.batch_size:
            raise ValueError(
                f"samples must be different and below batch_size={self.batch_size}, "
                f"got {list(self.samples)[:20]}"
            )
        return self

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """The layers by their names."""
        return {layer.name: layer for layer in self.layers}

    def digest_of(self, layers: Collection[str]) -> str:
        """Return the digest of what some layers' masks mean: batch size, samples, those layers.

        Layers that a later run adds don't change it, nor do parameters that a later version knows
        and that have their default.
        """
        chosen = (text for name, text in self._texts.items() if name in layers)
        return digest(f"{self._batch_text[:-1]},[{','.join(chosen)}]]")

    @cached_property
    def _batch_text(self) -> str:
        return canonical([self.batch_size, self.samples])

    @cached_property
    def _texts(self) -> dict[str, str]:
        return {
            layer.name: canonical(layer.model_dump(exclude_defaults=True)) for layer in self.layers
        }


class MaskRecord(FrozenRecord):
    """One mask of a step: of which layer, op and operand it is, and where its bits lie.

    Parameters
    ----------
    layer, op, operand : str
        A mask belongs to all three: SWAT's fprop and wgrad read different act masks.
    shape : tuple of int
        As `Layer.shape_of` says, of the recorded samples.
    bitorder : "little"
        Element i is bit i % 8 of byte i // 8; unused bits of the last byte are 0.
    codec : {"zstd", "ones"}
        "ones": every element is True, and there are no bytes.
    ones : int
        Elements that are True.
    tensor : str or None
        The tensor of zstd bytes; equal masks name the same one. None for codec "ones".
    digest : str or None
        BLAKE2b of the packed bits, 8 bytes as hex; None for codec "ones".
    dtype : str or None
        What the operand's values are stored as, in torch's names ("bfloat16"); None where that is
        unknown, as in a trace of format 1.
    """

    error_type: ClassVar[type[SwatsimError]] = TraceError

    layer: str
    op: OpName
    operand: Operand
    shape: Annotated[tuple[Annotated[Whole, Field(ge=1)], ...], Field(min_length=2, max_length=4)]
    bitorder: Literal["little"] = "little"
    codec: Literal["zstd", "ones"]
    ones: Annotated[Whole, Field(ge=0)]
    tensor: str | None = None
    digest: str | None = None
    dtype: Annotated[str, Field(strict=True), AfterValidator(_value_type)] | None = None

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return the mask's layer, op and operand, for refusals."""
        return f"mask {data.get('layer')}/{data.get('op')}/{data.get('operand')}"

    @model_validator(mode="after")
    def _relations(self) -> MaskRecord:
        if self.operand not in OPERANDS_OF[self.op]:
            raise ValueError(f"{self.op} does not read {self.operand}")
        if self.elements > MAX_ELEMENTS:
            raise ValueError(f"shape {self.shape} promises more than {MAX_ELEMENTS} elements")
        bare = self.codec == "ones"
        if (self.tensor is None) != bare or (self.digest is None) != bare:
            raise ValueError("codec 'zstd' needs a tensor and a digest, codec 'ones' has neither")
        if self.ones > self.elements or (self.codec == "ones" and self.ones != self.elements):
            raise ValueError(f"ones={self.ones} can't be in {self.elements} elements")
        return self

    @property
    def elements(self) -> int:
        """Elements of the mask."""
        return prod(self.shape)

    @property
    def key(self) -> tuple[str, OpName, Operand]:
        """Layer, op, operand."""
        return self.layer, self.op, self.operand

    @property
    def density(self) -> float:
        """Share of elements that are True."""
        return self.ones / self.elements


def dump_manifest(manifest: Manifest) -> bytes:
    """Return a manifest as JSON, with its digest; a lone surrogate becomes JSON's escape."""
    entries = json.loads(json.dumps(manifest.model_dump(exclude={"digest"})))
    entries["digest"] = digest(canonical(entries))
    return json.dumps(entries, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")


def load_manifest(content: bytes) -> Manifest:
    """Return the manifest of a JSON text; nothing in it is taken for what it nearly is.

    Raises
    ------
    TraceError, WorkloadError, ValueError, RecursionError
        If it is none, of another version, or does not match its digest.
    """
    entries: Any = parse(content.decode("utf-8"))
    if not isinstance(entries, dict):
        raise TraceError(f"{MANIFEST} holds a {type(entries).__name__}, expected an object")
    check_format(entries, SCHEMA_VERSION)
    manifest = Manifest(**entries)
    stated = entries.pop("digest", None)
    if stated is not None and stated != digest(canonical(entries)):
        raise TraceError(
            f"{MANIFEST} does not match its digest: it was changed or damaged after it was "
            "written; take it from a copy, or record the run again"
        )
    return manifest


def check_number(number: Any) -> None:
    """Refuse what can't be a step's number.

    Raises
    ------
    TraceError
    """
    if not is_whole(number) or not 0 <= number < MAX_STEP:
        raise TraceError(
            f"step {shown(number)} is not allowed: steps are counted from 0, and are below 2**63"
        )


def check_step(records: Sequence[MaskRecord], batch_size: int, manifest: Manifest) -> None:
    """Refuse a step that does not fit its manifest, when it is written and when it is read.

    Raises
    ------
    TraceError, WorkloadError
    """
    samples = len(manifest.samples)
    if not records or len({record.key for record in records}) != len(records):
        raise TraceError("it holds no masks, or one of them twice")
    if not is_whole(batch_size) or not samples <= batch_size <= MAX_BATCH:
        raise TraceError(
            f"its batch of {batch_size} has less than the {samples} samples that are kept, or more "
            f"than {MAX_BATCH}"
        )
    for record in records:
        if record.layer not in manifest.by_name:
            raise TraceError(unknown("layer", record.layer, manifest.by_name))
        manifest.by_name[record.layer].check_shape(record.operand, record.shape, samples)


def dump_records(
    records: list[MaskRecord],
    batch_size: int,
    notes: Mapping[str, Any] | None = None,
    manifest: Manifest | None = None,
) -> dict[str, str]:
    """Return the metadata of a step's safetensors header, with checksums of itself.

    Notes have a checksum of their own: what reads none of them reads the rest as ever. Of the
    manifest it holds a digest: what it says of these masks' layers.
    """
    unset = {"dtype"} if all(record.dtype is None for record in records) else None
    dumped = [record.model_dump(mode="json", exclude=unset) for record in records]
    text = json.dumps(dumped, sort_keys=True)
    metadata = {
        "format": FORMAT,
        "schema_version": str(SCHEMA_VERSION),
        "batch_size": str(batch_size),
        "masks": text,
        "crc32": _crc(f"{batch_size} {text}"),
    }
    if notes:
        metadata["notes"] = json.dumps(dict(notes), sort_keys=True)
        metadata["notes_crc32"] = _crc(metadata["notes"])
    if manifest is not None:
        metadata["layers_digest"] = manifest.digest_of({record.layer for record in records})
    return metadata


def load_records(metadata: Mapping[str, str]) -> tuple[list[MaskRecord], int]:
    """Return the records and the batch size in a step's header.

    Raises
    ------
    TraceError
        If it is not a step's, is of another version, or does not match its checksum.
    """
    check_format(metadata, str(SCHEMA_VERSION))
    text, batch_size = metadata.get("masks", ""), metadata.get("batch_size", "")
    if metadata.get("crc32") != _crc(f"{batch_size} {text}"):
        raise TraceError("its header does not match its checksum: the file is damaged")
    if str(number := int(batch_size)) != batch_size:
        raise TraceError(f"its batch size is {batch_size!r}, expected a whole number")
    return [MaskRecord(**item) for item in parse(text)], number


def check_layers(records: list[MaskRecord], stated: str | None, manifest: Manifest) -> None:
    """Refuse a step that was recorded under another manifest; one without a digest says nothing.

    Raises
    ------
    WorkloadError
    """
    if stated not in (None, manifest.digest_of({record.layer for record in records})):
        raise WorkloadError(
            "it was recorded with other layers, another batch size or other samples "
            "(its layers_digest differs)"
        )


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
    if text is None or checksum != _crc(text):
        raise TraceError("its notes do not match their checksum: the file is damaged")
    notes = parse(text)
    if not isinstance(notes, dict):
        raise TraceError(f"its notes are a {type(notes).__name__}, expected an object")
    return notes


def check_format(entries: Mapping[str, Any], version: Any) -> None:
    """Refuse what is not a trace, or a trace of another schema version."""
    if entries.get("format") != FORMAT:
        raise TraceError(
            f"its format is {entries.get('format')!r}, expected {FORMAT!r}: this is not of a trace"
        )
    got = entries.get("schema_version")
    if got != version or type(got) is not type(version):
        raise TraceError(
            f"its schema version is {got!r}, this swatsim reads "
            f"{version!r}: use the swatsim that wrote it, or record the run again"
        )


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
