"""What results are, in a few lines: of what, what a step takes, and what bounds it."""

from __future__ import annotations

from math import isnan, nan

from swatsim.errors import SwatsimError
from swatsim.reports import page_tables, tables
from swatsim.reports.labels import shown
from swatsim.reports.span import span_of
from swatsim.reports.verdict import verdict
from swatsim.results import Results

#: What a step takes, as far as it is known, and what stands behind each.
TAKES = {"time_ms": "", "ms_per_image": " an image", "energy_pj": " without leakage"}


def introduction(results: Results) -> list[str]:
    """Return the lines; of rows that don't belong together, how many there are and why."""
    if not results.rows:
        return ["Results: no rows"]
    try:
        return _lines(results)
    except SwatsimError as error:
        return [f"Results: {len(results.rows)} rows, which are not one machine's: {error}"]
    except Exception as error:  # noqa: BLE001  (whatever rows are, showing them raises nothing)
        return [f"Results: {len(results.rows)} rows, of other columns ({type(error).__name__})"]


def _lines(results: Results) -> list[str]:
    summary = tables.summarise(results)
    row, span = page_tables.headline(summary), span_of(summary)
    of_what = f" ({span.of_what})" if span.of_what else ""
    known = {name: of for name, of in TAKES.items() if not isnan(row[name] or nan)}
    takes = ", ".join(shown(name, row[name]) + of for name, of in known.items())
    step = f"{span.subject.capitalize()} ({span.mean}): {takes or 'of no clock'}"
    return [
        f"Results: {row['machine']} against {row['baseline']}; {results.rows[0]['trace']}",
        f"{step}; speed-up over {row['baseline']}{of_what}: {page_tables.of_step(row)}",
        verdict(summary).sentence,
        f"{len(results.rows)} rows in .frame",
    ]
