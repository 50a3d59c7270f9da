"""A table of bars: a column a workload, a line a machine, say; all numbers readable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches: of a panel, of the names of lines, of a line, of what stands above and below them.
PANEL, NAMES, LINE, FRAME = 0.95, 1.4, 0.24, 1.35
#: So many lines of text stand in that.
FRAMED = 7
#: Thickness of bars.
THICK = 0.78
#: Inches of a character of a number behind a bar.
CHARACTER = 0.075
#: Bars are cut at so many times the median, for one machine may take many times what others do.
LONGEST = 2


@dataclass(frozen=True)
class Bar:
    """A number, drawn.

    Parameters
    ----------
    length : float
    part : float
        Of it, what is coloured; the rest is grey.
    loud : bool
        Whether it stands out.
    text : str
        Behind it.
    said : str
        Where one points at it.
    """

    length: float
    part: float
    loud: bool
    text: str
    said: str = ""


@dataclass(frozen=True)
class Panel:
    """A column of bars.

    Parameters
    ----------
    title : str
        Of two lines.
    bars : mapping of line to Bar
        A line may have none.
    longest : float
        Where the longest bar ends, in the bars' unit.
    mark : float
        Where a dotted line stands.
    """

    title: str
    bars: Mapping[str, Bar]
    longest: float
    mark: float


def longest_of(lengths: Sequence[float]) -> float:
    """Return where the longest bar ends: at the longest, or at `LONGEST` times the median."""
    return min(max(lengths), LONGEST * median(lengths))


def bar_table(
    panels: Sequence[Panel],
    lines: Sequence[tuple[str, bool]],
    title: Sequence[str],
    key: str,
    *,
    panel: float = PANEL,
    names: float = NAMES,
) -> Figure:
    """Return a picture of panels beside each other, with a bar a line.

    Parameters
    ----------
    panels : sequence of Panel
    lines : sequence of (str, bool)
        Names, and whether one is a heading of those below it.
    title : sequence of str
        What it is of.
    key : str
        What the colours mean.
    panel, names : float, optional
        Inches of a panel, and of the lines' names.
    """
    width = names + panel * len(panels)
    heads, foot = wrapped(title, width), wrapped([key], width)
    more = max(0, len(heads) + len(foot) - FRAMED) * LINE
    figure = Figure(width, FRAME + more + LINE * len(lines), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    room = _room(panels, panel)
    for axes, one in zip(all_axes, panels, strict=True):
        _panel(axes, lines, one, room)
        _say(figure, axes, lines, one)
        axes.set_title(one.title, fontsize=LEGEND, loc="left")
    _name_lines(all_axes[0], lines)
    figure.supxlabel("\n".join(foot), x=0.01, ha="left", fontsize=LEGEND)
    figure.suptitle("\n".join(heads), x=0.01, ha="left", fontsize=TITLE)
    return figure


def _room(panels: Sequence[Panel], width: float) -> float:
    """Return how many times as wide as their longest bar panels are, for the numbers behind."""
    texts = [bar.text for one in panels for bar in one.bars.values()]
    number = CHARACTER * max(map(len, texts))
    return 1 + number / max(width - number, number)


def _say(figure: Figure, axes: Axes, lines: Sequence[tuple[str, bool]], panel: Panel) -> None:
    """Note what is said of bars where one points at them."""
    for i, (line, _) in enumerate(lines):
        bar = panel.bars.get(line)
        if bar is not None and bar.said:
            ends = (0.0, min(bar.length, panel.longest))
            figure.hover(axes, ends, (i - 0.5, i + 0.5), bar.said)


def _panel(axes: Axes, lines: Sequence[tuple[str, bool]], panel: Panel, room: float) -> None:
    """Draw a panel; `room` is how many times as wide as its longest bar it is."""
    for i, (name, heading) in enumerate(lines):
        if heading:
            axes.axhspan(i - 0.5, i + 0.5, color=BACKGROUND, linewidth=0)
        elif name in panel.bars:
            _bar(axes, i, panel.bars[name], panel.longest)
    axes.axvline(panel.mark, color="black", linestyle=":", linewidth=1.2)
    axes.set(xlim=(0, panel.longest * room), ylim=(len(lines) - 0.5, -0.5), xticks=[])
    bare(axes)


def _bar(axes: Axes, line: int, bar: Bar, longest: float) -> None:
    """Draw a bar and its number; one that is cut has a gap before its end."""
    end = min(bar.length, longest)
    axes.barh(line, end, THICK, color=EDGE)
    axes.barh(line, min(bar.part, longest), THICK, color=LOUD if bar.loud else QUIET)
    if bar.length > longest:
        axes.barh(line, 0.06 * longest, THICK, left=0.88 * longest, color="white")
    axes.annotate(
        bar.text,
        (end, line),
        (2, 0),
        textcoords="offset points",
        va="center",
        fontsize=LEGEND,
        weight="bold" if bar.loud else "normal",
        bbox={"boxstyle": "square,pad=0.05", "color": "white"},  # the dotted line ends before it
    )


def _name_lines(axes: Axes, lines: Sequence[tuple[str, bool]]) -> None:
    axes.set_yticks(range(len(lines)), [name for name, _ in lines], fontsize=LEGEND)
    for label, (_, heading) in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontstyle("italic" if heading else "normal")
