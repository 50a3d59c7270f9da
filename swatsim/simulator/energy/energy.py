"""What an op costs in energy, part by part; what multiplies no matrices: `simulator/other.py`."""

from __future__ import annotations

from typing import NamedTuple

from swatsim.counters import Counters, Energies, MemoryCounters
from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.mechanism import MachineConfig
from swatsim.simulator.memory.config import BUFFERS
from swatsim.simulator.memory.pipeline import SUM_BYTES
from swatsim.simulator.memory.tensors import output_reads, output_writes
from swatsim.workload.layer import OPERANDS_OF
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.value_types import DTYPES

SUM_BITS = 8 * SUM_BYTES


class Traffic(NamedTuple):
    """Bits that are read from a memory, and that are written into it."""

    read: int
    written: int


NONE = Traffic(0, 0)
#: Of buffers that are not modelled.
NOTHING = dict.fromkeys(BUFFERS, NONE)


def energies(
    op: LoweredOp,
    counters: Counters,
    memory: MemoryCounters,
    config: MachineConfig,
    table: EnergyTable,
) -> Energies:
    """Return the energy of an op by part: each event times its energy.

    Without a memory system (`memory` is "none") buffers and DRAM take none.

    Raises
    ------
    ConfigError
        If the table lacks an event that the op has.
    """
    traffic = NOTHING if config.memory == "none" else _traffic(op, counters, memory, config)
    # each sum is read, added to, and written again
    sums = Traffic(*2 * (counters.accumulations * SUM_BITS // 2,))
    carried = 0 if config.memory == "none" else 8 * memory.dram_bytes
    return Energies(
        mac=counters.products and counters.products * table.pj_of_product(config.dtype),
        multiplexer=counters.multiplexed and counters.multiplexed * table.pj_of("multiplexer"),
        scheduler=counters.schedules and counters.schedules * table.pj_of("scheduler"),
        accumulator=_sram(sums, config.accumulator_bank_kib, table),
        **{
            f"buffer_{name}": _sram(bits, _bank_kib(config, name), table)
            for name, bits in traffic.items()
        },
        dram=carried and carried * table.pj_of_dram_bit(config.dram),
        vector=0,
    )


def _traffic(
    op: LoweredOp, counters: Counters, memory: MemoryCounters, config: MachineConfig
) -> dict[str, Traffic]:
    """Return the bits that go through each buffer.

    What comes from DRAM is written, what goes there is read; partial sums leave as often as they
    come back.
    """
    first, second = OPERANDS_OF[op.name]
    loaded = {name: 8 * getattr(memory, f"dram_bytes_{name}") for name in (first, second)}
    read, written = counters.sums_read, counters.sums_written
    if not read and not written:
        read, written = output_reads(op), output_writes(op)
    value, partial = DTYPES[config.dtype], 8 * memory.dram_bytes_partial // 2
    return {
        "a": Traffic(counters.words_a * value, loaded[first]),
        "b": Traffic(counters.words_b * value, loaded[second]),
        "out": Traffic(
            read * SUM_BITS + 8 * memory.dram_bytes_result + partial,
            written * SUM_BITS + partial,
        ),
    }


def _bank_kib(config: MachineConfig, buffer: str) -> float:
    capacity: int = getattr(config, f"buffer_{buffer}_kib")
    banks: int = getattr(config, f"buffer_{buffer}_banks")
    return capacity / banks


def _sram(bits: Traffic, kib: float, table: EnergyTable) -> float:
    if bits == NONE:
        return 0
    return bits.read * table.pj_of_sram_bit(kib) + bits.written * table.pj_of_sram_write_bit(kib)
