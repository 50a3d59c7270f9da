"""Static random: a mask drawn before the first step, and never changed."""

from __future__ import annotations

from typing import ClassVar

from swatsim.policies.drop_grow import PersistentMask


class StaticRandom(PersistentMask):
    """Random pruning at initialisation: weights in places drawn at random, never changed.

    Shiwei Liu et al., "The Unreasonable Effectiveness of Random Pruning: Return of the Most Naive
    Baseline for Sparse Training", ICLR 2022, arXiv:2202.02643, section 3.

    Parameters
    ----------
    sparsity : float
        Share of all weights that is dropped, in [0, 1).
    allocation : {"erk", "uniform"}
    first_conv_dense : bool
    seed : int

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "static-random"
