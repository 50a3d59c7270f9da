"""The style of every plot: figure, palette, markers, letters, and how axes are finished."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Literal, NamedTuple

import matplotlib.figure
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from swatsim.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.backend_bases import RendererBase

#: Okabe and Ito's palette, with a marker each: colour-blind readers and grey print tell them apart.
SERIES = (
    ("#0072B2", "o"),
    ("#E69F00", "s"),
    ("#009E73", "^"),
    ("#D55E00", "D"),
    ("#CC79A7", "v"),
    ("#56B4E9", "P"),
)
#: Of the ops, and of what is written on their bars.
OP_COLOURS = {"fprop": "#0072B2", "dgrad": "#E69F00", "wgrad": "#009E73"}
OP_LABEL_COLOURS = {"fprop": "white", "dgrad": "black", "wgrad": "black"}
#: Of the parts of a step, ops and phases of everything else: colour, and what is written on it.
PARTS = {
    **{op: (colour, OP_LABEL_COLOURS[op]) for op, colour in OP_COLOURS.items()},
    "forward": ("#BBBBBB", "black"),
    "backward": ("#999999", "black"),
    "optimizer": ("#DDDDDD", "black"),
    "policy": ("#882255", "white"),
}
#: Of what is added up, and of what is written on it.
TOTAL, TOTAL_LABEL = "#555555", "white"
OP_MARKERS = {"fprop": "o", "dgrad": "s", "wgrad": "^"}
OPERAND_LINES = {"weight": "-", "act": "--", "grad_out": ":"}
#: Of what a reader should look at twice.
NOTICE = "#CC3311"
#: Of bars among which one stands out, and of that one.
QUIET, LOUD = "#9CC3DE", SERIES[0][0]
#: Of what others are measured against.
BACKGROUND, EDGE = "#EEEEEE", "#BBBBBB"

#: Sizes of letters, in points: titles, those of a plot that stands alone, legends, and what stands
#: in or under the axes.
TITLE, HEADING, LEGEND, SMALL, TINY = 10, 11, 9, 8, 7

DOTS_PER_INCH = 150
#: Characters of a title in a line, by the figure's width in inches.
CHARACTERS = 11

#: Inches of a letter a point of its size; of one in a number, with what is left free beside it.
LETTER = 0.0088

#: More points than these are drawn as pixels in an SVG too.
MOST_POINTS = 1000

#: Of more parts than these nothing is said; pixels that one can point at.
MOST_SPOTS, LEAST_SPOT = 1000, 6.0

#: Of a box, in a plot's own units.
Ends = tuple[float, float]


class Spot(NamedTuple):
    """A part of a figure that something is said of, where one points at it.

    Parameters
    ----------
    x, y, width, height : float
        From the upper left corner, as shares of the figure's width and height.
    text : str
        Lines of it.
    """

    x: float
    y: float
    width: float
    height: float
    text: str


class Figure(matplotlib.figure.Figure):
    """A figure whose texts are drawn as they are, and which knows what is said of its parts.

    Names of layers, machines and traces may hold dollars, which are no formulas, and characters
    for which the font has no glyph: those are drawn as boxes, without a warning.

    Parameters
    ----------
    width, height : float
        In inches.
    layout : {"constrained"}, optional
    """

    def __init__(self, width: float, height: float, layout: str | None = None) -> None:
        super().__init__(figsize=(width, height), layout=layout)  # type: ignore[arg-type]
        FigureCanvasAgg(self)
        self._said: list[tuple[Axes, Ends, Ends, str]] = []

    def hover(self, axes: Axes, x: Ends, y: Ends, text: str) -> None:
        """Note what is said of a box, from one end to another in each of a plot's own units."""
        self._said.append((axes, x, y, text))

    def hover_points(
        self, axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str]
    ) -> None:
        """Note what is said of points in a plot's own units."""
        for (x, y), text in zip(points, texts, strict=True):
            self.hover(axes, (x, x), (y, y), text)

    def spots(self) -> list[Spot]:
        """Return what is said of which parts, once it was drawn; none where they are too many."""
        if len(self._said) > MOST_SPOTS:
            return []
        found = [_spot(self, *said) for said in self._said]
        return [spot for spot in found if spot is not None]

    def draw(self, renderer: RendererBase) -> None:
        """Draw all that is on the figure."""
        with rc_context({"text.parse_math": False}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            for text in self.findobj(Text):
                text.set_parse_math(False)
                text.set_text(printable(text.get_text(), keep="\n"))
            super().draw(renderer)


def _spot(figure: Figure, axes: Axes, x: Ends, y: Ends, text: str) -> Spot | None:
    """Return a box of a figure: of a point some pixels; none of what the plot does not show."""
    inside = axes.bbox
    corners = axes.transData.transform([(x[0], y[0]), (x[1], y[1])])
    (left, right), (low, high) = (sorted(ends) for ends in corners.T)
    across, along = (max(0.0, LEAST_SPOT - (b - a)) / 2 for a, b in ((left, right), (low, high)))
    left, right = max(left - across, inside.x0), min(right + across, inside.x1)
    low, high = max(low - along, inside.y0), min(high + along, inside.y1)
    if not (left < right and low < high):  # not a number is neither
        return None
    width, height = figure.bbox.width, figure.bbox.height
    size = (right - left) / width, (high - low) / height
    return Spot(left / width, 1 - high / height, *size, printable(text, keep="\n"))


def axes_on(
    width: float, height: float, plots: int = 1, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """Return a figure that makes room for what is on it, and the axes of so many plots."""
    figure = Figure(width, height, layout="constrained")
    columns = min(columns, plots)
    grid = (-(-plots // columns), columns)
    return figure, [figure.add_subplot(*grid, i + 1) for i in range(plots)]


def wrapped(parts: Iterable[str], width: float) -> list[str]:
    """Return the lines of a title over a figure of a width in inches: at least one a part."""
    return [line for part in parts for line in wrap(part, int(CHARACTERS * width))]


def fits(text: str, inches: float, size: float) -> bool:
    """Whether a text in letters of a size, in points, has room in so many inches."""
    return LETTER * size * len(text) <= inches


def finish(
    axes: Axes,
    title: Sequence[str] = (),
    grid: Literal["x", "y", "both"] = "both",
    size: int = TITLE,
) -> None:
    """Write the lines of a title, and draw grid and borders as on every plot."""
    axes.set_title("\n".join(title), loc="left", fontsize=size)
    axes.grid(axis=grid, linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def bare(axes: Axes) -> None:
    """Leave of the borders a faint left one, from which bars begin."""
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(EDGE)
    axes.tick_params(axis="y", length=0)


def plain_numbers(axis: Axis, minor: bool = False) -> None:
    """Format an axis' numbers as they are: matplotlib's own would be formulas on a logarithm."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if minor:
        axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def as_png(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=DOTS_PER_INCH)
    return sink.getvalue()


def as_svg(figure: Figure) -> bytes:
    """Return a figure as an SVG, without the time."""
    sink = io.BytesIO()
    with rc_context(
        {"svg.hashsalt": "swatsim"}
    ):  # else a random one: the same figure, the same file
        figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()
