"""How large a machine is, and what it leaks: coarse, of what `memory/README.md` counts alone."""

from __future__ import annotations

from typing import NamedTuple

from swatsim.simulator.energy.area import AreaTable
from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.mechanism import MachineConfig
from swatsim.simulator.memory.config import BUFFERS
from swatsim.workload import value_types
from swatsim.workload.flops import FLOPS_PER_MAC

#: Of what an area is made up.
PARTS = ("multipliers", "vector", "buffers", "accumulators", "front_end")


class Area(NamedTuple):
    """The area of a machine by part, in mm2, and what it leaks.

    Parameters
    ----------
    multipliers : float
        Each with the adder to its sum.
    vector : float
        The same of the vector unit's lanes, of the type that it works in.
    buffers, accumulators : float
    front_end : float or None
        Of what finds values that are not zero, or brings them together; None: it is not known.
    leakage_mw : float or None
        Of all of them together; None: the table does not say.
    """

    multipliers: float
    vector: float
    buffers: float
    accumulators: float
    front_end: float | None
    leakage_mw: float | None

    @property
    def mm2(self) -> float:
        """All parts that are known."""
        return float(sum(getattr(self, part) or 0 for part in PARTS))


def area_of(config: MachineConfig, table: EnergyTable, vector: str | None = None) -> Area | None:
    """Return the area of a machine whose values are of its type; None: it is not known.

    `vector` is the type that its vector unit works in, by default the same. `why_unknown` says why
    an area is not known.
    """
    if why_unknown(config, table) or table.area is None:
        return None
    known = table.area
    multipliers = config.multipliers * _unit(config.dtype, known)
    lanes = config.vector_width * _unit(vector or config.dtype, known)
    buffers, sums = _buffers(config), _accumulators(config)
    front = _front_end(config, known)
    return Area(
        multipliers,
        lanes,
        sum(memory.kib * known.sram.mm2_per_kib(memory.bank_kib) for memory in buffers),
        sum(memory.kib * known.sram.mm2_per_kib(memory.bank_kib) for memory in sums),
        front,
        _leakage(multipliers + lanes + (front or 0), [*buffers, *sums], known),
    )


def _unit(dtype: str, known: AreaTable) -> float:
    """Return the mm2 of a multiplier of a type, with its adder."""
    return known.logic[value_types.stand_in(dtype, known.logic) or ""].mm2


def _front_end(config: MachineConfig, known: AreaTable) -> float | None:
    """Return the mm2 of all parts of a machine's front end; None: one of them is not known."""
    parts = config.front_end
    if parts is None or parts.keys() - known.front_end.keys():
        return None
    bits = value_types.DTYPES[config.dtype]
    return sum(many * known.front_end[name].mm2(bits) for name, many in parts.items())


def why_unknown(config: MachineConfig, table: EnergyTable) -> str:
    """Return in words why a machine has no area; "": it has one."""
    if not config.is_device:
        return "it is a bound, and no device"
    if config.memory == "none":
        return "its memory system is not modelled (memory=none)"
    return f"energy table {table.name!r} has no [area]" if table.area is None else ""


def peak_tops(config: MachineConfig) -> float:
    """Return the dense operations of all multipliers at work, in 10**12 a second."""
    return FLOPS_PER_MAC * config.multipliers * config.clock_mhz / 1e6


class _Memory(NamedTuple):
    """So many KiB, in banks of so many."""

    kib: float
    bank_kib: float


def _buffers(config: MachineConfig) -> list[_Memory]:
    found = []
    for name in BUFFERS:
        kib, banks = (getattr(config, f"buffer_{name}_{what}") for what in ("kib", "banks"))
        found.append(_Memory(kib, kib / banks))
    return found


def _accumulators(config: MachineConfig) -> list[_Memory]:
    """Return the banks of accumulators in PEs; none where sums stay in registers."""
    bank = config.accumulator_bank_kib
    return [_Memory(config.accumulator_banks * bank, bank)] if bank else []


def _leakage(logic: float, memories: list[_Memory], known: AreaTable) -> float | None:
    """Return what logic of so many mm2 and memories leak, in mW; None: the table does not say."""
    total = logic * known.leakage.mw_per_mm2 if known.leakage else None
    for memory in memories:
        leak = known.sram.leak_mw_per_kib(memory.bank_kib)
        total = None if leak is None or total is None else total + memory.kib * leak
    return total
