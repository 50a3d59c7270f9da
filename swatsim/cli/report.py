"""``swatsim report``: results as a page."""

from __future__ import annotations

import os

import click

from swatsim.cli.show import console


@click.command()
@click.argument("folder", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="By default the folder report in FOLDER.")
def report(folder: str, output: str | None) -> None:
    """Write results as a page.

    FOLDER is what simulate or sweep wrote. The page needs nothing else, no network either; its
    plots lie beside it as PNG and SVG, its numbers as CSV.
    """
    os.environ["MPLBACKEND"] = "agg"
    from swatsim.reports.write import report as write  # matplotlib, which reads it

    page, *parts = write(folder, output)
    console().print(f"wrote {page} and {len(parts)} parts of it\nNext: open it in a browser")
