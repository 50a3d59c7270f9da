"""Two plots above each other: bars of totals, and bars of layers as high as what they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.collections import LineCollection

from swatsim.reports import tables
from swatsim.reports.style import EDGE, LEGEND, SMALL, TITLE, Figure, finish, wrapped
from swatsim.reports.tables import Row, Summary
from swatsim.reports.weighted import Bar, Group, Weigh, apart, weighted
from swatsim.workload.layer import OPS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

#: In inches: the figure's width; a line of text; a letter of a layer's name; a total's bar.
WIDTH, LINE, LETTER, TOTAL_BAR = 8.0, 0.19, 0.062, 0.2
#: In inches, what is free beside the plots.
EDGE_FREE = 0.15
#: In inches: of a key, an entry's patch and what is left free.
KEY = 0.6
#: In inches, how high the bars of layers are together: of each, at least and at most.
A_LAYER, LEAST_HIGH, MOST_HIGH = 0.5, 1.4, 7.0
#: In inches: between labels of layers; how far from its bars one ends, and what joins the two; from
#: which height on a bar has its op's initial.
LABEL_GAP, INDENT, JOIN, INITIAL = 0.15, 0.34, 0.19, 0.13
#: What stands beside the bars.
INITIALS = "f: fprop, d: dgrad, w: wgrad"

#: The bars in which all layers are added up, and the bar of all that a step does.
ALL, STEP = "all layers", "whole step"


class Placed(NamedTuple):
    """A bar in its plot.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    row : dict
        As `swatsim.reports.tables.per_layer` has it.
    name : str
        Of its layer, in full, or of what is added up.
    top, height : float
        In the plot's units, downwards.
    inches : float
        The height.
    """

    axes: Axes
    row: Row
    name: str
    top: float
    height: float
    inches: float

    @property
    def middle(self) -> float:
        """Its place."""
        return self.top + self.height / 2

    @property
    def span(self) -> tuple[float, float]:
        """Its upper and its lower edge."""
        return self.top, self.top + self.height

    @property
    def what(self) -> str:
        """What it is of, in words."""
        return f"{self.name}, {self.row['op']}" if self.row["op"] in OPS else self.name


@dataclass(frozen=True)
class Stage:
    """A figure of two plots.

    Parameters
    ----------
    figure : Figure
    above, below : matplotlib.axes.Axes
        Of totals, each bar as high as another; of layers.
    totals, groups : sequence of Group
        The bars of the one and of the other.
    high : float
        In inches, the second's height.
    """

    figure: Figure
    above: Axes
    below: Axes
    totals: Sequence[Group]
    groups: Sequence[Group]
    high: float

    @property
    def wide(self) -> float:
        """Inches of both plots, between the names and the figure's edge."""
        return WIDTH - _left(self) - EDGE_FREE

    def bars(self) -> list[Placed]:
        """Return all bars, totals first."""
        return [*self._of(self.above, self.totals, TOTAL_BAR), *self._of_layers]

    @cached_property
    def _of_layers(self) -> list[Placed]:
        return self._of(self.below, self.groups, self.high)

    def _of(self, axes: Axes, groups: Sequence[Group], inches: float) -> list[Placed]:
        return [
            Placed(axes, bar.row, group.name, bar.top, bar.height, inches * bar.height)
            for group in groups
            for bar in group.bars
        ]


def staged(results: Summary, weigh: Weigh) -> Stage:
    """Return a figure with room for totals and for layers, by what they take."""
    totals, groups = _totals(results), weighted(results, weigh)
    high = min(max(LEAST_HIGH, A_LAYER * len(groups)), MOST_HIGH)
    figure = Figure(WIDTH, high)
    return Stage(
        figure, figure.add_subplot(2, 1, 1), figure.add_subplot(2, 1, 2), totals, groups, high
    )


def _totals(results: Summary) -> list[Group]:
    """Return a bar of the step, if results have everything else, of its layers and of each op."""
    rows = [(ALL, row) for row in results.ops if row["op"] in OPS]
    every = [(ALL, results.of_layers), *rows]
    if results.phases:
        every = [(STEP, results.ops[-1]), *every]
    return [
        Group(name if row["op"] not in OPS else row["op"], name, [Bar(row, i + 0.08, 0.84)])
        for i, (name, row) in enumerate(every)
    ]


def finished(
    stage: Stage,
    results: Summary,
    words: tuple[str, str],
    end: float,
    key: Sequence[Artist],
) -> None:
    """Write title, labels, key and numbers, and give each its place.

    `words` are the title's beginning and what the axis counts, to `end`.
    """
    title, label = words
    stage.above.set(xlim=(0, end), ylim=(len(stage.totals), 0))
    stage.below.set(xlim=(0, end), ylim=(1, 0), xlabel=label)
    initials = INITIALS + "; all but the first bar of layers alone" * bool(results.phases)
    lines = [title, initials, *_of_whom(results), tables.source_of(results)]
    found = wrapped(lines, WIDTH)
    finish(stage.above, found, "x")
    finish(stage.below, (), "x")
    _label(stage)
    longest = max(len(str(handle.get_label())) for handle in key)
    columns = min(3, int(WIDTH / (KEY + LETTER * longest)))
    stage.figure.legend(
        handles=key, loc="lower center", ncols=columns, frameon=False, fontsize=LEGEND
    )
    _frame(stage, len(found), -(-len(key) // columns))


def _of_whom(results: Summary) -> list[str]:
    machine, baseline = results.rows[0]["machine"], tables.baseline_of(results)
    return [f"{machine}, baseline {baseline}", f"({' against '.join(tables.sizes_of(results))})"]


def _label(stage: Stage) -> None:
    """Write totals' and layers' names beside their bars, and initials where there is room."""
    ticks = [group.bars[0].top + group.height / 2 for group in stage.totals]
    stage.above.set_yticks(ticks, [group.label for group in stage.totals], fontsize=SMALL)
    stage.above.tick_params(axis="x", labelbottom=False)
    stage.above.tick_params(axis="y", length=0)
    stage.below.set_yticks([])
    across = stage.below.get_yaxis_transform()
    for bar in stage._of_layers:
        if bar.inches >= INITIAL:
            look: dict[str, Any] = {
                "transform": across,
                "fontsize": SMALL,
                "ha": "right",
                "va": "center",
            }
            stage.below.text(-0.006, bar.middle, bar.row["op"][:1], **look)
    least = LABEL_GAP / stage.high
    moved = apart([group.middle for group in stage.groups], least, 1 - least / 2)
    _name(stage, moved)
    tops = [[(0.0, group.bars[0].top), (1.0, group.bars[0].top)] for group in stage.groups]
    look = {"transform": across, "colors": EDGE, "linewidths": 0.6, "zorder": 2}
    stage.below.add_collection(LineCollection(tops, **look), autolim=False)


def _name(stage: Stage, places: Sequence[float]) -> None:
    """Write layers' names at places, and join each with its bars."""
    inside = WIDTH - _left(stage)
    ends = -INDENT / inside, -JOIN / inside
    across = stage.below.get_yaxis_transform()
    write: dict[str, Any] = {"transform": across, "fontsize": SMALL, "ha": "right", "va": "center"}
    joins = []
    for group, place in zip(stage.groups, places, strict=True):
        joins.append([(ends[0], place), (ends[1], group.middle)])
        stage.below.text(ends[0] - 0.05 / inside, place, group.label, **write)
    look: dict[str, Any] = {"transform": across, "clip_on": False, "colors": "black"}
    lines = LineCollection(joins, linewidths=0.5, capstyle="projecting", zorder=2, **look)
    stage.below.add_collection(lines, autolim=False)


def _left(stage: Stage) -> float:
    """Return how many inches the longest name takes."""
    longest = max(len(group.label) for group in (*stage.totals, *stage.groups))
    return 0.1 + INDENT + 0.08 + LETTER * longest


def _frame(stage: Stage, title_lines: int, key_lines: int) -> None:
    """Put the plots into their places, in inches: a layout engine would draw all once more."""
    above, key = LINE * title_lines + 0.1, 0.5 + 0.2 * key_lines
    totals = TOTAL_BAR * len(stage.totals)
    height = above + totals + 0.12 + stage.high + key
    stage.figure.set_figheight(height)
    left = _left(stage)
    width = stage.wide / WIDTH
    stage.below.set_position((left / WIDTH, key / height, width, stage.high / height))
    foot = (key + stage.high + 0.12) / height
    stage.above.set_position((left / WIDTH, foot, width, totals / height))
    words = stage.above.get_title(loc="left")
    stage.above.set_title(words, loc="left", x=(0.1 - left) / (WIDTH * width), fontsize=TITLE)
