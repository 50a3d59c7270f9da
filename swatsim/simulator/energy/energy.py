"""What an op costs in energy, part by part."""

from __future__ import annotations

from typing import NamedTuple

from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.interface import Counters, MachineConfig
from swatsim.simulator.memory.feed import Fed
from swatsim.simulator.memory.walk import SUM_BYTES
from swatsim.workload.layer import OPERANDS_OF
from swatsim.workload.storage import DTYPES
from swatsim.workload.training_ops import Op

SUM_BITS = 8 * SUM_BYTES


class Energies(NamedTuple):
    """Energy of an op, by part, in pJ.

    Parameters
    ----------
    mac : float
        Products.
    multiplexer, scheduler : float
        Of a zero-skipping front end.
    accumulator : float
        Banks of sums in the PEs.
    buffer_a, buffer_b, buffer_out : float
        Words for the PEs, and what comes from and goes to DRAM.
    dram : float
    """

    mac: float
    multiplexer: float
    scheduler: float
    accumulator: float
    buffer_a: float
    buffer_b: float
    buffer_out: float
    dram: float


def energies(
    op: Op, counters: Counters, fed: Fed, config: MachineConfig, table: EnergyTable
) -> Energies:
    """Multiply the events of an op with their energies.

    Without a memory system (`memory` is "none") buffers and DRAM take none.

    Raises
    ------
    ConfigError
        If the table lacks an event that the op has.
    """
    bits = _bits(op, counters, fed, config)
    return Energies(
        mac=counters.products and counters.products * table.pj_of_product(config.dtype),
        multiplexer=counters.multiplexed and counters.multiplexed * table.pj_of("multiplexer"),
        scheduler=counters.schedules and counters.schedules * table.pj_of("scheduler"),
        accumulator=_sram(counters.accumulations * SUM_BITS, config.accumulator_bank_kib, table),
        **{
            f"buffer_{name}": _sram(bits[name], _bank_kib(config, name), table)
            for name in ("a", "b", "out")
        },
        dram=bits["dram"] and bits["dram"] * table.pj_of_dram_bit(config.dram),
    )


def _bits(op: Op, counters: Counters, fed: Fed, config: MachineConfig) -> dict[str, int]:
    """Count the bits that go through each buffer, and through the DRAM's pins."""
    if config.memory == "none":
        return dict.fromkeys(("a", "b", "out", "dram"), 0)
    first, second = OPERANDS_OF[op.name]
    loaded = {name: 8 * getattr(fed, f"dram_bytes_{name}") for name in (first, second)}
    out = 8 * (fed.dram_bytes_result + fed.dram_bytes_partial)
    value = DTYPES[config.dtype]
    return {
        "a": counters.words_a * value + loaded[first],
        "b": counters.words_b * value + loaded[second],
        "out": fed.words_out * SUM_BITS + out,
        "dram": loaded[first] + loaded[second] + out,
    }


def _bank_kib(config: MachineConfig, buffer: str) -> float:
    capacity: int = getattr(config, f"buffer_{buffer}_kib")
    banks: int = getattr(config, f"buffer_{buffer}_banks")
    return capacity / banks


def _sram(bits: int, kib: float, table: EnergyTable) -> float:
    return bits and bits * table.pj_of_sram_bit(kib)
