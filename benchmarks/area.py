"""Areas that come out of the tables beside what was published of whole designs, and parts of them.

    python benchmarks/area.py

Prints the table, and puts it into the README of the memory system. Nothing is fitted to it: a ratio
says how much of a design the tables leave out, or how much larger their arithmetic is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pages import put

from swatsim.simulator.area import Area, area_of
from swatsim.simulator.energy.table import EnergyTable, energy_table
from swatsim.simulator.machines import machine
from swatsim.workload.value_types import DTYPES

#: Stillmaker and Baas, Integration 58, 2017, table of areas: from 45 nm to another node.
FROM_45 = {65: 1.5, 45: 1.0, 16: 0.19}
MIB = 1024


class Beside(NamedTuple):
    """What was published of a design, and what the tables have of it.

    Parameters
    ----------
    what : str
    node : int
        In nm.
    published : float
        In mm2.
    source : str
    ours : callable of EnergyTable to float
        In mm2.
    table : str
    """

    what: str
    node: int
    published: float
    source: str
    ours: Callable[[EnergyTable], float]
    table: str


def _machine(name: str, part: str = "mm2") -> Callable[[EnergyTable], float]:
    def found(table: EnergyTable) -> float:
        config = machine(name).config
        area = None if config is None else area_of(config, table)
        assert isinstance(area, Area)
        return float(getattr(area, part))

    return found


def _front_end(name: str, *parts: str) -> Callable[[EnergyTable], float]:
    """Return the area of some parts of a machine's front end."""

    def found(table: EnergyTable) -> float:
        config = machine(name).config
        assert config is not None
        assert config.front_end is not None
        assert table.area is not None
        known, bits = table.area.front_end, DTYPES[config.dtype]
        return sum(config.front_end[part] * known[part].mm2(bits) for part in parts)

    return found


def _memory(mib: int) -> Callable[[EnergyTable], float]:
    """Return the area of a memory of so many MiB, in banks of one."""

    def found(table: EnergyTable) -> float:
        assert table.area is not None
        return mib * MIB * table.area.sram.mm2_per_kib(MIB)

    return found


#: Of the first four no open text with the figure was found in a search (November 2026): they are as
#: the papers are cited, and not confirmed. 30.41 mm2 is the row of compute cores, fp32, of
#: TensorDash's table of area and power, the same with and without its schedulers; 0.91 and 1.73 are
#: its rows of schedulers and B-side multiplexers, and of A-side ones; 7.9 mm2 is the total of 64
#: PEs in SCNN's table of a PE's area, and its area in the table of what is compared; 0.026 is that
#: table's scatter network.
PUBLISHED = (
    Beside(
        "tensordash: its compute cores, beside multipliers and adders",
        *(65, 30.41, "Mahmoud et al., MICRO 2020, table of area"),
        *(_machine("tensordash", "multipliers"), "45nm"),
    ),
    Beside(
        "tensordash: its schedulers and multiplexers",
        *(65, 0.91 + 1.73, "Mahmoud et al., MICRO 2020, table of area"),
        *(_front_end("tensordash", "scheduler", "multiplexer"), "45nm"),
    ),
    Beside(
        "scnn: its scatter networks, beside crossbars and arbiters",
        *(16, 64 * 0.026, "Parashar et al., ISCA 2017, table of area"),
        *(_front_end("scnn", "crossbar", "arbiter"), "45nm"),
    ),
    Beside(
        "scnn-queued: the same of SCNN, beside queues",
        *(16, 64 * 0.026, "Parashar et al., ISCA 2017, table of area"),
        *(_front_end("scnn-queued", "queue"), "45nm"),
    ),
    Beside(
        "scnn: the whole of it",
        *(16, 7.9, "Parashar et al., ISCA 2017, table of area"),
        *(_machine("scnn"), "45nm"),
    ),
    Beside(
        "a100: the die",
        *(7, 826, "NVIDIA A100 Tensor Core GPU Architecture, white paper, 2020"),
        *(_machine("a100"), "7nm"),
    ),
    Beside(
        "TPUv4i: its memory of 128 MiB, 28 % of a die of 400 mm2 at most",
        *(7, 0.28 * 400, "Jouppi et al., ISCA 2021, figure 6"),
        *(_memory(128), "7nm"),
    ),
    Beside(
        "A test chip: 32 MiB, with pads and test circuits",
        *(7, 42.64, "Chang et al., ISSCC 2017"),
        *(_memory(32), "7nm"),
    ),
)


def lines() -> Iterator[str]:
    """Yield the rows of the table, as Markdown."""
    yield "| what | node | published, mm2 | by the tables, mm2 | tables / published | source |"
    yield "|---|---|---|---|---|---|"
    for row in PUBLISHED:
        scale = FROM_45[row.node] if row.table == "45nm" else 1.0
        ours = scale * row.ours(energy_table(row.table))
        numbers = f"{row.published:.4g} | {ours:.3g} | {ours / row.published:.2f}"
        yield f"| {row.what} | {row.node} nm | {numbers} | {row.source} |"


def main() -> None:
    made = list(lines())
    print("\n".join(made))
    put("area", made)


if __name__ == "__main__":
    main()
