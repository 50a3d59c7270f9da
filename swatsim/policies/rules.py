"""By which rule values survive: a score, a granularity, a schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from swatsim.policies.arrays import Array, namespace, widened
from swatsim.policies.granularity import Granularity, element
from swatsim.policies.interface import Site
from swatsim.workload.layer import Kind

#: A threshold that more values reach than so many times those that were chosen is none.
MOST_TIED = 1.1
#: The least normal float64.
NEXT_TO_NOTHING = 2.0**-1022


@dataclass(frozen=True)
class View:
    """What a score may look at: arrays of NumPy, or tensors of torch, as the run has them.

    Parameters
    ----------
    values : array of float, at least float32
        Of the operand: weights (K, C/groups, R, S) or (K, C), activations and gradients (N, ...).
    site : Site
        Where they are read: ``site.layer``, ``site.operand``, ``site.step``.
    gradient : array of float, or None
        Of a weight: its dense gradient in the last step before in which that was finite. Ones where
        there is none yet, and for other operands; None where the rule does not ask for it.
    """

    values: Array
    site: Site
    gradient: Array | None = None


Score: TypeAlias = Callable[[View], Array]


def magnitude(view: View) -> Array:
    """Return the values' magnitudes."""
    return namespace(view.values).abs(view.values)


@dataclass(frozen=True)
class Rule:
    """How survivors are chosen, once it is known how many.

    Parameters
    ----------
    score : callable of View to array
        The larger, the sooner a value survives; below 0 counts as 0, and 0 never survives.
    granularity : callable
        One of `swatsim.policies.granularity`.
    every : int
        Steps after which the choice is made anew.
    holds : {"mask", "threshold"}
        What is reused in between. A threshold is the score of the last one that survived; what
        reaches it survives, so that the density drifts. Where it tells nothing (see `threshold`)
        the choice is made anew in each step up to the next one.
    warmup : int
        The choice is made in every step up to this one.
    uses_gradient : bool
        Whether the score looks at the gradient, which then has to be stored.
    """

    score: Score = magnitude
    granularity: Granularity = element
    every: int = 1
    holds: Literal["mask", "threshold"] = "mask"
    warmup: int = 0
    uses_gradient: bool = False

    def since(self, step: int) -> int:
        """Return the step of the choice that is in force in a step."""
        if step < self.warmup:
            return step
        return max(step - step % self.every, self.warmup)

    def choose(self, view: View, density: Fraction, *, zeros: bool = False) -> Array:
        """Return the mask of a new choice.

        Parameters
        ----------
        view : View
        density : Fraction
            Share that survives.
        zeros : bool
            For a mask that is held, or says what is trained: where fewer than asked for have a
            score, values of zero hold the places that are left, as if they scored next to nothing.
            Otherwise a layer that starts at zero would never leave it.
        """
        layer = view.site.layer
        of_weight = view.site.operand == "weight"
        lies: tuple[Kind, int] = (layer.kind, layer.groups) if of_weight else ("conv", 1)
        if self.score is magnitude and self.granularity is element and not zeros:
            return element(view.values, density, *lies)  # Top-K itself looks at magnitudes
        scores = self._scores(view)
        scores = _with_zeros(scores, view.values) if zeros else scores
        return self.granularity(scores, density, *lies)

    def threshold(self, view: View, mask: Array) -> Array | None:
        """Return the lowest score in a mask; None if it does not tell what is in the mask.

        That is where nothing with a score was left out (a layer that starts at zero, or has no row
        in this step), where the lowest score is infinite, and where by far more values have it
        than were chosen (values of a few levels).
        """
        scores = self._scores(view)
        if not math.prod(scores.shape):
            return None
        xp = namespace(scores)
        chosen = mask & (scores > 0)
        lowest = xp.min(xp.where(chosen, scores, xp.full_like(scores, math.inf)))
        count = int(xp.count_nonzero(chosen))
        whole = count == int(xp.count_nonzero(scores > 0))
        tied = int(xp.count_nonzero(scores >= lowest)) > MOST_TIED * count
        return None if whole or tied or not bool(xp.isfinite(lowest)) else lowest

    def reaches(self, view: View, threshold: Array) -> Array:
        """Return a mask of the values whose score reaches a threshold; NaN reaches any."""
        scores = self._scores(view)
        return ~(scores < threshold) & (scores != 0)

    def _scores(self, view: View) -> Array:
        if self.score is magnitude:
            return magnitude(view)
        gradient = None if view.gradient is None else widened(view.gradient)
        scores = self.score(View(widened(view.values), view.site, gradient))
        xp = namespace(scores)
        if not xp.isdtype(scores.dtype, "real floating"):
            scores = xp.astype(scores, xp.float64)
        return xp.where(scores < 0, xp.zeros_like(scores), scores)


def _with_zeros(scores: Array, values: Array) -> Array:
    """Return scores in which a value of zero ranks behind all that have a score, not nowhere."""
    xp = namespace(scores)
    zeros = (scores == 0) & (values == 0)
    if not bool(xp.any(zeros)):
        return scores
    exact = xp.astype(scores, xp.float64)  # in which no float32 is as small, nor their sums change
    return xp.where(zeros, xp.full_like(exact, NEXT_TO_NOTHING), exact)


#: Top-K of the whole tensor by magnitude, in every step.
TOP_K = Rule()
