"""The machines: one folder a mechanism, one entry in MACHINES."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from swatsim.errors import ConfigError, unknown
from swatsim.simulator.interface import ConfiguredMachine, Mechanism, Preset
from swatsim.simulator.machines.lane_array import LANE_ARRAY

#: The one list. The command line, the tests and the documentation iterate over it.
MACHINES: tuple[Mechanism, ...] = (LANE_ARRAY,)


def presets() -> Iterator[tuple[str, Preset, Mechanism]]:
    """Iterate over the presets of all machines."""
    for mechanism in MACHINES:
        for name, preset in mechanism.config_type.presets.items():
            yield name, preset, mechanism


def machine(preset: str, **parameters: Any) -> ConfiguredMachine:
    """Build a machine from a preset's name, with some parameters of your own.

    Parameters
    ----------
    preset : str
        For example "tensordash"; ``swatsim machines`` lists all.
    **parameters
        Replace the preset's; strings are converted, as they come from a command line.

    Raises
    ------
    ConfigError
        If the preset or a parameter is unknown, or a value out of range or at odds with another.
    """
    for name, found, mechanism in presets():
        if name == preset:
            config = mechanism.config_type(**{**found.parameters, **parameters})
            return ConfiguredMachine(_label(preset, config, found), mechanism, config)
    raise ConfigError(unknown("machine", preset, (name for name, _, _ in presets())))


def _label(preset: str, config: Any, found: Preset) -> str:
    """Name a preset, with what was changed in it."""
    values = config.model_dump()
    changed = [f"{k}={v}" for k, v in values.items() if v != found.parameters[k]]
    return f"{preset}[{','.join(changed)}]" if changed else preset
