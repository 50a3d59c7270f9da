"""What the report of a sweep says, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from swatsim.reports import differences, page_tables, sweep_points, tables
from swatsim.reports.comparable import alike_in_energy
from swatsim.reports.html import Chart, Page, Section, Table, on_paper
from swatsim.reports.labels import alike, shown
from swatsim.reports.page import notes_of, of_what, sections_of, warnings_of
from swatsim.reports.remarks import remarks
from swatsim.reports.span import Span, span_of
from swatsim.reports.tables import Row
from swatsim.reports.verdict import verdict
from swatsim.results import Results

#: Of a point of a sweep.
POINT_COLUMNS = (
    *("machine", "dtype", "clock_mhz", "dram_mb_per_s", "multipliers", "buffer_kib", "area_mm2"),
    *("time_ms", "images_per_s", "energy_pj", "energy_with_leakage_pj", "power_w"),
    *("tops_per_w_effectual", "speed_up", "speed_up_layers", "elsewhere", "energy_efficiency"),
    "of_ideal_layers",
)
#: Of these, what a machine is like; and what a table of the front shows in any case, for it is to
#: fit a page: the others are in that of all points.
PROPERTIES = POINT_COLUMNS[1:7]
FRONT_COLUMNS = (
    "power_w",
    "tops_per_w_effectual",
    "speed_up",
    "speed_up_layers",
    "of_ideal_layers",
)


def of_sweep(
    rows: Sequence[Row], name: str, best: Results, warnings: Sequence[str] = (), made: str = ""
) -> Page:
    """Return the page of a sweep.

    Each trace has a front of its own: times of different workloads don't compare. `best` are the
    results of the fastest point of the first trace, `warnings` the sweep's own; `made` says of
    which sweep the page is.
    """
    done = [row for row in rows if row["status"] == "done"]
    failed = [row for row in rows if row["status"] != "done"]
    traces = list(dict.fromkeys(row["trace"] for row in done))
    fronts = {trace: _front(done, trace) for trace in traces}
    fastest = [_fastest(Path(trace).name, front[0]) for trace, front in fronts.items()]
    about = "Times, energies and counts are a step's: the mean of the recorded ones; "
    about += "speed-ups are over the own baseline of each machine."
    about += " Of layers alone, without everything else that a step does." * (not _whole(done))
    summary = [*fastest[1:], *warnings_of(warnings)]
    tiles, best = _tiles(done, failed, fronts), tables.summarise(best)
    notes = ["Of the fastest:", *notes_of(best, page_tables.headline(best))]
    notes += [f"{text}." for text in remarks(best)]
    title = f"Sweep {name}"
    page = Page(title, about, tiles, summary, verdict=fastest[0], notes=notes, made=made)
    for number, trace in enumerate(traces):
        own = [row for row in done if row["trace"] == trace]
        suffix = f"_{number + 1}" if len(traces) > 1 else ""
        page.sections.extend(_of_points(own, fronts[trace], suffix))
    page.sections.extend(_all_points(done, failed, len(traces)))
    page.sections.extend(_of_fastest(best, several=len(traces) > 1))
    return page


def _tiles(
    done: Sequence[Row], failed: Sequence[Row], fronts: Mapping[str, Sequence[Row]]
) -> list[tuple[str, str]]:
    counts = [("points done", f"{len(done)}"), ("failed", f"{len(failed)}")]
    if len(fronts) > 1:
        return [*counts, ("traces, each with a front of its own", f"{len(fronts)}")]
    (front,) = fronts.values()
    time, energy, *_ = page_tables.costs_of(done)
    least = min(row[energy] for row in alike_in_energy(done))
    leakage = "leakage in it" if energy != "energy_pj" else "without leakage"
    return [
        ("a step, the fastest", shown(time, front[0][time])),
        (f"a step, the most frugal ({leakage})", shown(energy, least)),
        ("points that no other beats", f"{len(front)}"),
        *counts,
    ]


def _of_fastest(best: tables.Summary, several: bool) -> Iterator[Section]:
    """Yield the sections of the fastest point, of the first trace if there are `several`."""
    span = span_of(best)
    on = f" on {best.rows[0]['trace']}" if several else ""
    text = f"{verdict(best).sentence}. {of_what(span)}, {span}; tables add them up."
    yield Section(f"The fastest{on}: {best.rows[0]['machine']}", text)
    yield from sections_of(best)


def _fastest(trace: str, row: Row) -> str:
    span = Span.from_row(row)
    of_step = f"{shown('time_ms', row['time_ms'])} {span.subject} ({span.mean})"
    faster = (
        "" if span.left_out else f"; speed-up over its own baseline: {page_tables.of_step(row)}"
    )
    return f"{trace}: fastest {row['machine']} ({differences.words(row)}), {of_step}{faster}."


def _whole(done: Sequence[Row]) -> bool:
    """Whether any of the points is of whole steps."""
    return any(not Span.from_row(row).left_out for row in done)


def _front(done: Sequence[Row], trace: str) -> list[Row]:
    own = [row for row in done if row["trace"] == trace]
    return sorted(page_tables.pareto(own), key=lambda row: row["time_ms"])


def _of_points(done: Sequence[Row], front: Sequence[Row], suffix: str) -> Iterator[Section]:
    """Draw the points of one trace."""
    on = f", {Path(done[0]['trace']).name}" if suffix else ""
    text = "No other point is at most as slow, as hungry and as large, and better in one of these: "
    text += f"{page_tables.weighed_by(done)}."
    if left_out := page_tables.not_weighed(done):
        text += f" {left_out}."
    text += f" Of the ideal, layers alone: {tables.OF_IDEAL}."
    numbered = [{"number": i, **row} for i, row in enumerate(front, 1)]
    every = f"points{suffix}.csv"
    of_step = f"a step's: {Span.from_row(done[0]).mean}"
    words = f"Time and energy of every point{' but those' * bool(left_out)}, {of_step}."
    chart = Chart(f"pareto{suffix}", lambda: sweep_points.pareto(done, front), words, every)
    differ, same = alike(front, PROPERTIES)
    text += f" Of the front, {same[:1].lower()}{same[1:]}" * bool(same)
    energy = page_tables.costs_of(done)[1]
    columns = ("number", "machine", *differ, "time_ms", energy, *FRONT_COLUMNS)
    words = f"The front; time and energy are {of_step}"
    table = Table(f"front{suffix}", numbered, words, columns)
    points = _points_table(f"points{suffix}", done, f"Every point; time and energy are {of_step}")
    yield Section(f"The front of time, energy and size{on}", text, [chart], [table, points])
    several = [n for n in _parameters(done) if len({row.get(n) for row in done} - {None}) > 1]
    if varied := sweep_points.varied(done, several):
        words = "Machines alike in all else are joined; others are left out."
        chart = Chart(
            f"sensitivities{suffix}", lambda: sweep_points.sensitivities(done, varied), words, every
        )
        yield Section(f"What each parameter does{on}", charts=[chart])


def _points_table(name: str, rows: Sequence[Row], words: str, *more: str) -> Table:
    """Return a table of points; those that are printed are the fastest."""
    own = [name for name in POINT_COLUMNS if name != "elsewhere" or _whole(rows)]
    columns = (*more, *own)
    paper = on_paper(rows, lambda row: -row["time_ms"], "the fastest")
    return Table(name, list(rows), words, columns, folded=True, paper=paper)


def _all_points(done: Sequence[Row], failed: Sequence[Row], traces: int) -> Iterator[Section]:
    """Yield what is of all traces: each one's points are with its front."""
    found = []
    if traces > 1:
        words = "All points that are done; time and energy are a mean recorded step's"
        found.append(_points_table("all_points", done, words, "trace"))
    if failed:
        names = ("machine", "trace", "error")
        found.append(Table("failed", list(failed), "Failed points", names, folded=True))
    if found:
        yield Section("All points" if traces > 1 else "Failed points", tables=found)


def _parameters(rows: Sequence[Row]) -> list[str]:
    """Return the columns of a sweep's parameters: those between the preset and the multipliers."""
    names = list(rows[0])
    return names[names.index("preset") + 1 : names.index("multipliers")]
