"""Parameters and presets of `inner_join`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from swatsim.simulator.mechanism import MachineConfig, Preset
from swatsim.validation import count

#: Bits of a machine word: a chunk is whole words.
WORD = 64


class Balancing(StrEnum):
    """Which filters share a PE, so that PEs of a cluster take about as long."""

    NONE = "none"
    GREEDY_SOFTWARE = "greedy-software"
    GREEDY_HARDWARE = "greedy-hardware"


class InnerJoinConfig(MachineConfig):
    """Geometry and balancing of an `inner_join`.

    Raises
    ------
    ConfigError
        If a value is out of range, or a chunk is no whole number of words.
    """

    clusters: Annotated[int, count("clusters; each works on a window of its own", "", 1, 2**16)]
    pes_per_cluster: Annotated[
        int, count("PEs of a cluster, of one multiplier each", "PEs", 1, 2**12)
    ]
    chunk: Annotated[
        int, count("values that are joined at a time; whole words of 64", "values", WORD, 2**12)
    ]
    balancing: Annotated[
        Balancing,
        Field(
            description="none: a filter a PE; greedy-software: two, the densest with the sparsest, "
            "by their whole streams; greedy-hardware: the same anew for each chunk"
        ),
    ]

    #: Multipliers of a PE.
    lanes: ClassVar[int] = 1

    @model_validator(mode="after")
    def _relations(self) -> InnerJoinConfig:
        if self.chunk % WORD:
            raise ValueError(
                f"chunk={self.chunk} is no whole number of words of {WORD} values: set it to "
                f"{self.chunk // WORD * WORD} or {(self.chunk // WORD + 1) * WORD}"
            )
        return self

    @property
    def pes(self) -> int:
        """PEs of the machine."""
        return self.clusters * self.pes_per_cluster

    @property
    def filters_per_round(self) -> int:
        """Filters that a cluster holds at a time, if there are so many."""
        return self.pes_per_cluster * (1 if self.balancing is Balancing.NONE else 2)

    presets: ClassVar[Mapping[str, Preset]] = {
        "sparten": Preset(
            "after Gondimalla et al., SparTen: A Sparse Tensor Accelerator for Convolutional "
            "Neural Networks, MICRO 2019, its design with hardware balancing (GB-H); its wgrad "
            "is ours",
            {
                "clusters": 32,
                "pes_per_cluster": 32,
                "chunk": 128,
                "balancing": "greedy-hardware",
                "clock_mhz": 1000,
                "dtype": "fp16",
                "buffer_a_banks": 32,
                "buffer_b_banks": 32,
                "buffer_out_banks": 32,
                "buffer_a_words": 4096,
                "buffer_b_words": 4096,
                "buffer_out_words": 4096,
                "format_weight": "bitmask",
                "format_act": "bitmask",
                "format_grad_out": "bitmask",
                "dram_channels": 8,
            },
            "ours: 1 GHz, fp16, 1 MiB a buffer, a bank and a chunk a cycle for each cluster, "
            "LPDDR4 of 51.2 GB/s; bitmasks as SparTen has them",
        ),
    }
