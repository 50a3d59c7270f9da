"""Parameters and presets of `systolic`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from swatsim.simulator.mechanism import MachineConfig, Preset
from swatsim.simulator.memory.config import BUFFERS
from swatsim.simulator.n_of_m import NONE, PatternName, packing_of, pattern_multiplexers
from swatsim.validation import count
from swatsim.workload.layer import OPERANDS


class Dataflow(StrEnum):
    """What stays in a PE while the rest streams past."""

    OUTPUT = "os"
    WEIGHT = "ws"
    INPUT = "is"


class SystolicConfig(MachineConfig):
    """Geometry of a `systolic` array, what stays in its PEs, and the pattern of its weights.

    Raises
    ------
    ConfigError
        If a value is out of range or at odds with another.
    """

    rows: Annotated[int, count("rows of PEs", "PEs", 1, 2**16)]
    columns: Annotated[int, count("columns of PEs", "PEs", 1, 2**16)]
    dataflow: Annotated[
        Dataflow,
        Field(
            description="what stays in a PE while the rest streams past: os a sum of the output, "
            "ws a value of the right operand (fprop, dgrad: weight; wgrad: grad_out), is one of "
            "the left (fprop, wgrad: act; dgrad: grad_out)"
        ),
    ]
    pattern: Annotated[
        PatternName,
        Field(
            description="N:M: fprop and dgrad take N slots for each M weights along what they sum, "
            "where no such M have more than N that are not zero; none: weights are not looked at"
        ),
    ] = NONE

    lanes: ClassVar[int] = 1

    @model_validator(mode="after")
    def _pattern_fits(self) -> SystolicConfig:
        if self.packing is None:
            return self
        if self.dataflow is Dataflow.INPUT:
            raise ValueError(
                f"pattern={self.pattern!r} is at odds with dataflow='is', whose PEs hold what all "
                "columns of the weights meet: choose dataflow os or ws, or pattern none"
            )
        kept = self.packing[0]
        if self.dataflow is Dataflow.WEIGHT and self.rows % kept:
            raise ValueError(
                f"rows={self.rows} is at odds with pattern={self.pattern!r} and dataflow='ws': the "
                f"{kept} slots of a group lie in one fold; choose a multiple of {kept}"
            )
        return self

    @property
    def pes(self) -> int:
        """PEs of the array."""
        return self.rows * self.columns

    @property
    def packing(self) -> tuple[int, int] | None:
        """The N and M of `pattern`; None: weights are not looked at."""
        return packing_of(self.pattern)

    @property
    def front_end(self) -> Mapping[str, float]:
        """A multiplexer for each PE, of n:m."""
        return pattern_multiplexers(self.packing, self.pes)

    presets: ClassVar[Mapping[str, Preset]] = {}


_DENSE = {f"format_{operand}": "dense" for operand in OPERANDS}


def _scale_sim(dataflow: Dataflow) -> Preset:
    """Return the array of SCALE-Sim's own configuration in a dataflow."""
    parameters: dict[str, Any] = {
        "rows": 32,
        "columns": 32,
        "dataflow": dataflow,
        **{f"buffer_{name}_kib": 64 for name in BUFFERS},
        "dtype": "bf16",
        **_DENSE,
    }
    return Preset(
        "Samajdar et al., SCALE-Sim: Systolic CNN Accelerator Simulator, arXiv:1811.02883; cycles "
        "of its version 3 (Raj et al., arXiv:2504.15377)",
        parameters,
        "SCALE-Sim, configs/scale.cfg: 32 x 32, three memories of 64 KB; the rest ours: 1 GHz, "
        "bf16, LPDDR4 of 25.6 GB/s; banks and words: PEs never wait",
    )


SystolicConfig.presets = {
    **{f"scale-sim-{dataflow}": _scale_sim(dataflow) for dataflow in Dataflow},
    "tpu-v1": Preset(
        "Jouppi et al., In-Datacenter Performance Analysis of a Tensor Processing Unit, ISCA 2017; "
        "an inference accelerator: its dgrad and wgrad are ours",
        {
            "rows": 256,
            "columns": 256,
            "dataflow": Dataflow.WEIGHT,
            "clock_mhz": 700,
            "dtype": "int8",
            "buffer_a_kib": 12 * 1024,
            "buffer_a_banks": 256,
            "buffer_b_kib": 12 * 1024,
            "buffer_b_banks": 256,
            "buffer_out_kib": 4 * 1024,
            "buffer_out_banks": 256,
            "dram": "ddr4-3200",
            "dram_mb_per_s": 30_000,
            "vector_lanes": 256,
            **_DENSE,
        },
        "ISCA 2017: 700 MHz, 8-bit multipliers, 24 MiB of unified buffer, 4 MiB of accumulators, "
        "weights from DRAM at 30 GB/s (the figure's; its table has the peak, 34); ours: the "
        "unified buffer in two halves, all operands and results through that DRAM, its DDR3 as "
        "DDR4; banks and words: PEs never wait",
        vector="ISCA 2017: activation of the 256 sums that the array gives a cycle; ours: all "
        "operations at that rate, no fusion, as frameworks run it",
    ),
    "tpu-v3": Preset(
        "Jouppi et al., A Domain-Specific Supercomputer for Training Deep Neural Networks, CACM "
        "2020: one of the four arrays of a chip",
        {
            "rows": 128,
            "columns": 128,
            "dataflow": Dataflow.WEIGHT,
            "clock_mhz": 940,
            "dtype": "bf16",
            "buffer_a_kib": 2 * 1024,
            "buffer_a_banks": 128,
            "buffer_b_kib": 2 * 1024,
            "buffer_b_banks": 128,
            "buffer_out_kib": 4 * 1024,
            "buffer_out_banks": 128,
            "dram": "hbm2",
            "dram_mb_per_s": 225_000,
            "vector_lanes": 512,
            **_DENSE,
        },
        "CACM 2020: 940 MHz, bf16, a chip of two cores of two arrays with HBM of 900 GB/s; 32 MiB "
        "on chip: Jouppi et al., ISCA 2021, table 1; an array has a fourth of both; ours: its cut "
        "into buffers; banks and words: PEs never wait",
        vector="Norrie et al., The Design Process for Google's Training Chips: TPUv2 and TPUv3, "
        "IEEE Micro 2021: 128 lanes of 8 a core, of which an array has half; ours: no fusion, as "
        "frameworks run it",
    ),
}
