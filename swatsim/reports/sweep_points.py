"""Plots of a sweep's points: time against each parameter, and the front of time and energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D

from swatsim.reports import differences, labels, page_tables
from swatsim.reports.comparable import alike_in_energy
from swatsim.reports.span import Span
from swatsim.reports.style import (
    LEGEND,
    SERIES,
    SMALL,
    TINY,
    TITLE,
    Figure,
    axes_on,
    finish,
    plain_numbers,
    wrapped,
)
from swatsim.reports.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: In inches.
WIDTH = 8.5

#: Points with a name on them.
NAMED = 12


def sensitivities(points: Sequence[Row], parameters: Sequence[str]) -> Figure:
    """Draw time against each parameter that is varied; lines join points alike in all others."""
    rows = -(-len(parameters) // 3)
    width = max(6.0, 4.0 * min(3, len(parameters)))
    figure, axes = axes_on(width, 0.8 + 3.2 * rows, len(parameters), 3)
    presets = list(dict.fromkeys(row["preset"] for row in points))
    styles = {preset: SERIES[i % len(SERIES)] for i, preset in enumerate(presets)}
    drawn: set[str] = set()
    for name, one in zip(parameters, axes, strict=False):
        drawn |= _sensitivity(one, points, name, parameters, styles)
    words = "Time of a step as one parameter changes; lines join machines alike in all else"
    figure.suptitle("\n".join([*wrap(words, int(14 * width)), _trace_of(points)]), fontsize=TITLE)
    key = [
        Line2D([], [], color=colour, marker=marker, label=preset)
        for preset, (colour, marker) in styles.items()
        if preset in drawn
    ]
    figure.legend(handles=key, loc="outside lower center", ncols=4, frameon=False, fontsize=LEGEND)
    return figure


def varied(points: Sequence[Row], parameters: Sequence[str]) -> list[str]:
    """Return the parameters in which machines differ that are alike in all others."""
    return [name for name in parameters if _families(points, name, parameters)]


def _families(points: Sequence[Row], name: str, parameters: Sequence[str]) -> list[list[Row]]:
    """Return points that differ in a parameter alone; one by itself says nothing of it."""
    others = [other for other in ("preset", *parameters) if other != name]
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in points:
        found.setdefault(tuple(row.get(other) for other in others), []).append(row)
    return [rows for rows in found.values() if len({row[name] for row in rows}) > 1]


def _trace_of(points: Sequence[Row]) -> str:
    return f"trace {PurePath(points[0]['trace']).name}, {Span.from_row(points[0]).mean}"


def _sensitivity(
    axes: Axes,
    points: Sequence[Row],
    name: str,
    parameters: Sequence[str],
    styles: Mapping[str, tuple[str, str]],
) -> set[str]:
    """Draw one panel, and return which presets are in it."""
    families = _families(points, name, parameters)
    values = _ordered({row[name] for rows in families for row in rows})
    place = {value: i for i, value in enumerate(values)}
    for rows in families:
        colour, marker = styles[rows[0]["preset"]]
        rows.sort(key=lambda row: place[row[name]])
        x, y = [place[row[name]] for row in rows], [row["time_ms"] for row in rows]
        axes.plot(x, y, color=colour, marker=marker, markersize=3, linewidth=0.8, alpha=0.6)
    names = [str(value) for value in values]
    axes.set_xticks(range(len(values)), names, fontsize=TINY, rotation=30, ha="right")
    times = [row["time_ms"] for row in points]
    axes.set(xlabel=name, ylabel=labels.label("time_ms", "a step"), yscale="log")
    axes.set_ylim(0.8 * min(times), 1.25 * max(times))  # the same in all panels
    plain_numbers(axes.yaxis, minor=True)
    finish(axes)
    return {rows[0]["preset"] for rows in families}


def _ordered(values: set[Any]) -> list[Any]:
    """Return values in order: numbers by size, words by letters."""
    return sorted(
        values,
        key=lambda value: (isinstance(value, str), str(value) if isinstance(value, str) else value),
    )


def pareto(points: Sequence[Row], front: Sequence[Row]) -> Figure:
    """Draw time against energy, a point a machine, as large as its size; the front is named.

    Points whose energies don't compare with the others' are left out.
    """
    points = alike_in_energy(points)
    figure, (axes,) = axes_on(WIDTH, 5.4 + 0.14 * min(len(front), NAMED))
    best = {row["point"] for row in front}
    presets = list(dict.fromkeys(row["preset"] for row in points))
    time, energy, size, *_ = page_tables.costs_of(points)
    largest = max(row[size] for row in points)
    for preset, (colour, marker) in zip(presets, SERIES * len(presets), strict=False):
        for chosen in (False, True):
            mine = [r for r in points if r["preset"] == preset and (r["point"] in best) is chosen]
            x, y = ([labels.scaled(name, row[name]) for row in mine] for name in (time, energy))
            sizes = [20 + 100 * row[size] / largest for row in mine]
            face = colour if chosen else "none"
            label = preset + (", on the front" if chosen else "")
            if mine:
                axes.scatter(
                    x, y, sizes, facecolors=face, edgecolors=colour, marker=marker, label=label
                )
    costs = [[labels.scaled(name, row[name]) for name in (time, energy)] for row in points]
    said = [_said(row, time, energy, size) for row in points]
    figure.hover_points(axes, [(x, y) for x, y in costs], said)
    named = list(front)[:NAMED]
    for number, row in enumerate(named, start=1):
        place = (row[time], labels.scaled(energy, row[energy]))
        axes.annotate(str(number), place, textcoords="offset points", xytext=(5, 4), fontsize=SMALL)
    axes.set(ylabel=labels.label(energy, "a step"))
    for name in (time, energy):
        values = [row[name] for row in points]
        if max(values) > 10 * min(values):  # within a decade a logarithmic axis has no numbers
            axes.set(**{"xscale" if name == time else "yscale": "log"})
    finish(axes, wrapped([_about(points, size), _trace_of(points)], WIDTH))
    legend = axes.legend(frameon=False, fontsize=SMALL)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([40])
    names = [f"{i}: {row['machine']} ({_properties(row, size)})" for i, row in enumerate(named, 1)]
    words = f"{labels.label(time, 'a step')}\n\n" + "\n".join(names)
    axes.set_xlabel(words, fontsize=SMALL, loc="left")
    for axis in (axes.xaxis, axes.yaxis):
        plain_numbers(axis)
    return figure


def _said(row: Row, time: str, energy: str, size: str) -> str:
    """Return what is said of a point where one points at it."""
    costs = ", ".join(
        f"{labels.labelled(name).words} {labels.shown(name, row[name])}" for name in (time, energy)
    )
    return f"{row['machine']}: {costs} ({_properties(row, size)})"


def _about(points: Sequence[Row], size: str) -> str:
    """Return what the plot shows, and what the size of a point is."""
    sizes = [row[size] for row in points]
    least, largest = labels.cell(size, min(sizes)), labels.shown(size, max(sizes))
    grows = f"grows with its {labels.labelled(size).words} ({least} to {largest})"
    tables = ", ".join(dict.fromkeys(row.get("energy_table", "") for row in points))
    of_table = f"; energies and areas of table {tables}" if tables else ""
    return f"Time and energy of a step, a point a machine, which {grows}{of_table}"


def _properties(row: Row, size: str) -> str:
    """Return what a machine is like, and its size where that is not among it."""
    words = differences.words(row)
    return words if size == "multipliers" else f"{words}, {labels.shown(size, row[size])}"
