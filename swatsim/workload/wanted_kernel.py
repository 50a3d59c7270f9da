"""The kernel of `effectual.wanted`: rows of bits that have something in common."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swatsim.jit import jit, popcount

Words = npt.NDArray[np.uint64]


@jit
def add_common(acts: Words, weights: Words, grads: npt.NDArray[np.bool_]) -> int:
    """Return the ones that rows of acts and of weights share, over the pairs that grads has.

    Parameters
    ----------
    acts : numpy.ndarray of uint64, shape (groups, positions, words)
    weights : numpy.ndarray of uint64, shape (groups, filters, words)
    grads : numpy.ndarray of bool, shape (groups, filters, positions)
    """
    total = 0
    for group in range(grads.shape[0]):
        for filter_ in range(grads.shape[1]):
            for position in range(grads.shape[2]):
                if grads[group, filter_, position]:
                    shared = np.uint64(0)
                    for word in range(acts.shape[2]):
                        both = acts[group, position, word] & weights[group, filter_, word]
                        shared += popcount(both)
                    total += int(shared)
    return total
