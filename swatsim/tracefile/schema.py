"""What a trace's manifest and its records hold, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from swatsim.arguments import is_whole
from swatsim.errors import SwatsimError, TraceError, shown
from swatsim.tracefile.plain import MAX_DEPTH, canonical, digest, parse, plain
from swatsim.validation import FrozenRecord, Whole
from swatsim.workload.layer import OUTPUT_OF, Layer, Operand, OpName

FORMAT = "swatsim-trace"
SCHEMA_VERSION = 2
#: The one before is read, and not written any more: see `format_1`.
VERSIONS = (1, SCHEMA_VERSION)
MANIFEST = "manifest.json"
STEPS = "steps"
#: Where a trace waits that is replaced, whole, until the first step of the new one is written.
REPLACED = ".replaced"
SUFFIX = ".safetensors"

#: A mask of more elements is refused before anything is allocated for it (256 MiB packed, 2 GiB
#: unpacked).
MAX_ELEMENTS = 2**31

#: More layers, or listed samples, are refused: a manifest is read as a whole.
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


#: By torch's name.
ValueType = Annotated[str, Field(strict=True), AfterValidator(_value_type)]
Index = Annotated[Whole, Field(ge=0, lt=2**63)]
Batch = Annotated[Whole, Field(ge=1, le=MAX_BATCH)]
Stated = Annotated[dict[str, Any], BeforeValidator(partial(plain, left=MAX_DEPTH - 1))]


class Manifest(FrozenRecord):
    """``manifest.json``: what all steps of a trace share.

    Parameters
    ----------
    schema_version : int
        2; 1 in a trace of swatsim 0.1, whose layers are those of all steps.
    layers : list of Layer
        In the order in which the network runs them, each as it was first seen: a step has its own.
    policy : dict
        The policy's name and parameters, for people; nothing is computed from it.
    batch_size : int
        Samples of the first recorded batch; a step has its own.
    samples : list of int, or None
        Which samples of a batch the masks of act and grad_out hold, as far as they are in it; None:
        all.
    provenance : dict
        Where the trace comes from: versions, command line, time.
    digest : str or None
        Of all the rest, as it was written; None in a trace of format 1 of a swatsim that wrote
        none.
    """

    error_type: ClassVar[type[SwatsimError]] = TraceError

    format: Literal["swatsim-trace"] = "swatsim-trace"
    schema_version: Literal[1, 2] = 2
    layers: Annotated[tuple[Layer, ...], Field(max_length=MAX_LAYERS)]
    policy: Stated = Field(default_factory=dict)
    batch_size: Batch
    samples: Annotated[tuple[Index, ...], Field(min_length=1, max_length=MAX_SAMPLES)] | None
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
        if self.samples is not None and len(set(self.samples)) != len(self.samples):
            raise ValueError(f"samples must be different, got {list(self.samples)[:20]}")
        if self.schema_version == 1:
            self._check_version_1()
        return self

    def _check_version_1(self) -> None:
        if self.samples is None or max(self.samples) >= self.batch_size:
            raise ValueError(
                f"samples must be below batch_size={self.batch_size}, "
                f"got {list(self.samples or ())[:20]}"
            )

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """The layers by their names."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def texts(self) -> dict[str, str]:
        """The layers by their names as digests are of them: without what has its default."""
        return {
            layer.name: canonical(layer.model_dump(exclude_defaults=True)) for layer in self.layers
        }

    def kept(self, batch: int) -> int:
        """Return how many samples of such a batch are kept."""
        return kept(self.samples, batch)


def kept(samples: Sequence[int] | None, batch: int) -> int:
    """Return how many of some samples are in a batch; None: all of it are kept."""
    if samples is None:
        return batch
    return sum(sample < batch for sample in samples)


class StepLayer(FrozenRecord):
    """A layer as it ran in one step.

    Parameters
    ----------
    layer : Layer
        In that step's shape.
    batch : int
        N of its whole batch; 1 if its rows are positions of one sample.
    samples : int
        How many of these its masks hold, the first ones.
    """

    error_type: ClassVar[type[SwatsimError]] = TraceError

    layer: Layer
    batch: Batch
    samples: Batch

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return the layer's name, for refusals."""
        layer = data.get("layer")
        name = layer.get("name") if isinstance(layer, Mapping) else getattr(layer, "name", "?")
        return f"layer {name!r}"

    @model_validator(mode="after")
    def _relations(self) -> StepLayer:
        if self.samples > self.batch:
            raise ValueError(f"samples={self.samples} can't be in a batch of {self.batch}")
        return self


class MaskRecord(FrozenRecord):
    """One mask of a step: of which layer, op and operand it is, and where its bits lie.

    Parameters
    ----------
    layer, op, operand : str
        A mask belongs to all three: SWAT's fprop and wgrad read different act masks. Where the op
        makes the operand, and reads it not, the mask is of its output: which elements of it
        somebody wants. Without one all are wanted.
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
    dtype: ValueType | None = None

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return the mask's layer, op and operand, for refusals."""
        return f"mask {data.get('layer')}/{data.get('op')}/{data.get('operand')}"

    @model_validator(mode="after")
    def _relations(self) -> MaskRecord:
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
    def is_output(self) -> bool:
        """Whether it is of what the op makes."""
        return self.operand == OUTPUT_OF[self.op]

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
    check_format(entries, VERSIONS)
    manifest = Manifest(**entries)
    stated = entries.pop("digest", None)
    bare = stated is None and manifest.schema_version == 1
    if not bare and stated != digest(canonical(entries)):
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


def check_format(entries: Mapping[str, Any], versions: Sequence[Any]) -> None:
    """Refuse what is not a trace, or a trace of another schema version."""
    if entries.get("format") != FORMAT:
        raise TraceError(
            f"its format is {entries.get('format')!r}, expected {FORMAT!r}: this is not of a trace"
        )
    got = entries.get("schema_version")
    if not any(got == version and type(got) is type(version) for version in versions):
        raise TraceError(
            f"its schema version is {shown(got)}, expected {' or '.join(map(repr, versions))}: use "
            "the swatsim that wrote it, or record the run again"
        )
