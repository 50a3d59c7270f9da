"""SWAT's structured variant: whole channels or filters of the weights, by their L1 norm."""

from __future__ import annotations

from typing import ClassVar, Literal

from swatsim.policies.granularity import filter, kernel
from swatsim.policies.interface import Site
from swatsim.policies.rules import TOP_K, Rule
from swatsim.policies.swat_u import SwatU

_RULES = {"channel": Rule(granularity=kernel), "filter": Rule(granularity=filter)}


class SwatStructured(SwatU):
    """SWAT with structured weights, the same sparsity in every layer.

    Of a convolution's weights whole blocks survive, those of largest L1 norm, in fprop and dgrad;
    the activations in wgrad are Top-K'd one by one, as are the weights of linear layers.

    Md Aamir Raihan and Tor M. Aamodt, "Sparse Weight Activation Training", NeurIPS 2020,
    arXiv:2001.01969, as its code has it (github.com/AamirRaihan/SWAT, StructuredChannel and
    StructuredFilter: topk/drop.py).

    Parameters
    ----------
    sparsity : float
        Share of the blocks, and of the activations, that is dropped, in [0, 1).
    unit : {"channel", "filter"}
        One channel of one filter (R x S weights), or a whole filter (C x R x S).
    first_conv_dense : bool
        Leave the network's first convolution as it is, as the authors do.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "swat-structured"

    unit: Literal["channel", "filter"] = "channel"

    def rule(self, site: Site) -> Rule:
        """Return the rule of blocks for a convolution's weights, of single values otherwise."""
        blocks = site.operand == "weight" and site.layer.kind != "linear"
        return _RULES[self.unit] if blocks else TOP_K
