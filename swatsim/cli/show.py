"""What the verbs share: how numbers and tables look, and what is printed where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import floor, isfinite, isnan, log10
from textwrap import indent
from typing import Any, NamedTuple

from rich.console import Console
from rich.padding import Padding

from swatsim.cli.grid import Grid
from swatsim.printable import printable
from swatsim.reports.labels import times as times
from swatsim.reports.span import tenths

#: Wide enough for every table here; a pipe or a file has no width of its own.
PLAIN_WIDTH = 10_000


class Words(NamedTuple):
    """A text, each line of it indented by so many columns; cut: a terminal shows a line of it."""

    text: str
    indent: int = 0
    cut: bool = False


class _Console(Console):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        #: Headings of columns that had no room.
        self.dropped: dict[str, None] = {}

    def print(self, *objects: Any, **options: Any) -> None:
        """Print texts, made safe for terminals, and tables that `table` made."""
        for one in objects:
            if isinstance(one, Grid):
                self._grid(one)
            elif isinstance(one, str):
                self.words(Words(one))
            else:
                super().print(one, **options)

    def words(self, words: Words) -> None:
        """Print a text as wide as a terminal is; elsewhere its lines are as long as they are."""
        text = printable(words.text, keep="\n")
        if not self.is_terminal:
            super().print(indent(text, " " * words.indent), soft_wrap=True)
        elif words.cut or not words.indent:
            cut: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"} if words.cut else {}
            super().print(text, **cut)
        else:
            super().print(Padding(text, (0, 0, 0, words.indent), expand=False))

    def _grid(self, grid: Grid) -> None:
        lines, dropped = grid.fitted(self.width)
        if grid.title:
            self.words(Words(grid.title))
        for line in (*lines, ""):
            super().print(line, soft_wrap=True)
        self.dropped |= dict.fromkeys(dropped)

    def say_what_was_dropped(self, others: Sequence[str] = ()) -> None:
        """Print how many columns had no room, and what else was left out, if anything was."""
        columns = len(self.dropped)
        parts = [*others, *([f"{columns} more column{'s' * (columns != 1)}"] if columns else [])]
        if parts:
            wider = ", or a wider terminal" if columns else ""
            self.words(Words(f"{' and '.join(parts)}: --all{wider}."))

    def on_broken_pipe(self) -> None:
        """Raise the error again: rich would end the command with exit code 1."""


def console() -> _Console:
    """Return a console; a table is never cut off when the output is not a terminal."""
    # names of layers and machines hold brackets and colons, which rich would read as markup
    out = _Console(highlight=False, markup=False, emoji=False)
    if not out.is_terminal:
        out.width = PLAIN_WIDTH
    return out


def table(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: int,
    text_last: bool = False,
    expendable: Sequence[str] = (),
) -> Grid:
    """Return rows as a table; the first `left` columns are text (and the last), others numbers.

    `expendable` are headings of columns that go where a terminal has no room, the first one first.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    own = [printable(heading) for heading in headings]
    return Grid(printable(title, keep="\n"), own, cells, left, text_last, expendable)


def count(value: float) -> str:
    """Return a count with a decimal prefix: 1.23 M."""
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.2f} {prefix}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Return bytes with a binary prefix."""
    for limit, prefix in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= limit:
            return f"{value / limit:.1f} {prefix}"
    return f"{value:.0f} B"


def joules(picojoules: float) -> str:
    """Return an energy with a prefix."""
    for limit, prefix in ((1e12, ""), (1e9, "m"), (1e6, "u"), (1e3, "n")):
        if picojoules >= limit:
            return f"{picojoules / limit:.3g} {prefix}J"
    return f"{picojoules:.3g} pJ"


def padded(value: float) -> str:
    """Return a number to three digits, zeros at its end too; a dash where it is not known."""
    if not isfinite(value):
        return "-"
    places = 2 - floor(log10(abs(value))) if value else 0
    return f"{value:,.{min(max(places, 0), 9)}f}"


def share(value: float) -> str:
    """Return a share of one; a dash where there is none."""
    return "-" if isnan(value) else f"{value:.3f}"


def percent(value: float) -> str:
    """Return a share of one in percent; a dash where there is none."""
    return tenths(value) if isfinite(value) else "-"
