"""What a report says, section by section: of one simulation, and of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite, nan
from pathlib import Path

from swatsim.counters import BUCKETS
from swatsim.outputs import PLOTS
from swatsim.reports import (
    differences,
    everything_else,
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
from swatsim.reports.step_time import step_time
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
    *("time_ms", "energy_pj", "speed_up", "speed_up_layers", "elsewhere", "energy_efficiency"),
    "of_ideal_layers",
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
    head, span = page_tables.headline(results), span_of(results)
    title = f"{head['machine']} on {results.rows[0]['trace']}"
    about = (
        f"Against {head['baseline']} ({' against '.join(tables.sizes_of(results))}). "
        f"{_of_what(span)}, {span}: a step is their mean, ratios are of their sums, "
        "and so are tables unless they say otherwise. Each number is in a CSV beside this page, "
        "which is made of results.parquet."
    )
    summary = [*_headline(head, span), *_warnings(differences.against_baseline(results))]
    found = (*gpu_time.sentences(results), *remarks(results), page_tables.of_outputs(results))
    summary += [f"{words}." for words in found if words]
    summary.append(f"Of the ideal{'' if span.left_out else ', layers alone'}: {tables.OF_IDEAL}.")
    summary += _summary(results, head)
    return Page(title, about, _tiles(head, results), summary, list(_sections(results)))


def _of_what(span: Span) -> str:
    return (
        "Of the recorded layers" if span.left_out else "Of recorded steps, everything that they do"
    )


def _headline(head: Row, span: Span) -> list[str]:
    """Return what the page begins with: the speed-up of a step, or of what of it there is."""
    of_what = span.of_what and f" ({span.of_what})"
    alone = ", of a step's layers alone" if span.left_out else ""
    words = f"Speed-up over {head['baseline']}: {page_tables.of_step(head)}{alone}{of_what}."
    method = page_tables.of_method(head)
    return [words, *([f"{method}."] if method else [])]


def _tiles(head: Row, results: Results) -> list[tuple[str, str]]:
    span = span_of(results)
    table = tables.energy_table_of(results)
    energy = nan if head["energy_pj"] is None else head["energy_pj"] / 1e9
    time = f"{head['time_ms']:.3g} ms" if isfinite(head["time_ms"]) else f"{head['cycles']:,.0f}"
    subject = span.subject if "ms" in time else f"cycles of {span.subject}"
    found = [
        (f"{subject}: {span.mean}", time),
        (
            f"energy of the same{table and f', {table}'}",
            f"{energy:.3g} mJ",
        ),
        *_speed_ups(head, span),
        ("energy efficiency: the baseline's / this", f"{head['energy_efficiency']:.2f}x"),
        *_of_layers(head, results),
    ]
    return [(label, value) for label, value in found if "nan" not in value]


def _speed_ups(head: Row, span: Span) -> list[tuple[str, str]]:
    over = f"over {head['baseline']}{span.of_what and f', {span.of_what}'}"
    alone = f"{head['speed_up_layers']:.2f}x"
    if span.left_out:
        return [(f"speed-up of the layers {over}", alone)]
    return [
        (f"speed-up of the step {over}", f"{head['speed_up']:.2f}x"),
        ("the same, of its layers alone", alone),
        (
            "of the baseline's time is elsewhere: it multiplies no matrices",
            f"{100 * head['elsewhere']:.0f} %",
        ),
    ]


def _of_layers(head: Row, results: Results) -> list[tuple[str, str]]:
    """Return what is of layers in any case."""
    masked = bool(page_tables.of_outputs(results))
    spared = ", or an output that nobody wants" if masked else ""
    return [
        ("speed-up of the layers, compute cycles only", f"{head['speed_up_compute_layers']:.2f}x"),
        (
            f"of the MACs have a zero factor (ReLU's zeros too, no padding){spared}",
            f"{100 * head['zero_share']:.0f} %",
        ),
        ("the layers, of the ideal (what that is stands below)", tenths(head["of_ideal_layers"])),
        ("the same, compute cycles only", tenths(head["of_ideal_compute_layers"])),
    ]


def _warnings(texts: Sequence[str]) -> list[str]:
    return [f"Warning: {text}." for text in texts]


def _summary(results: tables.Summary, head: Row) -> list[str]:
    """Return what is said of the layers: what zeros add, and where their cycles went."""
    layers = results.of_layers
    lost = f"lane_cycles_{head['lost_most_to']}"
    words = page_tables.due_to_zeros(layers, span_of(results).of_what)
    due = [words] if words else []
    if lost not in BUCKETS:
        return due
    of = " of the layers" if results.phases else ""
    share = 100 * layers[lost] / layers["lane_cycles"]
    dram = layers["lane_cycles_dram"] + layers["lane_cycles_fill_drain"]
    bound = 100 * dram / layers["lane_cycles"]
    return [
        *due,
        f"Most PE-cycles{of} without effectual work: {BUCKETS[lost].label}, {share:.0f} % of all.",
        f"DRAM holds the PEs up for {bound:.0f} % of the time{of and ' that layers take'}.",
    ]


def _sections(results: Results) -> Iterator[Section]:
    yield from _of_step(results)
    layers = page_tables.layers(results)
    words = f"Every layer and op, {span_of(results)} added up"
    masked = any(isfinite(row["density_output"]) for row in layers)
    columns = (*LAYER_COLUMNS, *(("density_output",) if masked else ()))
    every = Table("layers", layers, words, columns, folded=True)
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


def _of_step(results: Results) -> Iterator[Section]:
    """Yield the sections of a step with everything else that it does, if that is in the results."""
    if not tables.summarise(results).phases:
        return
    rows, title = everything_else.where_time_goes(results), "Where a step's time goes"
    words = "Time of a step: the three ops of its layers, and everything else by phase."
    yield _drawn("step_time", rows, lambda: step_time(results), title, words)
    functions = everything_else.by_function(results)
    words = f"By phase and function, {span_of(results)} added up; shares are of the step's time"
    table = Table("everything_else", functions, words)
    yield Section("Everything else", everything_else.TEXT, tables=[table])


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
    about += " Of layers alone, without everything else that a step does." * (not _whole(done))
    page = Page(f"Sweep {name}", about, tiles, words)
    for number, trace in enumerate(traces):
        own = [row for row in done if row["trace"] == trace]
        suffix = f"_{number + 1}" if len(traces) > 1 else ""
        page.sections.extend(_of_points(own, fronts[trace], suffix))
    page.sections.append(_all_points(done, failed))
    best = tables.summarise(best)
    head, span = page_tables.headline(best), span_of(best)
    text = " ".join([*_headline(head, span), *_summary(best, head)])
    on = f" on {best.rows[0]['trace']}" if len(traces) > 1 else ""
    text += f" {_of_what(span)}, {span}, added up unless a table says otherwise."
    text += "".join(f" {words}." for words in (*gpu_time.sentences(best), *remarks(best)))
    page.sections.append(Section(f"The fastest{on}: {head['machine']}", text))
    page.sections.extend(_sections(best))
    return page


def _fastest(trace: str, row: Row) -> str:
    span = Span.from_row(row)
    of_step = f"{row['time_ms']:.3g} ms {span.subject} ({span.mean})"
    faster = "" if span.left_out else f"; speed-up: {page_tables.of_step(row)}"
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
    text = "No other point is at most as slow, as hungry and as large, and better in one of these."
    text += f" Of the ideal, layers alone: {tables.OF_IDEAL}."
    numbered = [{"number": i, **row} for i, row in enumerate(front, 1)]
    every = f"points{suffix}.csv"
    of_step = f"a step's: {Span.from_row(done[0]).mean}"
    own = [name for name in POINT_COLUMNS if name != "elsewhere" or _whole(done)]
    words = f"Time and energy of every point, {of_step}."
    chart = Chart(f"pareto{suffix}", lambda: sweep_points.pareto(done, front), words, every)
    words = f"The front; time and energy are {of_step}"
    table = Table(f"front{suffix}", numbered, words, ("number", *own))
    words = f"Every point; time and energy are {of_step}"
    points = Table(f"points{suffix}", list(done), words, own, folded=True)
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
