"""meProp: minimal effort back propagation, the largest gradients only."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

from pydantic import Field

from swatsim.arguments import sparsity
from swatsim.policies.granularity import position, sample
from swatsim.policies.interface import Site
from swatsim.policies.method import Method, Sparsity
from swatsim.policies.rules import Rule

_EACH, _UNIFIED = Rule(granularity=sample), Rule(granularity=position)


class MeProp(Method):
    """Top-K of the gradient of a layer's output, for dgrad and wgrad ("meProp").

    Xu Sun, Xuancheng Ren, Shuming Ma and Houfeng Wang, "meProp: Sparsified Back Propagation for
    Accelerated Deep Learning with Reduced Overfitting", ICML 2017, arXiv:1706.06197, section 2 and
    Algorithm 1; `unified` is section 2.4's top-k for a mini-batch. The authors give k, here it is a
    share. A convolution's sample is all of its K x P x Q gradients.

    Parameters
    ----------
    sparsity : float
        Share of the gradients that is dropped, in [0, 1).
    unified : bool
        Keep the same places in all samples, those of the largest sum of magnitudes over the batch,
        rather than the largest of each sample.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "meprop"

    sparsity: Sparsity = Field(kw_only=False)
    unified: bool = False

    def density(self, site: Site) -> Fraction | None:
        """Return the share of the gradients that survives; None for other operands."""
        return 1 - sparsity(self.sparsity) if site.operand == "grad_out" else None

    def rule(self, site: Site) -> Rule:
        """Return Top-K of each sample, or of all samples together."""
        return _UNIFIED if self.unified else _EACH
