"""SWAT-U: one sparsity for every layer."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

from pydantic import Field

from swatsim.arguments import sparsity
from swatsim.policies.interface import Site
from swatsim.policies.method import Method, Sparsity

#: What SWAT drops: weights where the layer's output and input gradient are computed, activations
#: where the weight gradient is. Never the forward pass's activations, never a gradient.
SPARSE = frozenset({("fprop", "weight"), ("dgrad", "weight"), ("wgrad", "act")})


class SwatU(Method):
    """SWAT with the same sparsity in every layer ("SWAT-U").

    Top-K weights in fprop and dgrad, Top-K activations in wgrad, each over the layer's whole
    tensor (the whole batch of an activation), chosen anew in every step; gradients dense; the
    first convolution dense; linear layers like any other.

    Md Aamir Raihan and Tor M. Aamodt, "Sparse Weight Activation Training", NeurIPS 2020,
    arXiv:2001.01969, Algorithm 1.

    Parameters
    ----------
    sparsity : float
        Share of the values that is dropped, in [0, 1).
    first_conv_dense : bool
        Leave the network's first convolution as it is, as the authors do.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "swat-u"

    sparsity: Sparsity = Field(kw_only=False)
    first_conv_dense: bool = True

    def density(self, site: Site) -> Fraction | None:
        """Return the share of an operand's values that survives; None where SWAT drops nothing."""
        if (site.op, site.operand) not in SPARSE:
            return None
        if site.first_convolution and self.first_conv_dense:
            return None
        return 1 - sparsity(self.sparsity)
