"""Parameters of the vector unit, which every machine has: it runs what multiplies no matrices.

`memory/README.md` has its rule, under "Everything else".
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from swatsim.simulator.memory.config import Auto, MemoryConfig

#: `none`: as a framework runs it, each operation by itself.
Fusion = Literal["none", "elementwise"]

#: So many multipliers have one lane where nobody says more: an SM of an A100 has 64 fp32 cores
#: beside 1024 multiply-accumulates a cycle, one of an H100 128 beside 2048 (NVIDIA's white papers).
MULTIPLIERS_PER_LANE = 16
MAX_LANES = 2**32


class SystemConfig(MemoryConfig):
    """What surrounds a machine's PEs: buffers, DRAM and a vector unit.

    Raises
    ------
    ConfigError
        If a value is out of range, or at odds with another.
    """

    vector_lanes: Annotated[
        Auto | Annotated[int, Field(ge=1, le=MAX_LANES)],
        Field(
            description="values a cycle of the vector unit, which runs what multiplies no "
            f"matrices; auto: one for {MULTIPLIERS_PER_LANE} multipliers, at least one",
            json_schema_extra={"unit": "values"},
        ),
    ] = "auto"
    fusion: Annotated[
        Fusion,
        Field(
            description="of what multiplies no matrices: none: each operation reads and writes "
            "DRAM; elementwise: those that follow one another value by value do so once"
        ),
    ] = "none"
