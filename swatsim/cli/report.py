"""``swatsim report``: results as a page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from swatsim.cli import as_json
from swatsim.cli.as_json import JSON
from swatsim.cli.progress import progress
from swatsim.cli.show import console


@click.command()
@click.argument("folder", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="By default the folder report in FOLDER.")
@JSON
def report(folder: str, output: str | None, as_json: bool) -> None:
    """Write results as a page.

    FOLDER is what simulate or sweep wrote. The page needs nothing else, no network either; its
    plots lie beside it as PNG and SVG, its numbers as CSV.
    """
    os.environ["MPLBACKEND"] = "agg"
    from swatsim.reports.write import report as write  # matplotlib, which reads it

    with progress("drawing", "plots") as show:
        page, *parts = write(folder, output, progress=show)
    if as_json:
        _print_json(folder, [page, *parts])
        return
    console().print(f"wrote {page} and {len(parts)} parts of it\nNext: open it in a browser")


def _print_json(source: str, written: Sequence[Path]) -> None:
    as_json.write("report", {"source": source, "page": written[0], "written": written})
