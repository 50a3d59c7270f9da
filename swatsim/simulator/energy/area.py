"""Area and leakage in a table: of an arithmetic unit by value type, of an SRAM by its size."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from math import exp
from math import log as ln
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from swatsim.simulator.sourced import Entry, Number, Source, check_sizes

#: A wafer of 450 mm has fewer mm2, and no power plant gives more mW.
MAX_MM2, MAX_MW = 1e6, 1e13
UM2_PER_MM2 = 1e6

Area = Annotated[Number, Field(gt=0, le=MAX_MM2 * UM2_PER_MM2)]
Leakage = Annotated[Number, Field(ge=0, le=MAX_MW)]


class Arithmetic(Entry):
    """A multiplier of two values, and the adder to a sum, in um2."""

    multiply_um2: Area
    add_um2: Area
    source: Source

    @property
    def mm2(self) -> float:
        """Both together."""
        return (self.multiply_um2 + self.add_um2) / UM2_PER_MM2


class FrontEndPart(Entry):
    """A part of a front end, of which `MachineConfig.front_end` has so many: so much, in um2.

    And so much more for each bit of a value.
    """

    um2: Annotated[Number, Field(ge=0, le=MAX_MM2 * UM2_PER_MM2)]
    um2_per_bit: Annotated[Number, Field(ge=0, le=MAX_MM2 * UM2_PER_MM2)] = 0.0
    source: Source

    def mm2(self, bits: int) -> float:
        """Return the area of one of it, for values of so many bits."""
        return (self.um2 + bits * self.um2_per_bit) / UM2_PER_MM2


class Macro(Entry):
    """An SRAM of so many KiB: its mm2, and what it leaks, in mW."""

    kib: Annotated[Number, Field(ge=1e-3, le=1e9)]
    mm2: Annotated[Number, Field(gt=0, le=MAX_MM2)]
    leak_mw: Annotated[Number, Field(gt=0, le=MAX_MW)] | None = None


class SramArea(Entry):
    """SRAMs, smallest first: a larger one has more area, and leaks more."""

    source: Source
    sizes: Annotated[tuple[Macro, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ascending(self) -> SramArea:
        kib, leaks = [size.kib for size in self.sizes], [size.leak_mw for size in self.sizes]
        check_sizes(kib, "leak_mw", leaks)
        for small, large in itertools.pairwise(self.sizes):
            if large.mm2 < small.mm2 or (large.leak_mw or 0) < (small.leak_mw or 0):
                raise ValueError(
                    f"from {small.kib:g} to {large.kib:g} KiB its mm2 or leak_mw falls: a larger "
                    "memory has no less of either"
                )
        return self

    def mm2_per_kib(self, kib: float) -> float:
        """Return the area of one KiB of an SRAM of a size.

        Between two sizes it is interpolated on log-log scales; beyond both ends it stays.
        """
        return self._per_kib(kib, [size.mm2 for size in self.sizes])

    def leak_mw_per_kib(self, kib: float) -> float | None:
        """Return what one KiB of an SRAM of a size leaks, likewise; None: it is not known."""
        known = [size.leak_mw for size in self.sizes if size.leak_mw is not None]
        return self._per_kib(kib, known) if known else None

    def _per_kib(self, kib: float, values: list[float]) -> float:
        places = [ln(size.kib) for size in self.sizes]
        each = [ln(value / size.kib) for value, size in zip(values, self.sizes, strict=True)]
        return exp(float(np.interp(ln(kib), places, each)))


class LogicLeakage(Entry):
    """What arithmetic leaks, in mW a mm2."""

    mw_per_mm2: Leakage
    source: Source


class AreaTable(Entry):
    """The part of a table that says how large things are, and what they leak.

    Parameters
    ----------
    logic : mapping of str to Arithmetic
        By value type.
    sram : SramArea
    front_end : mapping of str to FrontEndPart
        By what `MachineConfig.front_end` calls it.
    leakage : LogicLeakage, optional
    """

    logic: Annotated[Mapping[str, Arithmetic], Field(min_length=1)]
    sram: SramArea
    front_end: Mapping[str, FrontEndPart] = {}
    leakage: LogicLeakage | None = None
