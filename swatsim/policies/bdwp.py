"""BDWP: n of each m weights, along the input channels forward and the output channels backward."""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import ClassVar

from swatsim.policies.granularity import n_of_m, share_of
from swatsim.policies.interface import Site
from swatsim.policies.method import Factor
from swatsim.policies.rules import Rule
from swatsim.policies.sr_ste import SrSte


class Bdwp(SrSte):
    """Bidirectional weight pruning ("BDWP"): N:M in both passes, each with a mask of its own.

    fprop reads the n largest of each m weights that follow each other along C, dgrad the n largest
    of each m along K, along which it adds up; both are chosen from the dense weights, anew in every
    step. Of a grouped layer both lie in a group, and an op in which a group has no more than n
    reads dense weights. wgrad reads dense operands, and all weights are trained.

    Chao Fang, Wei Sun, Aojun Zhou and Zhongfeng Wang, "Efficient N:M Sparse DNN Training Using
    Algorithm, Architecture, and Dataflow Co-Design", 2023, arXiv:2309.13015. Which axis is whose,
    and whether weights that are left out decay as in SR-STE, is not in the text that was at hand
    (its abstract): each op is pruned along what it adds up, and by default nothing decays. With a
    `decay` it is of those that fprop leaves out.

    Parameters
    ----------
    n, m : int
        1 <= n <= m; the authors' is 2:8.
    decay : float
        As in `SrSte`.
    first_conv_dense : bool
        Leave the network's first convolution as it is: it has three input channels.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "bdwp"

    decay: Factor = 0.0

    def _share(self, site: Site) -> Fraction:
        along = site.layer.K if site.op == "dgrad" else site.layer.C
        return share_of(self.n, self.m, along // site.layer.groups)

    @cached_property
    def _backward(self) -> Rule:
        return Rule(granularity=n_of_m(self.n, self.m, along="K"))

    def rule(self, site: Site) -> Rule:
        """Return the rule of n of each m along what the op adds up."""
        return self._backward if site.op == "dgrad" else self._rule
