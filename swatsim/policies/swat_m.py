"""SWAT-M: one sparsity for the network, given to its layers by the momentum of their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import prod
from typing import Any, ClassVar

from pydantic import Field

from swatsim.arguments import sparsity
from swatsim.policies.allocation import Uniform, share_at, share_out
from swatsim.policies.arrays import Array, fits, mean_magnitude
from swatsim.policies.interface import Site, Work
from swatsim.policies.method import Method, Period, Sparsity
from swatsim.policies.snfs import Momentum, Smoothing
from swatsim.policies.sparsifier import Sparsifier
from swatsim.policies.swat_u import SPARSE
from swatsim.workload.layer import Layer


class SwatM(Method):
    """SWAT with an overall weight sparsity, layers given theirs by momentum ("SWAT-M").

    The same sparsity in all layers to begin with. After each `every` steps the weights that the
    network keeps are shared out anew, in proportion to the mean magnitude of the momentum of the
    weights that a layer keeps; no layer gets more than it has, nor less than one. Top-K is as in
    SWAT-U: weights in fprop and dgrad, activations in wgrad with the sparsity of the layer's
    weights; weights stay dense, and all are trained.

    Md Aamir Raihan and Tor M. Aamodt, "Sparse Weight Activation Training", NeurIPS 2020,
    arXiv:2001.01969, as its code has it (github.com/AamirRaihan/SWAT, dynamic_sparsity.py): the
    redistribution is that of Dettmers and Zettlemoyer, arXiv:1907.04840. The authors take the
    momentum from the optimizer; here it is a smoothed gradient kept beside it. What has no room in
    a layer goes to the others in proportion, and the sum is exact: theirs goes to all alike.

    Parameters
    ----------
    sparsity : float
        Share of all weights that is dropped, in [0, 1).
    first_conv_dense : bool
        Leave the network's first convolution as it is; its weights do not count then.
    every : int
        Period between two allocations; the authors' is an epoch.
    smoothing : float
        momentum = smoothing * momentum + (1 - smoothing) * gradient.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "swat-m"

    sparsity: Sparsity = Field(kw_only=False)
    first_conv_dense: bool = False
    every: Period = 100
    smoothing: Smoothing = 0.9

    def density(self, site: Site) -> Fraction | None:
        """Return the share that survives to begin with; None where an operand is left as it is."""
        return share_at(site, SPARSE, Uniform(), self)

    def sparsifier(self) -> ByMomentum:
        """Return the sparsifier of a new run."""
        return ByMomentum(self)


class ByMomentum(Sparsifier):
    """Top-K with densities that follow the momentum."""

    policy: SwatM

    def __init__(self, policy: SwatM) -> None:
        super().__init__(policy)
        self.by_layer: dict[str, Fraction] = {}
        self.momentum = Momentum(policy.smoothing)
        self._masks: dict[str, Array] = {}

    def state(self) -> dict[str, Any]:
        """Return what a later run needs to go on from here."""
        shares = {name: str(share) for name, share in self.by_layer.items()}
        masks, momentum = dict(self._masks), dict(self.momentum.of)
        return {**super().state(), "densities": shares, "kept": masks, "momentum": momentum}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        super().load(state)
        self.by_layer = {name: Fraction(share) for name, share in state["densities"].items()}
        self.momentum.of, self._masks = dict(state["momentum"]), dict(state["kept"])

    def density(self, site: Site) -> Fraction | None:
        """Return the share that survives by the last allocation."""
        uniform = super().density(site)
        return uniform if uniform is None else self.by_layer.get(site.layer.name, uniform)

    def masks(
        self, sites: Sequence[Site], values: Array, *, training: bool = True
    ) -> list[Array | None]:
        """Return the masks; a weight's is stored, for its momentum."""
        masks = super().masks(sites, values, training=training)
        if training and sites[0].operand == "weight" and masks[0] is not None:
            self._masks[sites[0].layer.name] = masks[0]
        return masks

    def work(self, sites: Sequence[Site]) -> tuple[Work, ...]:
        """Return what is done with an operand in a step: of a weight its momentum, too."""
        own = super().work(sites)
        return (*own, "momentum") if own and sites[0].operand == "weight" else own

    def weight_gradient(self, layer: Layer, weight: Array, gradient: Array) -> Array:
        """Return the gradient, which stays dense; it is added to the momentum."""
        if layer.name in self._masks:
            self.momentum.add(layer.name, gradient)
        return super().weight_gradient(layer, weight, gradient)

    def end_step(self, step: int, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Update the momentum, and allocate anew if it is time; no weight is replaced."""
        self.momentum.end_step()
        if step > 0 and step % self.policy.every == 0:
            self._allocate()
        return super().end_step(step, weights)

    def report(self) -> dict[str, Any]:
        """Return what is not in the masks: the layers' densities."""
        shares = {name: float(share) for name, share in self.by_layer.items()}
        return {**super().report(), **({"densities": shares} if shares else {})}

    def _allocate(self) -> None:
        known = self.momentum.of
        names = [name for name, mask in self._masks.items() if fits(known.get(name), mask)]
        sizes = [prod(self._masks[name].shape) for name in names]
        shares = [mean_magnitude(self.momentum.of[name], self._masks[name]) for name in names]
        budget = int((1 - sparsity(self.policy.sparsity)) * sum(sizes))
        given = share_out(max(0, budget - len(sizes)), shares, [size - 1 for size in sizes])
        self.by_layer = {
            name: Fraction(count + 1, size)
            for name, count, size in zip(names, given, sizes, strict=True)
        }
