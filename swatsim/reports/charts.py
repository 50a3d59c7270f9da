"""Plots of a report's tables; each is readable alone: units, baseline, trace, machine are on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from swatsim.reports import facts, tables
from swatsim.reports.curves import STYLES
from swatsim.reports.plots import OP_COLOURS
from swatsim.reports.tables import Row
from swatsim.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = {"fprop": "o", "dgrad": "s", "wgrad": "^"}
OPERAND_LINES = {"weight": "-", "act": "--", "grad_out": ":"}

#: Points with a name on them.
NAMED = 12


def over_steps(results: Results) -> Figure:
    """Draw how densities and speed-ups drift over the steps of the run."""
    rows = facts.over_steps(results)
    figure, (above, below) = _figure(8.0, 6.4, 2)
    for op in facts.ordered_ops(rows):
        mine = [row for row in rows if row["op"] == op]
        steps = [row["step"] for row in mine]
        style: dict[str, Any] = {"color": OP_COLOURS[op], "marker": MARKERS[op], "markersize": 5}
        above.plot(steps, [row["speed_up"] for row in mine], label=op, **style)
        for operand, line in OPERAND_LINES.items():
            if f"density_{operand}" in mine[0]:
                values = [row[f"density_{operand}"] for row in mine]
                below.plot(steps, values, line, label=f"{op}: {operand}", **style)
    above.set(ylabel="speed-up over the baseline", ylim=(0, None))
    below.set(ylabel="density (non-zero share)", xlabel="training step", ylim=(0, 1.03))
    _finish(above, _title(results, "Over the steps of the run"))
    _finish(below, [])
    above.legend(frameon=False, fontsize=8, ncols=3)
    below.legend(frameon=False, fontsize=8, ncols=3)
    return figure


def sparsity(results: Results) -> Figure:
    """Draw the speed-up of each layer and op against the share of work that is ineffectual."""
    rows = facts.sparsity(results)
    figure, (axes,) = _figure(8.0, 5.0)
    for op in facts.ordered_ops(rows):
        mine = [row for row in rows if row["op"] == op]
        x = [100 * row["sparsity"] for row in mine]
        look: dict[str, Any] = {"color": OP_COLOURS[op], "marker": MARKERS[op], "linestyle": "none"}
        axes.plot(x, [row["speed_up"] for row in mine], label=op, **look)
        compute = [row["speed_up_compute"] for row in mine]
        axes.plot(x, compute, label=f"{op}, compute only", fillstyle="none", **look)
    top = 1.15 * max((max(row["speed_up"], row["speed_up_compute"]) for row in rows), default=1)
    ideal = np.linspace(0, 99, 200)
    axes.plot(ideal, 1 / (1 - ideal / 100), ":", color="black", label="every zero skipped")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xlabel="ineffectual share of the MACs (%)", ylabel="speed-up over the baseline")
    axes.set(xlim=(0, 100), ylim=(0, top))
    _finish(axes, _title(results, "Speed-up against sparsity, a point a layer and op"))
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    return figure


def reductions(results: Results) -> Figure:
    """Draw what is left of FLOPs and of the bytes kept for the backward pass."""
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
    axes.set(xlabel="% of dense training", xlim=(0, 114))
    _finish(axes, _title(results, "FLOPs, and memory for the backward pass, beside dense"))
    axes.grid(False)
    return figure


def sensitivities(points: Sequence[Row], parameters: Sequence[str]) -> Figure:
    """Draw time against each parameter that is varied; lines join points alike in all others."""
    figure, axes = _figure(
        4.0 * min(3, len(parameters)), 3.2 * -(-len(parameters) // 3), len(parameters), 3
    )
    for name, one in zip(parameters, axes, strict=False):
        _sensitivity(one, points, name, parameters)
    title = "Time of the training step as one parameter changes, all others alike"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def _sensitivity(axes: Axes, points: Sequence[Row], name: str, parameters: Sequence[str]) -> None:
    others = [other for other in ("preset", "trace", *parameters) if other != name]
    families: dict[tuple[Any, ...], list[Row]] = {}
    for row in points:
        if row.get(name) is not None:
            families.setdefault(tuple(row.get(other) for other in others), []).append(row)
    values = _ordered({row[name] for row in points if row.get(name) is not None})
    presets = list(dict.fromkeys(row["preset"] for row in points))
    for family in families.values():
        colour, marker = STYLES[presets.index(family[0]["preset"]) % len(STYLES)]
        family.sort(key=lambda row: values.index(row[name]))
        x = [values.index(row[name]) for row in family]
        y = [row["time_ms"] for row in family]
        axes.plot(x, y, color=colour, marker=marker, markersize=3, linewidth=0.8, alpha=0.6)
    axes.set_xticks(range(len(values)), [str(value) for value in values], fontsize=7, rotation=30)
    axes.set(xlabel=name, ylabel="ms a step", ylim=(0, None))
    _finish(axes, [])


def _ordered(values: set[Any]) -> list[Any]:
    """Sort numbers by size, words by letters."""
    return sorted(
        values,
        key=lambda value: (isinstance(value, str), str(value) if isinstance(value, str) else value),
    )


def pareto(points: Sequence[Row], front: Sequence[Row]) -> Figure:
    """Draw time against energy, a point a machine, its size the multipliers; the front is named."""
    figure, (axes,) = _figure(8.5, 5.6)
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
    named = sorted(front, key=lambda row: row["time_ms"])[:NAMED]
    for number, row in enumerate(named, start=1):
        place = (row["time_ms"], row["energy_pj"] / 1e9)
        axes.annotate(str(number), place, textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.set(xlabel="time of the training step (ms)", ylabel="energy of the training step (mJ)")
    for name in ("time_ms", "energy_pj"):
        values = [row[name] for row in points]
        if max(values) > 10 * min(values):  # within a decade a logarithmic axis has no numbers
            axes.set(**{"xscale" if name == "time_ms" else "yscale": "log"})
    _finish(
        axes,
        ["Time and energy, a point a machine; its area grows with the multipliers"],
    )
    axes.legend(frameon=False, fontsize=8)
    return figure


def _figure(
    width: float, height: float, plots: int = 1, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    columns = min(columns, plots)
    grid = (-(-plots // columns), columns)
    return figure, [figure.add_subplot(*grid, i + 1) for i in range(plots)]


def _title(results: Results, title: str) -> list[str]:
    machine, baseline = results.rows[0]["machine"], tables.baseline_of(results)
    return [title, f"{machine}, baseline {baseline}", tables.source_of(results)]


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
