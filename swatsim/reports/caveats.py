"""Why not to trust the intervals of an estimated run, and what is not in its totals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from math import gcd
from typing import Any

from swatsim.course import Course
from swatsim.reports.policy_phases import not_recorded, policy_of
from swatsim.reports.remarks import missing
from swatsim.results import Results
from swatsim.sampling import CONFIDENCE, Estimate
from swatsim.table import column_of

#: Phases of a period left out, all in a row, that steps drawn by chance would miss more rarely.
BY_CHANCE = 0.05
#: How many multiples of a spacing are looked at, to tell how evenly they lie in a period.
LOOKED_AT = 300


def caveats(results: Results, course: Course, totals: Mapping[str, Estimate]) -> list[str]:
    """Return in words what the intervals don't cover.

    Parameters
    ----------
    results : Results
        Their provenance has the policy and the batch.
    course : Course
        Which steps were recorded.
    totals : dict of str to Estimate
        The machine's, by column.
    """
    policy = policy_of(results)
    return [
        *_single(course),
        *_alike(totals),
        *_ends(course),
        *not_recorded(policy, course.steps, course.size),
        *_clusters(course),
        *(line for every in periods(policy) for line in _aliases(course, every, policy)),
        *_partial_batch(results),
        *missing(results),
    ]


def periods(policy: Any) -> tuple[int, ...]:
    """Return the periods in a policy's description: what is called `every`, inner policies' too."""
    found: dict[int, None] = {}
    left = [policy]
    while left:
        part = left.pop()
        if isinstance(part, Mapping):
            every = part.get("every")
            if isinstance(every, int) and every > 1:
                found[every] = None
            left += part.values()
        elif isinstance(part, list | tuple):
            left += part
    return tuple(sorted(found))


def spacing_for(gap: int, size: int, every: tuple[int, ...]) -> int:
    """Return a spacing near another one that sees all phases of some periods.

    Parameters
    ----------
    gap : int
        The spacing to replace.
    size : int
        Steps of the run.
    every : tuple of int
        The periods, in steps.

    Returns
    -------
    int
        Without a common factor with any, and of those the one whose multiples lie most evenly.
    """
    reach = max(10, min(gap // 10, 50))
    near = range(max(1, gap - reach), gap + reach + 1)
    free = [n for n in near if all(gcd(n, period) == 1 for period in every)] or [1]

    def rank(spacing: int) -> tuple[float, int]:
        steps = range(0, size, spacing)[:LOOKED_AT]
        return max(_unseen(steps, period) / period for period in every), abs(spacing - gap)

    return min(free, key=rank)


def _single(course: Course) -> Iterator[str]:
    if len(course.steps) == 1 < course.size:
        yield (
            f"only step {course.steps[0]} was recorded: one step tells nothing of how much steps "
            "differ, so there is no interval; record two at least"
        )


def _alike(totals: Mapping[str, Estimate]) -> Iterator[str]:
    if same := [name for name, found in totals.items() if found.alike]:
        yield (
            f"the recorded steps are all alike in {', '.join(same)}: that tells nothing of how "
            "others differ, so there is no interval; record more, or others"
        )


def _ends(course: Course) -> Iterator[str]:
    first, last, end = course.steps[0], course.steps[-1], course.size - 1
    if len(course.steps) > 1 and first + end - last > (1 - CONFIDENCE) * course.size:
        unseen = {0: f"before step {first}"} if first else {}
        unseen |= {end: f"after step {last}"} if last < end else {}
        share = 100 * (first + end - last) / course.size
        yield (
            f"nothing was recorded {' and '.join(unseen.values())}, {share:.0f} % of the run: a "
            "change there is in no interval; record "
            f"{' and '.join(f'step {step}' for step in unseen)} too"
        )


def _clusters(course: Course) -> Iterator[str]:
    steps = len(course.steps)
    close = sum(gap < 0.1 * course.size / steps for gap in course.gaps)
    if close > steps / 3:
        yield (
            f"{close} of {steps} recorded steps lie close behind another one: they say little of "
            "how the run goes between, and the intervals are as wide as without them; record steps "
            "spread evenly over the run"
        )


def _aliases(course: Course, every: int, policy: Any) -> Iterator[str]:
    """Yield the caveat of recorded steps that see only some phases of a period."""
    steps = len(course.steps)
    if steps == 1 or every >= course.size or course.complete:
        return
    common = gcd(every, *course.gaps)
    unseen = _unseen(course.steps, every)
    by_chance = steps * (1 - unseen / every) ** (steps - 1)
    if common == 1 and by_chance >= BY_CHANCE:
        return
    seen = len({step % every for step in course.steps})
    gap = max(1, (course.steps[-1] - course.steps[0]) // (steps - 1))
    better = spacing_for(gap, course.size, periods(policy))
    yield (
        f"the policy has a period of {every} steps (every={every}), and the recorded steps see "
        f"{seen} of its {every} phases{_factor(common)}: what changes within the period is in no "
        f"interval; record every {better}th step, range(0, {course.size}, {better}), which shares "
        "no factor with it"
    )


def _factor(common: int) -> str:
    return f", since they lie multiples of {common} steps apart" if common > 1 else ""


def _unseen(steps: Iterable[int], every: int) -> int:
    """Return the longest way, in phases of a period, from one that was seen to the next."""
    phases = sorted({step % every for step in steps})
    return max(b - a for a, b in pairwise([*phases, phases[0] + every]))


def _parameters(results: Results) -> Mapping[str, Any]:
    found = results.provenance.get("parameters")
    return found if isinstance(found, Mapping) else {}


def _partial_batch(results: Results) -> Iterator[str]:
    """Yield the caveat of batches of more images than the results hold."""
    images = max(column_of(results.rows, "samples"))
    batch = _parameters(results).get("batch_size", 0)
    if batch > images:
        yield (
            f"of the batch of {batch} the results hold {images}, and the totals are of these only: "
            "swatsim estimate TRACE -m MACHINE --run-steps TOTAL has whole batches"
        )
