"""Totals of a run of which some steps were seen, with confidence intervals. Numbers only.

A run was seen at some of its steps, in order. A step stands for those nearest to it, w_i in all;
d_i are the steps from one seen to the next, D_i what their values differ by.

- A total is estimated as the sum of w_i * y_i: the trapezoid's rule.
- If steps scatter by s**2, that has the variance s**2 B, B the sum of w_i (w_i - 1), and s**2 is
  estimated from successive differences, which a drift hardly touches: the mean of D_i**2 / 2 (von
  Neumann, Kent, Bellinson, Hart, The Mean Square Successive Difference, Annals of Mathematical
  Statistics 12 (1941) 153-162; for systematic samples Wolter, Introduction to Variance Estimation,
  2nd ed., Springer 2007, chapter 8, estimator 2). Each counts by the steps between, d_i: neighbours
  tell nothing of what lies between others.
- A level that changes somewhere in a gap, at any step alike, has the variance
  D_i**2 (d_i**2 - 1) / 12. No gap counts for less.
- Where the level jumped (`jumps`) a gap counts for this, and not for scatter. Where in their gaps
  several jumps lie may go together, as where something recurs: |D_i| (d_i**2 - 1)**0.5 add up
  before they are squared.
- The interval is Student's t. With a_i the weights of D_i**2 / 2, successive differences of normal
  values have 2 (sum of a_i)**2 / (sum of 2 a_i**2 + a_i a_(i+1)) degrees of freedom, 2/3 of their
  number where all weigh alike: their variances are 8 s**4, their neighbours' covariances 2 s**4.
- A jump whose first step somebody states is placed: steps before it are those of the recorded step
  before it, and it counts neither for this nor for scatter.
- A quotient of totals is linearised as in `swatsim.sampling`.
- Where a step's own value is estimated from some of its images, with the variance v_i, the run is
  a sample in two stages: Cochran, Sampling Techniques, 3rd ed., Wiley 1977, sections 10.3 to 10.5.
  Successive differences of such values have that in them already, so that s**2 B counts
  w_i (w_i - 1) v_i of the w_i**2 v_i: the sum of w_i v_i is added, with the degrees of freedom of
  Satterthwaite. (As there: of many units of which few were seen, what lies between them is nearly
  all.) Where one image was seen v_i is not known, and s**2 stands for it, which has it in it.

What no interval knows of: a change between two steps of one level that is undone again, and
whatever comes before the first and after the last step that was seen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from math import ceil, fsum, inf, nan, sqrt

from swatsim.sampling import (
    ROUNDING,
    Estimate,
    Stratum,
    quantile,
    quotient,
    residuals,
    without_interval,
)

#: Of each step what was seen of its images, in one part or several.
Images = Sequence[Sequence[Stratum]]

#: How often a course that only scatters is found to have a jump.
FALSE_JUMPS = 0.01
#: Six jumps of one size whose places go together count for as much as six such differences of a
#: scatter: (6 J d)**2 / 12 and 6 (J d)**2 / 2.
MOST_JUMPS = 6


@dataclass(frozen=True)
class Course:
    """Which steps of a run were seen, and between which of them its level jumped.

    Parameters
    ----------
    size : int
        Steps of the run, numbered from 0.
    steps : tuple of int
        Those that were seen, ascending, at least one.
    cuts : frozenset of int
        i: the level jumped between the i-th and the next one, counted from 0. Not all gaps are
        cut, unless there is but one.
    placed : mapping of int to int
        The same of jumps that somebody stated: with the first step after it.
    """

    size: int
    steps: tuple[int, ...]
    cuts: frozenset[int] = frozenset()
    placed: Mapping[int, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every step was seen."""
        return len(self.steps) == self.size

    @cached_property
    def gaps(self) -> tuple[int, ...]:
        """d_i: steps from each one seen to the next."""
        return tuple(b - a for a, b in pairwise(self.steps))

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """w_i: how many steps each one seen stands for, itself included; together all."""
        between = (
            self.placed.get(i, (a + b + 1) / 2) for i, (a, b) in enumerate(pairwise(self.steps))
        )
        return tuple(b - a for a, b in pairwise([0, *between, self.size]))

    @cached_property
    def scatter(self) -> float:
        """B: the variance of a total, by that of a step."""
        return fsum(w * (w - 1) for w in self.weights)

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """a_i: the variance of a total that half a squared difference counts for; 0 at a cut."""
        return tuple(
            max(gap * self.scatter / self._plain, (gap * gap - 1) / 6) if self._tells(i) else 0.0
            for i, gap in enumerate(self.gaps)
        )

    def _tells(self, gap: int) -> bool:
        """Whether a gap tells how steps scatter."""
        return gap not in self.cuts and gap not in self.placed

    @cached_property
    def _plain(self) -> int:
        """Steps between those that do."""
        return sum(gap for i, gap in enumerate(self.gaps) if self._tells(i))

    @cached_property
    def freedom(self) -> float:
        """Degrees of freedom of what the gaps that are not cut tell of the scatter."""
        # of a run seen whole each counts alike
        a = [1.0] * len(self.gaps) if self.complete else self.shares
        spread = fsum(2 * x * x for x in a) + fsum(x * y for x, y in pairwise(a))
        return 2 * fsum(a) ** 2 / spread

    def total(self, values: Sequence[float], images: Sequence[Sequence[Stratum]] = ()) -> Estimate:
        """Return an estimate of the run's total.

        Parameters
        ----------
        values : sequence of float
            Of the steps that were seen.
        images : sequence of sequence of Stratum, optional
            Of each, what was seen of its images; its value is what they add up to, and what does
            not differ between images. None: the values are exact.
        """
        value = fsum(w * y for w, y in zip(self.weights, values, strict=True))
        if self.complete and all(part.complete for parts in images for part in parts):
            return Estimate(fsum(values), 0.0, inf)
        if not (self.complete or self._plain or self.cuts):
            return without_interval(value)
        apart = differences(values)
        scattered = fsum(a * d * d / 2 for a, d in zip(self.shares, apart, strict=True))
        partly = self._partly(images)
        if any(len(part.values) == 1 for _, parts in partly for part in parts):
            scattered += self._square(apart) * fsum(w for w, parts in partly if parts)
            partly = []
        second, freedom = self._second_stage(partly)
        jumped = [(abs(apart[i]), self.gaps[i]) for i in self.cuts]
        unplaced = fsum(d * sqrt(gap**2 - 1) for d, gap in jumped) ** 2 / 12
        variance = scattered + unplaced + second
        if not variance > 0:
            return without_interval(value, alike=variance == 0)
        parts = ((scattered, self.freedom if scattered else inf), (second, freedom))
        uncertain = fsum(part**2 / free for part, free in parts if part)
        size = fsum(d for d, _ in jumped)
        more = None if self.complete else self._more(scattered, size, variance, second)
        return Estimate(value, variance, variance**2 / uncertain if uncertain else inf, more)

    def _partly(self, images: Images) -> list[tuple[float, list[Stratum]]]:
        """Return each step's weight, and what was seen of its images where that is not all."""
        each = images or [()] * len(self.steps)
        pairs = zip(self.weights, each, strict=True)
        return [(w, [part for part in parts if not part.complete]) for w, parts in pairs]

    def _square(self, apart: Sequence[float]) -> float:
        """Return s**2; not a number where no gap tells."""
        if not self._plain:
            return nan
        squares = (self.gaps[i] * d * d / 2 for i, d in enumerate(apart) if self._tells(i))
        return fsum(squares) / self._plain

    def _second_stage(self, partly: Sequence[tuple[float, list[Stratum]]]) -> tuple[float, float]:
        """Return what images add to the variance of a total, and its degrees of freedom."""
        # without a gap that tells of scatter nothing else has what images differ by
        all_of_it = not (self._plain or self.complete)
        parts = [
            (w * (w if all_of_it else 1) * part.variance, len(part.values) - 1)
            for w, of_step in partly
            for part in of_step
        ]
        added = fsum(variance for variance, _ in parts)
        spread = fsum(variance**2 / freedom for variance, freedom in parts)
        return added, added**2 / spread if spread else inf

    def ratio(
        self,
        top: Sequence[float],
        bottom: Sequence[float],
        images: tuple[Images, Images] = ((), ()),
    ) -> Estimate:
        """Return an estimate of a quotient of two totals; as `sampling.ratio` where one is 0.

        Parameters
        ----------
        top, bottom : sequence of float
            As `total` has them.
        images : pair of sequence of sequence of Stratum, optional
            The same images' of both.
        """
        above, below = self.total(top).value, self.total(bottom).value
        if below == 0:
            return without_interval(inf if above else nan)
        value = above / below
        left = [
            [
                Stratum(t.size, residuals(t.values, b.values, value))
                for t, b in zip(of_top, of_bottom, strict=True)
            ]
            for of_top, of_bottom in zip(*images, strict=True)
        ]
        return quotient(value, self.total(residuals(top, bottom, value), left), below)

    def _more(self, scattered: float, jumped: float, variance: float, second: float) -> int | None:
        """Solve for n: what n steps that lie evenly would leave is a quarter of the variance.

        They leave s**2 T (T/n - 1) of the scatter and J**2 ((T/n)**2 - 1) / 12 of the jumps, J the
        sum of their |D_i|, and the images' share as it is: a quadratic equation in T/n. None: no
        number of steps does.
        """
        noise = scattered / self.scatter * self.size if scattered else 0.0
        steps = jumped**2 / 12
        left = variance / 4 - second + noise + steps
        if left <= noise + steps:
            return None
        gap = 2 * left / (noise + sqrt(noise**2 + 4 * steps * left))
        return max(1, min(ceil(self.size / gap * (1 - ROUNDING)), self.size) - len(self.steps))


def differences(values: Sequence[float]) -> list[float]:
    """Return each value's difference to the next; what is rounding is 0."""
    return [
        b - a if abs(b - a) > ROUNDING * max(abs(a), abs(b)) else 0.0 for a, b in pairwise(values)
    ]


def jumps(
    steps: Sequence[int],
    series: Sequence[Sequence[float]],
    most: int = MOST_JUMPS,
    placed: Container[int] = (),
) -> frozenset[int]:
    """Return where the level of a course jumped: differences that stick out of all the others.

    The largest k differences are jumps if the smallest of them is larger than scatter explains: by
    the root mean square of the others, as Student's t, at `FALSE_JUMPS` shared among all gaps. k is
    the largest for which that is so, at most half of the gaps: as in Rosner, Percentage Points for
    a Generalized ESD Many-Outlier Procedure, Technometrics 25 (1983) 165-172. Two that follow one
    another are one odd step, not a level, and more than `MOST_JUMPS` are how the run goes: they
    stay with the scatter.

    Compared are gaps of a usual length, half to twice the one in which the middle of the run lies:
    the longer a gap, the more a drift changes in it.

    Parameters
    ----------
    steps : sequence of int
        Ascending.
    series : sequence of sequence of float
        What was seen of each step; a jump of one is a jump.
    most : int
        Of more, those that are largest beside their series' largest value.
    placed : container of int
        Gaps of which it is known where the level jumped: they are not looked at.

    Returns
    -------
    frozenset of int
        i: between the i-th and the next step.
    """
    gaps = [b - a for a, b in pairwise(steps)]
    size: dict[int, float] = {}
    for values in series:
        apart = [abs(d) for d in differences(values)]
        scale = max(map(abs, values))
        for i in _largest(gaps, apart, placed):
            size[i] = max(apart[i] / scale, size.get(i, 0.0))
    lone = [i for i in size if i - 1 not in size and i + 1 not in size]
    if len(lone) > MOST_JUMPS:
        return frozenset()
    return frozenset(sorted(lone, key=lambda i: -size[i])[:most])


def _largest(gaps: Sequence[int], apart: Sequence[float], placed: Container[int]) -> list[int]:
    """Return the gaps of usual length whose differences stick out."""
    usual = _usual(gaps)
    known = (i for i in range(len(gaps)) if i not in placed)
    alike = (i for i in known if usual <= 2 * gaps[i] <= 4 * usual)
    order = sorted(alike, key=lambda i: -apart[i])
    above = FALSE_JUMPS / 2 / max(len(gaps), 1)
    return order[: _outliers([apart[i] for i in order], above)]


def _outliers(apart: Sequence[float], above: float) -> int:
    """Return how many of the largest differences stick out; they come in descending order."""
    squares = [0.0, *accumulate(d * d for d in reversed(apart))]
    outliers = 0
    for k in range(1, len(apart) // 2 + 1):
        others = len(apart) - k
        freedom = 2 * others**2 / (3 * others - 1)
        scatter = sqrt(squares[others] / others)
        if apart[k - 1] > quantile(freedom, 1 - above) * scatter:
            outliers = k
    return outliers


def _usual(gaps: Sequence[int]) -> float:
    """Return the length of the gap in which the middle of all steps lies, by length."""
    passed = list(accumulate(sorted(gaps)))
    return sorted(gaps)[bisect_left(passed, passed[-1] / 2)] if gaps else 0
