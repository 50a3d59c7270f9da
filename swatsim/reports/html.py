"""A page: its sections, rendered as HTML that needs nothing else, and as files beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from swatsim.outputs import CONTENTS, PAGE
from swatsim.printable import printable
from swatsim.reports.labels import cell, label, scaled
from swatsim.reports.style import Figure, Spot, as_png, as_svg
from swatsim.reports.tables import Row
from swatsim.results import as_csv

Progress = Callable[[int, int], None]

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"

#: Rows of a table that a page shows, the CSV has all; of these, rows that are printed; bytes of a
#: chart that it has as an SVG, sharp at any size and on paper: a larger one is there as a PNG.
MOST_ROWS, PRINTED, MOST_BYTES = 500, 60, 400_000
#: A name of more characters may be broken here.
NAMED = 24
BREAKS = re.compile(r"(?<=[\[,./])")
#: A heading of more characters has room for its words beside each other.
LONG = 32
#: Pixels of a browser's inch.
PIXELS = 96
#: Of a chart's width and height, the units in which its parts are placed.
UNITS = 1000


@dataclass(frozen=True)
class Chart:
    """A plot, and the table that its numbers are from; it is drawn when the page is rendered."""

    name: str
    draw: Callable[[], Figure]
    caption: str
    table: str


class Paper(NamedTuple):
    """Which rows of a table are printed, by their numbers from 0, and in words which these are."""

    rows: Collection[int]
    words: str


def on_paper(
    rows: Sequence[Row], weigh: Callable[[Row], float], words: str, most: int = PRINTED
) -> Paper | None:
    """Return as printed so many rows of a table, those that weigh most; None: there are no more."""
    if len(rows) <= most:
        return None
    order = sorted(range(len(rows)), key=lambda place: -weigh(rows[place]))
    return Paper(frozenset(order[:most]), f"{most} of {len(rows)} rows, {words}")


@dataclass(frozen=True)
class Table:
    """Rows: shown with their headings, and written as CSV.

    `headings` are those of columns that say more in this table than elsewhere. Of a long table
    `paper` says what is printed; by default the first rows.
    """

    name: str
    rows: Sequence[Row]
    caption: str
    columns: Sequence[str] = ()
    folded: bool = False
    headings: Mapping[str, str] = field(default_factory=dict)
    paper: Paper | None = None

    @property
    def printed(self) -> Paper:
        """Which rows are printed; without words where all are."""
        every = len(self.rows)
        if self.paper is not None or every <= PRINTED:
            return self.paper or Paper(range(every), "")
        return Paper(range(PRINTED), f"the first {PRINTED} of {every} rows")


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    title: str
    text: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Page:
    """A report.

    Parameters
    ----------
    title : str
    about : str
        What its figures are of.
    tiles : sequence of (str, str)
        What decides: what it is of, and its number.
    summary : sequence of str
        Paragraphs under them: what a reader must know, warnings.
    sections : list of Section
    verdict : str
        One sentence, the first thing under the title.
    notes : sequence of str
        Paragraphs on how to read it, folded.
    made : str
        Of which results, and by which command; the last line.
    """

    title: str
    about: str
    tiles: Sequence[tuple[str, str]] = ()
    summary: Sequence[str] = ()
    sections: list[Section] = field(default_factory=list)
    verdict: str = ""
    notes: Sequence[str] = ()
    made: str = ""

    def files(self, progress: Progress | None = None) -> dict[str, bytes]:
        """Return the page and its parts, rendered: file name to content."""
        charts = [chart for section in self.sections for chart in section.charts]
        drawn = {}
        for done, chart in enumerate(charts, start=1):
            drawn[chart.name] = _drawn(chart)
            if progress:
                progress(done, len(charts))
        parts = {name: content for one in drawn.values() for name, content in one.files.items()}
        for section in self.sections:
            for table in section.tables:
                parts[f"{table.name}.csv"] = as_csv(table.rows)
        files = {PAGE: self._html(drawn), **parts}
        return {**files, CONTENTS: (json.dumps({"files": list(files)}, indent=1) + "\n").encode()}

    def _html(self, drawn: Mapping[str, _Drawn]) -> bytes:
        from jinja2 import Environment, FileSystemLoader, select_autoescape

        loader = FileSystemLoader(TEMPLATES)
        # names of layers and machines come from a trace that somebody may have been sent
        escape = select_autoescape(default=True)
        room = Environment(loader=loader, autoescape=escape, finalize=_shown_text)
        style, script = ((TEMPLATES / f"report.{kind}").read_text() for kind in ("css", "js"))
        sections = [_shown(section, drawn) for section in self.sections]
        known = {"style": style, "script": script, "allowed": _allowed(style, script)}
        page = room.get_template("report.html").render(page=self, sections=sections, **known)
        return page.encode()


class _Drawn(NamedTuple):
    """A chart's files, its size in inches, and what is said of its parts."""

    files: Mapping[str, bytes] = {}
    size: tuple[float, float] = (0.0, 0.0)
    spots: Sequence[Spot] = ()


def _drawn(chart: Chart) -> _Drawn:
    """Return a chart, as PNG and as SVG; nothing if that fails, which costs no number."""
    try:
        figure = chart.draw()
        png = as_png(figure)
        figure.set_layout_engine("none")  # it has its places: finding them takes a drawing
        files = {f"{chart.name}.png": png, f"{chart.name}.svg": as_svg(figure)}
        return _Drawn(files, (figure.get_figwidth(), figure.get_figheight()), figure.spots())
    except Exception as error:  # noqa: BLE001  (whatever it is, the tables are there)
        log.warning("%s can't be drawn (%s: %s)", chart.name, type(error).__name__, error)
        return _Drawn()


def _shown_text(value: Any) -> Any:
    return printable(value) if type(value) is str else value


def _allowed(style: str, script: str) -> str:
    """Return the page's content security policy: its own pictures, style and script, no more."""
    return (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _shown(section: Section, drawn: Mapping[str, _Drawn]) -> Row:
    figures = [_figure(chart, drawn[chart.name]) for chart in section.charts]
    shown = [_cells(table) for table in section.tables]
    return {"title": section.title, "text": section.text, "figures": figures, "tables": shown}


def _figure(chart: Chart, drawn: _Drawn) -> Row:
    width, height = (round(PIXELS * inches) for inches in drawn.size)
    return {
        "name": chart.name,
        "caption": chart.caption,
        "table": chart.table,
        "image": _image(chart, drawn),
        "width": width,
        "height": height,
        "spots": [_spot(spot) for spot in drawn.spots],
    }


def _image(chart: Chart, drawn: _Drawn) -> str:
    """Return a chart as the address of a picture; "" if there is none."""
    for kind, address in (("svg", "svg+xml"), ("png", "png")):
        content = drawn.files.get(f"{chart.name}.{kind}", b"")
        if content and (kind == "png" or len(content) <= MOST_BYTES):
            return f"data:image/{address};base64,{base64.b64encode(content).decode()}"
    return ""


def _spot(spot: Spot) -> Row:
    from markupsafe import escape

    places = {name: f"{UNITS * getattr(spot, name):.1f}" for name in ("x", "y", "width", "height")}
    return {**places, "text": escape(spot.text)}  # its lines stay lines


def _cells(table: Table) -> Row:
    rows = table.rows[:MOST_ROWS]
    names = list(table.columns or (rows[0] if rows else ()))
    more = f"; {len(rows)} of {len(table.rows)} rows" if len(rows) < len(table.rows) else ""
    words = [name for name in names if any(isinstance(row.get(name), str) for row in rows)]
    printed = table.printed
    return {
        "caption": f"{table.caption} ({table.name}.csv{more})",
        "on_paper": printed.words,
        "folded": table.folded,
        "columns": [
            {"heading": heading, "words": name in words, "long": len(heading) > LONG}
            for name in names
            for heading in [table.headings.get(name, label(name))]
        ],
        "rows": [
            {
                "cells": [_cell(row.get(name), name, name in words) for name in names],
                "printed": place in printed.rows,
            }
            for place, row in enumerate(rows)
        ],
    }


def _cell(value: Any, column: str, words: bool) -> Row:
    """Return a cell's text, and its value where digits are left out, to sort by."""
    known = isinstance(value, float) and isfinite(value)
    exact = f"{scaled(column, value):.9g}" if known else ""
    text = cell(column, value)
    shown = _breakable(text) if words else text
    return {"text": shown, "words": words, "value": exact if exact != text else ""}


def _breakable(text: str) -> str:
    """Return a text that a browser may break behind what parts of a name end with."""
    from markupsafe import Markup

    parts = BREAKS.split(printable(text)) if len(text) > NAMED else [printable(text)]
    return Markup("<wbr>").join(parts)
