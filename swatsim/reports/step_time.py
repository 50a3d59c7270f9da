"""Where a step's time goes: two bars, of what multiplies and of everything else."""

from __future__ import annotations

from collections.abc import Mapping

from swatsim.reports import everything_else, page_tables, tables
from swatsim.reports.style import OP_COLOURS, SMALL, Figure, axes_on, finish, wrapped
from swatsim.results import Results
from swatsim.workload.layer import OPS

#: In inches.
WIDTH, HEIGHT = 9.0, 3.1
#: Of a bar, the share from which on a part of it is labelled.
LABELLED = 0.04

#: Of each part: colour, hatch, and the ink on it.
LOOKS: Mapping[str, tuple[str, str, str]] = {
    **{op: (OP_COLOURS[op], "", "black") for op in OPS},
    "fprop": (OP_COLOURS["fprop"], "", "white"),
    "forward": ("#BBBBBB", "", "black"),
    "backward": ("#999999", "", "black"),
    "optimizer": ("#DDDDDD", "", "black"),
    "policy": ("#882255", "", "white"),
}


def step_time(results: Results) -> Figure:
    """Draw a step's time on the baseline and on the machine: ops of layers, phases of the rest."""
    rows = everything_else.where_time_goes(results)
    *parts, step = rows
    known = step["time_ms"] == step["time_ms"]
    unit = "time_ms" if known else "cycles"
    figure, (axes,) = axes_on(WIDTH, HEIGHT)
    for place, prefix in enumerate(("", "baseline_")):
        left = 0.0
        for row in parts:
            colour, hatch, ink = LOOKS[row["part"]]
            value = row[f"{prefix}{unit}"]
            look = {"color": colour, "edgecolor": "white", "hatch": hatch, "linewidth": 0.6}
            label = _words(row["part"]) if not prefix else None
            axes.barh(place, value, 0.62, left, label=label, **look)
            if row[f"{prefix}share"] >= LABELLED:
                text = f"{100 * row[f'{prefix}share']:.0f} %"
                axes.text(
                    left + value / 2,
                    place,
                    text,
                    color=ink,
                    fontsize=SMALL,
                    ha="center",
                    va="center",
                )
            left += value
    axes.set_yticks((0, 1), ("machine", "baseline"))
    axes.set_xlabel("ms a step" if known else "cycles a step")
    headline = page_tables.of_step(page_tables.ratios(results))
    title = ["Where a step's time goes", f"Speed-up: {headline}"]
    finish(axes, wrapped([*title, *tables.about(results)], WIDTH), "x")
    figure.legend(loc="outside lower center", ncols=7, frameon=False, fontsize=SMALL)
    return figure


def _words(part: str) -> str:
    return f"layers, {part}" if part in OPS else f"else, {part}"
