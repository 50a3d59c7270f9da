"""What a sweep is made of: traces, machines, constraints; its points."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from swatsim.errors import ConfigError, unknown
from swatsim.simulator.energy.table import EnergyTable, energy_table
from swatsim.simulator.machines import find_preset, machine
from swatsim.simulator.mechanism import MachineConfig
from swatsim.simulator.runnable import ConfiguredMachine
from swatsim.simulator.sourced import content_of, entries_of
from swatsim.simulator.trace_run import Scope
from swatsim.simulator.vector import SystemConfig
from swatsim.sweeps import derived
from swatsim.sweeps.expression import Value, holds
from swatsim.sweeps.grids import Conditional, Grid, Part, product, size_of
from swatsim.validation import Whole
from swatsim.workload.layer import OPS, OpName

#: More points than these are a mistake, and would take days.
MAX_POINTS = 100_000

MAX_GRID = 1_000_000
#: Of a machine: each condition is looked for among all.
MAX_WHEN = 2_000
MAX_MACHINES = 10_000
#: Each is worked out for each combination.
MAX_CONSTRAINTS = 100


class MachineSpec(Part):
    """A preset, what is fixed in it, and what is varied."""

    preset: str
    fixed: Annotated[dict[str, Value], Field(alias="set", default_factory=dict)]
    grid: Annotated[Grid, Field(default_factory=dict)]
    when: Annotated[list[Conditional], Field(default_factory=list, max_length=MAX_WHEN)]

    @model_validator(mode="after")
    def _names(self) -> MachineSpec:
        try:
            _, mechanism = find_preset(self.preset)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        fields = mechanism.config_type.model_fields
        parts: list[Mapping[str, Any]] = [self.fixed, self.grid]
        parts += [part for one in self.when for part in (one.parameters, one.grid)]
        for name in (name for part in parts for name in part):
            if name not in fields:
                raise ValueError(unknown(f"parameter of {self.preset}", name, fields))
        grids = [self.grid, *(one.grid for one in self.when)]
        for name, values in (pair for grid in grids for pair in grid.items()):
            if isinstance(values, list) and not values:
                raise ValueError(f"{name} of {self.preset} has no values: list at least one")
        if prod(size_of(values) for grid in grids for values in grid.values()) > MAX_GRID:
            raise ValueError(
                f"the grid of {self.preset} has more than {MAX_GRID} combinations before any "
                "constraint: narrow it"
            )
        return self


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


class Spec(Part):
    """A sweep: every trace on every machine of every grid that the constraints allow.

    `common` are parameters of all machines alike, unless one sets or varies them itself.

    Raises
    ------
    ConfigError
        If an entry is unknown, missing or not allowed.
    """

    traces: Annotated[list[Annotated[str, BeforeValidator(_path)]], Field(min_length=1)]
    common: Annotated[dict[str, Value], Field(default_factory=dict)]
    machines: Annotated[list[MachineSpec], Field(min_length=1, max_length=MAX_MACHINES)]
    constraints: Annotated[list[str], Field(default_factory=list, max_length=MAX_CONSTRAINTS)]
    baseline: str | None = None
    energy: str = "45nm"
    steps: Annotated[list[Annotated[Whole, Field(ge=0)]], Field(min_length=1)] | None = None
    ops: Annotated[list[OpName], Field(min_length=1)] | None = None
    layers_only: bool = False
    dense_outputs: bool = False

    @property
    def scope(self) -> Scope:
        """What of each step is run."""
        return Scope(tuple(self.ops or OPS), self.layers_only, self.dense_outputs)

    @model_validator(mode="after")
    def _common_names(self) -> Spec:
        for name in self.common:
            if name not in MachineConfig.model_fields:
                words = unknown("parameter of every machine", name, MachineConfig.model_fields)
                raise ValueError(f"common: {words}")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> Spec:
        for name, values in (("steps", self.steps), ("ops", self.ops), ("traces", self.traces)):
            if values is not None and len(set(values)) != len(values):
                raise ValueError(f"{name}={values} holds one twice: list each once")
        return self

    def points(self) -> list[Point]:
        """Return all points, each once.

        Raises
        ------
        ConfigError
            If there are none, too many, or a constraint can't be worked out.
        """
        self._count()
        points: dict[tuple[str, str], Point] = {}
        for parameters, preset in self._machines():
            first = Point(self.traces[0], preset, parameters)
            if self._allows(first):
                for trace in self.traces:
                    point = Point(trace, preset, parameters)
                    points.setdefault((trace, first.label), point)
            _check_number(len(points))
        if not points:
            raise ConfigError("the sweep has no point: the constraints allow none of the grid's")
        return list(points.values())

    def _count(self) -> None:
        """Refuse what has too many points before a machine is built: that takes minutes then."""
        different: set[tuple[str, frozenset[tuple[str, Value]]]] = set()
        for parameters, preset in self._machines():
            different.add((preset, frozenset(parameters.items())))
            if not self.constraints:
                _check_number(len(different) * len(self.traces))
            elif len(different) > MAX_GRID:
                raise ConfigError(
                    f"the sweep has more than {MAX_GRID} combinations before any constraint: "
                    "narrow its grids"
                )

    def _machines(self) -> Iterator[tuple[dict[str, Value], str]]:
        for one in self.machines:
            for parameters in product({**self.common, **one.fixed}, one.grid, one.when):
                yield parameters, one.preset

    def _allows(self, point: Point) -> bool:
        """Whether the constraints hold; for a machine that can't be built, none is asked."""
        values = point.values
        if values is not None and any(derived.AREA in one for one in self.constraints):
            values = {**values, **derived.area(point.machine(), self._table)}
        return values is None or all(holds(one, values) for one in self.constraints)

    @cached_property
    def _table(self) -> EnergyTable:
        return energy_table(self.energy)


@dataclass(frozen=True)
class Point:
    """One trace on one machine.

    Parameters
    ----------
    trace : str
        Its path.
    preset : str
    parameters : mapping of str to value
        What is changed in the preset.
    """

    trace: str
    preset: str
    parameters: Mapping[str, Value]

    def machine(self) -> ConfiguredMachine:
        """Return the machine, built.

        Raises
        ------
        ConfigError
            If a value is out of range or at odds with another.
        """
        return machine(self.preset, **self.parameters)

    @cached_property
    def label(self) -> str:
        """The machine's name: as in results, or by its parameters if it can't be built."""
        try:
            return self.machine().name
        except ConfigError:
            words = ",".join(f"{name}={value}" for name, value in self.parameters.items())
            return f"{self.preset}[{words}]"

    @cached_property
    def values(self) -> dict[str, Value] | None:
        """What constraints may name; None for a machine that can't be built."""
        try:
            config: Any = self.machine().config
        except ConfigError:
            return None
        return {**config.model_dump(), **derived.of_config(config)}

    def computation(self) -> str:
        """Return what the machine's own counts depend on, without memory system and vector unit."""
        machine = self.machine()
        own = machine.config.model_dump(mode="json", exclude=set(SystemConfig.model_fields))
        return f"{self.trace} {machine.mechanism.name} {sorted(own.items())}"


def _check_number(points: int) -> None:
    if points > MAX_POINTS:
        raise ConfigError(
            f"the sweep has more than {MAX_POINTS} points: narrow its grids, or add constraints"
        )


def read_spec(path: str | os.PathLike[str], modules: Collection[str] = ()) -> Spec:
    """Return the specification in a file; paths in it are relative to the file's folder.

    Parameters
    ----------
    path : path
    modules : collection of str
        Those whose machines it may name, as "MODULE:PRESET": that imports them, and runs their
        code. A specification by itself runs none.

    Raises
    ------
    ConfigError
        If it can't be read, is no TOML, no specification, or names another module.
    """
    entries = entries_of(content_of(path, "sweep"), path)
    _check_modules(entries, modules, path)
    return _placed(Spec(**entries), Path(path).parent)


def _check_modules(
    entries: Mapping[str, Any], modules: Collection[str], path: str | os.PathLike[str]
) -> None:
    """Refuse a file that names a module of its own: to look for its machines runs its code."""
    listed = entries.get("machines")
    machines = listed if isinstance(listed, list) else []
    presets = [one.get("preset") for one in machines if isinstance(one, dict)]
    for name in (str(it) for it in (*presets, entries.get("baseline"))):
        module, colon, _ = name.partition("[")[0].partition(":")
        if colon and module not in modules:
            raise ConfigError(
                f"{path}: machine {name!r} is of a module, and no specification runs code by "
                f"itself: allow it with --module {module} (read_spec(path, modules=[..]))"
            )


def _placed(spec: Spec, folder: Path) -> Spec:
    """Return a specification with its paths relative to where it is read, not to where it lies."""
    machines = [
        one.model_copy(
            update={
                "fixed": _drams(one.fixed, folder),
                "grid": _drams(one.grid, folder),
                "when": [_condition(condition, folder) for condition in one.when],
            }
        )
        for one in spec.machines
    ]
    moved = {
        "traces": [str(folder / trace) for trace in spec.traces],
        "common": _drams(spec.common, folder),
        "machines": machines,
        "baseline": spec.baseline and _words(r"(?<==)[^,\]]+", spec.baseline, folder),
        "constraints": [_words(r"(?<=[\"'])[^\"']+", one, folder) for one in spec.constraints],
        "energy": _near(spec.energy, folder),
    }
    return spec.model_copy(update=moved)


def _near(value: Any, folder: Path) -> Any:
    """Return a path of a table or a DRAM relative to a folder; other words as they are."""
    is_path = isinstance(value, str) and value.strip().endswith(".toml")
    return str(folder / value.strip()) if is_path else value


def _words(pattern: str, text: str, folder: Path) -> str:
    return re.sub(pattern, lambda match: str(_near(match[0], folder)), text)


def _drams(of: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    kinds = of.get("dram")
    moved = (
        [_near(one, folder) for one in kinds] if isinstance(kinds, list) else _near(kinds, folder)
    )
    return {**of, "dram": moved} if "dram" in of else dict(of)


def _condition(one: Conditional, folder: Path) -> Conditional:
    moved = {"parameters": _drams(one.parameters, folder), "grid": _drams(one.grid, folder)}
    return one.model_copy(update=moved)
