"""The machines: one folder a mechanism, one entry in MACHINES."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, overload

from swatsim.errors import ConfigError, listed, unknown
from swatsim.simulator.machines import outside
from swatsim.simulator.mechanism import MachineConfig, Mechanism, Preset
from swatsim.simulator.memory.config import PRESET
from swatsim.simulator.runnable import ConfiguredMachine


class Machines(Sequence[Mechanism]):
    """Mechanisms in folders of this package, each loaded when it is looked at.

    Whoever looks for one by a preset's name loads those before it and no more.

    Parameters
    ----------
    *folders : str
        Each has a mechanism of its own name in capitals.
    """

    def __init__(self, *folders: str) -> None:
        self._folders = folders

    def __len__(self) -> int:
        return len(self._folders)

    @overload
    def __getitem__(self, place: int) -> Mechanism: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Mechanism]: ...
    def __getitem__(self, place: int | slice) -> Mechanism | Sequence[Mechanism]:
        if isinstance(place, slice):
            return [_loaded(folder) for folder in self._folders[place]]
        return _loaded(self._folders[place])


@cache
def _loaded(folder: str) -> Mechanism:
    mechanism: Mechanism = getattr(import_module(f"{__name__}.{folder}"), folder.upper())
    return mechanism


#: The one list. The command line, the tests and the documentation iterate over it.
MACHINES = Machines("lane_array", "cartesian", "systolic", "tensor_core", "inner_join", "ideal")


def presets(
    machines: Iterable[Mechanism] = MACHINES,
) -> Iterator[tuple[str, Preset, Mechanism]]:
    """Yield the presets of machines."""
    for mechanism in machines:
        for name, preset in mechanism.config_type.presets.items():
            yield name, preset, mechanism


def find_preset(name: str) -> tuple[Preset, Mechanism]:
    """Return a preset and its mechanism.

    Parameters
    ----------
    name : str
        One of `presets`, or "MODULE:PRESET" of a machine from outside: the module is imported, and
        has MACHINES as this package has.

    Raises
    ------
    ConfigError
        If there is none of that name, or the module can't be imported or has no machines.
    """
    module, colon, own = name.partition(":")
    machines = outside.machines_of(module) if colon else MACHINES
    wanted = own if colon else name
    for mechanism in machines:
        if wanted in mechanism.config_type.presets:
            return mechanism.config_type.presets[wanted], mechanism
    raise ConfigError(_unknown(wanted, machines, [named for named, _, _ in presets(machines)]))


def _unknown(wanted: str, machines: Iterable[Mechanism], known: Iterable[str]) -> str:
    for mechanism in machines:
        if mechanism.name == wanted and mechanism.config_type.presets:
            named = listed(mechanism.config_type.presets)
            return f"{wanted!r} is a kind of machine, and no preset of one: choose one of {named}"
    return unknown("machine", wanted, known)


def machine(preset: str, /, **parameters: Any) -> ConfiguredMachine:
    """Return a machine of a preset's name, with some parameters of your own.

    Parameters
    ----------
    preset : str
        For example "tensordash"; ``swatsim machines`` lists all. "MODULE:PRESET" is a machine from
        outside: see `examples/own_machine.py`. Parameters may follow in brackets, as in the names
        of results: "dadiannao[rows=4,columns=4]".
    **parameters
        Replace the preset's; strings are converted, as they come from a command line. `dtype` goes
        before the types that a trace has recorded; "preset" is the preset's own.

    Raises
    ------
    ConfigError
        If the preset or a parameter is unknown, or a value out of range or at odds with another.
    """
    name, own = _split(preset)
    if twice := sorted(own.keys() & parameters.keys()):
        raise ConfigError(f"{twice[0]} is given twice, in {preset!r} and beside it: give it once")
    chosen = {**own, **parameters}
    is_set = "dtype" in chosen
    if isinstance(chosen.get("dtype"), str) and chosen["dtype"] == PRESET:
        del chosen["dtype"]
    published_preset, mechanism = find_preset(name)
    published = mechanism.config_type(**published_preset.parameters)
    config = mechanism.config_type(**{**_inherited(published_preset, chosen), **chosen})
    sources = outside.sources_of(name.partition(":")[0]) if ":" in name else ""
    label = _label(name, config, published, is_set)
    return ConfiguredMachine(label, mechanism, config, sources, is_set)


def _inherited(preset: Preset, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset's parameters; another DRAM has a bandwidth and a latency of its own."""
    own = ("dram_mb_per_s", "dram_latency_ns") if {"dram", "dram_channels"} & chosen.keys() else ()
    return {name: value for name, value in preset.parameters.items() if name not in own}


def _split(preset: str) -> tuple[str, dict[str, str]]:
    """Return the name and the parameters of "name[parameter=value,..]"."""
    name, bracket, rest = str(preset).partition("[")
    pairs = [pair.partition("=") for pair in rest.removesuffix("]").split(",") if bracket]
    if bracket and not (rest.endswith("]") and all(key and equals for key, equals, _ in pairs)):
        raise ConfigError(f"machine {preset!r}: expected NAME[PARAMETER=VALUE,..]")
    own = {key.strip(): value.strip() for key, _, value in pairs}
    if len(own) != len(pairs):
        raise ConfigError(f"machine {preset!r} has a parameter twice: give each once")
    return name, own


def _label(preset: str, config: MachineConfig, published: MachineConfig, dtype: bool) -> str:
    """Return a preset's name, with what was changed in it, and the value type if that was set."""
    values, known = config.model_dump(), published.model_dump()
    named = {key for key in values if values[key] != known[key] or (dtype and key == "dtype")}
    changed = [f"{key}={value}" for key, value in values.items() if key in named]
    return f"{preset}[{','.join(changed)}]" if changed else preset
