"""Bars of each layer and op: speed-ups, and where PE-cycles and energy went.

Each plot is readable alone: units, baseline, trace and machine are on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from swatsim.counters import BUCKETS, ENERGY_PARTS
from swatsim.counts import ENERGY, LANE_CYCLES, Look
from swatsim.reports import tables
from swatsim.reports.style import (
    LEGEND,
    NOTICE,
    OP_COLOURS,
    OP_LABEL_COLOURS,
    SMALL,
    Figure,
    finish,
    wrapped,
)
from swatsim.results import Results
from swatsim.workload.layer import OPS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

#: Height from which on a part of a bar is hatched.
HATCHED = 0.02

#: Inches from the axis to the top of the bars.
AXES_HEIGHT = 3.2

#: Inches that are too few for three parts' names beside each other.
NARROW = 9.0

#: More layers than these are not drawn: those of most cycles are, and the title says so.
MOST_LAYERS = 60

#: A layer's name is shortened beyond this.
LONGEST = 28

#: Width of a bar, in layers.
BAR = 0.26

#: What stands under the bars.
INITIALS = "f: fprop, d: dgrad, w: wgrad"

#: The group of bars in which all layers are added up, and the bar of all that a step does.
ALL, STEP = "all layers", "whole step"


def speed_up(results: Results) -> Figure:
    """Draw the speed-up of each layer and op over the baseline, and that of all as a line."""
    rows, groups = _bars(results)
    figure, axes = _figure(len(groups))
    for op in (name for name in OPS if any(row["op"] == name for row in rows)):
        mine = [row for row in rows if row["op"] == op]
        heights = [row["speed_up"] if isfinite(row["speed_up"]) else 0.0 for row in mine]
        places = _places(mine, groups)
        axes.bar(places, heights, BAR, color=OP_COLOURS[op], label=op)
        for place, row in zip(places, mine, strict=True):  # at the foot, where no line crosses it
            ink = {"color": OP_LABEL_COLOURS[op], "fontsize": SMALL, "rotation": 90}
            axes.text(place, 0.04, _number(row["speed_up"]), ink, ha="center", va="bottom")
    _mark_dense_operands(axes, rows, groups)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.axhline(1.0, color="black", linewidth=0.8)
    _mark_totals(axes, tables.summarise(results))
    axes.set_ylabel("speed-up over the baseline")
    _label_groups(axes, groups)
    _finish(figure, axes, results, groups, "Speed-up per layer and op", columns=3)
    return figure


def _mark_totals(axes: Axes, results: tables.Summary) -> None:
    """Draw a line at the speed-up of all layers, and one at that of the step if it has more."""
    lines = [("all layers and ops", "--", results.of_layers["speed_up"])]
    if results.phases:
        lines.append(("step, everything else in it", ":", results.ops[-1]["speed_up"]))
    for words, style, height in lines:
        look: dict[str, Any] = {"color": "black", "linestyle": style, "zorder": 0}
        axes.axhline(height, label=f"{words}: {_number(height)}x", **look)


def _mark_dense_operands(axes: Axes, rows: Sequence[tables.Row], groups: Sequence[str]) -> None:
    """Draw a tick on each bar: as far as it would go with no zero in the operands."""
    known = [row for row in rows if isfinite(row["speed_up_dense_operands"])]
    places = np.array(_places(known, groups))
    heights = [row["speed_up_dense_operands"] for row in known]
    words = "with no zero in the operands (padding, free lanes)"
    look: dict[str, Any] = {"colors": NOTICE, "linewidth": 1.6, "zorder": 3, "label": words}
    axes.hlines(heights, places - BAR / 2, places + BAR / 2, **look)


def pe_cycles(results: Results) -> Figure:
    """Draw where the PE-cycles went: one stacked bar an op, its height relative to the baseline."""
    title = f"Where the PE-cycles went ({INITIALS})"
    return _stacked(results, BUCKETS, LANE_CYCLES, title, "PE-cycles / the baseline's")


def energy(results: Results) -> Figure:
    """Draw where the energy went: one stacked bar an op, its height relative to the baseline."""
    title = f"Where the energy went ({INITIALS})"
    return _stacked(results, ENERGY_PARTS, ENERGY, title, "energy / the baseline's")


def _stacked(
    results: Results, parts: Mapping[str, Look], whole: str, title: str, ylabel: str
) -> Figure:
    rows, groups = _bars(results, whole=True)
    figure, axes = _figure(len(groups))
    places = _places(rows, groups)
    bottom = np.zeros(len(rows))
    met = {column: look for column, look in parts.items() if any(row[column] for row in rows)}
    for column, look in met.items():
        heights = np.array([row[column] / (row["baseline"][whole] or 1) for row in rows])
        _add_boxes(axes, look, np.array(places), bottom, heights)
        bottom += heights
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.axhline(1.0, color="black", linewidth=0.8)
    _label_groups(axes, groups)
    _label_bars(axes, places, [row["op"] if row["op"] in OPS else "" for row in rows])
    axes.set_ylim(0, 1.05 * max(1.0, *bottom))
    axes.set_ylabel(ylabel)
    key = [
        Patch(facecolor=b.colour, hatch=b.hatch, edgecolor="white", label=b.label)
        for b in met.values()
    ]
    columns = 3 if figure.get_figwidth() > NARROW else 2
    _finish(figure, axes, results, groups, title, columns, key)
    return figure


def _add_boxes(axes: Axes, look: Look, places: Floats, bottom: Floats, heights: Floats) -> None:
    """Draw one part of all bars; as collections, which take a fraction of the time of patches."""
    # a hatch takes longer to draw than all the rest, and on a sliver can't be seen
    hatched = (heights > HATCHED) & bool(look.hatch)
    for chosen, hatch in ((hatched, look.hatch), (~hatched & (heights > 0), None)):
        if chosen.any():
            x, y, high = places[chosen], bottom[chosen], heights[chosen]
            left, right, top = x - BAR / 2, x + BAR / 2, y + high
            corners = np.stack([(left, y), (right, y), (right, top), (left, top)]).transpose(
                2, 0, 1
            )
            boxes = PolyCollection(list(corners), hatch=hatch, label=look.label)
            boxes.set(facecolor=look.colour, edgecolor="white", linewidth=0.4)
            axes.add_collection(boxes)


def _bars(results: Results, *, whole: bool = False) -> tuple[list[tables.Row], list[str]]:
    """Return the bars, those of all layers together behind them, and the groups they stand in.

    `whole`: the last is that of a step with everything else in it, if results have that.
    """
    summary = tables.summarise(results)
    totals = [{**row, "layer": ALL} for row in summary.ops if row["op"] in OPS]
    if whole and summary.phases:
        totals.append({**summary.ops[-1], "layer": STEP})
    rows = tables.per_layer(results)
    if len({row["layer"] for row in rows}) > MOST_LAYERS:
        rows = _longest(rows)
    rows += totals
    return rows, list(dict.fromkeys(row["layer"] for row in rows))


def _longest(rows: list[tables.Row]) -> list[tables.Row]:
    """Return the layers that take the baseline most of its time: no page shows more."""
    cycles: Counter[str] = Counter()
    for row in rows:
        cycles[row["layer"]] += row["baseline"]["cycles"]
    kept = {name for name, _ in cycles.most_common(MOST_LAYERS)}
    return [row for row in rows if row["layer"] in kept]


def _places(rows: Sequence[tables.Row], groups: Sequence[str]) -> list[float]:
    """Return the places of one layer's bars, side by side in the order of the ops."""
    sides = {op: (place - 1) * 0.29 for place, op in enumerate(OPS)}
    return [groups.index(row["layer"]) + sides.get(row["op"], 0.0) for row in rows]


def _shorten(name: str) -> str:
    """Return a name without its middle, if it is long."""
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[:half]}..{name[-half:]}"


def _number(value: float) -> str:
    return f"{value:.2f}" if isfinite(value) else "no cycles"


def _figure(groups: int) -> tuple[Figure, Axes]:
    """Return a figure with room for the bars: wider for deeper networks, within a page's limits."""
    width = min(max(8.0, 2.0 + 0.8 * groups), 24.0)
    figure = Figure(width, AXES_HEIGHT)
    return figure, figure.add_subplot()


def _label_groups(axes: Axes, groups: Sequence[str]) -> None:
    names = [_shorten(name) for name in groups]
    axes.set_xticks(range(len(groups)), names, rotation=45, ha="right", rotation_mode="anchor")


def _label_bars(axes: Axes, places: Sequence[float], ops: Sequence[str]) -> None:
    """Write each op's initial under its bar, above the layers' names."""
    axes.set_xticks(places, [op[:1] for op in ops], minor=True)
    axes.tick_params("x", which="minor", labelsize=SMALL)
    axes.tick_params("x", which="major", length=0, pad=16)
    axes.xaxis.remove_overlapping_locs = False


def _frame(figure: Figure, axes: Axes, legend_rows: int, title_lines: int) -> None:
    """Leave room for labels and legend, in inches by the longest label.

    Matplotlib's layout engines draw everything once more to find out, which takes as long again.
    """
    longest = max(len(label.get_text()) for label in axes.get_xticklabels())
    below, above = 0.5 + 0.2 * legend_rows + 0.06 * longest, 0.15 + 0.2 * title_lines
    width, height = figure.get_figwidth(), AXES_HEIGHT + below + above
    figure.set_figheight(height)
    figure.subplots_adjust(
        left=0.7 / width, right=1 - 0.1 / width, top=1 - above / height, bottom=below / height
    )


def _finish(
    figure: Figure,
    axes: Axes,
    results: Results,
    groups: Sequence[str],
    title: str,
    columns: int,
    key: Sequence[Artist] = (),
) -> None:
    machine, baseline = results.rows[0]["machine"], tables.baseline_of(results)
    sizes = " against ".join(tables.sizes_of(results))
    layers = len({row["layer"] for row in tables.per_layer(results)})
    if layers > MOST_LAYERS:
        title += f"; the {MOST_LAYERS} of {layers} layers that take longest"
    if tables.summarise(results).phases:
        title += ("; of layers alone", "; the last bar has everything else")[STEP in groups]
    words = [title, f"{machine}, baseline {baseline} ({sizes})", tables.source_of(results)]
    lines = wrapped(words, figure.get_figwidth())
    finish(axes, lines, "y")
    axes.axvline(groups.index(ALL) - 0.5, color="black", linewidth=0.8, linestyle=":")
    handles, _ = axes.get_legend_handles_labels()
    figure.legend(
        handles=key or handles, loc="lower center", ncols=columns, frameon=False, fontsize=LEGEND
    )
    rows = -(-len(key or handles) // columns)
    _frame(figure, axes, rows, len(lines))
