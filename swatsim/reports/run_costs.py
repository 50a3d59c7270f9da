"""What each recorded step of a run costs on a machine, and what its images say of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from swatsim.columns import Role
from swatsim.course import Course, Images
from swatsim.reports.rates import PJ_PER_MW_MS
from swatsim.sampling import Estimate, Seen, Stratum
from swatsim.table import column_of, grouped

Rows = Sequence[Mapping[str, Any]]
#: By step, what is seen of its images.
SeenOf = Mapping[int, Sequence[Seen]]

#: Columns of the results that add up to a step's.
SUMMED = ("cycles", "cycles_compute", "energy_pj")
#: What follows from these: time, and energy with what leaks in it.
TIME, LEAKING = "time_ms", "energy_with_leakage_pj"


@dataclass(frozen=True)
class Series:
    """A quantity of each recorded step, and of its images."""

    values: Sequence[float]
    images: Images

    def times(self, factor: float) -> Series:
        """Return the same in another unit."""
        values = [value * factor for value in self.values]
        return Series(values, _each(self.images, lambda value: value * factor))

    def plus(self, other: Series) -> Series:
        """Return the sum with another quantity of the same steps and images."""
        pairs = zip(self.images, other.images, strict=True)
        images = [
            [
                Stratum(a.size, tuple(x + y for x, y in zip(a.values, b.values, strict=True)))
                for a, b in zip(*pair, strict=True)
            ]
            for pair in pairs
        ]
        values = [a + b for a, b in zip(self.values, other.values, strict=True)]
        return Series(values, images)

    def total(self, course: Course) -> Estimate:
        """Return the run's total."""
        return course.total(self.values, self.images)

    def over(self, other: Series, course: Course) -> Estimate:
        """Return the quotient of the run's total by that of another quantity."""
        return course.ratio(self.values, other.values, (self.images, other.images))


def constant(values: Sequence[float], like: Series) -> Series:
    """Return a quantity in which images don't differ, for a quotient with one in which they do."""
    return Series(values, _each(like.images, lambda _: 0.0))


def _each(images: Images, change: Callable[[float], float]) -> list[list[Stratum]]:
    return [[Stratum(p.size, tuple(map(change, p.values))) for p in parts] for parts in images]


def costs(rows: Rows, role: Role, steps: Sequence[int], seen: SeenOf) -> dict[str, Series]:
    """Return what each step costs, by column; one that is not known of all is left out.

    Parameters
    ----------
    rows : sequence of mapping
        Of one machine.
    role : Role
        It is what of `seen` is its own.
    steps : sequence of int
    seen : mapping of int to sequence of Seen
        What images say, by step; empty where nothing is estimated from some of them.
    """
    by_step = by_steps(rows)
    found = {
        name: Series(
            [fsum(column_of(by_step[step], name)) for step in steps],
            [[part.stratum((role.value, name)) for part in seen.get(step, ())] for step in steps],
        )
        for name in SUMMED
        if None not in column_of(rows, name)
    }
    if clock := rows[0].get("clock_mhz"):
        found[TIME] = found["cycles"].times(1 / (1000 * clock))
    leakage = rows[0].get("leakage_mw")
    if leakage is not None and TIME in found and "energy_pj" in found:
        found[LEAKING] = found["energy_pj"].plus(found[TIME].times(leakage * PJ_PER_MW_MS))
    return found


def by_steps(rows: Rows) -> dict[int, Rows]:
    """Return rows by their step."""
    return {step: found for (step,), found in grouped(rows, ("step",)).items()}
