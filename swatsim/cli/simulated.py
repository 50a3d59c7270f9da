"""What ``swatsim simulate`` does and shows."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from math import isfinite, isnan
from pathlib import Path
from typing import Any

from swatsim.cli import as_json
from swatsim.cli.drawing import plots_of
from swatsim.cli.foreseen import announcing
from swatsim.cli.options import parse
from swatsim.cli.progress import progress
from swatsim.cli.show import console, count, joules, padded, percent, table, times
from swatsim.cli.simulated_all import ALL_OPS, ELSE, WHOLE, everything, word_of
from swatsim.cli.stored import looking
from swatsim.outputs import write_files
from swatsim.reports import (
    differences,
    everything_else,
    gpu_time,
    labels,
    page_tables,
    patterns,
    tables,
)
from swatsim.reports.costliest import costliest
from swatsim.reports.rates import rates, watts
from swatsim.reports.remarks import remarks
from swatsim.reports.span import span_of
from swatsim.reports.tables import Row, Summary, summarise
from swatsim.reports.verdict import verdict
from swatsim.simulator.machines import machine
from swatsim.simulator.run import simulate
from swatsim.store import Store
from swatsim.workload.layer import OPS
from swatsim.workload.phases import OTHER

#: Rows of what costs most.
MOST = 10
#: Remarks that are shown without --all.
REMARKS = 3


@dataclass(frozen=True)
class Simulated:
    """Results, and the files that they were written to."""

    results: Summary
    folder: str | None
    written: Sequence[Path]


def run(
    trace: str,
    name: str,
    settings: tuple[str, ...],
    plots: Sequence[str],
    output: str | None,
    choice: Mapping[str, Any],
) -> Simulated:
    """Simulate, and write what is to be written, the plots of some names among it."""
    options = dict(choice)
    dtype = options.pop("dtype")
    chosen = machine(name, **parse((*settings, f"dtype={dtype}") if dtype else settings))
    if dtype and options["baseline"]:
        options["baseline"] = machine(options["baseline"], dtype=dtype)
    with looking(options.pop("store")) as store, progress("simulating", "ops") as show:
        options |= {"progress": show, "announce": announcing(store), "store": store}
        results = simulate(trace, chosen, **options)
    summary, written = summarise(results), list[Path]()
    if output is not None:
        # saved before anything is drawn or printed: no fault of a plot, and no reader of the
        # output that goes away, costs a number
        written = results.save(output)
        kept_in = store if isinstance(store, Store) else None
        written += write_files(Path(output), plots_of(summary, plots, kept_in))
    return Simulated(summary, output, written)


def print_all(done: Simulated, whole: bool) -> None:
    """Print tables and sentences: the verdict and a step's totals first, what costs most.

    `whole`: and all the rest.
    """
    out = console()
    for part in chain(_first(done.results, whole), _rest(done.results, whole)):
        out.print(part)
    remarks_left = 0 if whole else max(0, len(sentences(done.results)) - REMARKS)
    out.say_what_was_dropped([f"{remarks_left} more remarks"] if remarks_left else [])
    out.print(_next(done))


def print_json(done: Simulated, whole: bool) -> None:
    """Print the same as one JSON object; `whole`: and a row a layer and op with all of it."""
    results, span = done.results, span_of(done.results)
    found: dict[str, Any] = {
        "machine": results.rows[0]["machine"],
        "baseline": tables.baseline_of(results),
        "trace": results.rows[0]["trace"],
        **span.columns,
        "verdict": {**asdict(verdict(results)), "sentence": verdict(results).sentence},
        "step": {**rates(results.ops[-1], span.steps, span.images), **page_tables.ratios(results)},
        "baseline_step": rates(results.ops[-1]["baseline"], span.steps, span.images),
        "totals": [_as_total(row) for row in (*results.ops[:-1], results.of_layers)],
        "costs": costliest(results),
        "remarks": sentences(results),
        "warnings": differences.against_baseline(results),
        "written": done.written,
    }
    if whole:
        found["layers"] = page_tables.layers(results)
        found["everything_else"] = everything_else.by_function(results)
    as_json.write("simulate", found)


def _as_total(row: Row) -> Row:
    steps, names = row["steps"], ("time_ms", "energy_pj")
    ours, theirs = (tables.per_step(one, steps) for one in (row, row["baseline"]))
    own = {name: row[name] for name in page_tables.RATIOS}
    return {
        "op": row["op"],
        **ours,
        **{f"baseline_{name}": theirs[name] for name in names},
        **own,
    }


# ---- what a step takes, and why ------------------------------------------------------------------

#: What is said of all energies in a table.
LEAKAGE = "energy without leakage"
#: Headings of totals; where there is no room, those of `EXPENDABLE` go, the first one first.
TOTALS = (
    *("op", "ms", "baseline ms", "speed-up", "with no zero", "zeros add"),
    *("of the ideal", "energy", "baseline's energy"),
)
EXPENDABLE = ("baseline's energy", "with no zero", "of the ideal", "zeros add")


def _first(results: Summary, whole: bool) -> Iterator[Any]:
    """Yield what was run, the verdict, a step's totals, and what costs most."""
    name, baseline = results.rows[0]["machine"], tables.baseline_of(results)
    sizes = " against ".join(tables.sizes_of(results))
    yield f"{name} against {baseline} ({sizes}); {tables.source_of(results)}"
    yield f"{of_a_step(results)}\n{verdict(results).sentence}.\n"
    over = [f"over {name}" for name in tables.alternatives_of(results)]
    expendable = () if whole else (*over, *EXPENDABLE)
    unit = "" if results.ops[-1]["clock_mhz"] else "; without a clock, ms are 1000 cycles"
    title = f"Totals of {span_of(results).subject} ({span_of(results).mean}{unit}; {LEAKAGE})"
    yield table(title, (*TOTALS, *over), _total_rows(results), left=1, expendable=expendable)
    if words := in_words(results):
        yield f"{words}\n"
    yield _costliest(results, whole)


def of_a_step(results: Summary) -> str:
    """Return in words what one step takes, on the machine and on its baseline, and the ratio."""
    total, span = results.ops[-1], span_of(results)
    costs = []
    for row in (total, total["baseline"]):
        step = tables.per_step(row, span.steps)
        cycles = f"{count(step['cycles'])} cycles"
        time = labels.shown("time_ms", step["time_ms"]) if row["clock_mhz"] else cycles
        energy = "" if step["energy_pj"] is None else f" and {joules(step['energy_pj'])}"
        energy += " without leakage" if energy and row is total else ""
        costs.append(time + energy)
    of_what = span.of_what and f" ({span.of_what})"
    if results.phases:
        faster = f"{page_tables.of_step(page_tables.ratios(results))}{of_what}"
    else:
        faster = times(total["speed_up"]) + of_what
    who, takes = ("A step", "takes") if not span.left_out else ("A step's layers", "take")
    return f"{who} ({span.mean}) {takes} {costs[0]}; of the baseline {costs[1]}: {faster}."


def _total_rows(results: Summary) -> Iterator[list[str]]:
    """Yield each op, and all of them; then everything else, and the whole step."""
    *ops, whole = results.ops
    yield from (_total_row(row["op"], row) for row in ops if row["op"] in OPS)
    yield _total_row(ALL_OPS, results.of_layers)
    if results.phases:
        (other,) = (row for row in ops if row["op"] == OTHER)
        yield _total_row(ELSE, other, of_layers=False)
        yield _total_row(WHOLE, whole, of_layers=False)


def _total_row(name: str, row: Row, *, of_layers: bool = True) -> list[str]:
    """Return what a mean step of a total takes; of what is not of layers, no share of zeros."""
    energies = (_energy(one) for one in (row, row["baseline"]))
    zeros = [times(row["speed_up_dense_operands"]), times(row["speed_up_zeros"])]
    ideal = percent(row["of_ideal"])
    return [
        name,
        *(_time(one) for one in (row, row["baseline"])),
        times(row["speed_up"]),
        *((*zeros, ideal) if of_layers else ("-",) * 3),
        *energies,
        *(times(value) for value in row["speed_ups_alternative"].values()),
    ]


def _time(row: Row) -> str:
    step = tables.per_step(row, row["steps"])
    return padded(step["time_ms"] if row["clock_mhz"] else step["cycles"] / 1000)


def _energy(row: Row) -> str:
    energy = tables.per_step(row, row["steps"])["energy_pj"]
    return "-" if energy is None else joules(energy)


def in_words(results: Summary) -> str:
    """Return what a step takes by the image, the second and the watt; "" where it has no clock."""
    span, total = span_of(results), results.ops[-1]
    found = rates(total, span.steps, span.images)
    if not isfinite(found["images_per_s"]):
        return ""
    words = f"{padded(found['ms_per_image'])} ms an image, {padded(found['images_per_s'])} a second"
    if power := watts(found):
        energy = joules(found["energy_pj_per_image"])
        words += f"; {energy} an image without leakage; {power}"
    if not isnan(found["power_w"]):
        dense, effectual = (padded(found[f"tops_per_w_{of}"]) for of in ("dense", "effectual"))
        words += f": {dense} TOPS/W of the dense step, {effectual} effectual"
    if not isnan(found["area_mm2"]):
        words += f"; about {labels.shown('area_mm2', found['area_mm2'])}"
    return f"{words}."


#: Of what costs most: headings, and those that go first where there is no room.
COSTS = (
    *("layer or function", "op", "ms", "share", "adds up to", "speed-up", "lost to"),
    *("of the ideal", "energy", "baseline ms"),
)
COSTS_EXPENDABLE = ("baseline ms", "of the ideal", "energy", "lost to", "adds up to")


def _costliest(results: Summary, whole: bool) -> Any:
    rows = costliest(results)
    shown = rows if whole else rows[:MOST]
    ops = f"{len(results.layers)} ops"
    if others := len(rows) - len(results.layers):
        ops += f" and {others} other function{'s' * (others != 1)}"
    what = f"{MOST} of {ops} (--all)" if len(shown) < len(rows) else ops
    title = f"What costs most of {span_of(results).subject}: {what}"
    title += f"; {LEAKAGE}" if whole else ""
    cells = (_cost(row) for row in shown)
    return table(title, COSTS, cells, left=2, expendable=() if whole else COSTS_EXPENDABLE)


def _cost(row: Row) -> list[str]:
    time, theirs = row["time_ms"], row["baseline_time_ms"]
    if isnan(time):
        time, theirs = row["cycles"] / 1000, row["baseline_cycles"] / 1000
    shares = percent(row["share"]), percent(row["share_up_to_here"])
    lost = word_of(row["lost_most_to"]) if row["lost_most_to"] else "-"
    ideal = "-" if row["of_ideal"] is None else percent(row["of_ideal"])
    energy = "-" if row["energy_pj"] is None else joules(row["energy_pj"])
    faster = times(row["speed_up"]) if row["baseline_cycles"] else "-"
    own = [padded(time), *shares, faster, lost, ideal, energy]
    return [row["layer"], "else" if row["op"] == OTHER else row["op"], *own, padded(theirs)]


# ---- what else there is to say -------------------------------------------------------------------


def _rest(results: Summary, whole: bool) -> Iterator[str]:
    """Yield the tables of everything, if asked for; sentences, those that matter most first."""
    if whole:
        yield from everything(results)
    said = sentences(results)
    shown = said if whole else said[:REMARKS]
    yield from (f"{sentence}." for sentence in shown)
    yield from (f"warning: {warning}." for warning in differences.against_baseline(results))


def sentences(results: Summary) -> list[str]:
    """Return what else is to be said, those sentences first that matter most."""
    method = page_tables.of_method(page_tables.ratios(results))
    layers, whose = results.of_layers, "The layers are at" if results.phases else "That is"
    ideal = (
        f"{whose} {percent(layers['of_ideal'])} of the ideal; without the memory system it would "
        f"be {percent(layers['of_ideal_compute'])}"
    )
    what = f"Of the ideal{', layers alone' if results.phases else ''}: {tables.OF_IDEAL}"
    found = (
        *gpu_time.sentences(results),
        method,
        *remarks(results),
        page_tables.of_outputs(results),
        patterns.in_words(results),
        page_tables.due_to_zeros(results.of_layers, span_of(results).of_what),
        ideal,
        what,
    )
    return [sentence for sentence in found if sentence]


def _next(done: Simulated) -> str:
    """Return what was written, and the command that comes next."""
    if done.folder is None:
        return "Next: with -o FOLDER, swatsim report and swatsim compare can read the results."
    names = ", ".join(path.name for path in done.written)
    return f"\nwrote {done.folder}: {names}\nNext: swatsim report {shlex.quote(done.folder)}"
