"""What the report of one simulation says, section by section."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite

from swatsim.counters import BUCKETS
from swatsim.outputs import PLOTS
from swatsim.reports import (
    differences,
    everything_else,
    gpu_time,
    layer_bars,
    page_tables,
    patterns,
    tables,
)
from swatsim.reports.html import Chart, Page, Section, Table, on_paper
from swatsim.reports.labels import cell, label, shown, times
from swatsim.reports.over_steps import over_steps
from swatsim.reports.remarks import remarks
from swatsim.reports.roofline import roofline
from swatsim.reports.span import Span, percent, span_of, tenths
from swatsim.reports.step_time import step_time
from swatsim.reports.style import Figure
from swatsim.reports.tables import Row
from swatsim.reports.verdict import Verdict, verdict
from swatsim.reports.zeros import reductions, sparsity
from swatsim.results import Results

#: Of a layer and op, what a page shows; the CSV has all.
LAYER_COLUMNS = (
    *("layer", "op", "speed_up", "speed_up_dense_operands", "speed_up_zeros"),
    *("speed_up_compute", "energy_efficiency", "of_ideal"),
    *("cycles", "baseline_cycles", "energy_pj", "dram_bytes", "lost_most_to"),
)

#: Of so many layers and ops the figures are printed: a sheet.
PRINTED_LAYERS = 30
#: Of shares of a step's time, which elsewhere are of its multiplications.
OF_TIME = {"share": "share of the time, %", "baseline_share": "share of the baseline's time, %"}

#: What bytes of operands are not.
NO_MEMORY = (
    "Of the recorded layers' inputs and weights alone, a ReLU's zeros among the zeros: not what "
    "sparse training saves. What ReLUs, batch norms and the rest keep for the backward pass is not "
    "in results; swatsim footprint counts it, each tensor once."
)


def of_results(results: Results, made: str = "") -> Page:
    """Return the page of one simulation; `made` says of which results, by which command."""
    results = tables.summarise(results)
    head, span, found = page_tables.headline(results), span_of(results), verdict(results)
    about = (
        f"Against {head['baseline']} ({' against '.join(tables.sizes_of(results))}). "
        f"{of_what(span)}, {span}: a step is their mean, ratios are of their sums, "
        "and so are tables unless they say otherwise. Each number is in a CSV beside this page."
    )
    warnings = warnings_of(differences.against_baseline(results))
    known = [f"{words}." for words in remarks(results)]
    partial = bool(span.left_out or span.partial)  # then it is no matter of how to read it
    summary, notes = ([*known, *warnings], []) if partial else (warnings, known)
    return Page(
        title=f"{head['machine']} on {results.rows[0]['trace']}",
        about=about,
        tiles=_tiles(head, found, results),
        summary=summary,
        sections=list(sections_of(results)),
        verdict=f"{found.sentence}{span.of_what and f' (figures {span.of_what})'}.",
        notes=[*notes_of(results, head), *notes],
        made=made,
    )


def of_what(span: Span) -> str:
    """Return in words what of the recorded steps figures are of."""
    return (
        "Of the recorded layers" if span.left_out else "Of recorded steps, everything that they do"
    )


def notes_of(results: tables.Summary, head: Row) -> list[str]:
    """Return paragraphs of how to read a page's figures, and what is behind them."""
    span = span_of(results)
    efficiency = head["energy_efficiency"]
    words = [
        _headline(head, span),
        page_tables.of_method(head),
        f"The baseline's energy is {efficiency:.2f}x this one's" if isfinite(efficiency) else "",
        f"{_zeros(results, head)}, of the layers",
        page_tables.of_outputs(results),
        page_tables.due_to_zeros(results.of_layers, span.of_what),
        *_ideal(head, span),
        _lost(results, head),
        *gpu_time.sentences(results),
    ]
    return [f"{text}." for text in words if text]


def _headline(head: Row, span: Span) -> str:
    """Return the speed-up of a step, or of what of it there is."""
    of_share = span.of_what and f" ({span.of_what})"
    alone = ", of a step's layers alone" if span.left_out else ""
    compute = f"; {times(head['speed_up_compute_layers'])} of the layers' compute cycles only"
    return (
        f"Speed-up over {head['baseline']}: {page_tables.of_step(head)}{alone}{of_share}{compute}"
    )


def _zeros(results: Results, head: Row) -> str:
    spared = ", or an output that nobody wants" if page_tables.of_outputs(results) else ""
    share = 100 * head["zero_share"]
    return f"{share:.0f} % of the MACs have a zero factor (ReLU's zeros too, no padding){spared}"


def _ideal(head: Row, span: Span) -> list[str]:
    whole, compute = (tenths(head[f"{name}_layers"]) for name in ("of_ideal", "of_ideal_compute"))
    alone = "" if span.left_out else ", layers alone"
    return [
        f"Of the ideal{alone}: {whole}, of compute cycles only {compute}. That is {tables.OF_IDEAL}"
    ]


def _lost(results: tables.Summary, head: Row) -> str:
    """Return where most of the layers' cycles without effectual work went."""
    layers, lost = results.of_layers, f"lane_cycles_{head['lost_most_to']}"
    if lost not in BUCKETS:
        return ""
    of = " of the layers" if results.phases else ""
    share = 100 * layers[lost] / layers["lane_cycles"]
    return f"Most PE-cycles{of} without effectual work: {BUCKETS[lost].label}, {share:.0f} % of all"


def _tiles(head: Row, found: Verdict, results: tables.Summary) -> list[tuple[str, str]]:
    """Return what decides: what a step takes, and by how much it is and could be faster."""
    span = span_of(results)
    known = isfinite(head["time_ms"])
    subject = span.subject if known else f"cycles of {span.subject}"
    return [
        (f"{subject}: {span.mean}", shown(*_known(head, "time_ms", "cycles"))),
        *_rates(head, tables.energy_table_of(results)),
        *_speed_ups(head, span),
        *_counterfactuals(found),
    ]


def _known(head: Row, *names: str) -> tuple[str, float]:
    """Return the first column that has a number, and that."""
    return next((name, head[name]) for name in names if isfinite(head[name]))


def _rates(head: Row, table: str) -> Iterator[tuple[str, str]]:
    """Yield images a second, and the energy, where they are known."""
    if isfinite(head["images_per_s"]):
        found = cell("images_per_s", head["images_per_s"])
        yield "images a second, of those that the trace holds", found
    if head["energy_pj"] is not None:
        leaked = head["energy_with_leakage_pj"]
        with_it = f"; {shown('energy_with_leakage_pj', leaked)} with it" if isfinite(leaked) else ""
        words = f"energy of the same without leakage{table and f', {table}'}{with_it}"
        yield words, shown("energy_pj", head["energy_pj"])


def _counterfactuals(found: Verdict) -> Iterator[tuple[str, str]]:
    """Yield by how much faster it would be, were it otherwise."""
    for name, factor in found.changes.items():
        yield label(name), cell(name, factor)


def _speed_ups(head: Row, span: Span) -> list[tuple[str, str]]:
    over = f"over {head['baseline']}{span.of_what and f', {span.of_what}'}"
    alone = times(head["speed_up_layers"])
    if span.left_out:
        return [(f"speed-up of the layers {over}", alone)]
    elsewhere = f"; {percent(head['elsewhere'])} of the baseline's time is elsewhere"
    return [
        (f"speed-up of the step {over}", times(head["speed_up"])),
        (f"the same, of its layers alone{elsewhere}", alone),
    ]


def warnings_of(texts: Sequence[str]) -> list[str]:
    """Return warnings as paragraphs of a page."""
    return [f"Warning: {text}." for text in texts]


def sections_of(results: Results) -> Iterator[Section]:
    """Yield the sections of one simulation."""
    yield from _of_step(results)
    layers = page_tables.layers(results)
    words = f"Every layer and op, {span_of(results)} added up"
    masked = any(isfinite(row["density_output"]) for row in layers)
    columns = (*LAYER_COLUMNS, *(("density_output",) if masked else ()))
    paper = on_paper(layers, lambda row: row["cycles"], "those that take longest", PRINTED_LAYERS)
    every = Table("layers", layers, words, columns, folded=True, paper=paper)
    words = (
        "Speed-up of each layer and op, those that take longest first; a bar is as high as the "
        "time that it takes. Ticks: what it would be with no zero in the operands."
    )
    yield Section(
        "Layers and ops",
        charts=[_chart("speed_up", lambda: layer_bars.speed_up(results), words)],
        tables=[every],
    )
    where = (
        "Where the cycles of the PEs went, relative to the baseline's; a bar is as high as the "
        "baseline's time, so that areas are cycles."
    )
    yield Section(
        "Where the time went",
        charts=[_chart("pe_cycles", lambda: layer_bars.pe_cycles(results), where)],
    )
    if found := patterns.patterns(results):
        text = f"{patterns.in_words(results)}."
        table = Table("patterns", found, "Of each op and operand", patterns.COLUMNS)
        yield Section(f"What obeys {patterns.pattern_of(results)}", text, tables=[table])
    if PLOTS["energy"].there(results.rows):
        words = "Energy by part, relative to the baseline's, and as high as the baseline's energy."
        yield Section(
            "Energy", charts=[_chart("energy", lambda: layer_bars.energy(results), words)]
        )
    if PLOTS["roofline"].there(results.rows):
        words = "What each op could reach with the bytes that it moves, and what it reaches."
        yield Section("Roofline", charts=[_chart("roofline", lambda: roofline(results), words)])
    if len({row["step"] for row in results.rows}) > 1:
        words = "Drift of densities and speed-ups, step by step."
        rows = page_tables.over_steps(results)
        yield from _drawn("over_steps", rows, lambda: over_steps(results), "Over the run", words)
    words = (
        "What zeros add to each layer and op: its speed-up over the same shapes with no zero in "
        "the operands, against the share of its MACs that has a zero of one as a factor."
    )
    rows, title = page_tables.sparsity(results), "Speed-up against sparsity"
    yield from _drawn("sparsity", rows, lambda: sparsity(results), title, words)
    words = (
        "FLOPs of a step that have no zero factor, padding left out; bytes of the operands without "
        "their zeros."
    )
    rows, title = page_tables.reductions(results), "FLOPs and operands without zeros"
    yield from _drawn("reductions", rows, lambda: reductions(results), title, words, NO_MEMORY)
    yield _provenance(results)


def _of_step(results: Results) -> Iterator[Section]:
    """Yield the sections of a step with everything else that it does, if that is in the results."""
    if not tables.summarise(results).phases:
        return
    rows, title = everything_else.where_time_goes(results), "Where a step's time goes"
    words = "Time of a step: the three ops of its layers, and everything else by phase."
    chart = _chart("step_time", lambda: step_time(results), words, "step_time.csv")
    table = Table("step_time", rows, "Its numbers", folded=True, headings=OF_TIME)
    yield Section(title, charts=[chart], tables=[table])
    functions = everything_else.by_function(results)
    words = f"By phase and function, {span_of(results)} added up; shares are of the step's time"
    table = Table("everything_else", functions, words, headings=OF_TIME)
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
) -> Iterator[Section]:
    """Yield the section of a chart and its numbers, if there are any.

    They are folded if no text goes with them.
    """
    if rows:
        chart = Chart(name, draw, caption, f"{name}.csv")
        yield Section(title, text, [chart], [Table(name, rows, "Its numbers", folded=not text)])


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
