"""Curves and bars of series of numbers that were computed elsewhere, each readable alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swatsim.reports.style import HEADING, LEGEND, SERIES, SMALL, TINY, Figure, finish

#: A point above it skips zeros that the axis does not count: of activations, inserted, of padding.
BOUND = "1 / (1 - sparsity): these zeros alone; others may be skipped too"

Curve = Sequence[tuple[float, float]]


def speed_up_curves(
    curves: Mapping[str, Curve],
    *,
    title: str,
    baseline: str,
    published: Mapping[str, Curve] | None = None,
    ideal: bool = True,
    top: float | None = None,
) -> Figure:
    """Draw speed-up against sparsity, one curve each, with what these zeros alone could give.

    Parameters
    ----------
    curves : mapping of str to sequence of (sparsity in percent, speed-up)
    title, baseline : str
    published : mapping, optional
        Drawn as crosses.
    ideal : bool
        Draw 1 / (1 - sparsity): every zero skipped, nothing lost.
    top : float, optional
        Upper end of the axis; that line leaves it.
    """
    figure = Figure(8.0, 5.2, layout="constrained")
    axes = figure.add_subplot()
    for (name, curve), (colour, marker) in zip(curves.items(), SERIES, strict=False):
        axes.plot(*zip(*curve, strict=True), color=colour, marker=marker, label=name)
    for name, curve in (published or {}).items():
        axes.plot(*zip(*curve, strict=True), "x", color="black", markersize=10, label=name)
    if ideal:
        steps = [i / 10 for i in range(951)]
        axes.plot(steps, [1 / (1 - s / 100) for s in steps], ":", color="black", label=BOUND)
    axes.set(xlabel="sparsity (%)", ylabel=f"speed-up over {baseline}", ylim=(0, top))
    finish(axes, [title], size=HEADING)
    axes.legend(frameon=False, fontsize=LEGEND)
    return figure


def bars(
    values: Mapping[str, Mapping[str, float]], *, title: str, ylabel: str, every: int = 1
) -> Figure:
    """Draw one group of bars for each name, a bar for each series.

    Parameters
    ----------
    values : mapping of series to mapping of name to value
    title, ylabel : str
    every : int
        Label every so many names only.
    """
    names = list(dict.fromkeys(name for series in values.values() for name in series))
    width = 0.8 / len(values)
    figure = Figure(min(max(8.0, 2 + 0.25 * len(names)), 30.0), 5.2, layout="constrained")
    axes = figure.add_subplot()
    for i, ((label, series), (colour, _)) in enumerate(zip(values.items(), SERIES, strict=False)):
        places = [names.index(name) + (i - (len(values) - 1) / 2) * width for name in series]
        axes.bar(places, list(series.values()), width, color=colour, label=label)
    axes.set_xticks(
        range(0, len(names), every),
        names[::every],
        rotation=90,
        fontsize=TINY if every == 1 else SMALL,
    )
    axes.set_ylabel(ylabel)
    finish(axes, [title], "y", HEADING)
    axes.margins(x=0.01)
    figure.legend(loc="outside lower center", ncols=len(values), frameon=False, fontsize=LEGEND)
    return figure
