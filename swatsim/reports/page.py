"""A report: one page that needs nothing else, and its parts as pictures and tables."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from swatsim.reports import charts, facts, plots, tables
from swatsim.reports.roofline import roofline
from swatsim.reports.tables import Row
from swatsim.results import Results, as_csv

TEMPLATES = Path(__file__).parent / "templates"

#: Of a layer and op, what a page shows; the CSV has all.
LAYER_COLUMNS = (
    *("layer", "op", "speed_up", "speed_up_dense_operands", "speed_up_zeros"),
    *("speed_up_compute", "energy_efficiency", "utilisation"),
    *("cycles", "baseline_cycles", "dram_bytes", "lost_most_to"),
)

#: Of a point of a sweep.
POINT_COLUMNS = (
    *("machine", "multipliers", "buffer_kib", "time_ms", "energy_pj"),
    *("speed_up", "energy_efficiency", "utilisation"),
)

#: Rows of a table that a page shows; the CSV has all.
SHOWN = 60


@dataclass(frozen=True)
class Chart:
    """A plot, and the table that its numbers are from."""

    name: str
    figure: Figure
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
        """Render the page and its parts: file name to content."""
        parts: dict[str, bytes] = {}
        for section in self.sections:
            for chart in section.charts:
                parts[f"{chart.name}.png"] = plots.as_png(chart.figure)
                parts[f"{chart.name}.svg"] = _svg(chart.figure)
            for table in section.tables:
                parts[f"{table.name}.csv"] = as_csv(table.rows)
        return {"report.html": self._html(parts), **parts}

    def _html(self, parts: dict[str, bytes]) -> bytes:
        from jinja2 import Environment, FileSystemLoader, select_autoescape

        loader = FileSystemLoader(TEMPLATES)
        # names of layers and machines come from a trace that somebody may have been sent
        room = Environment(loader=loader, autoescape=select_autoescape(default=True))
        sections = [_shown(section, parts) for section in self.sections]
        tiles = [{"label": label, "value": value} for label, value in self.tiles]
        return (
            room.get_template("report.html")
            .render(
                title=self.title,
                about=self.about,
                tiles=tiles,
                summary=self.summary,
                sections=sections,
            )
            .encode()
        )


def _shown(section: Section, parts: dict[str, bytes]) -> Row:
    figures = [
        {
            "name": chart.name,
            "caption": chart.caption,
            "table": chart.table,
            "image": base64.b64encode(parts[f"{chart.name}.png"]).decode(),
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
    """Write a value of a table."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _svg(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()


# ---- of one simulation ---------------------------------------------------------------------------


def of_results(results: Results) -> Page:
    """Make the page of one simulation."""
    results = tables.summarise(results)
    head = facts.headline(results)
    step = tables.per_op(results)[-1]
    title = f"{head['machine']} on {step['trace']}"
    about = (
        f"Against {head['baseline']} ({' against '.join(tables.sizes_of(results))}); "
        f"{tables.source_of(results)}, added up. Each number is in a CSV beside this page, which "
        "is made of results.parquet."
    )
    return Page(title, about, _tiles(head), _summary(head, step), list(_sections(results)))


def _tiles(head: Row) -> list[tuple[str, str]]:
    found = [
        (f"speed-up over {head['baseline']}", f"{head['speed_up']:.2f}x"),
        ("of compute cycles only", f"{head['speed_up_compute']:.2f}x"),
        ("energy efficiency: the baseline's / this", f"{head['energy_efficiency']:.2f}x"),
        ("of the FLOPs skippable", f"{100 * head['flop_reduction']:.0f} %"),
        ("less memory for the backward pass (bitmask)", f"{100 * head['memory_reduction']:.0f} %"),
        ("of the multipliers' cycles did effectual work", f"{100 * head['utilisation']:.1f} %"),
    ]
    return [(label, value) for label, value in found if "nan" not in value]


def _summary(head: Row, step: Row) -> list[str]:
    names = {bucket.column: bucket.label for bucket in plots.BUCKETS}
    lost = f"lane_cycles_{head['lost_most_to']}"
    if lost not in names:
        return []
    share = 100 * step[lost] / step["lane_cycles"]
    dram = step["lane_cycles_dram"] + step["lane_cycles_fill_drain"]
    words = f"Most PE-cycles without effectual work: {names[lost]}, {share:.0f} % of all."
    bound = 100 * dram / step["lane_cycles"]
    return [words, f"DRAM holds the PEs up for {bound:.0f} % of the time."]


def _sections(results: Results) -> Iterator[Section]:
    layers = facts.layers(results)
    every = Table("layers", layers, "Every layer and op", LAYER_COLUMNS, folded=True)
    words = "Speed-up of each layer and op; ticks: what it would be with no zero in the operands."
    has_energy = all(row["energy_pj"] is not None for row in results.rows)
    yield Section(
        "Layers and ops",
        charts=[_chart("speed_up", plots.speed_up(results), words)],
        tables=[every],
    )
    where = "Where the cycles of the PEs went, relative to the baseline's."
    yield Section(
        "Where the time went", charts=[_chart("pe_cycles", plots.pe_cycles(results), where)]
    )
    if has_energy:
        words = "Energy by part, relative to the baseline's."
        yield Section("Energy", charts=[_chart("energy", plots.energy(results), words)])
    if any(row["blocks"] for row in results.rows):
        words = "What each op could reach with the bytes that it moves, and what it reaches."
        yield Section("Roofline", charts=[_chart("roofline", roofline(results), words)])
    if len({row["step"] for row in results.rows}) > 1:
        yield _drawn(results, "over_steps", "Over the run", "Drift of densities and speed-ups.")
    words = (
        "What zeros add to each layer and op: its speed-up over the same shapes with no zero in "
        "the operands, against the share of its MACs that has a zero of one as a factor."
    )
    yield _drawn(results, "sparsity", "Speed-up against sparsity", words)
    words = "FLOPs that have no zero factor; inputs and weights kept, with and without metadata."
    yield _drawn(results, "reductions", "FLOPs and memory", words, folded=False)
    if figures := facts.published(results):
        text = "Published for this design, on its paper's networks: not the workload of this run."
        yield Section("Published figures", text, tables=[Table("published", figures, "Figures")])
    yield _provenance(results)


def _chart(name: str, figure: Figure, caption: str, table: str = "layers.csv") -> Chart:
    return Chart(name, figure, caption, table)


def _drawn(results: Results, name: str, title: str, caption: str, folded: bool = True) -> Section:
    rows = list(getattr(facts, name)(results))
    chart = Chart(name, charts.OF_RESULTS[name](results), caption, f"{name}.csv")
    return Section(title, charts=[chart], tables=[Table(name, rows, "Its numbers", folded=folded)])


def _provenance(results: Results) -> Section:
    known = results.provenance
    machine = known.get("parameters", {}).get("machine", {})
    rows = [
        {"what": name, "value": str(known[name])}
        for name in ("swatsim", "python", "platform", "time")
        if name in known
    ]
    rows += [{"what": "command", "value": " ".join(map(str, known.get("command", [])))}]
    trace = known.get("parameters", {}).get("trace", {})
    rows += [{"what": f"trace {name}", "value": str(value)} for name, value in trace.items()]
    parameters = machine.get("parameters", {}) if isinstance(machine, dict) else {}
    rows += [{"what": name, "value": str(value)} for name, value in parameters.items()]
    table = Table(
        "provenance", rows, "Versions, trace, and every parameter of the machine", folded=True
    )
    return Section("Where this comes from", tables=[table])


# ---- of a sweep ----------------------------------------------------------------------------------


def of_sweep(rows: Sequence[Row], name: str, best: Results) -> Page:
    """Make the page of a sweep.

    Each trace has a front of its own: times of different workloads don't compare. `best` are the
    results of the fastest point of the first trace.
    """
    done = [row for row in rows if row["status"] == "done"]
    failed = [row for row in rows if row["status"] != "done"]
    tiles = [("points done", f"{len(done)}"), ("failed", f"{len(failed)}")]
    traces = list(dict.fromkeys(row["trace"] for row in done))
    fronts = {trace: _front(done, trace) for trace in traces}
    if len(traces) == 1:
        front = fronts[traces[0]]
        frugal = min(done, key=lambda row: row["energy_pj"])
        tiles += [
            ("ms a step, the fastest", f"{front[0]['time_ms']:.3g}"),
            ("mJ a step, the least", f"{frugal['energy_pj'] / 1e9:.3g}"),
            ("points that no other beats", f"{len(front)}"),
        ]
    else:
        tiles.append(("traces, each with a front of its own", f"{len(traces)}"))
    words = [
        f"{Path(trace).name}: fastest {front[0]['machine']}, {front[0]['time_ms']:.3g} ms a step."
        for trace, front in fronts.items()
    ]
    about = "Times and energies: all recorded steps and images of a training step, added up."
    page = Page(f"Sweep {name}", about, tiles, words)
    for number, trace in enumerate(traces):
        own = [row for row in done if row["trace"] == trace]
        suffix = f"_{number + 1}" if len(traces) > 1 else ""
        page.sections.extend(_of_points(own, fronts[trace], suffix))
    page.sections.append(_all_points(done, failed))
    best = tables.summarise(best)
    head = facts.headline(best)
    text = " ".join(_summary(head, tables.per_op(best)[-1]))
    on = f" on {best.rows[0]['trace']}" if len(traces) > 1 else ""
    page.sections.append(Section(f"The fastest{on}: {head['machine']}", text))
    page.sections.extend(_sections(best))
    return page


def _front(done: Sequence[Row], trace: str) -> list[Row]:
    own = [row for row in done if row["trace"] == trace]
    return sorted(facts.pareto(own), key=lambda row: row["time_ms"])


def _of_points(done: Sequence[Row], front: Sequence[Row], suffix: str) -> Iterator[Section]:
    """Draw the points of one trace."""
    on = f", {Path(done[0]['trace']).name}" if suffix else ""
    text = "No other point is at most as slow, as hungry and as large, and better in one of these."
    numbered = [{"number": i, **row} for i, row in enumerate(front, 1)]
    every = f"points{suffix}.csv"
    words = "Time and energy of every point."
    chart = Chart(f"pareto{suffix}", charts.pareto(done, front), words, every)
    table = Table(f"front{suffix}", numbered, "The front", ("number", *POINT_COLUMNS))
    points = Table(f"points{suffix}", list(done), "Every point", POINT_COLUMNS, folded=True)
    yield Section(f"The front of time, energy and size{on}", text, [chart], [table, points])
    varied = [n for n in _parameters(done) if len({row.get(n) for row in done} - {None}) > 1]
    if varied:
        figure = charts.sensitivities(done, varied)
        words = "Machines alike in all else are joined; others are left out."
        chart = Chart(f"sensitivities{suffix}", figure, words, every)
        yield Section(f"What each parameter does{on}", charts=[chart])


def _all_points(done: Sequence[Row], failed: Sequence[Row]) -> Section:
    columns = ("trace", *POINT_COLUMNS)
    found = [Table("all_points", list(done), "All points that are done", columns, folded=True)]
    if failed:
        names = ("machine", "trace", "error")
        found.append(Table("failed", list(failed), "Failed points", names, folded=True))
    return Section("All points", tables=found)


def _parameters(rows: Sequence[Row]) -> list[str]:
    """Name the columns of a sweep's parameters: those between the preset and the multipliers."""
    names = list(rows[0])
    return names[names.index("preset") + 1 : names.index("multipliers")]
