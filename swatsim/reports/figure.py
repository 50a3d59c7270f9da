"""The figure that every plot is drawn on."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import matplotlib.figure
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from swatsim.printable import printable

if TYPE_CHECKING:
    from matplotlib.backend_bases import RendererBase


class Figure(matplotlib.figure.Figure):
    """A figure whose texts are drawn as they are.

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

    def draw(self, renderer: RendererBase) -> None:
        """Draw all that is on the figure."""
        with rc_context({"text.parse_math": False}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            for text in self.findobj(Text):
                text.set_parse_math(False)
                text.set_text(printable(text.get_text(), keep="\n"))
            super().draw(renderer)
