"""The whole run from a few recorded steps: totals and speed-ups with confidence intervals.

The recorded steps are taken for a stratified sample of the run: `swatsim.sampling` has the formulas
and where they come from.
"""

from __future__ import annotations

import operator
from bisect import bisect, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import fsum
from statistics import median
from typing import Any

from swatsim.arguments import arguments, instance_of, maybe, whole_number
from swatsim.errors import ResultsError
from swatsim.reports.tables import check_comparable
from swatsim.results import Results
from swatsim.sampling import Estimate, Stratum, ratio, total

ASSUMPTION = (
    "Assumed: within each stratum the recorded steps behave as a random sample of its steps."
)
#: Columns of the results that are estimated.
COLUMNS = ("cycles", "cycles_compute", "energy_pj")
#: What is estimated as the baseline's column by ours.
RATIOS = {
    "speed_up": "cycles",
    "speed_up_compute": "cycles_compute",
    "energy_efficiency": "energy_pj",
}

_Strata = list[Stratum]


@dataclass(frozen=True)
class Piece:
    """A stratum of the run: its first and its last step, and which of them were recorded."""

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
        How it was cut.
    ours, baseline : dict of str to Estimate
        By column: `cycles`, `cycles_compute` (cycles), `energy_pj` (pJ; missing where a machine's
        energy is not known).
    ratios : dict of str to Estimate
        The baseline's by ours: `speed_up`, `speed_up_compute`, `energy_efficiency`.
    warnings : tuple of str
        Why not to trust the intervals, and what is not in the totals.
    """

    run_steps: int
    strata: tuple[Piece, ...]
    ours: dict[str, Estimate]
    baseline: dict[str, Estimate]
    ratios: dict[str, Estimate]
    warnings: tuple[str, ...]

    @property
    def recorded(self) -> int:
        """Steps of the run that were recorded."""
        return sum(len(piece.steps) for piece in self.strata)


@arguments(
    ResultsError, results=instance_of(Results), run_steps=whole_number, strata=maybe(whole_number)
)
def estimate(results: Results, run_steps: int, strata: int | None = None) -> RunEstimate:
    """Estimate cycles, energy and speed-up of a whole run from its recorded steps.

    The run 0 .. run_steps-1 is cut into contiguous strata of at least two recorded steps each,
    halfway between neighbouring recorded steps. Intervals are right if the recorded steps of a
    stratum behave as a random sample of its steps: chosen by chance, or evenly spaced. From one
    step alone comes an estimate, but no interval: it is not a number. If all steps are recorded
    the totals are exact, and the intervals have no width.

    The costs are of the images that the trace holds: see `swatsim.estimate_images` for the others.

    Parameters
    ----------
    results : Results
        Of one machine and its baseline on one trace.
    run_steps : int
        Steps of the whole run, counted from 0.
    strata : int, optional
        By default as many as have two recorded steps each.

    Returns
    -------
    RunEstimate

    Raises
    ------
    ResultsError
        If there are no rows of a machine or of its baseline, they don't belong together, the run
        is shorter than what is recorded of it, or there are too many strata.
    """
    _check_roles(results)
    check_comparable(results)
    steps = sorted({int(row["step"]) for row in results.rows})
    size = _checked_run_steps(run_steps, steps)
    pieces = cut(steps, size, _checked_strata(strata, len(steps)))
    ours, theirs = (_columns(results, role, pieces) for role in ("machine", "baseline"))
    shared = {
        name: column for name, column in RATIOS.items() if column in ours and column in theirs
    }
    return RunEstimate(
        run_steps=size,
        strata=pieces,
        ours={name: total(found) for name, found in ours.items()},
        baseline={name: total(found) for name, found in theirs.items()},
        ratios={name: ratio(theirs[column], ours[column]) for name, column in shared.items()},
        warnings=tuple(_warnings(results, steps, size)),
    )


def cut(steps: Sequence[int], run_steps: int, strata: int) -> tuple[Piece, ...]:
    """Cut a run halfway between neighbouring recorded steps, at least two to a stratum.

    Parameters
    ----------
    steps : sequence of int
        Recorded steps, ascending.
    run_steps : int
    strata : int
        At most half as many as there are steps; 1 for one step.
    """
    bounds = _bounds(steps, strata)
    inner = [(steps[at - 1] + steps[at]) // 2 + 1 for at in bounds[1:-1]]
    edges = pairwise([0, *inner, run_steps])
    parts = (tuple(steps[a:b]) for a, b in pairwise(bounds))
    return tuple(
        Piece(first, end - 1, some) for (first, end), some in zip(edges, parts, strict=True)
    )


def _bounds(steps: Sequence[int], strata: int) -> list[int]:
    """Choose where strata begin in the list of recorded steps: wide gaps first, then evenly.

    A cut between two odd halves costs a pair; `spare` are those that there are too many.
    """
    bounds, spare = [0, len(steps)], len(steps) // 2 - strata
    for at in sorted(range(2, len(steps) - 1), key=_rank(steps, strata)):
        if len(bounds) > strata:
            break
        where = bisect(bounds, at)
        left, right = at - bounds[where - 1], bounds[where] - at
        lost = (left + right) // 2 - left // 2 - right // 2
        if min(left, right) >= 2 and lost <= spare:
            insort(bounds, at)
            spare -= lost
    return bounds


def _rank(steps: Sequence[int], strata: int) -> Callable[[int], tuple[float, float]]:
    gaps = [b - a for a, b in pairwise(steps)]
    wide = 2 * median(gaps or [0])

    def rank(at: int) -> tuple[float, float]:
        gap, share = gaps[at - 1], at * strata / len(steps)
        return (-gap if gap > wide else 0, abs(share - round(share)))

    return rank


def _columns(results: Results, role: str, pieces: Sequence[Piece]) -> dict[str, _Strata]:
    """Add up each step's ops, and sort the steps into their strata."""
    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for row in results.rows:
        if row["role"] == role:
            by_step.setdefault(row["step"], []).append(row)
    return {
        name: [
            Stratum(piece.size, tuple(fsum(r[name] for r in by_step[s]) for s in piece.steps))
            for piece in pieces
        ]
        for name in COLUMNS
        if all(row[name] is not None for rows in by_step.values() for row in rows)
    }


def _check_roles(results: Results) -> None:
    roles = {row["role"] for row in results.rows}
    for role in ("machine", "baseline"):
        if role not in roles:
            held = ", ".join(sorted(map(repr, roles))) or "none"
            raise ResultsError(
                f"the results hold no rows of role {role!r}, only {held}: an estimate needs "
                "a machine's and its baseline's; simulate again"
            )


def _checked_run_steps(run_steps: Any, steps: Sequence[int]) -> int:
    least = steps[-1] + 1
    if (count := _whole(run_steps)) is None or count < least:
        raise ResultsError(
            f"run_steps={run_steps!r} is not allowed: must be a whole number of at least {least}, "
            f"since step {steps[-1]} was recorded; give the number of steps of the whole run"
        )
    return count


def _checked_strata(strata: Any, recorded: int) -> int:
    most = max(1, recorded // 2)
    if strata is None:
        return most
    if (count := _whole(strata)) is None or not 1 <= count <= most:
        raise ResultsError(
            f"strata={strata!r} is not allowed: must be a whole number from 1 to {most}, since "
            f"each needs two of the {recorded} recorded steps; lower it, or record more steps"
        )
    return count


def _whole(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _warnings(results: Results, steps: Sequence[int], run_steps: int) -> list[str]:
    found = []
    if len(steps) == 1 < run_steps:
        found.append(
            f"only step {steps[0]} was recorded: one step tells nothing of how much steps differ, "
            "so there is no interval; record two at least"
        )
    close = sum(b - a < 0.1 * run_steps / len(steps) for a, b in pairwise(steps))
    if close > len(steps) / 3:
        found.append(
            f"{close} of {len(steps)} recorded steps lie close behind another one: they say little "
            "of how the run drifts between, and the intervals are too narrow; record steps spread "
            "evenly over the run"
        )
    return found + _partial_batch(results)


def _partial_batch(results: Results) -> list[str]:
    """Say that a batch had more images than the results hold."""
    parameters = results.provenance.get("parameters", {})
    batch, images = parameters.get("batch_size", 0), results.rows[0]["samples"]
    if batch <= images:
        return []
    return [
        f"of the batch of {batch} the results hold {images}, and the totals are of these only: "
        "swatsim estimate TRACE --images has a batch's compute cycles"
    ]
