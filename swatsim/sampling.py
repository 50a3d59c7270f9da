"""Totals of a population of which a part was seen, with confidence intervals. Numbers only.

A population is cut into strata, each seen in a random sample of its own, and

- a total is estimated as the sum of N_h * mean_h, with the variance sum of
  N_h**2 (1 - n_h/N_h) s_h**2 / n_h: Cochran, Sampling Techniques, 3rd ed., Wiley 1977, sections
  5.3 and 5.4;
- its interval is Student's t, with the degrees of freedom of Satterthwaite, An Approximate
  Distribution of Estimates of Variance Components, Biometrics Bulletin 2 (1946) 110-114, as in
  Cochran's section 5.4;
- a quotient of two totals is the combined ratio estimate, its variance that of the residuals
  top - ratio * bottom (linearised by Taylor): Cochran, section 6.11. It has a bias, of at most its
  standard error times the relative one of the bottom's total: a small part of the interval.

N_h is the size of stratum h, n_h how many of it were seen, mean_h and s_h**2 their mean and
variance.

Where all that was seen is alike, and not all was seen, there is no interval: nothing tells how the
others differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, fsum, inf, isnan, nan, sqrt

#: Of all intervals: how often they are to cover the truth.
CONFIDENCE = 0.95
#: A difference, or a residual of a quotient, this small beside what it is made of is rounding.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Stratum:
    """A part of the population, and what was seen of it.

    Parameters
    ----------
    size : int
        N_h, members of the part; at least as many as were seen.
    values : tuple of float
        Those that were seen, at least one.
    """

    size: int
    values: tuple[float, ...]

    @property
    def complete(self) -> bool:
        """Whether every member was seen."""
        return len(self.values) == self.size

    @property
    def total(self) -> float:
        """N_h * mean_h; exact where every member was seen."""
        return fsum(self.values) * (self.size / len(self.values))

    @property
    def spread(self) -> float:
        """s_h**2; not a number where one of several was seen."""
        n = len(self.values)
        if n == 1:
            return 0.0 if self.complete else nan
        mean = fsum(self.values) / n
        least = ROUNDING * abs(mean)
        apart = (value - mean for value in self.values)
        return fsum(far**2 for far in apart if abs(far) > least) / (n - 1)

    @property
    def variance(self) -> float:
        """The variance of `total`; what was seen whole has none."""
        if self.complete:
            return 0.0
        return self.size * (self.size - len(self.values)) * self.spread / len(self.values)


@dataclass(frozen=True)
class Seen:
    """What each of some members of a population says of its total.

    Parameters
    ----------
    size : int
        Members of the population.
    many : int
        Those that were seen.
    values : mapping of (str, str) to tuple of float
        By name, here role and column: what the total would be, were all like this one. None of one
        member, which says nothing of how they differ.
    """

    size: int
    many: int
    values: Mapping[tuple[str, str], tuple[float, ...]]

    def stratum(self, name: tuple[str, str]) -> Stratum:
        """Return the population as a stratum, with its members' own parts of the total."""
        said = self.values.get(name, (0.0,) * self.many)
        return Stratum(self.size, tuple(value / self.size for value in said))


@dataclass(frozen=True)
class Estimate:
    """An estimated quantity that can't be negative, and its 95 % confidence interval.

    Parameters
    ----------
    value : float
        In the unit of what was added up.
    variance : float
        In its square; 0 where everything was seen; not a number: unknown.
    freedom : float
        Degrees of freedom of Student's t; infinite where the variance is not estimated.
    more : int or None
        How many more members would halve the interval, at the spread seen: images in proportion to
        the strata's sizes, steps so that all lie evenly over the run. t is held, though it shrinks
        with more members: so it is rather too many. None where there is no interval to halve, or
        no number of them does.
    alike : bool
        Whether the variance is unknown because all that was seen is alike.
    """

    value: float
    variance: float
    freedom: float
    more: int | None = None
    alike: bool = False

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not isnan(self.variance)

    @property
    def half_width(self) -> float:
        """Half of the interval's width; not a number where it is unknown."""
        if not self.known or self.variance == 0:
            return self.variance
        return quantile(self.freedom, (1 + CONFIDENCE) / 2) * sqrt(self.variance)

    @property
    def low(self) -> float:
        """Lower end of the interval, not below 0."""
        return max(self.value - self.half_width, 0.0) if self.known else nan

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.half_width

    def times(self, factor: float) -> Estimate:
        """Return the estimate in another unit: so many times the value."""
        return replace(self, value=self.value * factor, variance=self.variance * factor**2)


def without_interval(value: float, alike: bool = False) -> Estimate:
    """Return an estimate whose interval is unknown."""
    return Estimate(value, nan, nan, alike=alike)


def total(strata: Sequence[Stratum]) -> Estimate:
    """Return an estimate of the population's total.

    Parameters
    ----------
    strata : sequence of Stratum
        Together the population, at least one.
    """
    value, variance = fsum(s.total for s in strata), fsum(s.variance for s in strata)
    if all(s.complete for s in strata):
        return Estimate(value, 0.0, inf)
    if not variance > 0:
        return without_interval(value, alike=variance == 0)
    return Estimate(value, variance, _freedom(strata, variance), _more(strata, variance))


def ratio(top: Sequence[Stratum], bottom: Sequence[Stratum]) -> Estimate:
    """Return an estimate of a quotient of two totals, seen in the same members in the same order.

    Parameters
    ----------
    top, bottom : sequence of Stratum
        Of equal sizes. Where the bottom's total is 0 the quotient is infinite, or not a number
        if both are, and its interval is unknown.
    """
    above, below = total(top).value, total(bottom).value
    if below == 0:
        return without_interval(inf if above else nan)
    value = above / below
    left = [
        Stratum(t.size, residuals(t.values, b.values, value))
        for t, b in zip(top, bottom, strict=True)
    ]
    return quotient(value, total(left), below)


def residuals(top: Sequence[float], bottom: Sequence[float], value: float) -> tuple[float, ...]:
    """Return each top minus the quotient times its bottom; what is rounding is 0."""
    pairs = zip(top, bottom, strict=True)
    left = ((t - value * b, abs(t)) for t, b in pairs)
    return tuple(r if abs(r) > ROUNDING * t else 0.0 for r, t in left)


def quotient(value: float, spread: Estimate, below: float) -> Estimate:
    """Return a quotient with its interval: that of its residuals' total, by the bottom's total."""
    return Estimate(value, spread.variance / below**2, spread.freedom, spread.more, spread.alike)


def _freedom(strata: Sequence[Stratum], variance: float) -> float:
    """Return Satterthwaite's degrees of freedom; strata seen whole add nothing."""
    partly = (s for s in strata if not s.complete)
    return variance**2 / fsum(s.variance**2 / (len(s.values) - 1) for s in partly)


def _more(strata: Sequence[Stratum], variance: float) -> int:
    """Solve (N/n - 1) * sum of N_h s_h**2 = variance / 4 for n: the variance if n_h = n N_h / N."""
    size, seen = sum(s.size for s in strata), sum(len(s.values) for s in strata)
    weighted = fsum(s.size * s.spread for s in strata)
    needed = size * weighted / (variance / 4 + weighted)
    return max(1, min(ceil(needed * (1 - ROUNDING)), size) - seen)


@lru_cache(maxsize=4096)
def quantile(freedom: float, below: float) -> float:
    """Return the quantile of Student's t: what it is below with a probability."""
    from scipy.special import stdtrit  # scipy.stats takes half a second more to load

    return float(stdtrit(freedom, below))
