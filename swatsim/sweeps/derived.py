"""What constraints may name of a machine beside its parameters: how many, how large."""

from __future__ import annotations

from collections.abc import Mapping

from swatsim.errors import ConfigError
from swatsim.simulator.area import area_of, peak_tops, why_unknown
from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.mechanism import MachineConfig
from swatsim.simulator.runnable import ConfiguredMachine

#: In mm2, by the sweep's table, of values of the machine's own type: the one that needs a table.
AREA = "area_mm2"


def of_config(config: MachineConfig) -> Mapping[str, float]:
    """Return what follows from a machine's parameters alone."""
    return {
        "pes": config.pes,
        "multipliers": config.multipliers,
        "buffer_kib": config.buffer_a_kib + config.buffer_b_kib + config.buffer_out_kib,
        "peak_tops": peak_tops(config),
    }


def area(machine: ConfiguredMachine, table: EnergyTable) -> Mapping[str, float]:
    """Return the area of a machine.

    Raises
    ------
    ConfigError
        If it has none.
    """
    found = area_of(machine.config, table)
    if found is None:
        why = why_unknown(machine.config, table)
        raise ConfigError(
            f"a constraint names {AREA}, and {machine.name} has none: {why}; leave one of the two "
            "out"
        )
    return {AREA: found.mm2}
