"""SLoPe: n of each m weights at random, kept, and pruned a second time for dgrad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property, lru_cache
from math import comb
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from swatsim.policies.arrays import Array, namespace, only
from swatsim.policies.draw import generator
from swatsim.policies.drop_grow import PersistentMaskRun
from swatsim.policies.granularity import n_of_m, share_of
from swatsim.policies.interface import Site, Work
from swatsim.policies.n_of_m import NOfM
from swatsim.policies.rules import Rule
from swatsim.validation import Whole


class Slope(NOfM):
    """N:M weights in places drawn once at random, pruned once more for dgrad ("SLoPe").

    fprop reads n of each m weights that follow each other along C, in places that are drawn before
    the first step and never change; the others are zero and stay so, and only the gradients of kept
    weights are wanted. dgrad reads these weights pruned a second time, along K, along which it adds
    up: the n largest of each m, chosen anew in each step. Both lie in a group of the layer, and an
    op in which a group has no more than n drops nothing. dgrad's density is the expected one of
    random places, by the paper's lemma 2.1: of 2:4 9.375 % of all weights less than fprop's.

    Mohammad Mozaffari et al., "SLoPe: Double-Pruned Sparse Plus Lazy Low-Rank Adapter Pretraining
    of LLMs", ICLR 2025, arXiv:2405.16325, sections 2.1 and 2.3. Low-rank adapters (section 2.2),
    which the authors add in the last 1 % of the steps, are the model's and not a policy's. The
    authors leave a language model's heads and its first linear layer dense: leave them alone with
    the tracer's ``skip``. Which n the second pruning keeps is not in the text that was at hand:
    here the largest.

    Parameters
    ----------
    n, m : int
        1 <= n <= m.
    first_conv_dense : bool
        Leave the network's first convolution as it is: it has three input channels.
    seed : int
        Of the places.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "slope"

    seed: Annotated[Whole, Field(ge=0)] = 0

    def _share(self, site: Site) -> Fraction:
        layer = site.layer
        channels, filters = layer.C // layer.groups, layer.K // layer.groups
        if site.op == "fprop":
            return share_of(self.n, self.m, channels)
        return twice_pruned(self.n, self.m, channels, filters)

    def wanted(self, site: Site) -> Fraction | None:
        """Return the share of a layer's weight gradients that is wanted: those of kept weights."""
        return self.density(replace(site, op="fprop"))

    @cached_property
    def _places(self) -> Rule:
        return Rule(granularity=n_of_m(self.n, self.m))

    @cached_property
    def _second(self) -> Rule:
        return Rule(granularity=n_of_m(self.n, self.m, along="K"))

    def rule(self, site: Site) -> Rule:
        """Return n of each m along C, of which fprop has random ones, or along K for dgrad."""
        return self._second if site.op == "dgrad" else self._places

    def sparsifier(self) -> DoublePruned:
        """Return the sparsifier of a new run."""
        return DoublePruned(self)


class DoublePruned(PersistentMaskRun):
    """Keeps the mask of fprop, and makes that of dgrad in each step."""

    policy: Slope

    def drawn(self, site: Site, shape: tuple[int, ...], share: Fraction) -> npt.NDArray[np.bool_]:
        """Return a layer's mask: n of each m along C, each set of places as likely as any other."""
        scores = 1 - generator(self.seed, site.layer.name).random(shape)  # none is 0
        layer = site.layer
        mask: npt.NDArray[np.bool_] = self.rule(site).granularity(
            scores, share, layer.kind, layer.groups
        )
        return mask

    def work(self, sites: Sequence[Site]) -> tuple[Work, ...]:
        """Return what is done with an operand in a step: the mask applied, dgrad's chosen."""
        own = super().work(sites)
        second = any(site.op == "dgrad" and self.density(site) is not None for site in sites)
        return (*own, "topk") if own and second else own

    def _mask_of(self, site: Site, values: Array) -> Array | None:
        share = self.density(site)
        if site.op != "dgrad" or share is None:
            return super()._mask_of(site, values)
        scores: Any = namespace(values).abs(values)
        first = super()._mask_of(replace(site, op="fprop"), values)
        left = scores if first is None else only(scores, first)
        return self.rule(site).granularity(left, share, site.layer.kind, site.layer.groups)


@lru_cache
def twice_pruned(n: int, m: int, channels: int, filters: int) -> Fraction:
    """Return the expected share of weights left by n of m at random along C, then n of m along K.

    Of each m filters a channel has a binomially distributed number of weights, of which n are left.

    Parameters
    ----------
    n, m, channels, filters : int
        Channels and filters of one group of a layer.
    """
    left = Fraction(0)
    for size, times in _cut(channels, m):
        share = Fraction(min(n, size), size)
        left += (
            size
            * times
            * sum(count * _expected(n, rows, share) for rows, count in _cut(filters, m))
        )
    return left / (channels * filters)


def _cut(length: int, m: int) -> list[tuple[int, int]]:
    """Return sizes of the groups of m, and how many there are of each."""
    return [(m, length // m)] * (length >= m) + [(length % m, 1)] * (length % m > 0)


def _expected(n: int, rows: int, share: Fraction) -> Fraction:
    """Return how many of some rows are left of those that each is there with a probability."""
    chances = (comb(rows, j) * share**j * (1 - share) ** (rows - j) for j in range(rows + 1))
    return sum((chance * min(n, j) for j, chance in enumerate(chances)), Fraction(0))
