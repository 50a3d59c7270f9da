"""By which rule values survive: a score, a granularity, a schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from swatsim.policies.arrays import Array, namespace
from swatsim.policies.granularity import Granularity, element
from swatsim.policies.interface import Site
from swatsim.workload.layer import Kind


@dataclass(frozen=True)
class View:
    """What a score may look at: arrays of NumPy, or tensors of torch, as the run has them.

    Parameters
    ----------
    values : array of float
        Of the operand: weights (K, C/groups, R, S) or (K, C), activations and gradients (N, ...).
    site : Site
        Where they are read: ``site.layer``, ``site.operand``, ``site.step``.
    gradient : array of float, or None
        Of a weight: its dense gradient in the step before. Ones where there is none yet, and for
        other operands; None where the rule does not ask for it.
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
        reaches it survives, so that the density drifts.
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

    def choose(self, view: View, density: Fraction) -> tuple[Array, Array | None]:
        """Return a new choice: the mask, and the threshold if that is held."""
        layer = view.site.layer
        of_weight = view.site.operand == "weight"
        lies: tuple[Kind, int] = (layer.kind, layer.groups) if of_weight else ("conv", 1)
        if self.score is magnitude and self.granularity is element:
            mask = element(view.values, density, *lies)  # Top-K itself looks at magnitudes
        else:
            mask = self.granularity(self._scores(view), density, *lies)
        return mask, self._threshold(view, mask) if self.holds == "threshold" else None

    def reaches(self, view: View, threshold: Array) -> Array:
        """Return a mask of the values whose score reaches a threshold."""
        scores = self._scores(view)
        return (scores >= threshold) & (scores > 0)

    def _scores(self, view: View) -> Array:
        scores = self.score(view)
        if self.score is magnitude:
            return scores
        xp = namespace(scores)
        return xp.where(scores < 0, xp.zeros_like(scores), scores)

    def _threshold(self, view: View, mask: Array) -> Array:
        """Return the lowest score in a mask; 0 if the mask has all that are not zero."""
        scores = self._scores(view)
        xp = namespace(scores)
        lowest = xp.min(xp.where(mask, scores, xp.full_like(scores, math.inf)))
        whole = xp.count_nonzero(mask) == xp.count_nonzero(scores)
        return xp.where(whole, xp.zeros_like(lowest), lowest)


#: Top-K of the whole tensor by magnitude, in every step.
TOP_K = Rule()
