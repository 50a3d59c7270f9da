"""The phases of a run: between jumps of its level, each with how dense it is and what it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import fsum, nan
from typing import Any

from swatsim.course import Course
from swatsim.described import phases_of, policy_at
from swatsim.reports.methods import method
from swatsim.reports.run_costs import Rows, by_steps
from swatsim.reports.span import percent
from swatsim.reports.totals import quotient
from swatsim.table import Rows as Columns
from swatsim.table import behind, column_of
from swatsim.workload.layer import OPERANDS

#: From this share on nothing is said to be left out.
DENSE = 0.995


@dataclass(frozen=True)
class Phase:
    """A part of a run in which its level did not jump.

    Parameters
    ----------
    first, last : int
        Its steps; where nobody stated the first one, halfway between two recorded steps.
    steps : tuple of int
        Which of them were recorded.
    stated : bool
        Whether somebody stated where it begins, or the policy did.
    method : str
        Which policy it has, in words, of a run whose policy changes; "" of another.
    products : float
        Of the layers' multiply-accumulates those whose factors are both non-zero; not a number: the
        results don't say.
    density : dict of str to float
        Of weight, act and grad_out the values that are not zero, a mean over ops by their
        multiply-accumulates.
    time : float
        Of a mean step, in ms; in cycles where a clock is not known.
    speed_up : float
        The baseline's time by the machine's.
    share : float
        Of the machine's time of the whole run.
    """

    first: int
    last: int
    steps: tuple[int, ...]
    stated: bool = False
    method: str = ""
    products: float = nan
    density: Mapping[str, float] = field(default_factory=dict)
    time: float = nan
    speed_up: float = nan
    share: float = nan

    @property
    def size(self) -> int:
        """Steps of the phase."""
        return self.last - self.first + 1

    @property
    def name(self) -> str:
        """What it is: its method, and by its densities "dense", or how many products are left."""
        left = self._left
        return f"{self.method}: {left}" if self.method not in ("", left) else left

    @property
    def _left(self) -> str:
        if self.products >= DENSE:
            return "dense"
        left = f"{percent(self.products)} of the products left"
        weights = self.density.get("weight", nan)
        return f"dense weights, {left}" if weights >= DENSE else f"sparse, {left}"


def phases(
    course: Course,
    layers: Rows,
    times: tuple[Sequence[float], Sequence[float]],
    policy: Mapping[str, Any],
) -> tuple[Phase, ...]:
    """Return a run's phases.

    Parameters
    ----------
    course : Course
    layers : sequence of mapping
        The machine's rows of layers.
    times : pair of sequence of float
        The machine's and the baseline's, of each recorded step.
    policy : mapping
        As it describes itself.
    """
    whole = fsum(w * y for w, y in zip(course.weights, times[0], strict=True))
    by_step, found = by_steps(layers), []
    in_phases = len(phases_of(policy)) > 1
    for lowest, highest in _bounds(course):
        own = slice(lowest, highest)
        steps, weights = course.steps[own], course.weights[own]
        ours, theirs = (fsum(w * y for w, y in zip(weights, of[own], strict=True)) for of in times)
        first, last = _edge(course, lowest), _edge(course, highest) - 1
        found.append(
            Phase(
                first=first,
                last=last,
                steps=steps,
                stated=lowest - 1 in course.placed,
                method=method(policy_at(policy, first)) if in_phases else "",
                **_densities(behind([by_step[step] for step in steps])),
                time=ours / fsum(weights),
                speed_up=quotient(theirs, ours),
                share=quotient(ours, whole),
            )
        )
    return tuple(found)


def _bounds(course: Course) -> list[tuple[int, int]]:
    cuts = sorted(i + 1 for i in {*course.cuts, *course.placed})
    return list(pairwise([0, *cuts, len(course.steps)]))


def _edge(course: Course, at: int) -> int:
    """Return the first step of the phase that begins with the recorded step of a number."""
    if at in (0, len(course.steps)):
        return course.size if at else 0
    between = (course.steps[at - 1] + course.steps[at]) // 2 + 1
    return course.placed.get(at - 1, between)


def products_of(rows: Rows) -> float:
    """Return the share of products without a zero in some rows."""
    names = ("macs_dense", "macs_effectual")
    dense, left = (sum(value or 0 for value in _column(rows, name)) for name in names)
    return left / dense if dense else nan


def _column(rows: Rows, name: str) -> list[Any]:
    """Return a column; None where a row of one's own lacks it."""
    return column_of(rows, name) if isinstance(rows, Columns) else [row.get(name) for row in rows]


def _densities(rows: Rows) -> dict[str, Any]:
    density, sizes = {}, _column(rows, "macs_dense")
    for operand in OPERANDS:
        pairs = zip(sizes, _column(rows, f"density_{operand}"), strict=True)
        known = [(macs, value) for macs, value in pairs if value is not None]
        if weight := sum(macs for macs, _ in known):
            density[operand] = fsum(macs * value for macs, value in known) / weight
    return {"products": products_of(rows), "density": density}
