"""N:M weights with SR-STE: n of each m weights along the input channels, all of them trained."""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from swatsim.arguments import accepted
from swatsim.arguments import sparsity as checked_sparsity
from swatsim.errors import PolicyError
from swatsim.policies.allocation import WEIGHTS
from swatsim.policies.arrays import Array, namespace
from swatsim.policies.granularity import n_of_m, share_of
from swatsim.policies.interface import Site
from swatsim.policies.method import Factor, Method
from swatsim.policies.rules import Rule
from swatsim.validation import Whole
from swatsim.workload.layer import Layer

Count = Annotated[Whole, Field(ge=1, le=64)]


class SrSte(Method):
    """N:M sparse weights, trained with a sparse-refined straight-through estimator ("SR-STE").

    fprop and dgrad read the n largest of each m weights that follow each other along C, chosen anew
    in every step: of a grouped layer along the channels of a group, and where these are no more
    than n (a depthwise layer has one) the layer stays dense. All weights are trained: the gradient
    of the sparse ones is passed straight through, and `decay` times the weight is added to it where
    a weight was left out.

    Aojun Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch",
    ICLR 2021, arXiv:2102.04010, section 4.1 and equation 7. dgrad reads the same weights, but
    adds up along K, where up to m of m are left: there `Transposable` is N:M, too. The decay is
    added in each backward pass: with n of them in a step (gradient accumulation) n times, and with
    a scaled loss (``GradScaler``) it is divided by the scale.

    Parameters
    ----------
    n, m : int
        1 <= n <= m.
    decay : float
        "lambda_w"; 0 is the plain straight-through estimator.
    first_conv_dense : bool
        Leave the network's first convolution as it is: it has three input channels.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "sr-ste"
    trains: ClassVar[str] = "all"

    n: Count = Field(default=2, kw_only=False)
    m: Count = Field(default=4, kw_only=False)
    decay: Factor = 2e-4
    first_conv_dense: bool = True

    @classmethod
    def of_sparsity(cls, sparsity: float) -> Self:
        """Return the policy n:4 of a sparsity.

        Raises
        ------
        PolicyError
            If the sparsity is none of 0, 0.25, 0.5 and 0.75.
        """
        n = 4 * (1 - accepted(PolicyError, cls.__name__, "sparsity", sparsity, checked_sparsity))
        if n.denominator != 1:
            raise PolicyError(
                f"{cls.__name__}: sparsity={sparsity!r} is not allowed: of n:4 must be 0, 0.25, "
                "0.5 or 0.75"
            )
        return cls(int(n), 4)

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if self.n > self.m:
            raise ValueError(f"n={self.n} must be at most m={self.m}")
        return self

    def density(self, site: Site) -> Fraction | None:
        """Return the share of the weights that survives; None where an operand is left as it is."""
        dense = site.first_convolution and self.first_conv_dense
        sparse = (site.op, site.operand) in WEIGHTS and not dense
        share = self._share(site.layer)
        return share if sparse and share < 1 else None

    def _share(self, layer: Layer) -> Fraction:
        """Return the share of a layer's weights that survives the pattern."""
        return share_of(self.n, self.m, layer.C // layer.groups)

    @cached_property
    def _rule(self) -> Rule:
        return Rule(granularity=n_of_m(self.n, self.m))

    def rule(self, site: Site) -> Rule:
        """Return the rule of n of each m."""
        return self._rule

    def weight_gradient(self, mask: Array, weight: Array, gradient: Array) -> Array:
        """Return the gradient, with the decay of the weights that were left out."""
        xp = namespace(gradient)
        return gradient + xp.where(mask, xp.zeros_like(weight), weight * self.decay)
