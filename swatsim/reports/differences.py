"""What a ranking of machines ranks beside them: value type, clock, bandwidth, multipliers, fusion.

Each preset has its own. What a user varies is meant to differ; what comes along with a preset,
unasked, makes a comparison of machines one of types and clocks too.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from swatsim.columns import Role
from swatsim.reports.tables import AND, total_of
from swatsim.results import Results
from swatsim.table import column_of
from swatsim.workload.phases import OTHER


class Property(NamedTuple):
    """What machines may differ in: the column of it, its name, and the parameters that set it."""

    column: str
    name: str
    parameters: tuple[str, ...]
    word: Callable[[Any], str]


PROPERTIES = (
    Property("dtype", "value type", ("dtype",), str),
    Property("clock_mhz", "clock", ("clock_mhz",), lambda mhz: f"{mhz} MHz"),
    Property(
        "dram_mb_per_s",
        "DRAM bandwidth",
        ("memory", "dram", "dram_channels", "dram_mb_per_s"),
        lambda speed: f"{speed / 1000:g} GB/s" if speed else "endless",
    ),
    Property("multipliers", "multipliers", (), str),
)

#: Of the vector unit, what is as here unless the user set it: a preset has none of its own. It
#: concerns whole steps alone.
VECTOR_UNIT = {
    Property("fusion", "fusion", ("fusion",), str): "none",
    Property("vector_lanes", "vector lanes", ("vector_lanes",), str): "auto",
}


@dataclass(frozen=True)
class Ranked:
    """A machine among others.

    Parameters
    ----------
    preset : str
    chosen : mapping of str to value
        Parameters that the user set.
    geometry : mapping of str to value
        Those of them that say how many multipliers there are.
    values : mapping of str to value
        By `Property.column`.
    """

    preset: str
    chosen: Mapping[str, Any]
    geometry: Mapping[str, Any]
    values: Mapping[str, Any]

    def choice(self, what: Property) -> tuple[tuple[str, Any], ...]:
        """Return what the user chose of a property."""
        if not what.parameters:
            return tuple(self.geometry.items())
        return tuple((name, self.chosen[name]) for name in what.parameters if name in self.chosen)


def values_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a machine's properties from a row of results."""
    return {
        **{name: row[name] for name in ("dtype", "clock_mhz", "dram_mb_per_s")},
        "multipliers": row["pes"] * row["lanes"],
    }


def of_vector_unit(chosen: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    """Return a vector unit's properties, by what the user chose; none where layers alone were run.

    Parameters
    ----------
    chosen : mapping of str to value
    whole : bool
        Whether results have all that a step does.
    """
    known = VECTOR_UNIT.items() if whole else ()
    return {what.column: chosen.get(what.column, default) for what, default in known}


def words(values: Mapping[str, Any]) -> str:
    """Return a machine's properties in words; a machine without a clock has multipliers only."""
    known = PROPERTIES if values["clock_mhz"] else PROPERTIES[-1:]
    parts = {what.column: what.word(values[what.column]) for what in known}
    return ", ".join([*parts.values()]) + " multipliers"


def unasked(machines: Sequence[Ranked]) -> list[Property]:
    """Return the properties in which machines differ unasked.

    Two machines of different presets do where the user set the property of at most one, or of both
    to the same and got different ones. Two of one preset do where the user did the same to both and
    their traces made the difference: value types are the run's.
    """
    known = PROPERTIES if all(one.values["clock_mhz"] for one in machines) else PROPERTIES[-1:]
    vector = [it for it in VECTOR_UNIT if all(it.column in one.values for one in machines)]
    return [what for what in (*known, *vector) if _differ(machines, what)]


def _differ(machines: Sequence[Ranked], what: Property) -> bool:
    every: dict[str, set[Any]] = {}
    alike: dict[tuple[Any, ...], dict[str, set[Any]]] = {}
    for one in machines:
        for found in (every, alike.setdefault(one.choice(what), {})):
            found.setdefault(one.preset, set()).add(one.values[what.column])
    if what.parameters and any(len(own) > 1 for of in alike.values() for own in of.values()):
        return True
    untouched = alike.get((), {})
    for preset, own in untouched.items():
        if any(own != theirs for other, theirs in every.items() if other != preset):
            return True
    return any(len(set().union(*of.values())) > 1 for of in alike.values() if len(of) > 1)


def warning(machines: Sequence[Ranked], remedy: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """Return a warning of what differs unasked; nothing, if nothing does.

    Parameters
    ----------
    machines : sequence of Ranked
    remedy : callable of mapping to str
        Words how parameters are set; it is given those that make the others like the first.
    """
    found = unasked(machines)
    if not found:
        return []
    differ = "; ".join(f"{what.name}: {_values(machines, what)}" for what in found)
    text = f"the machines differ in more than was varied ({differ}): their times compare that too"
    if settings := _settings(machines, found):
        same = ", ".join(what.name for what in found if what.column in settings)
        text += f"; {remedy(settings)} for the same {same}"
    if PROPERTIES[-1] in found:
        text += "; the multipliers follow from each machine's geometry (swatsim machines)"
    return [text]


def _values(machines: Sequence[Ranked], what: Property) -> str:
    every = {one.values[what.column] for one in machines}
    values = sorted(every, key=lambda value: (isinstance(value, str), value))  # auto after numbers
    shown = [what.word(value) for value in values]
    return ", ".join(shown) if len(shown) <= 4 else f"{shown[0]} to {shown[-1]}"


def _settings(machines: Sequence[Ranked], found: Sequence[Property]) -> dict[str, Any]:
    """Return the parameters that make others like the first.

    There is none for an endless DRAM, which has no bandwidth, nor for several types of values.
    """
    values = {what.column: machines[0].values[what.column] for what in found if what.parameters}
    return {
        column: value
        for column, value in values.items()
        if all(one.values[column] for one in machines) and AND not in str(value)
    }


def of_results(results: Results, role: Role = Role.MACHINE) -> Ranked:
    """Return the machine of results, or what it is compared with, by its name and its rows."""
    row = total_of(results, role)
    # a name is what `swatsim.machine` takes; nothing else in results tells what a user set
    preset, _, rest = str(row["machine"]).partition("[")
    pairs = (pair.partition("=") for pair in rest.removesuffix("]").split(",") if "=" in pair)
    chosen = {name: value for name, _, value in pairs}
    whole = OTHER in column_of(results.rows, "op")
    values = {**values_of(row), **of_vector_unit(chosen, whole)}
    return Ranked(preset, chosen, {}, values)


def against_baseline(results: Results) -> list[str]:
    """Return warnings of a baseline that differs in more than its name says."""
    ours, theirs = (of_results(results, role) for role in (Role.MACHINE, Role.BASELINE))

    def remedy(settings: Mapping[str, Any]) -> str:
        pairs = {**theirs.chosen, **settings}.items()
        inside = ",".join(f"{name}={value}" for name, value in pairs)
        return f"choose --baseline {shlex.quote(f'{theirs.preset}[{inside}]')}"

    return warning([ours, theirs], remedy)
