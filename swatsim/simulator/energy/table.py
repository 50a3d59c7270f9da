"""Tables of energy per event: those that ship, and users' own, as TOML."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping
from functools import cached_property
from math import exp
from math import log as ln
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from swatsim.errors import ConfigError, listed, shown, unknown
from swatsim.simulator.energy.area import AreaTable
from swatsim.simulator.memory.dram import Dram
from swatsim.simulator.sourced import (
    MAX_PJ,
    Access,
    Bits,
    Energy,
    Entry,
    Number,
    Source,
    check_sizes,
    content_of,
    entries_of,
)
from swatsim.workload import value_types

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "tables"


class Mac(Entry):
    """A product: a multiplication, and the addition to the sum, in pJ."""

    multiply: Energy
    add: Energy
    source: Source


class Event(Entry):
    """An event, in pJ."""

    pj: Energy
    source: Source


Positive = Annotated[Number, Field(ge=1e-9, le=MAX_PJ)]


class Size(Entry):
    """Accesses of so many bits of an SRAM of so many KiB, in pJ: a read, and a write."""

    kib: Annotated[Number, Field(ge=1e-3, le=1e9)]
    pj: Positive
    write: Positive | None = None
    bits: Bits


class Sram(Entry):
    """Accesses of SRAMs, smallest first: a larger one costs more, but not in proportion."""

    source: Source
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)]

    @property
    def has_writes(self) -> bool:
        """Whether writes have energies of their own; otherwise they cost what reads do."""
        return self.sizes[0].write is not None

    @model_validator(mode="after")
    def _ascending(self) -> Sram:
        kib, writes = [size.kib for size in self.sizes], [size.write for size in self.sizes]
        check_sizes(kib, "write", writes)
        for small, large in itertools.pairwise(self.sizes):
            growth = (large.pj / large.bits) / (small.pj / small.bits)
            if not 1 <= growth <= large.kib / small.kib:
                raise ValueError(
                    f"from {small.kib:g} to {large.kib:g} KiB the energy of a bit grows by "
                    f"{growth:g}: it must not fall, nor grow faster than the size"
                )
        return self

    def pj_per_bit(self, kib: float) -> float:
        """Return the energy of one bit of an SRAM of a size.

        Between two sizes it is interpolated on log-log scales. Beyond the largest it goes on as
        between the last two; below the smallest it stays: an upper bound.
        """
        points = self._points
        if len(points) == 1 or ln(kib) <= points[0][0]:
            return exp(points[0][1])
        above = next((i for i, (x, _) in enumerate(points) if x >= ln(kib)), len(points) - 1)
        (x0, y0), (x1, y1) = points[max(above, 1) - 1], points[max(above, 1)]
        return exp(y0 + (y1 - y0) * (ln(kib) - x0) / (x1 - x0))

    @cached_property
    def _points(self) -> list[tuple[float, float]]:
        return [(ln(size.kib), ln(size.pj / size.bits)) for size in self.sizes]

    @cached_property
    def _writes(self) -> tuple[list[float], list[float]]:
        """Sizes, and what a write takes of a read, as logarithms."""
        ratios = [ln((size.write or size.pj) / size.pj) for size in self.sizes]
        return [x for x, _ in self._points], ratios

    def pj_per_bit_written(self, kib: float) -> float:
        """Return the energy of writing one bit: a read's, times what writes cost of it.

        That ratio is interpolated on log-log scales too, which gives each size's own write; beyond
        both ends it stays. 1 if the table has no writes.
        """
        return self.pj_per_bit(kib) * exp(float(np.interp(ln(kib), *self._writes)))


class EnergyTable(Entry):
    """Energies of events, and areas; what a table lacks can't be counted with it.

    `node` is what DRAMs call their energies by, for example "45nm"; an entry of `dram` goes before
    the DRAM's own. A table without a node has no other energies of DRAM than its entries. Of one
    without `area` no machine has an area or leakage.

    Raises
    ------
    ConfigError
        If an entry is not allowed, or is asked for and missing.
    """

    name: Source
    node: Source | None = None
    mac: Mapping[str, Mac] = {}
    multiplexer: Event | None = None
    scheduler: Event | None = None
    sram: Sram | None = None
    dram: Mapping[str, Access] = {}
    area: AreaTable | None = None

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return what errors call the table."""
        return f"energy table {data.get('name', '?')!r}"

    def pj_of_product(self, dtype: str) -> float:
        """Return the energy of a product of two values of a type, or of the next wider type.

        Where the table has none that is wider, of the widest that it has: too little then.
        """
        other = value_types.stand_in(dtype, self.mac)
        entry = self._entry(self.mac.get(other or ""), f"mac.{dtype}", "products of that type")
        return float(entry.multiply + entry.add)

    def pj_of(self, event: str) -> float:
        """Return the energy of a multiplexer or of a scheduler."""
        return float(self._entry(getattr(self, event), event, f"a {event}").pj)

    def pj_of_sram_bit(self, kib: float) -> float:
        """Return the energy of reading a bit of an SRAM of a size."""
        return float(self._entry(self.sram, "sram", "buffers").pj_per_bit(kib))

    def pj_of_sram_write_bit(self, kib: float) -> float:
        """Return the energy of writing a bit into an SRAM of a size."""
        return float(self._entry(self.sram, "sram", "buffers").pj_per_bit_written(kib))

    def pj_of_dram_bit(self, dram: Dram) -> float:
        """Return the energy of a bit of a DRAM: the table's, or else its own at the table's node.

        Raises
        ------
        ConfigError
            If neither is known.
        """
        if own := self.dram.get(dram.name):
            return float(own.pj) / int(own.bits)
        # an ideal one takes none, whatever the node
        pj = dram.pj_of_bit(self.node or "")
        if pj is not None:
            return pj
        entry = f'[dram."{dram.name}"]' if "." in dram.name else f"[dram.{dram.name}]"
        if self.node is None:
            raise ConfigError(
                f"energy table {self.name!r} has no entry {entry} and no node, and the machine has "
                f"that DRAM: add the entry, or the node ({_nodes(dram)}) whose energy to take"
            )
        raise ConfigError(
            f"DRAM {dram.name!r} has no energy at {self.node} ({_nodes(dram)}), the node of "
            f"energy table {self.name!r}: add [energy.{self.node}] to the DRAM's file, or {entry} "
            "to the table"
        )

    def _entry(self, value: Any, entry: str, why: str) -> Any:
        if value is None:
            raise ConfigError(
                f"energy table {self.name!r} has no entry [{entry}], and the machine has {why}: "
                "add it to the table, or take another table"
            )
        return value


def shipped() -> list[str]:
    """Return the names of the tables that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def energy_table(table: str | os.PathLike[str] | EnergyTable) -> EnergyTable:
    """Return a table: as it is, or read, by a name of those that ship or a path of a TOML file.

    Raises
    ------
    ConfigError
        If there is none, it can't be read, or an entry is not allowed.
    """
    if isinstance(table, EnergyTable):
        return table
    if not isinstance(table, str | os.PathLike):
        raise ConfigError(
            f"energy={shown(table)} is not allowed: must be {', '.join(shipped())}, a path of a "
            "TOML file, or an EnergyTable"
        )
    if str(table) in shipped():
        return _read(FOLDER / f"{table}.toml")
    path = Path(table)
    if path.suffix != ".toml":
        named = unknown("energy table", str(table), shipped())
        raise ConfigError(f"{named}, or a path that ends in .toml")
    return _read(path)


def _nodes(dram: Dram) -> str:
    return f"it has {listed(dram.energy)}" if dram.energy else "it has none"


def _read(path: Path) -> EnergyTable:
    entries = entries_of(content_of(path, "energy table"), path)
    try:
        found = EnergyTable(**entries)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if found.sram and not found.sram.has_writes:
        log.warning(
            "energy table %r has no `write` in [sram] sizes: writes are counted as reads, which is "
            "too little in small memories (at 45 nm half, in 32 KiB)",
            found.name,
        )
    return found
