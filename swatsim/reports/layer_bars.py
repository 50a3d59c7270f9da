"""Bars of layers and ops, as high as what they take: speed-ups, where PE-cycles and energy went.

Each plot is readable alone: units, baseline, trace and machine are on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from swatsim.counters import BUCKETS, ENERGY_PARTS
from swatsim.counts import ENERGY, LANE_CYCLES, Look
from swatsim.reports import tables
from swatsim.reports.labels import shown, times
from swatsim.reports.span import percent
from swatsim.reports.stage import Placed, Stage, finished, staged
from swatsim.reports.style import (
    NOTICE,
    OP_COLOURS,
    OP_LABEL_COLOURS,
    SMALL,
    TOTAL,
    TOTAL_LABEL,
    Figure,
    fits,
)
from swatsim.reports.tables import Row
from swatsim.results import Results
from swatsim.workload.layer import OPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: In inches: from which height on a bar has its number on it, and a part of one is hatched.
LETTERED, HATCHED = 0.13, 0.05
#: Where that number begins, as a share of the plot's width.
FOOT = 0.008
#: Parts of a stacked bar that are hatched are no narrower than this.
HATCHED_WIDTH = 0.01
#: What takes less of the time than this may leave the plot, beyond so many times all others: its
#: bar is cut, its number is not.
COMMON, BEYOND = 0.01, 2.5
#: Parts of a bar that are said of it.
SAID = 4

DENSE_OPERANDS = "with no zero in the operands (padding, free lanes)"
#: What may be stacked, by the column of the whole: in words, and of what a bar's height is a share.
WHOLES = {LANE_CYCLES: ("PE-cycles", "time"), ENERGY: ("energy", "energy")}


def speed_up(results: Results) -> Figure:
    """Draw the speed-up of each layer and op over the baseline, and that of all as a line.

    A bar is as high as the time that its op takes on the machine, so that the mean of all is that
    line.
    """
    summary = tables.summarise(results)
    stage = staged(summary, lambda row: float(row["cycles"]))
    end = 1.1 * _end(stage)
    for axes in (stage.above, stage.below):
        _add_bars(axes, [bar for bar in stage.bars() if bar.axes is axes])
    for placed in stage.bars():
        _number(stage.figure, placed, end, stage.wide)
    for words, style, value in _lines(summary):
        look: dict[str, Any] = {"color": "black", "linestyle": style, "zorder": 0}
        for axes in (stage.above, stage.below):
            axes.axvline(value, label=f"{words}: {times(value)}", **look)
    names = [name for name in OPS if any(row["op"] == name for row in summary.layers)]
    colours = [Patch(facecolor=OP_COLOURS[name], label=name) for name in names]
    key = [*colours, *stage.below.get_legend_handles_labels()[0]]
    title = "Speed-up of each layer and op; a bar is as high as the time that it takes"
    finished(stage, summary, (title, "speed-up over the baseline"), end, key)
    return stage.figure


def _end(stage: Stage) -> float:
    """Return the largest speed-up that is shown: beyond, of little time, bars are cut."""
    known: list[tuple[float, float]] = [
        (bar.height, value)
        for bar in stage.bars()
        for value in (bar.row["speed_up"], bar.row["speed_up_dense_operands"])
        if isfinite(value)
    ]
    common = [value for height, value in known if height >= COMMON]
    return min(max((value for _, value in known), default=1.0), BEYOND * max([1.0, *common]))


def _lines(summary: tables.Summary) -> Iterator[tuple[str, str, float]]:
    """Yield what lines are drawn for: words, style, speed-up."""
    yield "all layers and ops", "--", summary.of_layers["speed_up"]
    if summary.phases:
        yield "step, everything else in it", ":", summary.ops[-1]["speed_up"]


def _add_bars(axes: Axes, bars: Sequence[Placed]) -> None:
    """Draw bars, and a tick on each as far as it would go with no zero in the operands.

    All together: each by itself takes three times as long.
    """
    values = [bar.row["speed_up"] if isfinite(bar.row["speed_up"]) else 0.0 for bar in bars]
    look: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.3}
    colours = [OP_COLOURS.get(bar.row["op"], TOTAL) for bar in bars]
    heights = [bar.height for bar in bars]
    axes.barh([bar.middle for bar in bars], values, heights, color=colours, **look)
    ticks = [bar for bar in bars if _has_tick(bar.row)]
    if ticks:
        places = [bar.row["speed_up_dense_operands"] for bar in ticks]
        look = {"colors": NOTICE, "linewidth": 1.6, "zorder": 3, "label": DENSE_OPERANDS}
        axes.vlines(places, *zip(*(bar.span for bar in ticks), strict=True), **look)


def _has_tick(row: Row) -> bool:
    return isfinite(row["speed_up_dense_operands"]) and row["op"] != tables.STEP


def _number(figure: Figure, placed: Placed, end: float, wide: float) -> None:
    """Write a bar's number on it, and what is said of it; the plot is so many inches wide."""
    axes, row = placed.axes, placed.row
    value = row["speed_up"] if isfinite(row["speed_up"]) else 0.0
    if placed.inches >= LETTERED:  # at the foot, where no line crosses it
        text = times(row["speed_up"]).removesuffix("x")
        inside = fits(text, (value / end - FOOT) * wide, SMALL)  # else behind it, in black
        ink = OP_LABEL_COLOURS.get(row["op"], TOTAL_LABEL) if inside else "black"
        begin = FOOT * end + (0.0 if inside else value)
        axes.text(begin, placed.middle, text, {"color": ink, "fontsize": SMALL}, va="center")
    figure.hover(axes, (0, end), placed.span, _said(placed))


def _said(placed: Placed) -> str:
    """Return what is said of a bar of speed-ups."""
    row = placed.row
    lines = [f"{placed.what}: {times(row['speed_up'])}", _taken(row)]
    if _has_tick(row):
        dense, zeros = (row[f"speed_up_{name}"] for name in ("dense_operands", "zeros"))
        lines.append(f"{times(dense)} with no zero in the operands; zeros add {times(zeros)}")
    return "\n".join(lines)


def _taken(row: Row) -> str:
    """Return in words what a row takes in a mean step, and its baseline."""
    means = [tables.per_step(one, row["steps"]) for one in (row, row["baseline"])]
    if all(isfinite(mean["time_ms"]) for mean in means):
        ours, theirs = (shown("time_ms", mean["time_ms"]) for mean in means)
    else:
        ours, theirs = (f"{shown('cycles', mean['cycles'])} cycles" for mean in means)
    return f"{ours} a step, the baseline {theirs}"


def pe_cycles(results: Results) -> Figure:
    """Draw where the PE-cycles went: one stacked bar an op, its length relative to the baseline.

    It is as high as the baseline's time, so that areas compare too.
    """
    return _stacked(results, BUCKETS, LANE_CYCLES)


def energy(results: Results) -> Figure:
    """Draw where the energy went: one stacked bar an op, its length relative to the baseline.

    It is as high as the baseline's energy, so that areas compare too.
    """
    return _stacked(results, ENERGY_PARTS, ENERGY)


def _stacked(results: Results, parts: Mapping[str, Look], whole: str) -> Figure:
    summary = tables.summarise(results)
    stage = staged(summary, lambda row: float(row["baseline"][whole]))
    bars = stage.bars()
    met = {name: look for name, look in parts.items() if any(bar.row[name] for bar in bars)}
    what, weight = WHOLES[whole]
    ends = [_of_parts(stage, placed, met, whole) for placed in bars]
    for axes in (stage.above, stage.below):
        axes.axvline(1.0, color="black", linewidth=0.8)
        _add_boxes(axes, [bar for bar in bars if bar.axes is axes], met, whole)
    key = [
        Patch(facecolor=b.colour, hatch=b.hatch, edgecolor="white", label=b.label)
        for b in met.values()
    ]
    title = f"Where the {what} went; a bar is as high as the baseline's {weight}"
    end = 1.05 * max(1.0, *ends)
    finished(stage, summary, (title, f"{what} / the baseline's"), end, key)
    return stage.figure


def _of_parts(stage: Stage, placed: Placed, met: Mapping[str, Look], whole: str) -> float:
    """Return how long a bar is; what it is made of is said where one points at it."""
    row, base = placed.row, placed.row["baseline"][whole] or 1
    shares = {look.label: row[column] / base for column, look in met.items()}
    most = sorted(shares, key=lambda label: -shares[label])[:SAID]
    end = float(sum(shares.values()))
    lines = [f"{placed.what}: {end:.2f} of the baseline's {WHOLES[whole][0]}"]
    lines += [f"{percent(shares[label] / (end or 1))} {label}" for label in most if shares[label]]
    stage.figure.hover(placed.axes, (0, max(end, 1.0)), placed.span, "\n".join(lines))
    return end


def _add_boxes(axes: Axes, bars: Sequence[Placed], met: Mapping[str, Look], whole: str) -> None:
    """Draw all parts of bars; as collections, which take a fraction of the time of patches."""
    top, foot = np.array([bar.span for bar in bars]).reshape(-1, 2).T
    inches = np.array([bar.inches for bar in bars])
    left = np.zeros(len(bars))
    for column, look in met.items():
        width = np.array([bar.row[column] / (bar.row["baseline"][whole] or 1) for bar in bars])
        right = left + width
        # a hatch takes longer to draw than all the rest, and on a sliver can't be seen
        hatched = (width > HATCHED_WIDTH) & (inches > HATCHED) & bool(look.hatch)
        for chosen, hatch in ((hatched, look.hatch), (~hatched & (width > 0), None)):
            if chosen.any():
                x, y = (left[chosen], right[chosen]), (top[chosen], foot[chosen])
                corners = np.stack([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])])
                boxes = PolyCollection(
                    list(corners.transpose(2, 0, 1)), hatch=hatch, label=look.label
                )
                boxes.set(facecolor=look.colour, edgecolor="white", linewidth=0.3)
                axes.add_collection(boxes, autolim=False)
        left = right
