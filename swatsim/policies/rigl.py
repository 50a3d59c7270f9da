"""RigL: the smallest weights are dropped, those of largest gradient grown."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, ClassVar

from swatsim.policies.arrays import Array, fits, is_finite, namespace, widened
from swatsim.policies.drop_grow import DropGrow, DropGrowRun
from swatsim.policies.interface import Site
from swatsim.workload.layer import Layer


class RigL(DropGrow):
    """Rigged lottery ("RigL"): drop by magnitude, grow by the magnitude of the dense gradient.

    After each `every` steps, in each layer, a share of the weights that falls with the step as a
    cosine, from `fraction` to 0 at `until`. What was just dropped may be grown again, and then
    keeps its value; others start at zero.

    Utku Evci, Trevor Gale, Jacob Menick, Pablo Samuel Castro and Erich Elsen, "Rigging the Lottery:
    Making All Tickets Winners", ICML 2020, arXiv:1911.11134, section 3 and Algorithm 1.

    In the steps after which masks change all weight gradients are wanted, in all others those of
    the weights that are kept.

    In Algorithm 1 the masks change in place of an optimizer step, with that step's gradient. Here
    they change after it: the tracer is called when the optimizer has been. The optimizer's momentum
    of a weight that is grown is left as it is, and a step whose gradient is not finite changes
    nothing.

    Parameters
    ----------
    sparsity : float
        Share of all weights that is dropped, in [0, 1).
    allocation : {"erk", "uniform"}
    first_conv_dense : bool
        The authors do so with "uniform".
    every, until : int
        "Delta T" and "T_end". Without `until`, the share does not fall.
    fraction : float
        "alpha".
    seed : int
        Of the first, random mask.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "rigl"

    def fraction_at(self, step: int) -> float:
        """Return the share that is dropped and grown: alpha / 2 * (1 + cos(t * pi / T_end))."""
        if self.until is None:
            return self.fraction
        return self.fraction / 2 * (1 + math.cos(step * math.pi / self.until))

    def wanted(self, site: Site) -> Fraction | None:
        """Return the share of a layer's weight gradients that is wanted; all where masks change."""
        return None if self.due(site.step) else super().wanted(site)

    def sparsifier(self) -> GrowsByGradient:
        """Return the sparsifier of a new run."""
        return GrowsByGradient(self)


class GrowsByGradient(DropGrowRun):
    """Grows by the dense gradients of the steps in which masks change."""

    def __init__(self, policy: DropGrow) -> None:
        super().__init__(policy)
        self._dense: dict[str, Array] = {}

    def weight_gradient(self, layer: Layer, weight: Array, gradient: Array) -> Array:
        """Return the masked gradient; the dense one is stored if masks change after this step."""
        if self.policy.due(self.step):
            known, exact = self._dense.get(layer.name), widened(gradient)
            self._dense[layer.name] = known + exact if fits(known, exact) else exact
        return super().weight_gradient(layer, weight, gradient)

    def grow_scores(self, layer: str, step: int) -> Array | None:
        """Return the magnitudes of the dense gradient; None if it is not finite."""
        gradient = self._dense.get(layer)
        usable = gradient is not None and is_finite(gradient)
        return namespace(gradient).abs(gradient) if usable else None

    def end_step(self, step: int, weights: Any) -> dict[str, Array]:
        """Change the masks if it is time, and return the weights with zeros outside them."""
        changed = super().end_step(step, weights)
        self._dense.clear()
        return changed
