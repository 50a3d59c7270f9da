"""``swatsim compare``: results of any machines and traces over one common baseline."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from string import ascii_uppercase
from typing import Any

import click

from swatsim.cli import as_json
from swatsim.cli.as_json import JSON
from swatsim.cli.grid import Grid
from swatsim.cli.show import console, count, digits, joules, percent, size, table, times
from swatsim.reports import compared_words as words
from swatsim.reports import gpu_time
from swatsim.reports.compare import Comparison
from swatsim.reports.compare import compare as beside
from swatsim.reports.tables import LAYERS, OF_IDEAL, STEP, Row, quotient
from swatsim.workload.phases import OTHER

#: Rows of the table; --all shows the others.
SHOWN = 20
#: Columns of the table that never go.
KEPT = 4
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
    found = beside(*results, baseline=baseline, labels=list(labels) or None)
    rows = found.layers() if layers or everything else []
    written = _saved(found, output)
    if as_json:
        _print_json(found, rows, written)
    else:
        _print_all(found, rows, everything, written, results)


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
    for note in words.notes(found):
        out.print(f"{note}.")
    for warning in found.warnings:
        out.print(f"warning: {warning}.")
    if everything:
        for line in _of_gpus(found):
            out.print(line)
    out.say_what_was_dropped()
    if written:
        out.print(f"wrote {written[0]} and {len(written) - 1} parts of it")
    else:
        again = " ".join(map(shlex.quote, results[:SHOWN]))
        more = " .." * (len(results) > SHOWN)
        out.print(f"A page with a picture: swatsim compare {again}{more} -o FOLDER")


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
    "ms": lambda row: digits(row["time_ms"]),
    "speed-up": lambda row: times(row["speed_up"]),
    "own speed-up": lambda row: times(row["own_speed_up"]),
    "energy": lambda row: "-" if row["energy_pj"] is None else joules(row["energy_pj"]),
    "of the ideal": lambda row: _of_ideal(row),
    "DRAM": lambda row: size(row["dram_bytes"]),
    "cycles": lambda row: count(row["cycles"]),
}


def _of_ideal(row: Row) -> str:
    return "-" if row["op"] in (OTHER, STEP) else percent(row["of_ideal"])


def _layers(found: Comparison, rows: Sequence[Row], everything: bool) -> Grid:
    """Return a row a layer and op, with columns for each of the results."""
    labels = [row["label"] for row in found.rows]
    letters = dict(zip(labels, _letters(len(labels)), strict=True))
    by_key: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        by_key.setdefault((row["layer"], row["op"]), {})[row["label"]] = row
    pairs = [(what, label) for what in _SHOWN for label in labels]
    headings = [f"{what} {letters[label]}" for what, label in pairs]
    faster = ["B faster than A"] if len(labels) == 2 else []
    place = len(labels)
    cells = []
    for (layer, op), own in by_key.items():
        line = [_SHOWN[what](own[label]) if label in own else "-" for what, label in pairs]
        ratio = [times(_faster(found, [own.get(label) for label in labels]))] if faster else []
        cells.append([layer, TOTALS.get(op, op), *line[:place], *ratio, *line[place:]])
    named = "; ".join(f"{letter}: {label}" for label, letter in letters.items())
    title = f"Each layer and op in one step; speed-ups are over the common baseline. {named}"
    every = ["layer", "op", *headings[:place], *faster, *headings[place:]]
    expendable = () if everything else headings[2 * place :][::-1]
    return table(title, every, cells, left=2, expendable=expendable)


def _letters(number: int) -> list[str]:
    """Return a letter for each, or a number where there are too many."""
    return list(ascii_uppercase[:number]) if number <= 26 else [str(i + 1) for i in range(number)]


def _faster(found: Comparison, pair: Sequence[Row | None]) -> float:
    """Return the time of the first by that of the second, or cycles where there is no clock."""
    a, b = pair
    if a is None or b is None:
        return float("nan")
    images = [row["images"] for row in found.rows]
    costs = [found.unit.cost(row, own) for row, own in zip((a, b), images, strict=True)]
    return quotient(*costs)
