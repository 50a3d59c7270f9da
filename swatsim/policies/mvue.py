"""MVUE: n of each m gradients, drawn by their size and scaled, so that wgrad is unbiased."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from swatsim.arguments import accepted
from swatsim.arguments import sparsity as checked_sparsity
from swatsim.errors import PolicyError
from swatsim.policies.arrays import Array, like, namespace
from swatsim.policies.draw import generator
from swatsim.policies.granularity import marked
from swatsim.policies.interface import Site
from swatsim.policies.method import Method
from swatsim.policies.n_of_m import Count
from swatsim.policies.rules import Rule, View
from swatsim.policies.tiles import grouped
from swatsim.validation import Whole


class Mvue(Method):
    """Unbiased n:m gradients for wgrad, 1:2 or 2:4: n of each m at random, scaled ("MVUE").

    Groups of m lie along what wgrad adds up: samples, tokens, of a convolution the positions of one
    sample after another, each output channel by itself. Of each group one is drawn with a
    probability in proportion to its magnitude, for n = 2 another of the rest in the same way; what
    is drawn is divided by the probability with which it is among them, so that its expectation is
    the gradient. Where no more than n of a group are not zero these are read as they are. dgrad
    reads all gradients.

    Brian Chmiel, Itay Hubara, Ron Banner and Daniel Soudry, "Minimum Variance Unbiased N:M Sparsity
    for the Neural Gradients", ICLR 2023, arXiv:2203.10991. For n = 1 this is their optimum: what is
    drawn becomes the sum of the magnitudes, with its sign. For n = 2 it is their approximation; the
    optimum is not in the text that was at hand. That wgrad's gradients are the sparse ones is as in
    Yuezhou Hu et al., "Accelerating Transformer Pre-training with 2:4 Sparsity", ICML 2024,
    arXiv:2404.01847. Draws depend on the seed, the layer and the step, and are made on the host.

    Parameters
    ----------
    n, m : int
        n is 1 or 2, and at most m.
    seed : int
        Of the draws.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "mvue"

    n: Annotated[Whole, Field(ge=1, le=2)] = Field(default=1, kw_only=False)
    m: Count = Field(default=2, kw_only=False)
    seed: Annotated[Whole, Field(ge=0)] = 0

    @classmethod
    def of_sparsity(cls, sparsity: float) -> Self:
        """Return the policy 1:m of a sparsity.

        Raises
        ------
        PolicyError
            If the sparsity is neither 0.5 nor 0.75.
        """
        share = 1 - accepted(PolicyError, cls.__name__, "sparsity", sparsity, checked_sparsity)
        if share not in (Fraction(1, 2), Fraction(1, 4)):
            raise PolicyError(
                f"{cls.__name__}: sparsity={sparsity!r} is not allowed: of 1:2 and 1:4 must be 0.5 "
                "or 0.75"
            )
        return cls(1, int(1 / share))

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if self.n > self.m:
            raise ValueError(f"n={self.n} must be at most m={self.m}")
        return self

    def density(self, site: Site) -> Fraction | None:
        """Return n of m for wgrad's gradients; None for other operands."""
        sparse = (site.op, site.operand) == ("wgrad", "grad_out") and self.n < self.m
        return Fraction(self.n, self.m) if sparse else None

    @cached_property
    def _rule(self) -> Rule:
        return Rule(self._drawn, marked)

    def rule(self, site: Site) -> Rule:
        """Return the rule of what is drawn."""
        return self._rule

    def estimate(self, site: Site, values: Array, mask: Array) -> Array:
        """Return the gradients that are read: what was drawn, scaled, and zeros elsewhere."""
        xp = namespace(values)
        chances = self._back(_chances(self._groups(values), self.n), values)
        wide = xp.astype(values, xp.float64)
        scaled = wide / xp.where(mask, chances, xp.ones_like(chances))
        return xp.astype(xp.where(mask, scaled, xp.zeros_like(scaled)), values.dtype)

    def _drawn(self, view: View) -> Array:
        """Return 1 for what is drawn, 0 for the rest."""
        sizes, site = self._groups(view.values), view.site
        xp, left = namespace(sizes), sizes
        rng = generator(self.seed, site.layer.name, site.step, site.run)
        for _ in range(self.n):
            drawn = rng.random(tuple(sizes.shape[:-1]))
            left = left * xp.astype(~_chosen(left, like(drawn, sizes)), xp.float64)
        kept = xp.where(_few(sizes, self.n), sizes != 0, left != sizes)
        return self._back(xp.astype(kept, xp.float64), view.values)

    def _groups(self, values: Array) -> Array:
        """Return magnitudes as groups (K, groups, m): a NaN or an infinity crowds out the rest."""
        xp = namespace(values)
        by_channel = xp.reshape(xp.moveaxis(values, 1, 0), (values.shape[1], -1))
        sizes = grouped(xp.abs(xp.astype(by_channel, xp.float64)), self.m)
        wrong = ~xp.isfinite(sizes)
        crowded = xp.astype(wrong, xp.float64)
        return xp.where(xp.any(wrong, axis=-1, keepdims=True), crowded, sizes)

    def _back(self, groups: Array, values: Array) -> Array:
        """Return what is said of groups in the shape of the values."""
        xp = namespace(groups)
        channels, rest = values.shape[1], (values.shape[0], *values.shape[2:])
        flat = xp.reshape(groups, (channels, math.prod(groups.shape[1:])))[:, : math.prod(rest)]
        return xp.moveaxis(xp.reshape(flat, (channels, *rest)), 0, 1)


def _sums(sizes: Array) -> list[Array]:
    """Return the sums of the first, the first two, .. of a group, in this order in each library."""
    sums = [sizes[..., 0]]
    for place in range(1, sizes.shape[-1]):
        sums.append(sums[-1] + sizes[..., place])
    return sums


def _chosen(sizes: Array, drawn: Array) -> Array:
    """Return a mask of one of each group, by a number in [0, 1) for each; never of a zero."""
    xp, sums = namespace(sizes), _sums(sizes)
    at = drawn * sums[-1]
    at = xp.where(at < sums[-1], at, xp.zeros_like(at))  # the product may be rounded up to the sum
    marks, before = [], xp.zeros_like(at)
    for place, upto in enumerate(sums):
        marks.append((before <= at) & (at < upto) & (sizes[..., place] != 0))
        before = upto
    return xp.stack(marks, axis=-1)


def _few(sizes: Array, n: int) -> Array:
    """Return whether no more than n of each group are not zero, with an axis for the group."""
    xp = namespace(sizes)
    return xp.sum(xp.astype(sizes != 0, xp.int64), axis=-1, keepdims=True) <= n


def _chances(sizes: Array, n: int) -> Array:
    """Return the probabilities of being among the n that are drawn of each group."""
    xp = namespace(sizes)
    few = _few(sizes, n)
    known = xp.where(few, xp.ones_like(sizes), sizes)  # not looked at
    share = known / _sums(known)[-1][..., None]
    if n == 1:
        return xp.where(few, xp.ones_like(share), share)
    places = range(sizes.shape[-1])
    others = [_total([known[..., j] for j in places if j != i]) for i in places]
    odds = [known[..., i] / others[i] for i in places]
    second = xp.stack([_total([odds[j] for j in places if j != i]) for i in places], axis=-1)
    return xp.where(few, xp.ones_like(share), share * (1 + second))


def _total(terms: list[Array]) -> Array:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
