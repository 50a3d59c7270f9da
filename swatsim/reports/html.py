"""A page: its sections, rendered as HTML that needs nothing else, and as files beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from swatsim.outputs import CONTENTS
from swatsim.printable import printable
from swatsim.reports.style import Figure, as_png, as_svg
from swatsim.reports.tables import Row
from swatsim.results import as_csv

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"

#: Rows of a table that a page shows; the CSV has all.
SHOWN = 60


@dataclass(frozen=True)
class Chart:
    """A plot, and the table that its numbers are from; it is drawn when the page is rendered."""

    name: str
    draw: Callable[[], Figure]
    caption: str
    table: str


@dataclass(frozen=True)
class Table:
    """Rows: shown with their headings, and written as CSV."""

    name: str
    rows: Sequence[Row]
    caption: str
    columns: Sequence[str] = ()
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    title: str
    text: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    about: str
    tiles: Sequence[tuple[str, str]] = ()
    summary: Sequence[str] = ()
    sections: list[Section] = field(default_factory=list)

    def files(self) -> dict[str, bytes]:
        """Return the page and its parts, rendered: file name to content."""
        parts: dict[str, bytes] = {}
        for section in self.sections:
            for chart in section.charts:
                parts |= _drawn(chart)
            for table in section.tables:
                parts[f"{table.name}.csv"] = as_csv(table.rows)
        files = {"report.html": self._html(parts), **parts}
        return {**files, CONTENTS: (json.dumps({"files": list(files)}, indent=1) + "\n").encode()}

    def _html(self, parts: dict[str, bytes]) -> bytes:
        from jinja2 import Environment, FileSystemLoader, select_autoescape

        loader = FileSystemLoader(TEMPLATES)
        # names of layers and machines come from a trace that somebody may have been sent
        escape = select_autoescape(default=True)
        room = Environment(loader=loader, autoescape=escape, finalize=_shown_text)
        style = (TEMPLATES / "report.css").read_text()
        sections = [_shown(section, parts) for section in self.sections]
        tiles = [{"label": label, "value": value} for label, value in self.tiles]
        return (
            room.get_template("report.html")
            .render(
                style=style,
                allowed=_allowed(style),
                title=self.title,
                about=self.about,
                tiles=tiles,
                summary=self.summary,
                sections=sections,
            )
            .encode()
        )


def _drawn(chart: Chart) -> dict[str, bytes]:
    """Return a chart, as PNG and as SVG; nothing if that fails, which costs no number."""
    try:
        figure = chart.draw()
        png = as_png(figure)
        figure.set_layout_engine("none")  # it has its places: finding them takes a drawing
        return {f"{chart.name}.png": png, f"{chart.name}.svg": as_svg(figure)}
    except Exception as error:  # noqa: BLE001  (whatever it is, the tables are there)
        log.warning("%s can't be drawn (%s: %s)", chart.name, type(error).__name__, error)
        return {}


def _shown_text(value: Any) -> Any:
    return printable(value) if type(value) is str else value


def _allowed(style: str) -> str:
    """Return the page's content security policy: its own pictures and style, no more."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )


def _shown(section: Section, parts: dict[str, bytes]) -> Row:
    figures = [
        {
            "name": chart.name,
            "caption": chart.caption,
            "table": chart.table,
            "image": base64.b64encode(parts.get(f"{chart.name}.png", b"")).decode(),
        }
        for chart in section.charts
    ]
    shown = [_cells(table) for table in section.tables]
    return {"title": section.title, "text": section.text, "figures": figures, "tables": shown}


def _cells(table: Table) -> Row:
    rows = table.rows[:SHOWN]
    names = list(table.columns or (rows[0] if rows else ()))
    more = f"; {len(rows)} of {len(table.rows)} rows" if len(rows) < len(table.rows) else ""
    words = [name for name in names if any(isinstance(row.get(name), str) for row in rows)]
    return {
        "caption": f"{table.caption} ({table.name}.csv{more})",
        "folded": table.folded,
        "headings": [name.replace("_", " ") for name in names],
        "words": [name.replace("_", " ") for name in words],
        "rows": [[number(row.get(name)) for name in names] for row in rows],
    }


def number(value: Any) -> str:
    """Return a value of a table as text."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
