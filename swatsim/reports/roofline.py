"""The roofline: what an op could reach with the bytes that it moves, and what it reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.ticker import LogLocator

from swatsim.columns import Role
from swatsim.reports import tables
from swatsim.reports.labels import trimmed
from swatsim.reports.style import (
    LEGEND,
    MOST_POINTS,
    OP_COLOURS,
    OP_MARKERS,
    Figure,
    finish,
    plain_numbers,
    wrapped,
)
from swatsim.results import Results

if TYPE_CHECKING:
    from matplotlib.axis import Axis

#: In inches.
WIDTH = 8.0

#: How far the axes go beyond the points, as a factor.
MARGIN = 2.0
#: An axis that ends within so many times of where it begins has but a power of ten or two.
NARROW = 100


def roofline(results: Results) -> Figure:
    """Draw MACs per byte against MACs per cycle, of each layer and op, dense and sparse.

    The dense baseline counts all MACs of an op, any other machine its effectual ones; bytes are
    those that DRAM carried, cycles all cycles. The roof is what all multipliers, or the DRAM, could
    do: no point lies above its own machine's.
    """
    rows = tables.per_layer(results)
    figure = Figure(WIDTH, 5.6)
    axes = figure.add_subplot()
    # a layout engine would draw everything once more to find this out
    figure.subplots_adjust(left=0.09, right=0.98, top=0.86, bottom=0.2)
    points: list[tuple[float, float]] = []
    # a baseline that is another machine has its own zeros to skip
    another = not tables.first_of(results, Role.BASELINE)["variant"]
    theirs = "macs_effectual" if another else "macs_dense"
    for op, marker in OP_MARKERS.items():
        mine = [row for row in rows if row["op"] == op]
        dense = [_point(row["baseline"], theirs) for row in mine]
        sparse = [_point(row, "macs_effectual") for row in mine]
        for found, filled, label in ((dense, False, f"{op}, baseline"), (sparse, True, op)):
            known = [(at, row["layer"]) for at, row in zip(found, mine, strict=True) if at]
            seen = [point for point, _ in known]
            said = [
                f"{name}, {label}: {trimmed(x)} MACs a byte, {trimmed(y)} MACs a cycle"
                for (x, y), name in known
            ]
            figure.hover_points(axes, seen, said)
            colour = OP_COLOURS[op]
            if seen:
                x, y = zip(*seen, strict=True)
                face = colour if filled else "none"
                look: dict[str, Any] = {"facecolors": face, "edgecolors": colour, "marker": marker}
                many = len(rows) > MOST_POINTS
                axes.scatter(x, y, 36, label=label, rasterized=many, **look)
            points += seen
    axes.set(xscale="log", yscale="log", xlabel="MACs per byte of DRAM traffic")
    counted = "both factors non-zero" if another else "baseline all, else both factors non-zero"
    axes.set_ylabel(f"MACs per cycle ({counted})", fontsize=LEGEND)
    _roofs(axes, rows, points)
    for axis in (axes.xaxis, axes.yaxis):
        _number(axis)
    axes.minorticks_off()  # each takes as long to draw as a label
    finish(axes, _title(results))
    if points:
        figure.legend(loc="lower center", ncols=4, frameon=False, fontsize=LEGEND)
    return figure


def _point(row: tables.Row, macs: str) -> tuple[float, float] | None:
    """Return the place of an op; None if a logarithmic axis has none."""
    if not (row[macs] and row["dram_bytes"] and row["cycles"]):
        return None
    return row[macs] / row["dram_bytes"], row[macs] / row["cycles"]


def _roofs(axes: Any, rows: list[tables.Row], points: list[tuple[float, float]]) -> None:
    """Draw each machine's roof over the span of the points."""
    if not points:
        words = "no bytes were counted: there is no memory system"
        axes.text(0.5, 0.5, words, ha="center", transform=axes.transAxes)
        return
    roofs: dict[tuple[int, float], list[str]] = {}
    for row, whose in ((rows[0], "machine"), (rows[0]["baseline"], "baseline")):
        roofs.setdefault(_roof(row), []).append(whose)
    knees = [peak / per_cycle for peak, per_cycle in roofs if per_cycle]
    low = min(x for x, _ in points) / MARGIN
    high = max([x for x, _ in points] + knees) * MARGIN
    for (peak, per_cycle), line in zip(sorted(roofs), ("-", "--"), strict=False):
        knee = peak / per_cycle if per_cycle else low
        xs = sorted({low, min(max(knee, low), high), high})
        whose = f" of the {roofs[peak, per_cycle][0]}" if len(roofs) > 1 else ""
        label = f"roof{whose}: {peak} multipliers"
        label += f", {trimmed(per_cycle)} bytes a cycle" if per_cycle else ""
        ys = [min(peak, x * per_cycle) if per_cycle else peak for x in xs]
        axes.plot(xs, ys, line, color="black", linewidth=1.2, label=label)
    axes.set_xlim(low, high)
    every = [*(y for _, y in points), *(peak for peak, _ in roofs)]
    axes.set_ylim(min(every) / MARGIN, max(every) * MARGIN)


def _roof(row: tables.Row) -> tuple[int, float]:
    """Return multipliers, and bytes that the DRAM carries in a cycle."""
    clock = row["clock_mhz"]
    return row["pes"] * row["lanes"], row["dram_mb_per_s"] / clock if clock else 0.0


def _number(axis: Axis) -> None:
    """Write plain numbers on a logarithmic axis, several of them on a short one too."""
    low, high = axis.get_view_interval()
    if high < NARROW * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    plain_numbers(axis)


def _title(results: Results) -> list[str]:
    alone = ", layers alone" if tables.summarise(results).phases else ""
    words = (
        f"Roofline{alone}: filled as the machine runs it, hollow the baseline",
        f"{results.rows[0]['machine']}, baseline {tables.baseline_of(results)}",
        tables.source_of(results),
    )
    return wrapped(words, WIDTH)
