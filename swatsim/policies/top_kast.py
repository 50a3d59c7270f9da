"""Top-KAST: the largest weights forward, a larger set of them trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from math import ceil, prod
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from swatsim.arguments import sparsity
from swatsim.policies.allocation import (
    WEIGHTS,
    AllocationField,
    Uniform,
    named_allocation,
    share_at,
)
from swatsim.policies.arrays import Array, fits, namespace
from swatsim.policies.interface import Site, Work
from swatsim.policies.method import Factor, Method, Period, Sparsity
from swatsim.policies.rules import Rule
from swatsim.policies.sparsifier import Sparsifier
from swatsim.policies.topk import largest
from swatsim.workload.layer import Layer


class TopKast(Method):
    """Always-sparse training by Top-K ("Top-KAST").

    fprop and dgrad read the Top-K weights (set A); the gradient of the weights is that of a larger
    Top-K (set B), and 0 elsewhere. wgrad itself reads dense operands: what is sparse is its
    output. Weights in neither set get no gradient, and stay as they are under an optimizer without
    momentum and weight decay. Both sets are chosen anew after `every` steps; in sets that are held
    weights of zero hold places.

    Siddhant Jayakumar, Razvan Pascanu, Jack Rae, Simon Osindero and Erich Elsen, "Top-KAST: Top-K
    Always Sparse Training", NeurIPS 2020, arXiv:2106.03517, sections 2.1 to 2.3; the penalty is
    the exploration regularisation of section 2.3, whose gradient is added here, for layers that are
    sparse: set the optimizer's weight decay to 0. It is added in each backward pass: with n of them
    in a step (gradient accumulation) n times, and with a scaled loss divided by the scale.

    Parameters
    ----------
    sparsity : float
        Share of the weights outside A ("1 - D"), in [0, 1).
    backward_sparsity : float
        Share of the weights outside B ("1 - (D + M)"), at most `sparsity`, and 0.5 by default.
    allocation : {"uniform", "erk"}
        Of A. B is uniform where A is; with "erk" it grows by the same factor in each layer.
    first_conv_dense : bool
    every : int
        "N".
    penalty : float
        Factor of the L2 penalty: of weights in A 1, of those in B alone 1 / D.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "top-kast"

    sparsity: Sparsity = Field(kw_only=False)
    first_conv_dense: bool = False
    backward_sparsity: Sparsity = 0.5
    allocation: AllocationField = Uniform()
    every: Period = 1
    penalty: Factor = 1e-4

    @model_validator(mode="before")
    @classmethod
    def _by_default(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data with a default: half of the weights, or all that are read if more."""
        with suppress(ValueError):  # a sparsity that is none is refused as such
            default = min(0.5, float(sparsity(data.get("sparsity"))))
            return {"backward_sparsity": default, **data}
        return data

    @model_validator(mode="after")
    def _relations(self) -> TopKast:
        if self.backward_sparsity > self.sparsity:
            raise ValueError(
                f"backward_sparsity={self.backward_sparsity} must be at most "
                f"sparsity={self.sparsity}: more weights are trained than are read"
            )
        return self

    @property
    def is_allocated(self) -> bool:
        """Whether every layer has its density already."""
        return named_allocation(self.allocation).is_allocated

    def allocate(self, layers: Sequence[Layer]) -> Self:
        """Return the policy with a density for each layer: see `ErdosRenyiKernel.over`."""
        shared_out = named_allocation(self.allocation).over(layers, self)
        return self.model_copy(update={"allocation": shared_out})

    def density(self, site: Site) -> Fraction | None:
        """Return the share of a layer's weights that is read; None where it is left as it is.

        Raises
        ------
        PolicyError
            If nothing was allocated, the layer is none of those allocated to, or has other weights.
        """
        return share_at(site, WEIGHTS, self.allocation, self)

    def wanted(self, site: Site) -> Fraction | None:
        """Return the share of a layer's weight gradients that is wanted: set B's; None for all."""
        read = self.density(replace(site, op="fprop"))
        share = None if read is None else self.trained_share(read)
        return share if share is None or share < 1 else None

    def trained_share(self, read: Fraction) -> Fraction:
        """Return the share of a layer's weights in set B, of which so many are in A."""
        more = (1 - sparsity(self.backward_sparsity)) / (1 - sparsity(self.sparsity))
        return min(Fraction(1), read * more)

    def rule(self, site: Site) -> Rule:
        """Return the rule of Top-K by magnitude, chosen after each `every` steps."""
        return Rule(every=self.every)

    def sparsifier(self) -> TrainsMore:
        """Return the sparsifier of a new run."""
        return TrainsMore(self)


class TrainsMore(Sparsifier):
    """Chooses the set that is trained with the set that is read."""

    policy: TopKast

    def __init__(self, policy: TopKast) -> None:
        super().__init__(policy)
        self._read: dict[str, Array] = {}
        self._trained: dict[str, dict[str, Any]] = {}

    def state(self) -> dict[str, Any]:
        """Return what a later run needs to go on from here."""
        return {**super().state(), "trained": {k: {**v} for k, v in self._trained.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        super().load(state)
        self._trained = {name: {**trained} for name, trained in state["trained"].items()}

    def masks(self, sites: Any, values: Array, *, training: bool = True) -> list[Array | None]:
        """Return masks of the weights that are read; choose the trained ones if it is time."""
        masks = super().masks(sites, values, training=training)
        site = sites[0]
        read, name = masks[0], site.layer.name
        if training and site.operand == "weight" and read is not None:
            since = self.rule(site).since(site.step)
            known = self._trained.get(name, {"since": None, "mask": None})
            if known["since"] != since or not fits(known["mask"], values):
                self._trained[name] = {"since": since, **self._choose(site, values)}
            self._read[name] = read
        return masks

    def work(self, sites: Sequence[Site]) -> tuple[Work, ...]:
        """Return what is done with an operand in a step: for each of the two sets."""
        return super().work(sites) * 2

    def _wanted(self, layer: str) -> Array:
        return self._trained[layer]["mask"] | self._read[layer]

    def _choose(self, site: Site, values: Array) -> dict[str, Any]:
        """Return the trained set: exactly k of the largest, for a weight of zero may grow."""
        xp = namespace(values)
        density = self.density(site) or Fraction(1)
        k = ceil(self.policy.trained_share(density) * prod(values.shape))
        mask = largest(xp.abs(values), k, xp.ones_like(values, dtype=xp.bool))
        return {"mask": mask, "density": float(density)}

    def weight_gradient(self, layer: Layer, weight: Array, gradient: Array) -> Array:
        """Return the gradient of the trained set, with the penalty's, and zeros elsewhere."""
        if layer.name not in self._trained:
            return gradient
        xp = namespace(gradient)
        read, density = self._read[layer.name], self._trained[layer.name]["density"]
        trained, penalty = self._wanted(layer.name), self.policy.penalty
        pull = xp.where(read, weight * penalty, weight * (penalty / density))
        return xp.where(trained, gradient + pull, xp.zeros_like(gradient))
