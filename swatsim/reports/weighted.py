"""Layers as bars that are as high as what they take: which are shown, and where they stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from swatsim.reports import tables
from swatsim.reports.names import labels
from swatsim.reports.tables import Row
from swatsim.results import Results

#: More layers than these have no bars of their own, nor those that take less than so much.
MOST, LEAST = 24, 0.005

Weigh = Callable[[Row], float]


class Bar(NamedTuple):
    """An op of a layer, or of several.

    Parameters
    ----------
    row : dict
        As `swatsim.reports.tables.per_layer` has it.
    top, height : float
        From the top of the plot down, as shares of all that is weighed.
    """

    row: Row
    top: float
    height: float


class Group(NamedTuple):
    """The bars of a layer, or of those that are shown together.

    Parameters
    ----------
    label : str
        Unlike all others.
    name : str
        The layer's, in full.
    bars : sequence of Bar
        Touching, in the order of the ops.
    """

    label: str
    name: str
    bars: Sequence[Bar]

    @property
    def middle(self) -> float:
        """Where it is labelled."""
        return self.bars[0].top + self.height / 2

    @property
    def height(self) -> float:
        """Its share of all that is weighed."""
        return sum(bar.height for bar in self.bars)


def weighted(results: Results, weigh: Weigh) -> list[Group]:
    """Return layers by what they take, most first; behind them, as one, all that take little.

    Parameters
    ----------
    results : Results
    weigh : callable of a row to float
        What an op takes.
    """
    layers: dict[str, list[Row]] = {}
    for row in tables.per_layer(results):
        layers.setdefault(row["layer"], []).append(row)
    taken = {name: sum(map(weigh, rows)) for name, rows in layers.items()}
    every = sum(taken.values()) or 1.0
    order = sorted(layers, key=lambda name: -taken[name])
    shown = [name for name in order[:MOST] if taken[name] >= LEAST * every]
    rest = order[len(shown) :]
    if len(rest) == 1:  # it takes no more room by its name
        shown, rest = order, []
    short = labels(layers)
    named = [(short[name], name, layers[name]) for name in shown]
    if rest:
        words = f"{len(rest)} others" if shown else f"{len(rest)} layers"
        named.append((words, words, _together([layers[name] for name in rest])))
    return _placed(named, weigh, every)


def _together(layers: Sequence[Sequence[Row]]) -> list[Row]:
    """Return a row an op, of several layers added up."""
    ops: dict[str, list[Row]] = {}
    for rows in layers:
        for row in rows:
            ops.setdefault(row["op"], []).append(row)
    return [tables.together(rows) for rows in ops.values()]


def _placed(
    named: Sequence[tuple[str, str, Sequence[Row]]], weigh: Weigh, every: float
) -> list[Group]:
    found, top = [], 0.0
    for label, name, rows in named:
        bars = []
        for row in rows:
            height = weigh(row) / every
            bars.append(Bar(row, top, height))
            top += height
        found.append(Group(label, name, bars))
    return found


def apart(places: Sequence[float], least: float, end: float) -> list[float]:
    """Return places moved as far as it takes to lie apart: ascending, from 0 to an end.

    Parameters
    ----------
    places : sequence of float
        Ascending.
    least : float
        Between neighbours.
    end : float
        The last place that there is.
    """
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + least) if found else place)
    for number in range(len(found) - 1, -1, -1):
        found[number] = min(found[number], end - (len(found) - 1 - number) * least)
    return found
