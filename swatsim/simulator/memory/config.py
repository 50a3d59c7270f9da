"""Parameters of the memory system, which every machine has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from swatsim.errors import ConfigError, SwatsimError, WorkloadError
from swatsim.simulator.memory.dram import MAX_LATENCY_NS, MAX_MB_PER_S, Dram, dram, shipped
from swatsim.simulator.memory.dram import words as drams
from swatsim.validation import FrozenRecord, count, one_of
from swatsim.workload import storage
from swatsim.workload.layer import Operand
from swatsim.workload.value_types import DTYPES

#: Instead of a value type: the preset's own, whatever a trace says.
PRESET = "preset"
#: A sum: the largest word that a bank holds, but for values of fp64, which take two.
WORD_BYTES = 4
#: Of the largest buffer.
MAX_KIB, MAX_BANKS, MAX_WORDS = 2**20, 2**16, 2**24

#: Of the op's first operand, of its second, of its output.
Buffer = Literal["a", "b", "out"]
BUFFERS: tuple[Buffer, ...] = get_args(Buffer)

#: Loop orders, outermost first.
Order = Literal["KCN", "KNC", "CKN", "CNK", "NKC", "NCK"]
ORDERS: tuple[Order, ...] = get_args(Order)

Auto = Literal["auto"]


def _format(value: str) -> str:
    try:
        format = storage.named(value)
    except WorkloadError:
        raise ValueError(storage.words(placed=True)) from None
    if not format.placed:
        raise ValueError(f"it does not say where its values are: {storage.words(placed=True)}")
    return value


def _dram(value: Any) -> Dram:
    if not isinstance(value, str | os.PathLike | Dram):
        raise ValueError(f"must be {drams()}")
    try:
        return dram(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _capacity(of: str) -> Any:
    return count(f"capacity of buffer {of}; half of it holds a block", "KiB", 1, MAX_KIB)


def _banks() -> Any:
    return count("its banks: an access costs the energy of one", "banks", 1, MAX_BANKS)


def _words() -> Any:
    return count("values a cycle that it gives, all banks together", "values", 1, MAX_WORDS)


def _format_of(operand: str) -> Any:
    return Field(
        description=f"how {operand} travels and lies on chip if it has zeros: "
        f"{storage.words(placed=True)}"
    )


def _extent(what: str, unit: str) -> Any:
    meaning = f"a block's {what}; auto: the fewest bytes of a fine grid, within a 64th"
    return Field(description=meaning, json_schema_extra={"unit": unit})


Format = Annotated[str, AfterValidator(_format)]
#: In Python's terms a record, so that what is counted depends on its content; written as its name.
Device = Annotated[
    Dram,
    BeforeValidator(_dram),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"anyOf": [{"enum": shipped()}, {"type": "string", "examples": ["FILE.toml"]}]}),
]
Extent = Auto | Annotated[int, Field(ge=1, le=2**40)]

A = "a, of the first operand (fprop, dgrad: weight; wgrad: act)"
B = "b, of the second operand (fprop: act; dgrad, wgrad: grad_out)"
OUT = "out, of the output"


class MemoryConfig(FrozenRecord):
    """Buffers, DRAM and storage formats; `README.md` beside this file says what they do.

    Raises
    ------
    ConfigError
        If a value is out of range, or at odds with another.
    """

    error_type: ClassVar[type[SwatsimError]] = ConfigError

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return what errors call it."""
        return "machine parameters"

    memory: Annotated[
        Literal["modelled", "none"],
        Field(description="none: operands are always there, cycles are compute cycles"),
    ] = "modelled"
    clock_mhz: Annotated[int, count("clock of PEs and buffers", "MHz", 1, 10_000)] = 1000
    dtype: Annotated[
        str,
        one_of(DTYPES),
        Field(
            description="type of a value: set, of every trace; as it stands, of one that does not "
            "say what type its values had; preset: set to the preset's own. Sums are fp32",
            json_schema_extra={"enum": [*DTYPES, PRESET]},
        ),
    ] = "fp32"
    buffer_a_kib: Annotated[int, _capacity(A)] = 1024
    buffer_a_banks: Annotated[int, _banks()] = 32
    buffer_a_words: Annotated[int, _words()] = 4096
    buffer_b_kib: Annotated[int, _capacity(B)] = 1024
    buffer_b_banks: Annotated[int, _banks()] = 32
    buffer_b_words: Annotated[int, _words()] = 4096
    buffer_out_kib: Annotated[int, _capacity(OUT)] = 1024
    buffer_out_banks: Annotated[int, _banks()] = 32
    buffer_out_words: Annotated[int, _words()] = 4096
    dram: Annotated[
        Device,
        Field(
            default="lpddr4-3200",
            description="kind of DRAM: bandwidth of a channel, latency, energy of a bit; or a file "
            "of your own that says so",
        ),
    ]
    dram_channels: Annotated[int, count("channels of it", "channels", 1, 256)] = 4
    dram_mb_per_s: Annotated[
        Auto | Annotated[int, Field(ge=1, le=MAX_MB_PER_S)],
        Field(
            description="bandwidth of all channels; auto: what the kind of DRAM gives",
            json_schema_extra={"unit": "MB/s"},
        ),
    ] = "auto"
    dram_latency_ns: Annotated[
        Auto | Annotated[int, Field(ge=0, le=MAX_LATENCY_NS)],
        Field(
            description="from a request to its first word; auto: as the kind of DRAM has it",
            json_schema_extra={"unit": "ns"},
        ),
    ] = "auto"
    format_weight: Annotated[Format, _format_of("weight")] = "bitmask"
    format_act: Annotated[Format, _format_of("act")] = "bitmask"
    format_grad_out: Annotated[Format, _format_of("grad_out")] = "bitmask"
    loop_order: Annotated[
        Auto | Order,
        Field(
            description="loops over blocks, outermost first: K filters, C channels, N rows of all "
            "samples; auto: the fewest bytes of a fine grid, within a 64th"
        ),
    ] = "auto"
    block_filters: Annotated[Extent, _extent("filters of a group", "filters")] = "auto"
    block_channels: Annotated[Extent, _extent("channels of a group", "channels")] = "auto"
    block_rows: Annotated[Extent, _extent("rows of an image, or of several", "rows")] = "auto"
    keep_on_chip: Annotated[
        bool,
        Field(description="wgrad does not load the grad_out that dgrad had whole on chip"),
    ] = False

    @model_validator(mode="after")
    def _memory_relations(self) -> MemoryConfig:
        if self.dram.ideal and (self.dram_mb_per_s, self.dram_latency_ns) != ("auto", "auto"):
            raise ValueError(
                "dram='ideal' takes no time: dram_mb_per_s and dram_latency_ns are at odds with "
                "it; leave them auto, or choose another dram"
            )
        if not self.dram.ideal and self.bandwidth_mb_per_s > MAX_MB_PER_S:
            raise ValueError(
                f"dram_channels={self.dram_channels} of {self.dram} give {self.bandwidth_mb_per_s} "
                f"MB/s, must be at most {MAX_MB_PER_S}: take fewer channels"
            )
        for buffer in BUFFERS:
            most = getattr(self, f"buffer_{buffer}_kib") * 1024 // WORD_BYTES
            if (banks := getattr(self, f"buffer_{buffer}_banks")) > most:
                raise ValueError(
                    f"buffer_{buffer}_banks={banks} leaves a bank less than a word of {WORD_BYTES} "
                    f"bytes: set it to at most {most}"
                )
        return self

    @property
    def bandwidth_mb_per_s(self) -> int:
        """Bandwidth of the DRAM, in MB/s."""
        if self.dram_mb_per_s != "auto":
            return self.dram_mb_per_s
        return self.dram.bandwidth.mb_per_s * self.dram_channels

    @property
    def finite_mb_per_s(self) -> int:
        """The bandwidth; 0 if there is no end to it."""
        endless = self.memory == "none" or self.dram.ideal
        return 0 if endless else self.bandwidth_mb_per_s

    @property
    def buffers_alike(self) -> bool:
        """Whether the buffers of the two operands could exchange their roles."""
        same = (
            getattr(self, f"buffer_a_{what}") == getattr(self, f"buffer_b_{what}")
            for what in ("kib", "banks", "words")
        )
        return all(same)

    @property
    def latency_cycles(self) -> int:
        """Cycles from a request to its first word."""
        known = self.dram_latency_ns
        latency = self.dram.latency.ns if known == "auto" else known
        return -(-latency * self.clock_mhz // 1000)

    def format_of(self, operand: Operand) -> str:
        """Return the storage format of an operand."""
        return str(getattr(self, f"format_{operand}"))
