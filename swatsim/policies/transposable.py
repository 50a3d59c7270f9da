"""Transposable N:M weights: sparse along C for fprop and along K for dgrad, with one mask."""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import ClassVar

from swatsim.policies.interface import Site
from swatsim.policies.method import Factor, Period
from swatsim.policies.rules import Rule
from swatsim.policies.sr_ste import SrSte
from swatsim.policies.transposable_masks import transposable


class Transposable(SrSte):
    """N:M weights whose transpose is N:M too, so that an N:M machine gains in both passes.

    Of each m x m block of weights (m filters by m channels, for each tap) each row and each column
    keeps n, such that the sum of their magnitudes is the largest; no block lies across two groups
    of a layer, and where a group has no more than n of either the layer stays dense. For m up to 4
    found by trying all patterns: of 2:4 there are 90. The mask is chosen anew after each `every`
    steps, and zeros hold places in it; all weights are trained, the gradient passed straight
    through.

    Itay Hubara et al., "Accelerated Sparse Neural Training: A Provable and Efficient Method to Find
    N:M Transposable Masks", NeurIPS 2021, arXiv:2102.08124, sections 3 and 4. There the best
    pattern is a minimum-cost flow. For m above 4 it is approximated here: by their 2-approximation,
    which prunes more than it has to, and then by swaps of Xiang Meng, Mehdi Makni and Rahul
    Mazumder, "TSENOR: Highly-Efficient Algorithm for Finding Transposable N:M Sparse Masks",
    arXiv:2505.23949, algorithm 2. What it prunes weighs at most twice what the best pattern prunes,
    and a few rows or columns keep fewer than n: the density that is stated is the most. It is
    approximated on the host, for tensors of any device.

    Parameters
    ----------
    n, m : int
        1 <= n <= m; the authors' are 2:4, and 4:8 for as many patterns as 2:4 along C alone has.
    every : int
        Period between two choices.
    decay : float
        As in `SrSte`; the authors' is 0.
    first_conv_dense : bool
        Leave the network's first convolution as it is.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "transposable"

    decay: Factor = 0.0
    every: Period = 40

    @cached_property
    def _rule(self) -> Rule:
        return Rule(granularity=transposable(self.n, self.m), every=self.every)

    def _share(self, site: Site) -> Fraction:
        """Return the share of a layer's weights that survives in whole blocks."""
        layer = site.layer
        all_fit = max(layer.C, layer.K) // layer.groups <= self.n
        return Fraction(1) if all_fit else Fraction(self.n, self.m)
