"""What a report says, section by section: of one simulation, and of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite, nan
from pathlib import Path

from swatsim.counters import BUCKETS
from swatsim.outputs import PLOTS
from swatsim.reports import (
    differences,
    gpu_time,
    layer_bars,
    page_tables,
    patterns,
    sweep_points,
    tables,
)
from swatsim.reports.html import Chart, Page, Section, Table
from swatsim.reports.over_steps import over_steps
from swatsim.reports.remarks import remarks
from swatsim.reports.roofline import roofline
from swatsim.reports.span import Span, span_of, tenths
from swatsim.reports.style import Figure
from swatsim.reports.tables import Row
from swatsim.reports.zeros import reductions, sparsity
from swatsim.results import Results

#: Of a layer and op, what a page shows; the CSV has all.
LAYER_COLUMNS = (
    *("layer", "op", "speed_up", "speed_up_dense_operands", "speed_up_zeros"),
    *("speed_up_compute", "energy_efficiency", "of_ideal"),
    *("cycles", "baseline_cycles", "dram_bytes", "lost_most_to"),
)

#: Of a point of a sweep.
POINT_COLUMNS = (
    *("machine", "dtype", "clock_mhz", "dram_mb_per_s", "multipliers", "buffer_kib"),
    *("time_ms", "energy_pj", "speed_up", "energy_efficiency", "of_ideal"),
)

#: What bytes of operands are not.
NO_MEMORY = (
    "Of the recorded layers' inputs and weights alone, a ReLU's zeros among the zeros: not what "
    "sparse training saves. What ReLUs, batch norms and the rest keep for the backward pass is not "
    "in results; swatsim footprint counts it, each tensor once."
)


# ---- of one simulation ---------------------------------------------------------------------------


def of_results(results: Results) -> Page:
    """Return the page of one simulation."""
    results = tables.summarise(results)
    head = page_tables.headline(results)
    step = tables.per_op(results)[-1]
    title = f"{head['machine']} on {step['trace']}"
    about = (
        f"Against {head['baseline']} ({' against '.join(tables.sizes_of(results))}). Of the "
        f"recorded layers, {span_of(results)}: a step is their mean, ratios are of their sums, "
        "and so are tables unless they say otherwise. Each number is in a CSV beside this page, "
        "which is made of results.parquet."
    )
    found = [f"{words}." for words in (*gpu_time.sentences(results), *remarks(results))]
    warnings = _warnings(differences.against_baseline(results))
    ideal = f"Of the ideal: {tables.OF_IDEAL}."
    summary = [*warnings, *found, ideal, *_summary(head, step, results.of_layers, span_of(results))]
    return Page(title, about, _tiles(head, results), summary, list(_sections(results)))


def _tiles(head: Row, results: Results) -> list[tuple[str, str]]:
    table = tables.energy_table_of(results)
    energy = nan if head["energy_pj"] is None else head["energy_pj"] / 1e9
    time = f"{head['time_ms']:.3g} ms" if isfinite(head["time_ms"]) else f"{head['cycles']:,.0f}"
    of_step = "a step" if "ms" in time else "cycles a step"
    of_what = span_of(results).of_what
    found = [
        (f"{of_step}: {span_of(results).mean}", time),
        (f"the same step's energy{table and f', {table}'}", f"{energy:.3g} mJ"),
        (
            f"speed-up over {head['baseline']}{of_what and f', {of_what}'}",
            f"{head['speed_up']:.2f}x",
        ),
        ("the same, of compute cycles only", f"{head['speed_up_compute']:.2f}x"),
        ("energy efficiency: the baseline's / this", f"{head['energy_efficiency']:.2f}x"),
        (
            "of the MACs have a zero factor (ReLU's zeros too, no padding)",
            f"{100 * head['zero_share']:.0f} %",
        ),
        ("of the ideal (what that is stands below)", tenths(head["of_ideal"])),
        ("of the ideal, compute cycles only", tenths(head["of_ideal_compute"])),
    ]
    return [(label, value) for label, value in found if "nan" not in value]


def _warnings(texts: Sequence[str]) -> list[str]:
    return [f"Warning: {text}." for text in texts]


def _summary(head: Row, step: Row, layers: Row, span: Span) -> list[str]:
    lost = f"lane_cycles_{head['lost_most_to']}"
    due = [words] if (words := page_tables.due_to_zeros(layers, span.of_what)) else []
    if lost not in BUCKETS:
        return due
    share = 100 * step[lost] / step["lane_cycles"]
    dram = step["lane_cycles_dram"] + step["lane_cycles_fill_drain"]
    words = f"Most PE-cycles without effectual work: {BUCKETS[lost].label}, {share:.0f} % of all."
    bound = 100 * dram / step["lane_cycles"]
    return [*due, words, f"DRAM holds the PEs up for {bound:.0f} % of the time."]


def _sections(results: Results) -> Iterator[Section]:
    layers = page_tables.layers(results)
    words = f"Every layer and op, {span_of(results)} added up"
    every = Table("layers", layers, words, LAYER_COLUMNS, folded=True)
    words = "Speed-up of each layer and op; ticks: what it would be with no zero in the operands."
    yield Section(
        "Layers and ops",
        charts=[_chart("speed_up", lambda: layer_bars.speed_up(results), words)],
        tables=[every],
    )
    where = "Where the cycles of the PEs went, relative to the baseline's."
    yield Section(
        "Where the time went",
        charts=[_chart("pe_cycles", lambda: layer_bars.pe_cycles(results), where)],
    )
    if found := patterns.patterns(results):
        text = f"{patterns.in_words(results)}."
        table = Table("patterns", found, "Of each op and operand", patterns.COLUMNS)
        yield Section(f"What obeys {patterns.pattern_of(results)}", text, tables=[table])
    if PLOTS["energy"].there(results.rows):
        words = "Energy by part, relative to the baseline's."
        yield Section(
            "Energy", charts=[_chart("energy", lambda: layer_bars.energy(results), words)]
        )
    if PLOTS["roofline"].there(results.rows):
        words = "What each op could reach with the bytes that it moves, and what it reaches."
        yield Section("Roofline", charts=[_chart("roofline", lambda: roofline(results), words)])
    if len({row["step"] for row in results.rows}) > 1:
        words = "Drift of densities and speed-ups, step by step."
        rows = page_tables.over_steps(results)
        yield _drawn("over_steps", rows, lambda: over_steps(results), "Over the run", words)
    words = (
        "What zeros add to each layer and op: its speed-up over the same shapes with no zero in "
        "the operands, against the share of its MACs that has a zero of one as a factor."
    )
    rows, title = page_tables.sparsity(results), "Speed-up against sparsity"
    yield _drawn("sparsity", rows, lambda: sparsity(results), title, words)
    words = (
        "FLOPs of a step that have no zero factor, padding left out; bytes of the operands without "
        "their zeros."
    )
    rows, title = page_tables.reductions(results), "FLOPs and operands without zeros"
    yield _drawn("reductions", rows, lambda: reductions(results), title, words, NO_MEMORY)
    yield _provenance(results)


def _chart(name: str, draw: Callable[[], Figure], caption: str, table: str = "layers.csv") -> Chart:
    return Chart(name, draw, caption, table)


def _drawn(
    name: str,
    rows: list[Row],
    draw: Callable[[], Figure],
    title: str,
    caption: str,
    text: str = "",
) -> Section:
    """Return the section of a chart and its numbers, which are folded if no text goes with them."""
    chart = Chart(name, draw, caption, f"{name}.csv")
    return Section(title, text, [chart], [Table(name, rows, "Its numbers", folded=not text)])


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


def of_sweep(rows: Sequence[Row], name: str, best: Results, warnings: Sequence[str] = ()) -> Page:
    """Return the page of a sweep.

    Each trace has a front of its own: times of different workloads don't compare. `best` are the
    results of the fastest point of the first trace, `warnings` the sweep's own.
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
            ("a step, the fastest", f"{front[0]['time_ms']:.3g} ms"),
            ("a step, the most frugal", f"{frugal['energy_pj'] / 1e9:.3g} mJ"),
            ("points that no other beats", f"{len(front)}"),
        ]
    else:
        tiles.append(("traces, each with a front of its own", f"{len(traces)}"))
    words = _warnings(warnings)
    words += [_fastest(Path(trace).name, front[0]) for trace, front in fronts.items()]
    about = "Times, energies and counts are a step's: the mean of the recorded ones."
    page = Page(f"Sweep {name}", about, tiles, words)
    for number, trace in enumerate(traces):
        own = [row for row in done if row["trace"] == trace]
        suffix = f"_{number + 1}" if len(traces) > 1 else ""
        page.sections.extend(_of_points(own, fronts[trace], suffix))
    page.sections.append(_all_points(done, failed))
    best = tables.summarise(best)
    head = page_tables.headline(best)
    text = " ".join(_summary(head, best.ops[-1], best.of_layers, span_of(best)))
    on = f" on {best.rows[0]['trace']}" if len(traces) > 1 else ""
    text += f" Of the recorded layers, {span_of(best)}, added up unless a table says otherwise."
    text += "".join(f" {words}." for words in (*gpu_time.sentences(best), *remarks(best)))
    page.sections.append(Section(f"The fastest{on}: {head['machine']}", text))
    page.sections.extend(_sections(best))
    return page


def _fastest(trace: str, row: Row) -> str:
    of_step = f"{row['time_ms']:.3g} ms a step ({Span.from_row(row).mean})"
    return f"{trace}: fastest {row['machine']} ({differences.words(row)}), {of_step}."


def _front(done: Sequence[Row], trace: str) -> list[Row]:
    own = [row for row in done if row["trace"] == trace]
    return sorted(page_tables.pareto(own), key=lambda row: row["time_ms"])


def _of_points(done: Sequence[Row], front: Sequence[Row], suffix: str) -> Iterator[Section]:
    """Draw the points of one trace."""
    on = f", {Path(done[0]['trace']).name}" if suffix else ""
    text = "No other point is at most as slow, as hungry and as large, and better in one of these."
    text += f" Of the ideal: {tables.OF_IDEAL}."
    numbered = [{"number": i, **row} for i, row in enumerate(front, 1)]
    every = f"points{suffix}.csv"
    of_step = f"a step's: {Span.from_row(done[0]).mean}"
    words = f"Time and energy of every point, {of_step}."
    chart = Chart(f"pareto{suffix}", lambda: sweep_points.pareto(done, front), words, every)
    words = f"The front; time and energy are {of_step}"
    table = Table(f"front{suffix}", numbered, words, ("number", *POINT_COLUMNS))
    words = f"Every point; time and energy are {of_step}"
    points = Table(f"points{suffix}", list(done), words, POINT_COLUMNS, folded=True)
    yield Section(f"The front of time, energy and size{on}", text, [chart], [table, points])
    varied = [n for n in _parameters(done) if len({row.get(n) for row in done} - {None}) > 1]
    if varied:
        words = "Machines alike in all else are joined; others are left out."
        chart = Chart(
            f"sensitivities{suffix}", lambda: sweep_points.sensitivities(done, varied), words, every
        )
        yield Section(f"What each parameter does{on}", charts=[chart])


def _all_points(done: Sequence[Row], failed: Sequence[Row]) -> Section:
    columns = ("trace", *POINT_COLUMNS)
    words = "All points that are done; time and energy are a mean recorded step's"
    found = [Table("all_points", list(done), words, columns, folded=True)]
    if failed:
        names = ("machine", "trace", "error")
        found.append(Table("failed", list(failed), "Failed points", names, folded=True))
    return Section("All points", tables=found)


def _parameters(rows: Sequence[Row]) -> list[str]:
    """Return the columns of a sweep's parameters: those between the preset and the multipliers."""
    names = list(rows[0])
    return names[names.index("preset") + 1 : names.index("multipliers")]
