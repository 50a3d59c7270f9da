"""Plots of a report's tables; each is readable alone: units, baseline, trace, machine are on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from statistics import fmean
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from swatsim.reports import alike, facts, tables
from swatsim.reports.curves import STYLES
from swatsim.reports.figure import Figure
from swatsim.reports.plots import OP_COLOURS
from swatsim.reports.span import Span
from swatsim.reports.tables import Row
from swatsim.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = {"fprop": "o", "dgrad": "s", "wgrad": "^"}
OPERAND_LINES = {"weight": "-", "act": "--", "grad_out": ":"}

#: Points with a name on them.
NAMED = 12

#: More points of a curve than these are drawn as means.
MOST_STEPS = 200

#: More points than these are drawn as pixels in an SVG too.
MOST_POINTS = 1000

#: Less above a bound than this, as a share, is rounding.
ROUNDING = 1e-9


def over_steps(results: Results) -> Figure:
    """Draw how densities and speed-ups drift over the steps of the run."""
    rows = facts.over_steps(results)
    figure, (above, below) = _figure(8.0, 6.4, 2)
    span = -(-len({row["step"] for row in rows}) // MOST_STEPS)
    for op in facts.ordered_ops(rows):
        mine = [row for row in rows if row["op"] == op]
        marks = {"marker": MARKERS[op], "markersize": 5} if span == 1 else {}
        style: dict[str, Any] = {"color": OP_COLOURS[op], **marks}
        _drift(above, mine, "speed_up", span, style | {"label": op})
        for operand, line in OPERAND_LINES.items():
            if f"density_{operand}" in mine[0]:
                own = {"linestyle": line, "label": f"{op}: {operand}"}
                _drift(below, mine, f"density_{operand}", span, style | own)
    above.set(ylabel="speed-up over the baseline", ylim=(0, None))
    below.set(ylabel="density (non-zero share)", xlabel="training step", ylim=(0, 1.03))
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    above.xaxis.set_major_locator(MaxNLocator(integer=True))
    means = f"; means of {span} recorded steps each, bands from the lowest to the highest"
    _finish(above, _title(results, "Over the steps of the run" + means * (span > 1)))
    _finish(below, [])
    above.legend(frameon=False, fontsize=8, ncols=3)
    below.legend(frameon=False, fontsize=8, ncols=3)
    return figure


def _drift(
    axes: Axes, rows: Sequence[Row], column: str, span: int, style: Mapping[str, Any]
) -> None:
    """Draw a column over the steps: each one, or means of `span` of them in a band."""
    parts = [rows[i : i + span] for i in range(0, len(rows), span)]
    steps = [fmean(row["step"] for row in part) for part in parts]
    values = [[row[column] for row in part] for part in parts]
    axes.plot(steps, list(map(fmean, values)), **style)
    if span > 1:
        low, high = list(map(min, values)), list(map(max, values))
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.2, linewidth=0)


def sparsity(results: Results) -> Figure:
    """Draw what zeros add to each layer's and op's speed-up against the share that they spare."""
    rows = facts.sparsity(results)
    figure, (axes,) = _figure(8.0, 5.0)
    columns = {"speed_up_zeros": "full", "speed_up_compute_zeros": "none"}
    for op in facts.ordered_ops(rows):
        mine = [row for row in rows if row["op"] == op]
        x = [100 * row["sparsity"] for row in mine]
        look: dict[str, Any] = {"color": OP_COLOURS[op], "marker": MARKERS[op], "linestyle": "none"}
        look["rasterized"] = len(rows) > MOST_POINTS
        for column, filled in columns.items():
            label = op if filled == "full" else f"{op}, compute only"
            axes.plot(x, [row[column] for row in mine], fillstyle=filled, label=label, **look)
    ideal = np.linspace(0, 99, 200)
    axes.plot(ideal, 1 / (1 - ideal / 100), ":", color="black", label="1 / (1 - share)")
    above = _mark_above(axes, rows, list(columns))
    top = 1.15 * max((row[column] for row in rows for column in columns), default=1)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xlabel="share of the MACs that has a zero of an operand, padding aside (%)")
    axes.set(ylabel="speed-up over the same with no zero", xlim=(-1, 100), ylim=(0, top))
    words = "What zeros add to the speed-up, against the MACs that they spare: a point a layer, op"
    _finish(axes, [words, *above, *_about(results)])
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=4)
    return figure


def _mark_above(axes: Axes, rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Ring the points above the line, and say why there can be any."""
    points = [
        (100 * row["sparsity"], row[column])
        for row in rows
        for column in columns
        if row[column] > row["bound"] * (1 + ROUNDING)
    ]
    if not points:
        return []
    x, y = zip(*points, strict=True)
    look: dict[str, Any] = {"facecolors": "none", "edgecolors": "#CC3311", "linewidths": 1.2}
    look["rasterized"] = len(rows) > MOST_POINTS
    axes.scatter(x, y, 110, label="above the line", **look)
    return [
        f"{len(points)} of {len(rows) * len(columns)} points, ringed, lie above 1 / (1 - share): "
        "zeros also spare products with padding, waiting, or bytes that came more than once"
    ]


def reductions(results: Results) -> Figure:
    """Draw what is left without zeros: of the FLOPs, and of the backward pass's operands."""
    rows = facts.reductions(results)
    figure, (axes,) = _figure(8.0, 0.9 + 0.36 * len(rows))
    places = np.arange(len(rows))[::-1]
    left = [100 * row["left"] / row["dense"] for row in rows]
    colours = ["#0072B2" if row["what"].startswith("FLOPs") else "#E69F00" for row in rows]
    axes.barh(places, [100] * len(rows), 0.7, color="#EEEEEE", edgecolor="#BBBBBB")
    axes.barh(places, left, 0.7, color=colours)
    for place, share in zip(places, left, strict=True):
        axes.text(101, place, f"{share - 100:+.1f} %", va="center", fontsize=8)
    axes.set_yticks(places, [row["what"] for row in rows], fontsize=8)
    axes.set(xlabel="% of the same with no zero left out", xlim=(0, 114))
    _finish(axes, _title(results, "Left without zeros, a ReLU's too: FLOPs, operands' bytes"))
    axes.grid(False)
    return figure


def sensitivities(points: Sequence[Row], parameters: Sequence[str]) -> Figure:
    """Draw time against each parameter that is varied; lines join points alike in all others."""
    rows = -(-len(parameters) // 3)
    width = max(6.0, 4.0 * min(3, len(parameters)))
    figure, axes = _figure(width, 0.8 + 3.2 * rows, len(parameters), 3)
    presets = list(dict.fromkeys(row["preset"] for row in points))
    styles = {preset: STYLES[i % len(STYLES)] for i, preset in enumerate(presets)}
    drawn: set[str] = set()
    for name, one in zip(parameters, axes, strict=False):
        drawn |= _sensitivity(one, points, name, parameters, styles)
    words = "Time of a step as one parameter changes; lines join machines alike in all else"
    figure.suptitle("\n".join([*wrap(words, int(14 * width)), _trace_of(points)]), fontsize=10)
    key = [
        Line2D([], [], color=colour, marker=marker, label=preset)
        for preset, (colour, marker) in styles.items()
        if preset in drawn
    ]
    figure.legend(handles=key, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _trace_of(points: Sequence[Row]) -> str:
    return f"trace {PurePath(points[0]['trace']).name}, {Span.from_row(points[0]).mean}"


def _sensitivity(
    axes: Axes,
    points: Sequence[Row],
    name: str,
    parameters: Sequence[str],
    styles: Mapping[str, tuple[str, str]],
) -> set[str]:
    """Draw one panel; tell which presets are in it."""
    others = [other for other in ("preset", *parameters) if other != name]
    families: dict[tuple[Any, ...], list[Row]] = {}
    for row in points:
        families.setdefault(tuple(row.get(other) for other in others), []).append(row)
    # a machine on its own says nothing of the parameter
    varied = [rows for rows in families.values() if len({row[name] for row in rows}) > 1]
    values = _ordered({row[name] for rows in varied for row in rows})
    for rows in varied:
        colour, marker = styles[rows[0]["preset"]]
        rows.sort(key=lambda row: values.index(row[name]))
        x, y = [values.index(row[name]) for row in rows], [row["time_ms"] for row in rows]
        axes.plot(x, y, color=colour, marker=marker, markersize=3, linewidth=0.8, alpha=0.6)
    labels = [str(value) for value in values]
    axes.set_xticks(range(len(values)), labels, fontsize=7, rotation=30, ha="right")
    times = [row["time_ms"] for row in points]
    axes.set(xlabel=name, ylabel="ms a step", yscale="log")
    axes.set_ylim(0.8 * min(times), 1.25 * max(times))  # the same in all panels
    for write in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        write(FuncFormatter(lambda value, _: f"{value:g}"))
    _finish(axes, [])
    return {rows[0]["preset"] for rows in varied}


def _ordered(values: set[Any]) -> list[Any]:
    """Sort numbers by size, words by letters."""
    return sorted(
        values,
        key=lambda value: (isinstance(value, str), str(value) if isinstance(value, str) else value),
    )


def pareto(points: Sequence[Row], front: Sequence[Row]) -> Figure:
    """Draw time against energy, a point a machine, its size the multipliers; the front is named."""
    figure, (axes,) = _figure(8.5, 5.4 + 0.14 * min(len(front), NAMED))
    best = {row["point"] for row in front}
    presets = list(dict.fromkeys(row["preset"] for row in points))
    largest = max(row["multipliers"] for row in points)
    for preset, (colour, marker) in zip(presets, STYLES * len(presets), strict=False):
        for chosen in (False, True):
            mine = [r for r in points if r["preset"] == preset and (r["point"] in best) is chosen]
            x, y = [row["time_ms"] for row in mine], [row["energy_pj"] / 1e9 for row in mine]
            sizes = [20 + 100 * row["multipliers"] / largest for row in mine]
            face = colour if chosen else "none"
            label = preset + (", on the front" if chosen else "")
            if mine:
                axes.scatter(
                    x, y, sizes, facecolors=face, edgecolors=colour, marker=marker, label=label
                )
    named = list(front)[:NAMED]
    for number, row in enumerate(named, start=1):
        place = (row["time_ms"], row["energy_pj"] / 1e9)
        axes.annotate(str(number), place, textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.set(ylabel="energy of a step (mJ)")
    for name in ("time_ms", "energy_pj"):
        values = [row[name] for row in points]
        if max(values) > 10 * min(values):  # within a decade a logarithmic axis has no numbers
            axes.set(**{"xscale" if name == "time_ms" else "yscale": "log"})
    words = "Time and energy of a step, a point a machine; its area grows with its multipliers"
    _finish(axes, [words, _trace_of(points)])
    legend = axes.legend(frameon=False, fontsize=8)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([40])
    names = [f"{i}: {row['machine']} ({alike.words(row)})" for i, row in enumerate(named, 1)]
    words = "time of a step (ms)\n\n" + "\n".join(names)
    axes.set_xlabel(words, fontsize=8, loc="left")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return figure


def _figure(
    width: float, height: float, plots: int = 1, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    figure = Figure(width, height, layout="constrained")
    columns = min(columns, plots)
    grid = (-(-plots // columns), columns)
    return figure, [figure.add_subplot(*grid, i + 1) for i in range(plots)]


def _title(results: Results, title: str) -> list[str]:
    return [title, *_about(results)]


def _about(results: Results) -> list[str]:
    machine, baseline = results.rows[0]["machine"], tables.baseline_of(results)
    return [f"{machine}, baseline {baseline}", tables.source_of(results)]


def _finish(axes: Axes, words: Sequence[str]) -> None:
    lines = [line for part in words for line in wrap(part, 95)]
    axes.set_title("\n".join(lines), loc="left", fontsize=10)
    axes.grid(linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


#: What a page draws of results, beside the plots of a simulation.
OF_RESULTS: Mapping[str, Any] = {
    "over_steps": over_steps,
    "sparsity": sparsity,
    "reductions": reductions,
}
