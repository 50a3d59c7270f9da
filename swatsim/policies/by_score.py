"""A policy of a user's own: a function that scores values, and a few words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, model_validator

from swatsim.errors import unknown
from swatsim.policies.allocation import (
    WEIGHTS,
    AllocationField,
    Uniform,
    named_allocation,
    share_at,
)
from swatsim.policies.arrays import Array, namespace
from swatsim.policies.granularity import granularity, n_and_m, of_weights, share_of
from swatsim.policies.interface import Site
from swatsim.policies.method import Period, PolicyValue, Sparsity
from swatsim.policies.rules import Rule, View
from swatsim.workload.layer import OPERANDS_OF, Layer, Operand, OpName

#: Which operand is sparse where, if a word says no more: as in SWAT and meProp.
WORDS = {
    "weight": WEIGHTS,
    "act": frozenset({("wgrad", "act")}),
    "grad_out": frozenset({("dgrad", "grad_out"), ("wgrad", "grad_out")}),
}

#: What a user may say of where values are dropped.
Where: TypeAlias = Operand | tuple[OpName, Operand]
PAIRS = frozenset((op, operand) for op, reads in OPERANDS_OF.items() for operand in reads)


def _sparse_in(of: Any) -> tuple[tuple[str, str], ...]:
    """Return the (op, operand) pairs of words and pairs, each once, sorted."""
    pairs: set[tuple[str, str]] = set()
    items = (of,) if isinstance(of, str) else of
    if not isinstance(items, Collection) or not items:
        raise ValueError(
            f"must be one or more of {', '.join(WORDS)}, or of pairs of op and operand"
        )
    for item in items:
        if isinstance(item, str):
            if item not in WORDS:
                raise ValueError(unknown("operand", item, WORDS))
            pairs |= WORDS[item]
        elif isinstance(item, tuple | list) and tuple(item) in PAIRS:
            pairs.add((item[0], item[1]))
        else:
            raise ValueError(f"{item!r} must be an operand, or an op and what it reads")
    return tuple(sorted(pairs))


def _known(name: Any) -> str:
    granularity(str(name))
    return str(name)


Of = Annotated[
    Where | Collection[Where],
    PlainValidator(_sparse_in),
    PlainSerializer(lambda pairs: [list(pair) for pair in pairs], return_type=list),
]


class ByScore(PolicyValue):
    """A policy from a function that scores values: the largest scores survive.

    ::

        def taylor(it):                    # what it looks at: it.values, it.gradient, it.site
            return abs(it.values * it.gradient)

        policy = ByScore(taylor, 0.8, of="weight", granularity="filter", every=100,
                         uses_gradient=True)

    Parameters
    ----------
    score : callable of View to array
        The larger, the sooner a value survives; below 0 counts as 0, and 0 never survives. Of equal
        scores what comes first. With ``abs``, products and the like it works for NumPy and torch.
        What it looks at is float32 at least: products of float16 overflow.
    sparsity : float
        Share that is dropped, in [0, 1). Of N:M it is the pattern that says how much is.
    of : word, or collection of words and (op, operand) pairs
        "weight" (in fprop and dgrad), "act" (in wgrad), "grad_out" (in dgrad and wgrad).
    granularity : str
        element, filter, channel, kernel, sample, position, or N:M such as "2:4": N of each M
        channels, of a weight along the input channels of a group. V:N:M such as "64:2:8": of V
        filters x M channels 4 channels of largest sum, and N of these in each filter. Blocks such
        as "block:32x32": of so many filters x channels, tap by tap, by the sum of their scores;
        one at the edge counts as a whole one. Filters, kernels, blocks and V:N:M are those of
        weights; of a weight, a sample is a filter and a position a tap of a channel. All are the
        layer's own: an index inside a group is none.
    allocation : {"uniform", "erk"}
    first_conv_dense : bool
        Leave the network's first convolution as it is.
    every : int
        Period after which the choice is made anew.
    holds : {"mask", "threshold"}
        What is reused in between; activations and gradients can hold thresholds only. In a mask
        that is held, weights of zero hold the places that others leave.
    trains : {"all", "kept"}
        Which weights get a gradient; those of zero that hold a place are kept ones. No other weight
        gradients are wanted then, unless the score looks at them.
    uses_gradient : bool
        Whether the score looks at ``it.gradient``, a weight's dense gradient in the step before,
        or before a step that overflowed.
    name : str, optional
        In the trace; the function's by default. A restarted run must have the same.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    score: Callable[[View], Any] = Field(kw_only=False, exclude=True)
    sparsity: Sparsity = Field(kw_only=False)
    first_conv_dense: bool = False
    of: Of = "weight"
    granularity: Annotated[str, BeforeValidator(_known)] = "element"
    allocation: AllocationField = Uniform()
    every: Period = 1
    holds: Literal["mask", "threshold"] = "mask"
    trains: Literal["all", "kept"] = "all"
    uses_gradient: bool = False
    name: str = ""

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if not self.name and getattr(self.score, "__name__", "") == "<lambda>":
            raise ValueError("name='' is not allowed for a lambda: a trace has to name the score")
        others = sorted({operand for _, operand in self._pairs} - {"weight"})
        if self.every > 1 and self.holds == "mask" and others:
            raise ValueError(
                f"every={self.every} holds a mask, which {' and '.join(others)} can't: they differ "
                'from step to step; choose holds="threshold", or a policy of their own'
            )
        if self.holds == "threshold" and self.granularity != "element":
            raise ValueError(
                f'holds="threshold" goes with granularity="element", got {self.granularity!r}'
            )
        if of_weights(self.granularity) and others:
            raise ValueError(
                f"granularity={self.granularity!r} is of weights, and {' and '.join(others)} have "
                'none: choose "channel", "sample", "position" or "element"'
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
        """Return the share of an operand's values that survives; None where it is left as it is."""
        allocated = share_at(site, self._pairs, self.allocation, self)
        nm = n_and_m(self.granularity)
        if allocated is None or nm is None:
            return allocated
        layer = site.layer
        channels = layer.K if site.operand == "grad_out" else layer.C
        groups = layer.groups if site.operand == "weight" else 1
        share = share_of(*nm, channels // groups)
        return share if share < 1 else None

    def wanted(self, site: Site) -> Fraction | None:
        """Return the share of a layer's weight gradients that is wanted; None for all of them."""
        kept = self.trains == "kept" and not self.uses_gradient
        return self.density(replace(site, op="fprop")) if kept else None

    @cached_property
    def _pairs(self) -> tuple[tuple[str, str], ...]:
        return _sparse_in(self.of)

    @cached_property
    def _rule(self) -> Rule:
        chosen = granularity(self.granularity)
        rest = {"every": self.every, "holds": self.holds, "uses_gradient": self.uses_gradient}
        return Rule(self.score, chosen, **rest)  # type: ignore[arg-type]

    def rule(self, site: Site) -> Rule:
        """Return the rule with the score, the same for all operands."""
        return self._rule

    def weight_gradient(self, mask: Array, weight: Array, gradient: Array) -> Array:
        """Return the gradient of all weights, or of those that were read, with zeros elsewhere."""
        if self.trains == "all":
            return gradient
        xp = namespace(gradient)
        return xp.where(mask, gradient, xp.zeros_like(gradient))

    def describe(self) -> dict[str, Any]:
        """Return the policy's name and parameters, as JSON."""
        name = self.name or getattr(self.score, "__name__", type(self.score).__name__)
        return {**self.model_dump(mode="json"), "name": name}
