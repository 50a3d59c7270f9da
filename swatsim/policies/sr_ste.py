"""N:M weights with SR-STE: n of each m weights along the input channels, all of them trained."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from swatsim.policies.arrays import Array, namespace
from swatsim.policies.granularity import n_of_m
from swatsim.policies.interface import Site
from swatsim.policies.method import Factor
from swatsim.policies.n_of_m import NOfM
from swatsim.policies.rules import Rule


class SrSte(NOfM):
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

    decay: Factor = 2e-4

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
