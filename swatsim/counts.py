"""How a thing that is counted is declared: at a field of a tuple, with unit, meaning and look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args, get_type_hints

#: A total, and what the names of the columns that add up to it begin with.
LANE_CYCLES, ENERGY = "lane_cycles", "energy_pj"


class Look(NamedTuple):
    """How a part of a whole is drawn.

    Parameters
    ----------
    label : str
        In legends and on pages.
    colour : str
        As #RRGGBB.
    hatch : str
        One of matplotlib's.
    """

    label: str
    colour: str
    hatch: str


@dataclass(frozen=True)
class Count:
    """What a field means.

    Parameters
    ----------
    unit, meaning : str
        As the schema of the results has them.
    adds : {"sum", "same", "cut", "listed"}
        Over the rows of a machine it sums, is the same in all, says how the op of a row is cut
        into blocks, or what there is is listed.
    look : Look, optional
        Of a bucket, or of a part of the energy.
    """

    unit: str
    meaning: str
    adds: Literal["sum", "same", "cut", "listed"] = "sum"
    look: Look | None = None


def bucket(meaning: str, label: str, colour: str, hatch: str = "") -> Count:
    """Declare a bucket of lane-cycles; no two share both colour and hatch."""
    return Count("lane-cycles", meaning, look=Look(label, colour, hatch))


def energy(meaning: str, label: str, colour: str, hatch: str = "") -> Count:
    """Declare a part of the energy; no two share both colour and hatch."""
    return Count("pJ", meaning, look=Look(label, colour, hatch))


class Declared(NamedTuple):
    """A column of the results, as a field declares it.

    Parameters
    ----------
    column : str
    kind : type
        Of its values: int, float or str.
    what : Count
    """

    column: str
    kind: type
    what: Count


def declared(counted: type[NamedTuple]) -> tuple[Declared, ...]:
    """Return the columns that the fields of a tuple declare, in their order.

    Raises
    ------
    TypeError
        If a field declares none, or a bucket is not called ``lane_cycles_*``.
    """
    columns = []
    for name, hint in get_type_hints(counted, include_extras=True).items():
        kind, *rest = get_args(hint) or (hint,)
        count = next((one for one in rest if isinstance(one, Count)), None)
        where = f"{counted.__name__}.{name}"
        if count is None:
            raise TypeError(f"{where} has no meaning: declare it as Annotated[int, bucket(..)]")
        if (count.unit == "lane-cycles") != name.startswith(f"{LANE_CYCLES}_"):
            raise TypeError(f"{where}: buckets, and they alone, are called {LANE_CYCLES}_*")
        column = f"{ENERGY}_{name}" if count.unit == "pJ" else name
        columns.append(Declared(column, kind, count))
    return tuple(columns)


def parts_of(*counted: type[NamedTuple]) -> dict[str, Look]:
    """Return how each bucket, or part of the energy, is drawn: by its column, in order."""
    every = (one for kind in counted for one in declared(kind))
    return {one.column: one.what.look for one in every if one.what.look is not None}
