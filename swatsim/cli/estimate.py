"""``swatsim estimate``: the whole run from a few steps, the whole batch from a few images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from swatsim.cli.options import PRESETS, SETTINGS, parse
from swatsim.cli.progress import progress
from swatsim.cli.show import console, count, joules, table, times
from swatsim.columns import Role
from swatsim.errors import ConfigError
from swatsim.reports.estimate import ASSUMPTION, RunEstimate
from swatsim.reports.estimate import estimate as of_run
from swatsim.reports.remarks import of_step
from swatsim.reports.span import MOST, percent, span_of
from swatsim.reports.tables import baseline_of, first_of, label_of, source_of
from swatsim.results import Results, load
from swatsim.sampling import Estimate

if TYPE_CHECKING:
    from swatsim.simulator.images import ImagesEstimate, OpEstimate

#: Of an estimate: its interval.
INTERVAL = ("+-", "95 %: from", "to")
#: What is said where an interval is missing for that reason.
ALIKE = (
    "alike: all recorded {} are the same in this, which tells nothing of how the others differ: "
    "there is no interval."
)


@click.command()
@click.argument("source", metavar="RESULTS_OR_TRACE", type=click.Path())
@click.option("--run-steps", type=int, metavar="TOTAL", help="Steps of the whole run.")
@click.option(
    "--strata",
    type=int,
    help="Cut the run at its largest jumps of level only, into at most so many strata; 1: never.",
)
@click.option("--images", is_flag=True, help="Whole batches from the recorded images of a trace.")
@click.option("-m", "--machine", "name", help="With --images, a preset: {known}.", **PRESETS)
@SETTINGS
@click.option("--step", "steps", type=int, multiple=True, help="With --images: only this step.")
def estimate(
    source: str,
    run_steps: int | None,
    strata: int | None,
    images: bool,
    name: str | None,
    settings: tuple[str, ...],
    steps: tuple[int, ...],
) -> None:
    """Estimate a whole run, or whole batches.

    With --run-steps TOTAL: cycles, energy and speed-up of a run of TOTAL steps, from results that
    swatsim simulate -o wrote of some of them.

    With --images -m MACHINE: compute cycles of whole batches, from a trace that holds some images
    of each. Every image runs by itself.

    Both with 95 % confidence intervals, and with what they assume.
    """
    if images:
        _refuse("--images", {"--run-steps": run_steps, "--strata": strata})
        parts = _images(source, name, settings, steps)
    else:
        only = {"--machine": name, "--set": settings or None, "--step": steps or None}
        _refuse("an estimate of a run's steps, without --images,", only)
        parts = _run(source, run_steps, strata)
    out = console()
    for part in parts:
        out.print(part)


def _refuse(what: str, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"{name} is not allowed: {what} has none; leave it out")


def _run(folder: str, run_steps: int | None, strata: int | None) -> list[Any]:
    if run_steps is None:
        raise ConfigError(
            "neither --run-steps nor --images is given: --run-steps TOTAL estimates a run from "
            "results, --images -m MACHINE a batch from a trace"
        )
    results = load(folder)
    return list(_run_parts(results, of_run(results, run_steps, strata)))


def _run_parts(results: Results, run: RunEstimate) -> Iterator[Any]:
    what = span_of(results).of_what
    layers = ", layers alone" if run.others_left_out else ""
    title = (
        f"{_machine_of(results)} against {baseline_of(results)}: a run of {run.run_steps} steps, "
        f"added up, of {_images_of(results)} each{what and f', {what}'}{layers}"
    )
    yield table(title, ("", "estimate", *INTERVAL, "more steps to halve it"), _rows(run), left=1)
    strata = ", ".join(f"{p.first}..{p.last} ({_some(p.steps)})" for p in run.strata)
    yield f"From {source_of(results)}."
    yield from (f"{remark}." for remark in of_step(results))
    yield f"Strata, cut where the recorded level jumps, and the steps recorded in each: {strata}."
    yield f"{ASSUMPTION} Variances are those of successive differences; Student's t."
    if any(it.alike for part in (run.ours, run.baseline, run.ratios) for it in part.values()):
        yield ALIKE.format("steps")
    yield from (f"warning: {warning}." for warning in run.warnings)


def _images_of(results: Results) -> str:
    images = max(row["samples"] for row in results.rows)
    return "1 image" if images == 1 else f"{images} images"


def _machine_of(results: Results) -> str:
    return label_of(first_of(results, Role.MACHINE))


def _some(steps: tuple[int, ...], most: int = 6) -> str:
    """Return the numbers of some steps, or how many they are."""
    shown = ", ".join(map(str, steps[:most]))
    return shown if len(steps) <= most else f"{shown}, ..: {len(steps)} steps"


def _rows(run: RunEstimate) -> Iterator[list[str]]:
    unit = "" if run.others_left_out else ", PEs and vector unit"
    words: dict[str, tuple[str, Callable[[float], str]]] = {
        "cycles": ("cycles", count),
        "cycles_compute": (f"compute cycles{unit}", count),
        "energy_pj": ("energy", joules),
        "speed_up": ("speed-up", times),
        "speed_up_compute": (f"speed-up, compute only{unit}", times),
        "energy_efficiency": ("energy, the baseline's / this", times),
        "speed_up_layers": ("speed-up, layers alone", times),
        "elsewhere": ("of the baseline's time elsewhere", percent),
    }
    first = ("speed_up", "speed_up_layers", "elsewhere")
    ratios = {name: run.ratios[name] for name in (*first, *run.ratios) if name in run.ratios}
    for prefix, values in (
        ("", run.ours),
        ("baseline's ", run.baseline),
        ("", ratios),
    ):
        for name, value in values.items():
            label, write = words[name]
            yield [prefix + label, *_cells(value, write), _more(value)]
        yield []


def _cells(estimate: Estimate, write: Callable[[float], str]) -> list[str]:
    """Return an estimate and its interval as texts."""
    if not estimate.known:
        return [
            write(estimate.value),
            *["alike" if estimate.alike else "unknown"] * len(INTERVAL),
        ]
    within = _percent(estimate) if estimate.variance else "exact"
    return [write(estimate.value), within, write(estimate.low), write(estimate.high)]


def _percent(estimate: Estimate) -> str:
    share = 100 * estimate.half_width / estimate.value
    return f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"


def _more(estimate: Estimate) -> str:
    return "-" if estimate.more is None else str(estimate.more)


def _images(
    trace: str, name: str | None, settings: tuple[str, ...], steps: tuple[int, ...]
) -> list[Any]:
    # kernels, which an estimate from results does without
    from swatsim.simulator.images import estimate_images
    from swatsim.simulator.machines import machine

    if name is None:
        raise ConfigError("--images needs --machine NAME: see swatsim machines")
    chosen = machine(name, **parse(settings))
    with progress("simulating", "ops") as show:
        estimate = estimate_images(trace, chosen, steps=list(steps) or None, progress=show)
    return list(_images_parts(estimate))


def _images_parts(estimate: ImagesEstimate) -> Iterator[Any]:
    heads = ("compute cycles", *INTERVAL, "baseline", "speed-up", *INTERVAL)
    batches = " or ".join(map(str, sorted(set(estimate.batches.values()))))
    steps = len(estimate.batches)
    title = (
        f"{estimate.machine} against {estimate.baseline}: whole batches of {batches}, from "
        f"{estimate.images} images of each; {estimate.trace}, steps added up: {steps}"
    )
    if estimate.share is not None and estimate.share < MOST:
        title += (
            f", of the {percent(estimate.share)} of a step's multiplications that the trace holds"
        )
    yield table(title, ("layer", "op", "run", *heads), map(_op_row, estimate.ops), left=3)
    totals = (
        ["all ops" if row.op == "step" else row.op, *_op_row(row)[3:]] for row in estimate.totals
    )
    yield table("Totals over all layers and steps", ("op", *heads), totals, left=1)
    yield _of_share(estimate.share)
    yield from _remarks(estimate)


def _of_share(share: float | None) -> str:
    if share is None:
        return "What share of a step's multiplications the trace holds is not known."
    return f"The trace holds {percent(share)} of a step's multiplications."


def _op_row(row: OpEstimate) -> list[str]:
    cycles = [*_cells(row.cycles_compute, count), count(row.cycles_compute_baseline.value)]
    how = "by image" if row.by_image else "as a batch"
    return [row.layer or "", row.op, how, *cycles, *_cells(row.speed_up_compute, times)]


def _remarks(estimate: ImagesEstimate) -> Iterator[str]:
    from swatsim.simulator import images  # it is loaded by now

    step = estimate.totals[-1]
    of = (
        "Cycles are of computing layers alone, without buffers and DRAM; everything else that a "
        "step does is not in them."
    )
    yield f"{images.ASSUMPTION} Student's t. {of}"
    if not step.by_image:
        yield (
            "By image: a batch takes exactly the sum of what its images take. As a batch: images "
            "share the array, so the op ran\nwith the recorded ones repeated to fill it"
            f"{_left_out(step)}."
        )
    if step.cycles_compute.more is not None:
        yield f"{step.cycles_compute.more} more images, over all steps, halve the total's interval."
    if not step.agreed:
        ops = ", ".join(f"{row.layer} {row.op}" for row in estimate.ops if not row.agreed)
        yield (
            "warning: the recorded images differ in which operand is sparser, and all together "
            f"decide; the whole batch may decide otherwise, which no interval knows of: {ops}."
        )
    rows = (*estimate.ops, *estimate.totals)
    if any(row.cycles_compute.alike or row.speed_up_compute.alike for row in rows):
        yield ALIKE.format("images")
    if estimate.images == 1 and not step.cycles_compute.known:
        yield "warning: one image tells nothing of how much images differ: there is no interval."


def _left_out(step: OpEstimate) -> str:
    if not step.apart:
        return ", and would take as long with any others"
    of = f"{count(step.apart)} of {_count(step)} cycles in all"
    return f"; the intervals leave out how that varies: {of}"


def _count(row: OpEstimate) -> str:
    return count(row.cycles_compute.value)
