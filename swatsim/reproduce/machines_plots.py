"""The picture of the comparison of machines: a table of bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

from swatsim.reports.style import (
    BACKGROUND,
    EDGE,
    LEGEND,
    LOUD,
    QUIET,
    TITLE,
    Figure,
    bare,
    wrapped,
)
from swatsim.reproduce.machines import Step
from swatsim.reproduce.machines_words import about, networks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches: of a panel, of the names of machines, of a line, of what stands above and below them.
PANEL, NAMES, LINE, FRAME = 0.95, 1.4, 0.24, 1.35
#: Thickness of bars.
THICK = 0.78
#: Share of a panel behind the longest bar, for its number.
ROOM = 0.6
#: Bars are cut at so many times the median, for one machine may take many times what others do.
LONGEST = 2
KEY = (
    "numbers: ms of a step; grey: everything beside the layers; dotted: as many multipliers that "
    "do effectual multiply-accumulates alone (both factors non-zero), memory and all else left "
    "out; dark: the shortest step under a method"
)


def times(steps: Sequence[Step]) -> Figure:
    """Return a picture of what a step of each method takes on each machine.

    A column a network and method, a bar a machine, all of a network on one scale; a dotted line is
    what as many multipliers would take for the layers that do effectual work alone.
    """
    lines, own = list(_lines(steps)), networks(steps)
    runs = list(dict.fromkeys((step.network, step.method) for step in steps))
    width = NAMES + PANEL * len(runs)
    figure = Figure(width, FRAME + LINE * len(lines), layout="constrained")
    all_axes = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    longest = {title: _longest(of) for title, of in own.items()}
    for axes, (title, method) in zip(all_axes, runs, strict=True):
        found = {step.machine: step for step in own[title] if step.method == method}
        _panel(axes, lines, found, longest[title])
        first = method == own[title][0].method
        heading = method.replace("-U ", "-U\n").replace("RigL ", "RigL\n")
        axes.set_title(f"{title if first else ''}\n{heading}", fontsize=LEGEND, loc="left")
    _name_lines(all_axes[0], lines)
    cut = dict.fromkeys(step.network for step in steps if step.time_ms > longest[step.network])
    cuts = [f"{longest[title]:.1f} ms of {title}" for title in cut]
    key = KEY + (f"; with a gap: cut at {' and '.join(cuts)}" if cuts else "")
    figure.supxlabel("\n".join(wrapped([key], width)), x=0.01, ha="left", fontsize=LEGEND)
    figure.suptitle("\n".join(wrapped(about(steps), width)), x=0.01, ha="left", fontsize=TITLE)
    return figure


def _longest(steps: Sequence[Step]) -> float:
    """Return where the longest bar ends, in ms."""
    times = [step.time_ms for step in steps]
    return min(max(times), LONGEST * median(times))


def _lines(steps: Sequence[Step]) -> Iterator[tuple[str, bool]]:
    """Yield what stands on each line: what machines skip, then those that do."""
    groups = dict.fromkeys((step.skips, step.machine) for step in steps)
    for skips in dict.fromkeys(skips for skips, _ in groups):
        yield skips, True
        yield from ((name, False) for of, name in groups if of == skips)


def _panel(
    axes: Axes, lines: Sequence[tuple[str, bool]], own: dict[str, Step], longest: float
) -> None:
    best = min(step.time_ms for step in own.values() if not step.bound)
    for i, (name, heading) in enumerate(lines):
        if heading:
            axes.axhspan(i - 0.5, i + 0.5, color=BACKGROUND, linewidth=0)
        else:
            _bar(axes, i, own[name], longest, first=own[name].time_ms == best)
    axes.axvline(next(iter(own.values())).ideal_ms, color="black", linestyle=":", linewidth=1.2)
    axes.set(xlim=(0, longest * (1 + ROOM)), ylim=(len(lines) - 0.5, -0.5), xticks=[])
    bare(axes)


def _bar(axes: Axes, line: int, step: Step, longest: float, first: bool) -> None:
    """Draw a bar and its number; one that is cut has a gap before its end."""
    end = min(step.time_ms, longest)
    axes.barh(line, end, THICK, color=EDGE)
    axes.barh(line, min(step.layers_ms, longest), THICK, color=LOUD if first else QUIET)
    if step.time_ms > longest:
        axes.barh(line, 0.06 * longest, THICK, left=0.88 * longest, color="white")
    axes.annotate(
        f"{step.time_ms:.1f}",
        (end, line),
        (2, 0),
        textcoords="offset points",
        va="center",
        fontsize=LEGEND,
        weight="bold" if first else "normal",
    )


def _name_lines(axes: Axes, lines: Sequence[tuple[str, bool]]) -> None:
    axes.set_yticks(range(len(lines)), [name for name, _ in lines], fontsize=LEGEND)
    for label, (_, heading) in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontstyle("italic" if heading else "normal")
