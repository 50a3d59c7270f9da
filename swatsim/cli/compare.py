"""``swatsim compare``: results of any machines and traces over one common baseline."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from typing import Any

import click

from swatsim.cli import as_json
from swatsim.cli.as_json import JSON
from swatsim.cli.grid import Grid
from swatsim.cli.progress import progress
from swatsim.cli.show import console, count, joules, padded, percent, size, table, times
from swatsim.errors import ResultsError
from swatsim.reports import compared_words as words
from swatsim.reports import gpu_time
from swatsim.reports.among import lettered
from swatsim.reports.compare import Comparison
from swatsim.reports.compare import compare as beside
from swatsim.reports.tables import LAYERS, OF_IDEAL, STEP, Row, quotient
from swatsim.workload.phases import OTHER

log = logging.getLogger(__name__)

#: Rows of the table; --all shows the others.
SHOWN = 20
#: Of more results than these, two columns of layers are shown without --all.
SIDES = 4
#: Columns of the table that never go.
KEPT = 3
#: What the ops of rows of totals are called.
TOTALS = {OTHER: "everything else", LAYERS: "all ops", STEP: "whole step"}


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path())
@click.option(
    "-b",
    "--baseline",
    metavar="LABEL",
    help="What all are compared with: a label, or a label and dense, its own baseline. By default "
    "the first's own baseline.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="TEXT",
    help="A name, once for each of RESULTS. By default what tells them apart.",
)
@click.option("-o", "--output", type=click.Path(), help="Folder for a page with a picture.")
@click.option("--layers", is_flag=True, help="Show each layer and op side by side.")
@click.option("--all", "everything", is_flag=True, help="Show every row and column, and layers.")
@JSON
def compare(
    results: tuple[str, ...],
    baseline: str | None,
    labels: tuple[str, ...],
    output: str | None,
    layers: bool,
    everything: bool,
    as_json: bool,
) -> None:
    """Compare results, of any machines and traces.

    RESULTS are folders that simulate wrote, folders of sweeps (all points that are done), and
    points (SWEEP/points/KEY.parquet), in any mix. They are compared in time over one common
    baseline, by image where steps are of different numbers of images; warnings say what else
    differs.
    """
    with progress("reading", "results") as show:
        found = beside(*results, baseline=baseline, labels=list(labels) or None, progress=show)
    rows = _rows_of_layers(found, layers, everything)
    written = _saved(found, output)
    if as_json:
        _print_json(found, rows, written)
    else:
        _print_all(found, rows, everything, written, results)


def _rows_of_layers(found: Comparison, asked: bool, everything: bool) -> list[Row]:
    """Return rows of layers; none of other networks' ones, where --all means what there is."""
    if not (asked or everything):
        return []
    try:
        return found.layers()
    except ResultsError as error:
        if asked:
            raise
        log.warning("no layers are shown: %s", error)
        return []


def _saved(found: Comparison, output: str | None) -> list[str]:
    if output is None:
        return []
    os.environ["MPLBACKEND"] = "agg"  # whatever a user's shell says: matplotlib would fail on it
    return [str(path) for path in found.save(output)]


def _print_json(found: Comparison, layers: Sequence[Row], written: Sequence[str]) -> None:
    unit, base = found.unit, found.baseline
    contents = {
        "sentences": found.sentences,
        "unit": {**asdict(unit), "word": unit.word, "of_what": unit.of_what},
        "baseline": {"label": base.label, "machine": base.words, **base.side.step},
        "rows": found.rows,
        "warnings": found.warnings,
        "written": written,
    }
    as_json.write("compare", {**contents, "layers": layers} if layers else contents)


def _print_all(
    found: Comparison,
    layers: Sequence[Row],
    everything: bool,
    written: Sequence[str],
    results: Sequence[str],
) -> None:
    out = console()
    for sentence in found.sentences:
        out.print(f"{sentence}.")
    out.print(_table(found, everything))
    out.print(f"{words.of_baseline(found)}.")
    if layers:
        out.print(_layers(found, layers, everything))
        out.print(f"Of the ideal: {OF_IDEAL}.")
    for line in (*_said(found), *(_of_gpus(found) if everything else ())):
        out.print(line)
    out.say_what_was_dropped()
    out.print(_ending(written, results))


def _said(found: Comparison) -> Iterator[str]:
    """Yield what to read the figures with."""
    yield from (f"{note}." for note in words.notes(found))
    yield from (f"warning: {warning}." for warning in found.warnings)


def _ending(written: Sequence[str], results: Sequence[str]) -> str:
    """Return what was written, or the command that writes it."""
    if written:
        return f"wrote {written[0]} and {len(written) - 1} parts of it"
    again = " ".join(map(shlex.quote, results[:SHOWN])) + " .." * (len(results) > SHOWN)
    return f"A page with a picture: swatsim compare {again} -o FOLDER"


def _table(found: Comparison, everything: bool) -> Grid:
    rows = words.in_order(found)
    shown = rows if everything else rows[:SHOWN]
    columns = words.columns(found)
    headings = [heading for heading, _ in columns]
    title = f"Of {found.unit.of_what}, the fastest first"
    if len(shown) < len(rows):
        title += f"; {len(shown)} of {len(rows)} (--all shows them)"
    means = list(dict.fromkeys(map(words.mean_of, rows)))
    title += f": {means[0]}" if len(means) == 1 else ": means of the recorded steps of each"
    title += "; energies without leakage" * words.has_energies(rows)
    cells = ([text(row) for _, text in columns] for row in shown)
    expendable = () if everything else headings[KEPT:][::-1]
    return table(title, headings, cells, left=1, expendable=expendable)


def _of_gpus(found: Comparison) -> Iterator[str]:
    """Yield what a real GPU would take, of results that are of one."""
    for label, one in found.compared.items():
        for sentence in gpu_time.sentences(one.source.read()):
            yield f"{label}: {sentence}."


# ---- layers side by side -------------------------------------------------------------------------

#: What is shown of each layer and op: heading, and what makes a cell of a row.
_SHOWN: dict[str, Any] = {
    "ms": lambda row: padded(row["time_ms"]),
    "speed-up": lambda row: times(row["speed_up"]),
    "own speed-up": lambda row: times(row["own_speed_up"]),
    "energy": lambda row: "-" if row["energy_pj"] is None else joules(row["energy_pj"]),
    "of the ideal": lambda row: _of_ideal(row),
    "DRAM": lambda row: size(row["dram_bytes"]),
    "cycles": lambda row: count(row["cycles"]),
}
#: The same of machines without a clock, which have no memory system either.
UNCLOCKED = ["cycles", "speed-up", "own speed-up", "of the ideal"]


def _of_ideal(row: Row) -> str:
    return "-" if row["op"] in (OTHER, STEP) else percent(row["of_ideal"])


#: Heading, and what makes a cell of the rows of a layer and op, by label.
_Column = tuple[str, Callable[[Mapping[str, Row]], str]]


def _layers(found: Comparison, rows: Sequence[Row], everything: bool) -> Grid:
    """Return a row a layer and op, with columns for each of the results."""
    labels = [row["label"] for row in found.rows]
    columns = list(_columns(found, labels, everything))
    headings = ["layer", "op", *(heading for heading, _ in columns)]
    cells = []
    for (layer, op), same in groupby(rows, lambda row: (row["layer"], row["op"])):
        own = {row["label"]: row for row in same}
        cells.append([layer, TOTALS.get(op, op), *(cell(own) for _, cell in columns)])
    named = "; ".join(f"{letter}: {label}" for label, letter in lettered(labels).items())
    title = "Each layer and op in one step; speed-ups are over the common baseline"
    title += ", energies without leakage" * words.has_energies(found.rows)
    title += f". {named}"
    expendable = () if everything else headings[2 + len(labels) :][::-1]
    return table(title, headings, cells, left=2, expendable=expendable)


def _columns(found: Comparison, labels: Sequence[str], everything: bool) -> Iterator[_Column]:
    """Yield the columns: times first, then, of two results, by how much the second is faster."""
    known = list(_SHOWN) if found.unit.word == "ms" else UNCLOCKED
    known = known if everything or len(labels) <= SIDES else known[:2]
    for what in known:
        for label, letter in lettered(labels).items():
            yield f"{what} {letter}", partial(_cell, what, label)
        if what == known[0] and len(labels) == 2:
            yield "B faster than A", partial(_faster, found, labels)


def _cell(what: str, label: str, own: Mapping[str, Row]) -> str:
    return str(_SHOWN[what](own[label])) if label in own else "-"


def _faster(found: Comparison, labels: Sequence[str], own: Mapping[str, Row]) -> str:
    """Return the time of the first by that of the second, or cycles where there is no clock."""
    if len(own) < len(labels):
        return "-"
    costs = [found.unit.cost(own[row["label"]], row["images"]) for row in found.rows]
    return times(quotient(*costs))
