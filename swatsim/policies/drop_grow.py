"""Masks that persist: weights dropped and grown now and then, as in SET, RigL and SNFS.

A weight outside the mask is zero, and stays so: the optimizer gets no gradient for it, and after
each step it is set to zero again, whatever weight decay or momentum made of it. A weight that is
grown starts at zero: in the step after a change a layer reads fewer non-zeros than it keeps places,
and a trace holds what is read. A weight that is computed anew in each step can't be set to zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from swatsim.arguments import exact, share
from swatsim.errors import PolicyError
from swatsim.policies.allocation import (
    WEIGHTS,
    AllocationField,
    ErdosRenyiKernel,
    named_allocation,
    share_at,
)
from swatsim.policies.arrays import Array, fits, like, namespace, only
from swatsim.policies.draw import generator
from swatsim.policies.interface import Policy, Site, Work
from swatsim.policies.method import Method, Period, Sparsity, as_float
from swatsim.policies.sparsifier import Sparsifier
from swatsim.policies.topk import keep_count, largest
from swatsim.validation import Whole
from swatsim.workload.layer import Layer

Fractional = Annotated[float, as_float(share("(0, 1)"))]


class PersistentMask(Method):
    """Base of policies whose masks persist from step to step: random ones to begin with.

    Parameters
    ----------
    sparsity : float
        Share of all weights that is dropped, in [0, 1).
    allocation : {"erk", "uniform"}
        How it is shared out among the layers.
    first_conv_dense : bool
        Leave the network's first convolution as it is.
    seed : int
        Of the first mask.
    """

    sparsity: Sparsity = Field(kw_only=False)
    first_conv_dense: bool = False
    allocation: AllocationField = ErdosRenyiKernel()
    seed: Annotated[Whole, Field(ge=0)] = 0

    @property
    def is_allocated(self) -> bool:
        """Whether every layer has its density already."""
        return named_allocation(self.allocation).is_allocated

    def allocate(self, layers: Sequence[Layer]) -> Self:
        """Return the policy with a density for each layer: see `ErdosRenyiKernel.over`."""
        shared_out = named_allocation(self.allocation).over(layers, self)
        return self.model_copy(update={"allocation": shared_out})

    def density(self, site: Site) -> Fraction | None:
        """Return the share of a layer's weights that survives; None where it is left as it is.

        Raises
        ------
        PolicyError
            If nothing was allocated, the layer is none of those allocated to, or has other weights.
        """
        return share_at(site, WEIGHTS, self.allocation, self)

    def wanted(self, site: Site) -> Fraction | None:
        """Return the share of a layer's weight gradients that is wanted: those of kept weights."""
        return self.density(replace(site, op="fprop"))

    def sparsifier(self) -> PersistentMaskRun:
        """Return the sparsifier of a new run."""
        return PersistentMaskRun(self)


class Seeded(Policy, Protocol):
    """A policy whose first masks are drawn."""

    @property
    def seed(self) -> int:
        """Return the seed of the masks."""
        ...


class PersistentMaskRun(Sparsifier):
    """The masks of a run, one a layer. The base draws them once, at random."""

    keeps_masks = True

    def __init__(self, policy: Seeded) -> None:
        super().__init__(policy)
        self.seed = policy.seed
        self.step = 0
        self.layer_masks: dict[str, Array] = {}

    def state(self) -> dict[str, Any]:
        """Return what a later run needs to go on from here."""
        return {"kept": dict(self.layer_masks)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.layer_masks = dict(state["kept"])

    def masks(
        self, sites: Sequence[Site], values: Array, *, training: bool = True
    ) -> list[Array | None]:
        """Return the layer's mask for each site that reads its weight."""
        self.step = sites[0].step
        return [self._mask_of(site, values) for site in sites]

    def weight_gradient(self, layer: Layer, weight: Array, gradient: Array) -> Array:
        """Return the gradient with zeros outside the mask."""
        mask = self.layer_masks.get(layer.name)
        return only(gradient, mask) if fits(mask, gradient) else gradient

    def end_step(self, step: int, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Return the weights with zeros outside the masks."""
        super().end_step(step, weights)
        masks = self.layer_masks
        return {name: only(w, masks[name]) for name, w in weights.items() if self._fits(name, w)}

    def refuse_computed(self, modules: Sequence[str]) -> None:
        """Refuse modules whose weights are computed anew in each step: none can be set to zero.

        Raises
        ------
        PolicyError
            If there is one.
        """
        if modules:
            many = len(modules) > 1
            raise PolicyError(
                f"layer{'s' * many} {', '.join(map(repr, modules))}: the weight is computed anew "
                "in each step (weight_norm, spectral_norm, another parametrization), and "
                f"{type(self.policy).__name__} has to set weights to zero: leave "
                f"{'them' if many else 'it'} alone with skip={tuple(modules)!r}, remove the "
                "parametrization, or take a policy that only masks what is read, such as TopKast"
            )

    def _fits(self, layer: str, array: Array) -> bool:
        return fits(self.layer_masks.get(layer), array)

    def _wanted(self, layer: str) -> Array | None:
        return self.layer_masks.get(layer)

    def forget(self, layer: str) -> None:
        """Forget a layer's mask: another is drawn, for a weight of another shape."""
        super().forget(layer)
        self.layer_masks.pop(layer, None)

    def _mask_of(self, site: Site, values: Array) -> Array | None:
        share, name = self.density(site), site.layer.name
        if share is None:
            return None
        if not self._fits(name, values):
            shape = tuple(values.shape)
            self.layer_masks[name] = like(self.drawn(site, shape, share), values)
        return self.layer_masks[name]

    def drawn(self, site: Site, shape: tuple[int, ...], share: Fraction) -> npt.NDArray[np.bool_]:
        """Return a layer's first mask: so many places, each as likely as any other."""
        scores = generator(self.seed, site.layer.name).random(math.prod(shape))
        order = np.argsort(-scores, kind="stable")[: keep_count(scores.size, 1 - share)]
        mask = np.zeros(scores.size, np.bool_)
        mask[order] = True
        return mask.reshape(shape)


class DropGrow(PersistentMask):
    """Base of policies that drop the smallest weights now and then, and grow as many others.

    Parameters
    ----------
    sparsity, allocation, first_conv_dense, seed
        As in `PersistentMask`.
    every : int
        Period between two changes of the masks; the first one is after step `every`.
    until : int, optional
        No change from this step on.
    fraction : float
        Share of a layer's weights that is dropped and grown, in (0, 1).
    """

    every: Period = 100
    until: Period | None = None
    fraction: Fractional = 0.3

    def due(self, step: int) -> bool:
        """Whether the masks change at the end of a step."""
        return step > 0 and step % self.every == 0 and (self.until is None or step < self.until)

    def fraction_at(self, step: int) -> float:
        """Return the share that is dropped and grown at the end of a step."""
        return self.fraction


class DropGrowRun(PersistentMaskRun):
    """Drops by magnitude and grows by a score, in each layer as many as it drops.

    Parameters
    ----------
    policy : DropGrow
    """

    policy: DropGrow
    #: How a mask is changed: among all weights those to drop, among all scores those to grow.
    changes_by: ClassVar[tuple[Work, ...]] = ("topk", "topk")

    def work(self, sites: Sequence[Site]) -> tuple[Work, ...]:
        """Return what is done with an operand in a step: its mask applied, and changed if due."""
        own = super().work(sites)
        return (*own, *self.changes_by) if own and self.policy.due(sites[0].step) else own

    def end_step(self, step: int, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Change the masks if it is time, and return the weights with zeros outside them."""
        changed = self._changed(step, weights) if self.policy.due(step) else {}
        fresh = {name: mask & ~self.layer_masks[name] for name, mask in changed.items()}
        self.layer_masks.update(changed)
        projected = super().end_step(step, weights)
        return projected | {name: only(projected[name], ~new) for name, new in fresh.items()}

    def _changed(self, step: int, weights: Mapping[str, Array]) -> dict[str, Array]:
        fraction = self.policy.fraction_at(step)
        changed = {}
        for name in self.layer_masks:
            known = name in weights and self._fits(name, weights[name])
            scores = self.grow_scores(name, step) if known else None
            if scores is not None and self._fits(name, scores):
                count = int(exact(fraction) * _count(self.layer_masks[name]))
                changed[name] = self.change(name, weights[name], scores, count)
        return changed

    def change(self, layer: str, weight: Array, scores: Array, count: int) -> Array:
        """Return a layer's mask with so many weights dropped, and as many others grown."""
        return grow(drop(self.layer_masks[layer], weight, count), scores, count)

    def grow_scores(self, layer: str, step: int) -> Array | None:
        """Return scores of a layer's places, the larger the sooner grown; None for no change."""
        raise NotImplementedError


def drop(mask: Array, weight: Array, count: int) -> Array:
    """Return a mask without its `count` places of smallest magnitude; of equal ones the last."""
    return largest(namespace(weight).abs(weight), _count(mask) - count, mask)


def grow(mask: Array, scores: Array, count: int) -> Array:
    """Return a mask and the `count` places of largest score outside it; of equal ones the first."""
    return mask | largest(scores, min(count, _count(~mask)), ~mask)


def _count(mask: Array) -> int:
    return int(namespace(mask).count_nonzero(mask))
