"""SRigL: RigL in which each output neuron keeps the same number of weights."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from swatsim.arguments import exact
from swatsim.policies.arrays import Array, namespace
from swatsim.policies.draw import generator
from swatsim.policies.granularity import largest_along
from swatsim.policies.interface import Site
from swatsim.policies.rigl import GrowsByGradient, RigL
from swatsim.policies.tiles import by_filter, from_filters
from swatsim.policies.topk import largest
from swatsim.workload.layer import Kind

Salient = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class SRigL(RigL):
    """Structured RigL ("SRigL"): the same fan-in for each output neuron, some left out whole.

    A neuron is an output channel: all its kernels in a convolution. Each keeps ceil(density *
    fan-in) weights, in places drawn at random to begin with. When masks change, in each layer:

    1. Salient are the weights that RigL would keep, and those that it would grow.
    2. A neuron with fewer of them than `salient` times the fan-in is ablated: it keeps no weight.
    3. The fan-in of the others is the layer's weights by their number, rounded down.
    4. The smallest weights of the layer are dropped, a share of all as in RigL; what ablated
       neurons had is among them.
    5. Each other neuron grows those of its largest gradients until it has the fan-in.

    An ablated neuron comes back as soon as enough of its weights are salient.

    Mike Lasby et al., "Dynamic Sparse Training with Structured Sparsity", ICLR 2024,
    arXiv:2305.02299, section 3. What of `RigL`'s order and momentum is said there holds here. What
    is salient is as in the authors' code (github.com/calgaryml/condensed-sparsity). Without a
    neuron that would stay none is ablated.

    Parameters
    ----------
    sparsity : float
        Share of all weights that is dropped, in [0, 1), before fan-ins are rounded up.
    salient : float
        "gamma_sal", in [0, 1]: 0.3 in the authors' runs of ResNet-50; 0 ablates none.
    allocation : {"erk", "uniform"}
    first_conv_dense : bool
    every, until : int
        As in `RigL`.
    fraction : float
        As in `RigL`.
    seed : int
        Of the first, random mask.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "srigl"

    salient: Salient = 0.3

    def density(self, site: Site) -> Fraction | None:
        """Return the share of a layer's weights that survives; None where it is left as it is."""
        share = super().density(site)
        if share is None:
            return None
        fan_in = site.layer.weights // site.layer.K
        kept = Fraction(math.ceil(share * fan_in), fan_in)
        return kept if kept < 1 else None

    def sparsifier(self) -> ConstantFanIn:
        """Return the sparsifier of a new run."""
        return ConstantFanIn(self)


class ConstantFanIn(GrowsByGradient):
    """Masks with as many weights for each neuron that is not ablated."""

    policy: SRigL

    def __init__(self, policy: SRigL) -> None:
        super().__init__(policy)
        self._lies: dict[str, tuple[Kind, int]] = {}
        self._budgets: dict[str, int] = {}

    def _mask_of(self, site: Site, values: Array) -> Array | None:
        share, layer = self.density(site), site.layer
        if share is not None:
            self._lies[layer.name] = layer.kind, layer.groups
            self._budgets[layer.name] = int(share * layer.weights)
        return super()._mask_of(site, values)

    def drawn(self, site: Site, shape: tuple[int, ...], share: Fraction) -> npt.NDArray[np.bool_]:
        """Return a layer's first mask: as many places for each neuron, each as likely."""
        kind, groups = site.layer.kind, site.layer.groups
        like = np.zeros(shape, np.bool_)
        fan_in = by_filter(like, kind, groups).shape
        scores = generator(self.seed, site.layer.name).random(fan_in)
        mask: npt.NDArray[np.bool_] = from_filters(
            largest_along(scores, int(share * fan_in[1])), like, kind, groups
        )
        return mask

    def change(self, layer: str, weight: Array, scores: Array, count: int) -> Array:
        """Return a layer's mask with some weights dropped and others grown, neuron by neuron."""
        lies = self._lies[layer]
        mask = by_filter(self.layer_masks[layer], *lies)
        xp = namespace(mask)
        sizes, gradients = xp.abs(by_filter(weight, *lies)), by_filter(scores, *lies)
        active = self._active(mask, sizes, gradients, count)
        neurons = int(xp.count_nonzero(active))
        fan_in = min(mask.shape[1], self._budgets[layer] // neurons)
        among = mask & active[:, None]
        stay = min(int(xp.count_nonzero(mask)) - count, int(xp.count_nonzero(among)))
        kept = largest(sizes, stay, among)
        if bool(xp.any(xp.count_nonzero(kept, axis=1) > fan_in)):  # more neurons than before
            kept &= largest_along(xp.where(kept, sizes, xp.full_like(sizes, -1)), fan_in)
        missing = fan_in - xp.count_nonzero(kept, axis=1)
        candidates = xp.where(kept, xp.full_like(gradients, -1), gradients)
        grown = largest_along(candidates, missing[:, None]) & active[:, None]
        return from_filters(kept | grown, weight, *lies)

    def _active(self, mask: Array, sizes: Array, gradients: Array, count: int) -> Array:
        """Return which neurons are not ablated: all, if none would be left."""
        xp = namespace(mask)
        salient = largest(sizes, int(xp.count_nonzero(mask)) - count, mask)
        salient = salient | largest(gradients, min(count, int(xp.count_nonzero(~mask))), ~mask)
        fan_in = int(xp.max(xp.count_nonzero(mask, axis=1)))
        least = math.ceil(exact(self.policy.salient) * fan_in)
        active = xp.count_nonzero(salient, axis=1) >= least
        return active if bool(xp.any(active)) else xp.ones_like(active)
