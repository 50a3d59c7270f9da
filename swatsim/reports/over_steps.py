"""Curves over the steps of a run: how densities and speed-ups drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from swatsim.described import phases_of
from swatsim.reports import page_tables, tables
from swatsim.reports.methods import method
from swatsim.reports.policy_phases import policy_of
from swatsim.reports.style import (
    EDGE,
    OP_COLOURS,
    OP_MARKERS,
    OPERAND_LINES,
    SMALL,
    TINY,
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

#: More points of a curve than these are drawn as means.
MOST_STEPS = 200


def over_steps(results: Results) -> Figure:
    """Draw how densities and speed-ups drift over the steps of the run."""
    rows = page_tables.over_steps(results)
    figure, (above, below) = axes_on(WIDTH, 6.4, 2)
    span = -(-len({row["step"] for row in rows}) // MOST_STEPS)
    for op in page_tables.ordered_ops(rows):
        mine = [row for row in rows if row["op"] == op]
        marks = {"marker": OP_MARKERS[op], "markersize": 5} if span == 1 else {}
        style: dict[str, Any] = {"color": OP_COLOURS[op], **marks}
        _drift(above, mine, "speed_up", span, style | {"label": op})
        for operand, line in OPERAND_LINES.items():
            if f"density_{operand}" in mine[0]:
                own = {"linestyle": line, "label": f"{op}: {operand}"}
                _drift(below, mine, f"density_{operand}", span, style | own)
    if whole := [row for row in rows if row["op"] == tables.STEP]:
        _drift(above, whole, "speed_up", span, {"color": "black", "label": "whole step"})
    above.set(ylabel="speed-up over the baseline", ylim=(0, None))
    below.set(ylabel="density (non-zero share)", xlabel="training step", ylim=(0, 1.03))
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    above.xaxis.set_major_locator(MaxNLocator(integer=True))
    means = f"; means of {span} recorded steps each, bands from the lowest to the highest"
    what = "Over the steps of the run" + ": layers' ops, and the whole step" * bool(whole)
    _draw_phases((above, below), results)
    words = [what + means * (span > 1), *tables.about(results)]
    finish(above, wrapped(words, WIDTH))
    finish(below)
    above.legend(frameon=False, fontsize=SMALL, ncols=3)
    below.legend(frameon=False, fontsize=SMALL, ncols=3)
    return figure


def _draw_phases(both: Sequence[Axes], results: Results) -> None:
    """Draw where the run's policy changes, and over the curves what it is from there on."""
    changes = phases_of(policy_of(results))[1:]
    if changes:
        both[0].set_ylim(0, 1.1 * both[0].get_ylim()[1])
    for first, policy in changes:
        for axes in both:
            axes.axvline(first - 0.5, color=EDGE, linestyle=":", zorder=0)
        both[0].annotate(
            f"{method(policy)} from {first} on",
            (first - 0.5, 1),
            (3, -3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=TINY,
            va="top",
        )


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
