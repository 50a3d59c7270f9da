"""SNFS, sparse networks from scratch: dropped by magnitude, grown and redistributed by momentum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from swatsim.arguments import exact, share
from swatsim.policies.allocation import share_out
from swatsim.policies.arrays import Array, fits, mean_magnitude, namespace
from swatsim.policies.drop_grow import DropGrow, DropGrowRun, Fractional, drop, grow
from swatsim.policies.interface import Site, Work
from swatsim.policies.method import as_float
from swatsim.workload.layer import Layer

Smoothing = Annotated[float, as_float(share("[0, 1)"))]


class SNFS(DropGrow):
    """Sparse momentum ("SNFS"): drop by magnitude, redistribute and grow by momentum.

    After each `every` steps (the authors': an epoch) each layer drops the share `fraction` of its
    weights. What all layers dropped is shared out in proportion to the mean magnitude of the
    momentum of a layer's weights, and grown where a layer's momentum is largest. It is of all
    weights, so all weight gradients are wanted, in every step.

    Tim Dettmers and Luke Zettlemoyer, "Sparse Networks from Scratch: Faster Training without
    Losing Performance", arXiv:1907.04840, section 3 and Algorithm 1. The momentum is a smoothed
    gradient of all weights, those outside the mask too, kept here and not taken from the
    optimizer, which sees none of the latter; a step whose gradient is not finite is left out of
    it. The share that is dropped does not fall, counts are rounded down, and nothing is special
    about layers that are nearly dense: the authors' code lowers, rounds up, and drops less there.

    Parameters
    ----------
    sparsity : float
        Share of all weights that is dropped, in [0, 1).
    allocation : {"erk", "uniform"}
        To begin with; the authors' is "uniform".
    first_conv_dense : bool
    every, until : int
    fraction : float
        "p"; the authors' falls from 0.2.
    smoothing : float
        "alpha": momentum = alpha * momentum + (1 - alpha) * gradient.
    seed : int
        Of the first mask.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "snfs"

    fraction: Fractional = 0.2
    smoothing: Smoothing = 0.9

    def wanted(self, site: Site) -> None:
        """Want all weight gradients, for the momentum of all weights."""

    def sparsifier(self) -> GrowsByMomentum:
        """Return the sparsifier of a new run."""
        return GrowsByMomentum(self)


class Momentum:
    """The smoothed dense gradient of each layer's weight.

    Parameters
    ----------
    smoothing : float
    """

    def __init__(self, smoothing: float) -> None:
        self.of: dict[str, Array] = {}
        self._smoothing = smoothing
        self._sums: dict[str, Array] = {}

    def add(self, layer: str, gradient: Array) -> None:
        """Add what one run of a layer contributes to the gradient of this step."""
        xp = namespace(gradient)
        exact = xp.astype(gradient, xp.float32)
        known = self._sums.get(layer)
        self._sums[layer] = known + exact if fits(known, exact) else exact

    def end_step(self) -> None:
        """Add this step's gradients to the smoothed ones."""
        old, new = self._smoothing, 1 - self._smoothing
        for layer, gradient in self._sums.items():
            xp = namespace(gradient)
            known = self.of.get(layer) if fits(self.of.get(layer), gradient) else None
            before = xp.zeros_like(gradient) if known is None else known
            smoothed = gradient * new if known is None else before * old + gradient * new
            # loss scaling makes them now and then; not asked for, so that no device is waited for
            self.of[layer] = xp.where(xp.all(xp.isfinite(gradient)), smoothed, before)
        self._sums.clear()


class GrowsByMomentum(DropGrowRun):
    """Changes all layers' masks together."""

    policy: SNFS

    def __init__(self, policy: SNFS) -> None:
        super().__init__(policy)
        self.momentum = Momentum(policy.smoothing)

    def state(self) -> dict[str, Any]:
        """Return what a later run needs to go on from here."""
        return {**super().state(), "momentum": dict(self.momentum.of)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        super().load(state)
        self.momentum.of = dict(state["momentum"])

    def work(self, sites: Sequence[Site]) -> tuple[Work, ...]:
        """Return what is done with an operand in a step: of a weight its momentum, too."""
        own = super().work(sites)
        return (*own, "momentum") if own else own

    def weight_gradient(self, layer: Layer, weight: Array, gradient: Array) -> Array:
        """Return the masked gradient; the dense one is added to the momentum."""
        if layer.name in self.layer_masks:
            self.momentum.add(layer.name, gradient)
        return super().weight_gradient(layer, weight, gradient)

    def end_step(self, step: int, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Update the momentum, change the masks if it is time; return weights to be replaced."""
        self.momentum.end_step()
        return super().end_step(step, weights)

    def _changed(self, step: int, weights: Mapping[str, Array]) -> dict[str, Array]:
        momentum = self.momentum.of
        masks = self.layer_masks
        names = [name for name in masks if name in weights and fits(weights[name], masks[name])]
        names = [name for name in names if fits(momentum.get(name), masks[name])]
        fraction, left, dropped = self.policy.fraction_at(step), {}, 0
        for name in names:
            mask = self.layer_masks[name]
            count = int(exact(fraction) * int(namespace(mask).count_nonzero(mask)))
            left[name] = drop(mask, weights[name], count)
            dropped += count
        shares = [mean_magnitude(momentum[name], self.layer_masks[name]) for name in names]
        room = [int(namespace(mask).count_nonzero(~mask)) for mask in left.values()]
        grown = zip(names, share_out(dropped, shares, room), strict=True)
        return {name: grow(left[name], _abs(momentum[name]), count) for name, count in grown}


def _abs(array: Array) -> Any:
    return namespace(array).abs(array)
