"""Tables that fit the width that there is: columns of low priority go, and no cell is torn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len

from swatsim.reports.names import ELLIPSIS, shortened

#: Between two columns.
GAP = "  "
#: A table stands a column in from what is said of it.
INDENT = " "
#: Names are shortened to so many characters before a column goes. Where there would be fewer than
#: the latter, columns go below.
NAMES, SHORTEST = 20, 10


@dataclass(frozen=True)
class Grid:
    """Rows of a table, as texts, and what of them may go.

    Parameters
    ----------
    title : str
        "": none.
    headings : sequence of str
    rows : sequence of sequence of str
        One that is empty is a gap.
    left : int
        So many first columns are texts; they name a row, and never go. Others are numbers.
    text_last : bool
        Whether the last column is a text too.
    expendable : sequence of str
        Headings of columns that go where there is no room, the first one first. Columns that don't
        fit and mustn't go stand below, each block with the names again.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    text_last: bool = False
    expendable: Sequence[str] = field(default_factory=tuple)

    def fitted(self, width: int) -> tuple[list[str], list[str]]:
        """Return the table's lines, none wider than the width, and the headings that were dropped.

        Names and columns that are wider than that by themselves are cut.
        """
        widths = self._widths()
        kept, dropped = list(range(len(widths))), []
        least = min(widths[0], NAMES) if self.left else widths[0]
        for heading in self.expendable:
            if _width([least, *(widths[i] for i in kept[1:])]) <= width:
                break
            if heading in self.headings:
                kept.remove(self.headings.index(heading))
                dropped.append(heading)
        room = width - _width([0, *(widths[i] for i in kept[1:])])
        headings, rows = self.headings, self.rows
        if self.left and room < widths[0]:  # names get what is left over, and their heading too
            most = room if room >= SHORTEST else self._beside_one(widths, kept, width)
            headings = [_cut(headings[0], most), *headings[1:]]
            rows = self._named(most)
            widths[0] = max(cell_len(row[0]) for row in (headings, *filter(None, rows)))
        lines: list[str] = []
        for block in self._blocks(widths, kept, width):
            lines += ["", *self._lines([headings, *rows], widths, block, width)]
        return lines[1:], dropped

    def _beside_one(self, widths: Sequence[int], kept: Sequence[int], width: int) -> int:
        """Return how long names may be in a block of at least one column, whichever is kept."""
        widest = max((widths[i] for i in kept[self.left :]), default=0)
        return max(3, min(NAMES, width - _width([0, *widths[1 : self.left], widest])))

    def _named(self, most: int) -> list[Sequence[str]]:
        """Return the rows with their first cell shortened."""
        short = shortened((row[0] for row in self.rows if row), most)
        return [[short[row[0]], *row[1:]] if row else row for row in self.rows]

    def _widths(self) -> list[int]:
        every = [self.headings, *filter(None, self.rows)]
        return [max(map(cell_len, column)) for column in zip(*every, strict=True)]

    def _blocks(
        self, widths: Sequence[int], kept: Sequence[int], width: int
    ) -> Iterator[list[int]]:
        """Yield columns that fit beside each other, the names in each block."""
        names, block = list(kept[: self.left]), list(kept[: self.left])
        for column in kept[self.left :]:
            if block != names and _width([widths[i] for i in (*block, column)]) > width:
                yield block
                block = list(names)
            block.append(column)
        yield block

    def _lines(
        self, rows: Sequence[Sequence[str]], widths: list[int], columns: list[int], width: int
    ) -> Iterator[str]:
        head, *body = rows
        yield _cut(self._line(head, columns, widths), width)
        rule = _width([widths[i] for i in columns]) - len(INDENT)
        yield _cut(INDENT + "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * rule, width)
        for row in body:
            yield _cut(self._line(row, columns, widths), width) if row else ""

    def _line(self, row: Sequence[str], columns: Sequence[int], widths: Sequence[int]) -> str:
        cells = []
        for i in columns:
            blanks = " " * (widths[i] - cell_len(row[i]))
            text = i < self.left or (self.text_last and i == len(self.headings) - 1)
            cells.append(row[i] + blanks if text else blanks + row[i])
        return (INDENT + GAP.join(cells)).rstrip()


def _width(widths: Sequence[int]) -> int:
    """Return how wide columns of some widths are beside each other."""
    return len(INDENT) + sum(widths) + len(GAP) * (len(widths) - 1)


def _cut(line: str, width: int) -> str:
    if cell_len(line) <= width:
        return line
    while cell_len(line) > width - 1:
        line = line[:-1]
    return line + ELLIPSIS
