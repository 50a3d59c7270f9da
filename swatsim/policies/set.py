"""SET, sparse evolutionary training: the smallest weights are dropped, random ones grown."""

from __future__ import annotations

from typing import ClassVar

from swatsim.policies.arrays import Array, like
from swatsim.policies.draw import generator
from swatsim.policies.drop_grow import DropGrow, DropGrowRun


class SET(DropGrow):
    """Sparse evolutionary training ("SET"): drop by magnitude, grow at random.

    Of weight gradients those of the weights that are kept are wanted, in every step. After each
    `every` steps (the authors': an epoch) each layer drops the share `fraction` ("zeta")
    of its weights and grows as many in places drawn at random, those just dropped among them.

    Decebal Constantin Mocanu et al., "Scalable training of artificial neural networks with adaptive
    sparse connectivity inspired by network science", Nature Communications 9, 2018,
    arXiv:1707.04780, Algorithm 1. There a new weight has a random value; here it starts at zero, as
    in RigL's comparison (arXiv:1911.11134, table 1), and so is first seen in a trace a step later.

    Parameters
    ----------
    sparsity : float
        Share of all weights that is dropped, in [0, 1).
    allocation : {"erk", "uniform"}
    first_conv_dense : bool
    every, until : int
    fraction : float
    seed : int
        Of the first mask, and of what is grown.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "set"

    def sparsifier(self) -> GrowsAtRandom:
        """Return the sparsifier of a new run."""
        return GrowsAtRandom(self)


class GrowsAtRandom(DropGrowRun):
    """Grows in random places, drawn for each layer and change."""

    #: Drawn are as few as are dropped.
    changes_by = ("topk",)

    def grow_scores(self, layer: str, step: int) -> Array | None:
        """Return random scores."""
        mask = self.layer_masks[layer]
        return like(generator(self.seed, layer, step).random(tuple(mask.shape)), mask)
