"""Parameters and presets of `cartesian`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from swatsim.simulator.mechanism import MachineConfig, Preset, Published
from swatsim.validation import count

#: wgrad looks its costs up in a table of all pairs of blocks; longer vectors make it huge.
MAX_VECTOR = 8

#: How the border is counted that PEs exchange.
Halo = Literal["reach", "output"]
#: As which plane the positions of a 1 x 1 layer lie.
Positions = Literal["as_recorded", "square"]

_SCNN: Mapping[str, Any] = {
    "pe_h": 8,
    "pe_w": 8,
    "act_vector": 4,
    "weight_vector": 4,
    "accumulator": 6144,
    "banks": 32,
    "clock_mhz": 1000,
    "buffer_a_words": 256,
    "buffer_b_words": 256,
    "buffer_out_words": 256,
    "format_weight": "run-length",
    "format_act": "run-length",
    "format_grad_out": "run-length",
}

_SCNN_PRESET = Preset(
    "Parashar et al., SCNN: An Accelerator for Compressed-sparse Convolutional Neural "
    "Networks, ISCA 2017, as DNNsim models it; its wgrad is ours",
    {
        **_SCNN,
        "dtype": "fp16",
        "buffer_a_kib": 32,
        "buffer_a_banks": 64,
        "buffer_b_kib": 640,
        "buffer_b_banks": 64,
        "buffer_out_kib": 640,
        "buffer_out_banks": 64,
        "dram_mb_per_s": 50_000,
    },
    "SCNN: 64 PEs with 10 KB for input and 10 KB for output activations, and a weight "
    "FIFO of 0.5 KB; 50 GB/s; run-length with 4 bits; its 16-bit fixed point as fp16; "
    "clock ours. The FIFO's 32 KB also hold wgrad's activations, for which it was never "
    "meant",
    (
        Published(
            "performance over a dense machine, inference of its networks",
            2.7,
            "Parashar et al., ISCA 2017, abstract",
        ),
        Published(
            "energy efficiency over a dense machine, inference of its networks",
            2.3,
            "the same abstract",
        ),
    ),
)


class CartesianConfig(MachineConfig):
    """Geometry of a `cartesian`: planar tiles of PEs, each with an I x F multiplier array.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    pe_h: Annotated[int, count("PEs along the image's height", "PEs", 1, 2**10)]
    pe_w: Annotated[int, count("PEs along the image's width", "PEs", 1, 2**10)]
    act_vector: Annotated[
        int, count("planar values a PE takes a cycle, I", "values", 1, MAX_VECTOR)
    ]
    weight_vector: Annotated[int, count("weights a PE takes a cycle, F", "values", 1, MAX_VECTOR)]
    accumulator: Annotated[int, count("accumulators of a PE", "entries", 1, 2**24)]
    banks: Annotated[
        int, count("banks of a PE's accumulators; the hash addresses 32", "banks", 1, 2**10)
    ]

    bank_queue: Annotated[
        int,
        count(
            "products that wait before each bank; 0: a pair of blocks holds the multipliers until "
            "its fullest bank is done",
            "products",
            0,
            2**24,
        ),
    ] = 0
    halo: Annotated[
        Halo,
        Field(
            description="border that PEs exchange after a chunk of filters: reach, all that a "
            "kernel reaches over a tile's edge, as DNNsim counts; or output, sums that lie in the "
            "output plane and outside the tile"
        ),
    ] = "reach"
    positions: Annotated[
        Positions,
        Field(
            description="plane of the positions of a 1 x 1 layer without padding and stride that "
            "has a side of 1, as tokens have, in fprop and dgrad: as_recorded, or the most square "
            "one of those that fill the PEs best"
        ),
    ] = "as_recorded"

    @model_validator(mode="after")
    def _relations(self) -> CartesianConfig:
        if self.banks > self.accumulator:
            raise ValueError(
                f"banks={self.banks} is at odds with accumulator={self.accumulator}: a bank holds "
                f"at least one entry; set banks to at most {self.accumulator}"
            )
        return self

    @property
    def pes(self) -> int:
        """PEs of the machine."""
        return self.pe_h * self.pe_w

    @property
    def lanes(self) -> int:
        """Multipliers of a PE."""
        return self.act_vector * self.weight_vector

    @property
    def front_end(self) -> Mapping[str, float]:
        """Places of values and products, and what brings these to their banks.

        Banks are of 16 products, and queues of 16 too; others in proportion: `memory/README.md`.
        """
        products = self.lanes
        banks = self.banks * products / 16
        ways = {"queue": banks * max(self.bank_queue, products) / 16}
        each = {
            "pixel_place": self.act_vector,
            "weight_place": self.weight_vector,
            "product_place": products,
            **(ways if self.bank_queue else {"arbiter": banks, "crossbar": banks}),
        }
        return {name: self.pes * many for name, many in each.items()}

    @property
    def accumulator_bank_kib(self) -> float:
        """Size of a bank of accumulators, of 4 bytes each."""
        return 4 * self.accumulator / self.banks / 1024

    @property
    def accumulator_banks(self) -> int:
        """Banks of accumulators in all PEs together."""
        return self.pes * self.banks

    presets: ClassVar[Mapping[str, Preset]] = {
        "scnn": _SCNN_PRESET,
        "scnn-queued": Preset(
            "scnn with queues of 8 products before the banks, which the paper does not describe; "
            "three open SCNN implementations queue 5, 8 and 32",
            {**_SCNN_PRESET.parameters, "bank_queue": 8},
            _SCNN_PRESET.memory,
        ),
        "swat": Preset(
            "the machine that fits the speed-ups of SWAT (Raihan and Aamodt, NeurIPS 2020, "
            "poster): SCNN's geometry, dgrad over dilated gradients; a fit, not a citation; its "
            "wgrad, and where tokens lie, are ours",
            {
                **_SCNN,
                "dgrad_lowering": "dilated",
                "halo": "output",
                "positions": "square",
                "buffer_a_banks": 64,
                "buffer_b_banks": 64,
                "buffer_out_banks": 64,
                "dram_channels": 8,
            },
            "ours: fp32, 1 MiB a buffer, LPDDR4 of 51.2 GB/s; run-length with 4 bits as SCNN has "
            "it",
            tuple(
                Published(
                    f"{words}, ResNet-50, Top-K sparsity {sparsity} %",
                    value,
                    "Raihan and Aamodt, NeurIPS 2020, poster; see swatsim reproduce swat",
                )
                for sparsity, forward, backward in ((80, 3.3, 3.4), (90, 5.6, 6.3))
                for words, value in (("forward", forward), ("backward", backward))
            ),
        ),
    }
