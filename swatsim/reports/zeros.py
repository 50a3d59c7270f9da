"""What zeros spare: speed-ups against sparsity, and FLOPs and bytes that are left without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from swatsim.reports import page_tables, tables
from swatsim.reports.style import (
    BACKGROUND,
    EDGE,
    MOST_POINTS,
    NOTICE,
    OP_COLOURS,
    OP_MARKERS,
    SERIES,
    SMALL,
    Figure,
    axes_on,
    finish,
    wrapped,
)
from swatsim.reports.tables import Row
from swatsim.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: In inches.
WIDTH = 8.0

#: Less above a bound than this, as a share, is rounding.
ROUNDING = 1e-9


def sparsity(results: Results) -> Figure:
    """Draw what zeros add to each layer's and op's speed-up against the share that they spare."""
    rows = page_tables.sparsity(results)
    figure, (axes,) = axes_on(WIDTH, 5.0)
    columns = {"speed_up_zeros": "full", "speed_up_compute_zeros": "none"}
    for op in page_tables.ordered_ops(rows):
        mine = [row for row in rows if row["op"] == op]
        x = [100 * row["sparsity"] for row in mine]
        look: dict[str, Any] = {
            "color": OP_COLOURS[op],
            "marker": OP_MARKERS[op],
            "linestyle": "none",
        }
        look["rasterized"] = len(rows) > MOST_POINTS
        for column, filled in columns.items():
            label = op if filled == "full" else f"{op}, compute only"
            points = [(at, row[column]) for at, row in zip(x, mine, strict=True)]
            said = [
                f"{row['layer']}, {label}: {row[column]:.2f}x at {at:.0f} %"
                for (at, _), row in zip(points, mine, strict=True)
            ]
            figure.hover_points(axes, points, said)
            axes.plot(x, [row[column] for row in mine], fillstyle=filled, label=label, **look)
    outputs = " and outputs that nobody wants" if page_tables.of_outputs(results) else ""
    ideal = np.linspace(0, 99, 200)
    axes.plot(ideal, 1 / (1 - ideal / 100), ":", color="black", label="1 / (1 - share)")
    above = _mark_above(axes, rows, list(columns))
    top = 1.15 * max((row[column] for row in rows for column in columns), default=1)
    axes.axhline(1, color="black", linewidth=0.8)
    unwanted = " or an output that nobody wants" if outputs else ""
    axes.set(xlabel=f"share of the MACs that has a zero of an operand{unwanted}, padding aside (%)")
    axes.set(ylabel="speed-up over the same with no zero", xlim=(-1, 100), ylim=(0, top))
    words = f"What zeros{outputs} add to the speed-up, against the MACs that they spare"
    words += ": a point a layer, op"
    finish(axes, wrapped([words, *above, *tables.about(results)], WIDTH))
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL, ncols=4)
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
    look: dict[str, Any] = {"facecolors": "none", "edgecolors": NOTICE, "linewidths": 1.2}
    look["rasterized"] = len(rows) > MOST_POINTS
    axes.scatter(x, y, 110, label="above the line", **look)
    return [
        f"{len(points)} of {len(rows) * len(columns)} points, ringed, lie above 1 / (1 - share): "
        "zeros also spare products with padding, waiting, or bytes that came more than once"
    ]


def reductions(results: Results) -> Figure:
    """Draw what is left without zeros: of the FLOPs, and of the backward pass's operands."""
    rows = page_tables.reductions(results)
    figure, (axes,) = axes_on(WIDTH, 0.9 + 0.36 * len(rows))
    places = np.arange(len(rows))[::-1]
    left = [100 * row["left"] / row["dense"] for row in rows]
    colours = [SERIES[0 if row["what"].startswith("FLOPs") else 1][0] for row in rows]
    axes.barh(places, [100] * len(rows), 0.7, color=BACKGROUND, edgecolor=EDGE)
    axes.barh(places, left, 0.7, color=colours)
    for place, share in zip(places, left, strict=True):
        axes.text(101, place, f"{share - 100:+.1f} %", va="center", fontsize=SMALL)
    axes.set_yticks(places, [row["what"] for row in rows], fontsize=SMALL)
    axes.set(xlabel="% of the same with no zero left out", xlim=(0, 114))
    words = "Left without zeros, a ReLU's too: FLOPs, operands' bytes"
    finish(axes, wrapped([words, *tables.about(results)], WIDTH))
    axes.grid(False)
    return figure
