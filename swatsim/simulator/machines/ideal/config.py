"""Parameters and presets of `ideal`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from swatsim.simulator.mechanism import MAX_MULTIPLIERS, MachineConfig, Preset
from swatsim.simulator.memory.config import BUFFERS, MAX_BANKS, MAX_KIB, MAX_WORDS
from swatsim.validation import count


class Skips(StrEnum):
    """Whose zeros are skipped."""

    BOTH = "both"
    WEIGHT = "weight"
    ACT = "act"
    GRAD_OUT = "grad_out"


#: Buffers in which nothing waits.
_LARGEST = {
    f"buffer_{buffer}_{what}": most
    for buffer in BUFFERS
    for what, most in (("kib", MAX_KIB), ("banks", MAX_BANKS), ("words", MAX_WORDS))
}


_WHOSE = {
    Skips.BOTH: "both operands",
    Skips.WEIGHT: "weights",
    Skips.ACT: "activations",
    Skips.GRAD_OUT: "gradients of outputs",
}


def _name(skips: Skips) -> str:
    return "ideal" if skips is Skips.BOTH else f"ideal-{skips.value.replace('_', '-')}"


def _preset(skips: Skips) -> Preset:
    return Preset(
        f"no design: the bound of all that skip zeros of {_WHOSE[skips]}",
        {"multipliers": 4096, "skips": skips.value, "dram": "ideal", **_LARGEST},
        "ours: a DRAM that takes no time, buffers as large and as fast as any may be",
    )


class IdealConfig(MachineConfig):
    """How many multipliers there are, and which zeros they are spared.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    multipliers: Annotated[int, count("multipliers", "multipliers", 1, MAX_MULTIPLIERS)]
    skips: Annotated[
        Skips,
        Field(description="operand whose zeros are skipped; an op that lacks it skips none"),
    ]

    @property
    def pes(self) -> int:
        """One: multipliers are not divided among PEs."""
        return 1

    @property
    def lanes(self) -> int:
        """All multipliers."""
        return self.multipliers

    is_device: ClassVar[bool] = False
    presets: ClassVar[Mapping[str, Preset]] = {_name(skips): _preset(skips) for skips in Skips}
