"""Transposable N:M weights: sparse along C for fprop and along K for dgrad, with one mask."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from swatsim.policies.granularity import transposable
from swatsim.policies.rules import Rule
from swatsim.policies.sr_ste import SrSte


class Transposable(SrSte):
    """N:M weights whose transpose is N:M too, so that an N:M machine gains in both passes.

    Of each m x m block of weights (m filters by m channels, for each tap) each row and each column
    keeps n, such that the sum of their magnitudes is the largest. Found by trying all patterns: of
    2:4 there are 90. The mask is chosen anew after each `every` steps; all weights are trained,
    the gradient passed straight through.

    Itay Hubara et al., "Accelerated Sparse Neural Training: A Provable and Efficient Method to Find
    N:M Transposable Masks", NeurIPS 2021, arXiv:2102.08124, sections 3 and 4. There the best
    pattern is a minimum-cost flow, or an approximation of it; for m = 4 all can be tried.

    Parameters
    ----------
    n, m : int
        1 <= n <= m; m is 4.
    every : int
        Steps between two choices.
    decay : float
        As in `SrSte`; the authors' is 0.
    first_conv_dense : bool
        Leave the network's first convolution as it is.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    m: Literal[4] = 4
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    every: Annotated[int, Field(ge=1)] = 40

    def __init__(self, n: Any = 2, m: Any = 4, **options: Any) -> None:
        super().__init__(n, m, **options)

    @cached_property
    def _rule(self) -> Rule:
        return Rule(granularity=transposable(self.n, self.m), every=self.every)

    def describe(self) -> dict[str, Any]:
        """Name the policy and its parameters."""
        return {"name": "transposable", **self.model_dump(mode="json")}
