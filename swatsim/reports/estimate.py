"""The whole run from a few recorded steps: totals and speed-ups with confidence intervals.

`swatsim.course` has the formulas and where they come from, `caveats` what the intervals don't know.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from swatsim.arguments import arguments, instance_of, maybe, several, whole_number
from swatsim.columns import Role
from swatsim.course import Course, jumps
from swatsim.errors import ResultsError, shown
from swatsim.reports.caveats import caveats
from swatsim.reports.policy_phases import policy_of, with_those_of
from swatsim.reports.run_costs import TIME, SeenOf, Series, by_steps, constant, costs
from swatsim.reports.run_estimate import THROUGHPUT, UNITS, RunEstimate
from swatsim.reports.run_phases import phases, products_of
from swatsim.reports.span import span_of
from swatsim.reports.tables import Summary, baseline_of, first_of, label_of, source_of, summarise
from swatsim.results import Results
from swatsim.sampling import Estimate
from swatsim.table import column_of

ASSUMPTION = (
    "Assumed: steps scatter by chance about a level that goes from each recorded step's to the "
    "next one's, at any place between;\nbefore the first and after the last one it stays."
)
#: What is estimated as the baseline's column by ours.
RATIOS = {
    "speed_up": TIME,
    "speed_up_compute": "cycles_compute",
    "energy_efficiency": "energy_pj",
}
_Costs = Mapping[str, Series]

#: More steps no run has; a trace can't number them.
MOST_STEPS = 2**63


@arguments(
    ResultsError,
    results=instance_of(Results),
    run_steps=whole_number,
    strata=maybe(whole_number),
    cuts=several(whole_number, "whole numbers, the first steps of phases"),
)
def estimate(
    results: Results, run_steps: int, strata: int | None = None, cuts: Sequence[int] = ()
) -> RunEstimate:
    """Return estimates of a run's time, energy and speed-up, from its recorded steps.

    A recorded step stands for the steps of the run 0 .. run_steps-1 that lie nearest to it. Steps
    that follow one another tell how steps differ: intervals hold where the run drifts, and where
    its level changes between recorded steps. Where it jumps, in the share of products that have no
    zero or in the machine's cycles, the run is cut into phases, so that one jump does not pass for
    a scatter of all steps.

    There is no interval (it is not a number) if one step was recorded, or all that were are alike.
    If all steps are recorded the totals are exact, and the intervals have no width. `warnings` says
    what an interval can't know: ends that were not recorded, steps that see one phase of the
    policy's period.

    The costs are of the images that the trace holds: `swatsim.estimate_run` has whole batches.

    Parameters
    ----------
    results : Results
        Of one machine and its baseline on one trace.
    run_steps : int
        Steps of the whole run, counted from 0; below 2**63.
    strata : int, optional
        Jumps that nobody stated cut the run into so many phases at most, the largest ones; 1: they
        don't. By default at all jumps.
    cuts : sequence of int, optional
        First steps of phases, such as 120 of a run that is dense for 120 steps and sparse then.
        There the run is cut exactly: steps before it are like the recorded one before it. So it is
        where the run's policy changes (`swatsim.policies.Phased`).

    Returns
    -------
    RunEstimate

    Raises
    ------
    ResultsError
        If there are no rows of a machine or of its baseline, they don't belong together, the run
        is shorter than what is recorded of it, there can't be so many strata, or a phase has no
        recorded step.
    """
    return of_batches(results, run_steps, strata, cuts)


def of_batches(
    results: Results,
    run_steps: int,
    strata: int | None = None,
    cuts: Sequence[int] = (),
    seen: SeenOf | None = None,
    notes: Sequence[str] = (),
) -> RunEstimate:
    """Return the same of results whose steps are themselves estimated from some of their images.

    Parameters
    ----------
    results, run_steps, strata, cuts
        As in `estimate`.
    seen : mapping of int to sequence of Seen, optional
        By step, what images say of it. None: results are exact.
    notes : sequence of str
        How they came about.
    """
    _check_roles(results)
    results = summarise(results)
    steps = sorted({*map(int, column_of(results.rows, "step"))})
    size, most, stated = checked_run(run_steps, steps, strata, cuts)
    placed = with_those_of(policy_of(results), stated, steps, size)
    ours, theirs = (
        costs(results.all_of(role), role, steps, seen or {})
        for role in (Role.MACHINE, Role.BASELINE)
    )
    layers = results.of_role(Role.MACHINE)
    series = [*_products(layers, steps), ours["cycles"].values]
    course = Course(size, tuple(steps), jumps(steps, series, most - 1, placed), placed)
    images = _images(results, steps)
    totals, others = (
        {**_totals(found, course), **_throughput(found, course, images)} for found in (ours, theirs)
    )
    taken = "cycles" if TIME not in {*ours} & {*theirs} else TIME
    return RunEstimate(
        run_steps=size,
        images=course.total(images).value,
        images_of_step=max(images),
        machine=label_of(first_of(results, Role.MACHINE)),
        against=baseline_of(results),
        source=source_of(results),
        phases=phases(
            course, layers, (ours[taken].values, theirs[taken].values), policy_of(results)
        ),
        ours=totals,
        baseline=others,
        ratios={
            **_ratios(course, ours, theirs, _faster(results)),
            **_of_parts(results, course, seen or {}),
        },
        share=results.share,
        warnings=tuple(caveats(results, course, {it: totals[it] for it in UNITS if it in totals})),
        results=results,
        notes=tuple(notes),
        others_left_out=span_of(results).left_out,
    )


def checked_run(
    run_steps: int, steps: Sequence[int], strata: int | None, cuts: Sequence[int]
) -> tuple[int, int, dict[int, int]]:
    """Return a run's size, its strata at most, and stated cuts by the gap that each lies in.

    Raises
    ------
    ResultsError
        As `estimate` does, of what is not allowed with these recorded steps.
    """
    recorded = sorted(steps)
    size, most = _checked_run_steps(run_steps, recorded), _checked_strata(strata, len(recorded))
    return size, most, _placed(cuts, recorded, size)


def _totals(found: _Costs, course: Course) -> dict[str, Estimate]:
    return {name: found[name].total(course) for name in UNITS if name in found}


def _throughput(found: _Costs, course: Course, images: Sequence[int]) -> dict[str, Estimate]:
    if TIME not in found:
        return {}
    per_second = constant([1000.0 * many for many in images], found[TIME])
    return {THROUGHPUT: per_second.over(found[TIME], course)}


def _images(results: Summary, steps: Sequence[int]) -> list[int]:
    """Return how many images each step's figures are of."""
    by_step = by_steps(results.rows)
    return [max(column_of(by_step[step], "samples")) for step in steps]


def _faster(results: Summary) -> float:
    """Return by how much the machine's clock is faster; 1 where one is not known."""
    ours, theirs = (
        first_of(results, role).get("clock_mhz") for role in (Role.MACHINE, Role.BASELINE)
    )
    return ours / theirs if ours and theirs else 1.0


def _ratios(course: Course, ours: _Costs, theirs: _Costs, faster: float) -> dict[str, Estimate]:
    """Return the baseline's by ours: of what is in cycles by their clocks, so that it is time."""
    found = {}
    for name, column in RATIOS.items():
        known = column if column in {*ours} & {*theirs} else "cycles" if name == "speed_up" else ""
        if known in ours and known in theirs:
            scale = faster if known.startswith("cycles") else 1.0
            found[name] = theirs[known].over(ours[known], course).times(scale)
    return found


def _of_parts(results: Summary, course: Course, seen: SeenOf) -> dict[str, Estimate]:
    """Return the ratios that tell a step's layers from everything else; none without that."""
    if not results.phases:
        return {}
    machine, baseline = Role.MACHINE, Role.BASELINE
    ours, theirs = (
        costs(results.of_role(role), role, course.steps, seen)["cycles"]
        for role in (machine, baseline)
    )
    whole = costs(results.all_of(baseline), baseline, course.steps, seen)["cycles"]
    pairs = zip(whole.values, theirs.values, strict=True)
    elsewhere = constant([all_ - layers for all_, layers in pairs], whole)
    return {
        "speed_up_layers": theirs.over(ours, course).times(_faster(results)),
        "elsewhere": elsewhere.over(whole, course),
    }


def _products(rows: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> list[list[float]]:
    """Return each step's share of products without a zero: one series, or none if not known."""
    by_step = by_steps(rows)
    found = [products_of(by_step[step]) for step in steps]
    return [found] if not any(map(isnan, found)) else []


def _check_roles(results: Results) -> None:
    roles = {*column_of(results.rows, "role")}
    for role in (Role.MACHINE, Role.BASELINE):
        if role not in roles:
            held = ", ".join(sorted(map(repr, roles))) or "none"
            raise ResultsError(
                f"the results hold no rows of role {role.value!r}, only {held}: an estimate needs "
                "a machine's and its baseline's; simulate again"
            )


def _checked_run_steps(run_steps: int, steps: Sequence[int]) -> int:
    least = steps[-1] + 1
    if not least <= run_steps < MOST_STEPS:
        raise ResultsError(
            f"run_steps={shown(run_steps)} is not allowed: must be a whole number of at least "
            f"{least}, since step {steps[-1]} was recorded, and below 2**63; give the number of "
            "steps of the whole run",
            of_argument=True,
        )
    return run_steps


def _checked_strata(strata: int | None, recorded: int) -> int:
    if strata is None:
        return recorded
    if not 1 <= strata <= recorded:
        raise ResultsError(
            f"strata={shown(strata)} is not allowed: must be a whole number from 1 to {recorded}, "
            "since each has a recorded step; leave it out to cut at every jump",
            of_argument=True,
        )
    return strata


def _placed(cuts: Sequence[int], steps: Sequence[int], size: int) -> dict[int, int]:
    """Return the stated cuts by the gap between two recorded steps that each lies in."""
    found: dict[int, int] = {}
    for cut in sorted(set(cuts)):
        gap = bisect_right(steps, cut - 1) - 1
        if not 0 < cut < size:
            raise ResultsError(
                f"cuts={shown(cut)} is not allowed: must be a step from 1 to {size - 1}, the first "
                "one of a phase of the run",
                of_argument=True,
            )
        before, after = found.get(gap), gap == len(steps) - 1
        if gap < 0 or after or before is not None:
            first = before or (cut if after else 0)
            last = (size if after else cut) - 1
            raise ResultsError(
                f"cuts={shown(cut)} is not allowed: no step of the phase {first}..{last} was "
                "recorded, so nothing tells what it takes; record one of it, or cut elsewhere",
                of_argument=True,
            )
        found[gap] = cut
    return found
