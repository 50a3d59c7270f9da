"""Options that several verbs have; what they may be comes from where it is declared."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import click

from swatsim.cli.lazy import Chosen, Registered, completing
from swatsim.errors import ConfigError

# Each is asked for when help is shown or a value is given: loading them takes as long as a small
# trace to simulate, and ``simulate`` has other things to do meanwhile.


def _presets() -> Iterable[str]:
    from swatsim.simulator.machines import presets

    return (name for name, _, _ in presets())


def _tables() -> Iterable[str]:
    from swatsim.simulator.energy.table import shipped

    return shipped()


def _dtypes() -> Iterable[str]:
    from swatsim.simulator.memory.config import PRESET
    from swatsim.workload.value_types import DTYPES

    return (*DTYPES, PRESET)


def _ops() -> Iterable[str]:
    from swatsim.workload.layer import OPS

    return OPS


@cache  # asked for once for each parameter, and schemas take their time
def _parameters() -> Iterable[str]:
    """Return "name=" of each parameter, and "name=value" where values have names."""
    from swatsim.simulator.machines import MACHINES
    from swatsim.simulator.parameters import choices, schema_of

    found: dict[str, None] = {}
    for machine in MACHINES:
        for name, field in schema_of(machine.config_type).items():
            found |= dict.fromkeys([f"{name}=", *(f"{name}={it}" for it in choices(field))])
    return tuple(found)


def networks() -> Iterable[str]:
    """Return the names of published networks."""
    from swatsim.workload.networks import NETWORKS

    return NETWORKS


OP = Chosen(_ops)
#: Of an option that is a preset, with {known} in its help.
PRESETS: dict[str, Any] = {"cls": Registered, "known": _presets}
MACHINE = click.option(
    "-m",
    "--machine",
    "name",
    required=True,
    help="A preset (see swatsim machines): {known}.",
    **PRESETS,
)
ENERGY = click.option(
    "--energy",
    cls=Registered,
    known=_tables,
    default="45nm",
    show_default=True,
    help="Energies of events, and areas: {known}, or a TOML file of your own.",
)
DTYPE = click.option(
    "--dtype",
    cls=Registered,
    known=_dtypes,
    help="Type of the values, of the machine and of its baseline: {known}, which is each machine's "
    "own. By default as the run had them, where the trace says so.",
)
#: Of every verb that simulates.
STORE = click.option(
    "--no-store",
    "store",
    flag_value=False,
    default=True,
    help="Count everything anew, and keep nothing of it: see swatsim store.",
)
#: Of every verb that builds a machine; `parse` reads it.
SETTINGS = click.option(
    "-s",
    "--set",
    "settings",
    multiple=True,
    metavar="PARAMETER=VALUE",
    help="Change a parameter of the preset; may be given several times.",
    **completing(_parameters),
)


def parse(settings: tuple[str, ...], option: str = "--set rows=16") -> dict[str, str]:
    """Return the parts of ``name=value``; who takes them checks both. `option`: a right one."""
    name_of_option = option.split()[0]
    for setting in settings:
        if "=" not in setting:
            raise ConfigError(
                f"{name_of_option} {setting}: expected PARAMETER=VALUE, as in {option}"
            )
    pairs = [setting.split("=", 1) for setting in settings]
    names = [name.strip().replace("-", "_") for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name_of_option} {name} is given twice: give each parameter once")
    return dict(zip(names, (value.strip() for _, value in pairs), strict=True))
