"""A whole run, as ``swatsim estimate --run-steps`` shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from swatsim.cli import as_json
from swatsim.cli.grid import Grid
from swatsim.cli.show import console, table
from swatsim.reports.estimate import ASSUMPTION
from swatsim.reports.remarks import of_step
from swatsim.reports.run_costs import TIME
from swatsim.reports.run_estimate import UNITS, RunEstimate
from swatsim.reports.run_phases import Phase
from swatsim.reports.run_words import QUANTITIES, count, duration, headline, times, within
from swatsim.reports.span import percent, span_of
from swatsim.reports.verdict import verdict
from swatsim.sampling import Estimate
from swatsim.workload.layer import OPERANDS

#: Of an estimate: its interval.
INTERVAL = ("+-", "95 %: from", "to")
#: What is said where an interval is missing for that reason.
ALIKE = (
    "alike: all recorded {} are the same in this, which tells nothing of how the others differ: "
    "there is no interval."
)
TOTALS = ("", "total", *INTERVAL, "a step", "an image", "more steps to halve it")
EXPENDABLE = ("more steps to halve it", "an image", "a step")
PHASES = (
    *("phase", "steps", "of the run", "recorded", *OPERANDS),
    *("a step", "speed-up", "of the time"),
)
PHASES_EXPENDABLE = (*OPERANDS, "recorded")
#: Ratios that come first.
FIRST = ("speed_up", "speed_up_layers", "elsewhere")


def print_run(run: RunEstimate, following: str, whole: bool) -> None:
    """Print a run: its totals in a sentence and what bounds a step first.

    `following` is a command to go on with; `whole`: every column.
    """
    out = console()
    for part in _parts(run, whole):
        out.print(part)
    out.say_what_was_dropped()
    out.print(f"Next: {following}")


def print_run_json(run: RunEstimate) -> None:
    """Print the same as one JSON object."""
    bound = verdict(run.results)
    as_json.write(
        "estimate",
        {
            "sentence": headline(run),
            "verdict": {**asdict(bound), "sentence": bound.sentence},
            "machine": run.machine,
            "baseline": run.against,
            "source": run.source,
            "run_steps": run.run_steps,
            "images_of_step": run.images_of_step,
            "share": run.share,
            "totals": run.rows,
            "phases": [{**asdict(phase), "name": phase.name} for phase in run.phases],
            "others_left_out": run.others_left_out,
            "notes": run.notes,
            "warnings": run.warnings,
        },
    )


def _parts(run: RunEstimate, whole: bool) -> Iterator[Any]:
    yield f"{headline(run)}."
    yield f"{verdict(run.results).sentence}.\n"
    yield _totals(run, whole)
    yield _phases(run, whole)
    yield f"From {run.source}."
    yield from (f"{remark}." for remark in of_step(run.results))
    yield from (f"{note}." for note in run.notes)
    yield f"{ASSUMPTION} Variances are those of successive differences; Student's t."
    if any(it.alike for part in (run.ours, run.baseline, run.ratios) for it in part.values()):
        yield ALIKE.format("steps")
    yield from (f"warning: {warning}." for warning in run.warnings)


def _totals(run: RunEstimate, whole: bool) -> Grid:
    what = span_of(run.results).of_what
    layers = ", layers alone" if run.others_left_out else ""
    title = (
        f"{run.machine} against {run.against}: a run of {run.run_steps} steps, added up, of "
        f"{run.images_of_step} image{'s' * (run.images_of_step != 1)} each"
        f"{what and f', {what}'}{layers}"
    )
    return table(title, TOTALS, _rows(run), left=1, expendable=() if whole else EXPENDABLE)


def _rows(run: RunEstimate) -> Iterator[list[str]]:
    ratios = {name: run.ratios[name] for name in (*FIRST, *run.ratios) if name in run.ratios}
    for prefix, values in (("", run.ours), ("", ratios), ("baseline's ", run.baseline)):
        if values is not run.ours:
            yield []
        for name, value in values.items():
            words, write = QUANTITIES[name]
            means = (run.run_steps, run.images) if name in UNITS else ()
            each = [write(value.value / many) for many in means] or ["-", "-"]
            more = "-" if value.more is None else str(value.more)
            yield [_with_vector_unit(prefix + words, run), *cells(value, write), *each, more]


def _with_vector_unit(words: str, run: RunEstimate) -> str:
    of_both = "compute" in words and not run.others_left_out
    return f"{words}, PEs and vector unit" if of_both else words


def cells(estimate: Estimate, write: Callable[[float], str]) -> list[str]:
    """Return an estimate and its interval as texts."""
    known = estimate.known
    ends = (write(end) if known else within(estimate) for end in (estimate.low, estimate.high))
    return [write(estimate.value), within(estimate), *ends]


def _phases(run: RunEstimate, whole: bool) -> Grid:
    title = (
        "Phases, cut where that was stated and where the recorded level jumps; "
        f"{', '.join(OPERANDS)}: share of values that are not zero"
    )
    rows = (_phase(phase, run) for phase in run.phases)
    return table(title, PHASES, rows, left=2, expendable=() if whole else PHASES_EXPENDABLE)


def _phase(phase: Phase, run: RunEstimate) -> list[str]:
    densities = (phase.density.get(operand) for operand in OPERANDS)
    return [
        phase.name,
        f"{phase.first}..{phase.last}",
        percent(phase.size / run.run_steps),
        str(len(phase.steps)),
        *("-" if it is None else percent(it) for it in densities),
        duration(phase.time) if TIME in run.ours else f"{count(phase.time)} cycles",
        times(phase.speed_up),
        percent(phase.share),
    ]
