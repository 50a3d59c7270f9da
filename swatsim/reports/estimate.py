"""The whole run from a few recorded steps: totals and speed-ups with confidence intervals.

`swatsim.course` has the formulas and where they come from, `caveats` what the intervals don't know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import fsum
from typing import Any

from swatsim.arguments import arguments, instance_of, maybe, whole_number
from swatsim.columns import Role
from swatsim.course import Course, jumps
from swatsim.errors import ResultsError, shown
from swatsim.reports.caveats import caveats
from swatsim.reports.span import span_of
from swatsim.reports.tables import Summary, summarise
from swatsim.results import Results
from swatsim.sampling import Estimate

ASSUMPTION = (
    "Assumed: steps scatter by chance about a level that goes from each recorded step's to the "
    "next one's, at any place between;\nbefore the first and after the last one it stays."
)
#: Columns of the results that are estimated.
COLUMNS = ("cycles", "cycles_compute", "energy_pj")
#: What is estimated as the baseline's column by ours.
RATIOS = {
    "speed_up": "cycles",
    "speed_up_compute": "cycles_compute",
    "energy_efficiency": "energy_pj",
}
Rows = Sequence[Mapping[str, Any]]
_Columns = Mapping[str, Sequence[float]]

#: More steps no run has; a trace can't number them.
MOST_STEPS = 2**63


@dataclass(frozen=True)
class Piece:
    """A stratum, between two jumps of level: its first and last step, and which were recorded."""

    first: int
    last: int
    steps: tuple[int, ...]

    @property
    def size(self) -> int:
        """Steps of the stratum."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class RunEstimate:
    """What a whole training run costs, as far as its recorded steps tell.

    Parameters
    ----------
    run_steps : int
        Steps of the run.
    strata : tuple of Piece
        How it was cut: where the recorded level jumps, halfway between two recorded steps. The
        intervals know that it may have jumped anywhere between the two.
    ours, baseline : dict of str to Estimate
        By column: `cycles`, `cycles_compute` (cycles), `energy_pj` (pJ; missing where a machine's
        energy is not known).
    ratios : dict of str to Estimate
        The baseline's by ours: `speed_up`, `speed_up_compute`, `energy_efficiency`. Where results
        have everything that a step does, `speed_up_layers` too, of its layers alone, and
        `elsewhere`: of the baseline's cycles the share that is not in layers.
    share : float or None
        Of all that the recorded steps multiplied, what the results, and so the totals, are of;
        None: it is not known.
    warnings : tuple of str
        Why not to trust the intervals, and what is not in the totals.
    others_left_out : str
        Why the totals are of layers alone; "": they are of all that a step does.
    """

    run_steps: int
    strata: tuple[Piece, ...]
    ours: dict[str, Estimate]
    baseline: dict[str, Estimate]
    ratios: dict[str, Estimate]
    share: float | None
    warnings: tuple[str, ...]
    others_left_out: str = ""

    @property
    def recorded(self) -> int:
        """Steps of the run that were recorded."""
        return sum(len(piece.steps) for piece in self.strata)


@arguments(
    ResultsError, results=instance_of(Results), run_steps=whole_number, strata=maybe(whole_number)
)
def estimate(results: Results, run_steps: int, strata: int | None = None) -> RunEstimate:
    """Return estimates of a run's cycles, energy and speed-up, from its recorded steps.

    A recorded step stands for the steps of the run 0 .. run_steps-1 that lie nearest to it. Steps
    that follow one another tell how steps differ: intervals hold where the run drifts, and where
    its level changes between recorded steps. Where it jumps, in the share of products that have no
    zero or in the machine's cycles, the run is cut into strata, so that one jump does not pass for
    a scatter of all steps.

    There is no interval (it is not a number) if one step was recorded, or all that were are alike.
    If all steps are recorded the totals are exact, and the intervals have no width. `warnings` says
    what an interval can't know: ends that were not recorded, steps that see one phase of the
    policy's period.

    The costs are of the images that the trace holds: see `swatsim.estimate_images` for the others.

    Parameters
    ----------
    results : Results
        Of one machine and its baseline on one trace.
    run_steps : int
        Steps of the whole run, counted from 0; below 2**63.
    strata : int, optional
        At most so many, cut at the largest jumps; 1 leaves the run whole. By default at all jumps.

    Returns
    -------
    RunEstimate

    Raises
    ------
    ResultsError
        If there are no rows of a machine or of its baseline, they don't belong together, the run
        is shorter than what is recorded of it, or there can't be so many strata.
    """
    _check_roles(results)
    results = summarise(results)
    steps = sorted({int(row["step"]) for row in results.rows})
    size = _checked_run_steps(run_steps, steps)
    most = _checked_strata(strata, len(steps))
    ours, theirs = (_columns(results.all_of(role), steps) for role in (Role.MACHINE, Role.BASELINE))
    cuts = jumps(
        steps, [*_effectual(results.of_role(Role.MACHINE), steps), ours["cycles"]], most - 1
    )
    course = Course(size, tuple(steps), cuts)
    totals = {name: course.total(values) for name, values in ours.items()}
    return RunEstimate(
        run_steps=size,
        strata=pieces(course),
        ours=totals,
        baseline={name: course.total(values) for name, values in theirs.items()},
        ratios={**_ratios(course, ours, theirs), **_of_parts(results, course, theirs["cycles"])},
        share=results.share,
        warnings=tuple(caveats(results, course, totals)),
        others_left_out=span_of(results).left_out,
    )


def _ratios(course: Course, ours: _Columns, theirs: _Columns) -> dict[str, Estimate]:
    shared = {name: column for name, column in RATIOS.items() if column in {*ours} & {*theirs}}
    return {name: course.ratio(theirs[column], ours[column]) for name, column in shared.items()}


def _of_parts(results: Summary, course: Course, whole: Sequence[float]) -> dict[str, Estimate]:
    """Return the ratios that tell a step's layers from everything else; none without that."""
    if not results.phases:
        return {}
    ours, theirs = (
        _columns(results.of_role(role), course.steps)["cycles"]
        for role in (Role.MACHINE, Role.BASELINE)
    )
    elsewhere = [all_ - layers for all_, layers in zip(whole, theirs, strict=True)]
    return {
        "speed_up_layers": course.ratio(theirs, ours),
        "elsewhere": course.ratio(elsewhere, whole),
    }


def pieces(course: Course) -> tuple[Piece, ...]:
    """Return a run's strata, cut at its jumps, halfway between two recorded steps."""
    bounds = [0, *(i + 1 for i in sorted(course.cuts)), len(course.steps)]
    inner = [(course.steps[at - 1] + course.steps[at]) // 2 + 1 for at in bounds[1:-1]]
    edges = pairwise([0, *inner, course.size])
    parts = (course.steps[a:b] for a, b in pairwise(bounds))
    return tuple(
        Piece(first, end - 1, some) for (first, end), some in zip(edges, parts, strict=True)
    )


def _columns(rows: Rows, steps: Sequence[int]) -> dict[str, list[float]]:
    """Return each step's sums over ops, by column; one that is not known of all is left out."""
    by_step = _by_step(rows)
    return {
        name: [fsum(row[name] for row in by_step[step]) for step in steps]
        for name in COLUMNS
        if all(row[name] is not None for rows in by_step.values() for row in rows)
    }


def _effectual(rows: Rows, steps: Sequence[int]) -> list[list[float]]:
    """Return each step's share of products without a zero: one series, or none if not known."""
    by_step = _by_step(rows)
    names = ("macs_effectual", "macs_dense")
    sums = [[sum(row.get(name) or 0 for row in by_step[step]) for name in names] for step in steps]
    return [[some / all_ for some, all_ in sums]] if all(all_ for _, all_ in sums) else []


def _by_step(rows: Rows) -> dict[int, list[Mapping[str, Any]]]:
    found: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["step"], []).append(row)
    return found


def _check_roles(results: Results) -> None:
    roles = {row["role"] for row in results.rows}
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
            "steps of the whole run"
        )
    return run_steps


def _checked_strata(strata: int | None, recorded: int) -> int:
    if strata is None:
        return recorded
    if not 1 <= strata <= recorded:
        raise ResultsError(
            f"strata={shown(strata)} is not allowed: must be a whole number from 1 to {recorded}, "
            "since each has a recorded step; leave it out to cut at every jump"
        )
    return strata
