"""``swatsim.report``: what is in a folder, as a page."""

from __future__ import annotations

import os
from pathlib import Path

from swatsim.arguments import arguments, either, flag, function, instance_of, maybe, path_like
from swatsim.errors import ResultsError
from swatsim.outputs import (
    REPORT,
    SWEEP,
    check_folder,
    contents_of,
    refuse_existing,
    write_files,
)
from swatsim.reports.html import Page, Progress
from swatsim.reports.inputs import index_of, point, unreadable
from swatsim.reports.made import made_of, stated
from swatsim.reports.page import of_results
from swatsim.reports.sweep_page import of_sweep
from swatsim.reports.tables import Row
from swatsim.results import PROVENANCE, Results, is_sweep, load


@arguments(
    ResultsError,
    source=either(path_like, instance_of(Results)),
    output=maybe(path_like),
    overwrite=flag,
    progress=maybe(function),
)
def report(
    source: str | os.PathLike[str] | Results,
    output: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = True,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a report: ``report.html``, which needs nothing else, and its parts as PNG, SVG, CSV.

    Parameters
    ----------
    source : path or Results
        A folder that `simulate` or `sweep` wrote, or results.
    output : path, optional
        By default the folder ``report`` in `source`.
    overwrite : bool
        Replace an earlier page there, and its parts; else refuse.
    progress : callable of (int, int), optional
        Told how many of how many plots are drawn.

    Returns
    -------
    list of pathlib.Path
        What was written, the page first.

    Raises
    ------
    ResultsError
        If there are no results, no point of the sweep is done, or the folder can't be written to.
    """
    if output is None and isinstance(source, Results):
        message = "results in memory have no folder: name the report's output"
        raise ResultsError(message, of_argument=True)
    folder = Path(output) if output is not None else Path(str(source)) / REPORT
    page = _of(source) if isinstance(source, Results) else _page(Path(source))
    check_folder(folder)
    files = page.files(progress)
    if not overwrite:
        refuse_existing(folder, files)
    return write_files(folder, files, set(contents_of(folder)).difference(files))


def _of(results: Results, folder: Path | None = None) -> Page:
    """Return the page of results; `folder` is where they are kept, if they are."""
    if not results.rows:
        raise ResultsError("the results hold no rows: simulate again")
    whose = "results in memory" if folder is None else f"results {stated(folder / PROVENANCE)}"
    return of_results(results, made_of(whose, results))


def _page(folder: Path) -> Page:
    if not is_sweep(folder):
        return _of(load(folder), folder)
    index = index_of(folder / SWEEP)
    try:
        points: list[Row] = index["points"]
        done = [row for row in points if row["status"] == "done"]
        if not done:
            raise ResultsError(f"no point of the sweep in {folder} is done: see failed/ in it")
        first = [row for row in done if row["trace"] == done[0]["trace"]]
        fastest = min(first, key=lambda row: row["time_ms"])
        best = point(folder, fastest["point"])
        made = made_of(f"sweep {stated(folder / SWEEP)}", best)
        return of_sweep(points, folder.name, best, index["warnings"], made)
    except (KeyError, TypeError, AttributeError) as error:
        raise unreadable(folder / SWEEP, error) from None
