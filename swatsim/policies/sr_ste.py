"""N:M weights with SR-STE: n of each m weights along the input channels, all of them trained."""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from swatsim.errors import PolicyError, SwatsimError
from swatsim.policies.allocation import WEIGHTS
from swatsim.policies.arrays import Array, namespace
from swatsim.policies.granularity import n_of_m, share_of
from swatsim.policies.interface import Site
from swatsim.policies.rules import Rule
from swatsim.validation import Checked
from swatsim.workload.layer import Layer

Count = Annotated[int, Field(ge=1, le=64)]


class SrSte(Checked):
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

    error_type: ClassVar[type[SwatsimError]] = PolicyError

    n: Count = 2
    m: Count = 4
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2e-4
    first_conv_dense: bool = True

    def __init__(self, n: Any = 2, m: Any = 4, **options: Any) -> None:
        super().__init__(n=n, m=m, **options)

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if self.n > self.m:
            raise ValueError(f"n={self.n} must be at most m={self.m}")
        return self

    def density(self, site: Site) -> Fraction | None:
        """Tell the share of the weights that survives; None for what is left as it is."""
        dense = site.first_convolution and self.first_conv_dense
        sparse = (site.op, site.operand) in WEIGHTS and not dense
        share = self._share(site.layer)
        return share if sparse and share < 1 else None

    def _share(self, layer: Layer) -> Fraction:
        """Tell the share of a layer's weights that the pattern leaves."""
        return share_of(self.n, self.m, layer.C // layer.groups)

    @cached_property
    def _rule(self) -> Rule:
        return Rule(granularity=n_of_m(self.n, self.m))

    def rule(self, site: Site) -> Rule:
        """Choose n of each m."""
        return self._rule

    def weight_gradient(self, kept: Array, weight: Array, gradient: Array) -> Array:
        """Add the decay of what was left out."""
        xp = namespace(gradient)
        return gradient + xp.where(kept, xp.zeros_like(weight), weight * self.decay)

    def describe(self) -> dict[str, Any]:
        """Name the policy and its parameters."""
        return {"name": "sr-ste", **self.model_dump(mode="json")}
