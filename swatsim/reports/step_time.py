"""Where a step's time goes: two bars, of what multiplies and of everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swatsim.reports import everything_else, page_tables, tables
from swatsim.reports.labels import cell
from swatsim.reports.span import percent
from swatsim.reports.style import PARTS, SMALL, Figure, axes_on, finish, fits, wrapped
from swatsim.results import Results
from swatsim.workload.layer import OPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: In inches; beside the bars are their names and the margins.
WIDTH, HEIGHT, BESIDE = 9.0, 3.1, 1.0
#: How much farther than the longest bar the axis goes.
FREE = 1.02
#: What is drawn.
UNITS = {"time_ms": "ms", "cycles": "cycles"}


def step_time(results: Results) -> Figure:
    """Draw a step's time on the baseline and on the machine: ops of layers, phases of the rest."""
    rows = everything_else.where_time_goes(results)
    *parts, step = rows
    known = step["time_ms"] == step["time_ms"]
    unit = "time_ms" if known else "cycles"
    figure, (axes,) = axes_on(WIDTH, HEIGHT)
    end = FREE * max(sum(row[f"{of}{unit}"] for row in parts) for of in ("", "baseline_")) or 1.0
    axes.set_xlim(0, end)
    for place, prefix in enumerate(("", "baseline_")):
        _bar(figure, axes, place, parts, prefix, unit)
    axes.set_yticks((0, 1), ("machine", "baseline"))
    axes.set_xlabel(f"{UNITS[unit]} a step")
    headline = page_tables.of_step(page_tables.ratios(results))
    title = ["Where a step's time goes", f"Speed-up: {headline}"]
    finish(axes, wrapped([*title, *tables.about(results)], WIDTH), "x")
    figure.legend(loc="outside lower center", ncols=7, frameon=False, fontsize=SMALL)
    return figure


def _bar(
    figure: Figure, axes: Axes, place: int, parts: Sequence[tables.Row], prefix: str, unit: str
) -> None:
    """Draw the parts of one bar; `prefix` is that of the columns of whose it is."""
    left, inch = 0.0, (WIDTH - BESIDE) / axes.get_xlim()[1]
    text: dict[str, Any] = {"fontsize": SMALL, "ha": "center", "va": "center"}
    for row in parts:
        colour, ink = PARTS[row["part"]]
        value, share = row[f"{prefix}{unit}"], row[f"{prefix}share"]
        look: dict[str, Any] = {"color": colour, "edgecolor": "white", "linewidth": 0.6}
        label = None if prefix else _words(row["part"])
        axes.barh(place, value, 0.62, left, label=label, **look)
        if fits(percent(share), value * inch, SMALL):
            axes.text(left + value / 2, place, percent(share), color=ink, **text)
        whose, size = ("baseline", "machine")[not prefix], f"{cell(unit, value)} {UNITS[unit]}"
        words = f"{_words(row['part'])}, {whose}: {size}, {percent(share)} of its step"
        figure.hover(axes, (left, left + value), (place - 0.31, place + 0.31), words)
        left += value


def _words(part: str) -> str:
    return f"layers, {part}" if part in OPS else f"else, {part}"
