"""Which outputs of a part of an op somebody wants, as the kernels read it."""

from __future__ import annotations

import numpy as np

from swatsim.simulator.machines.cartesian.kernel_wanted import Wanted
from swatsim.simulator.machines.cartesian.sides import Reached
from swatsim.workload.windows import Axes, Mask


def wanted_outputs(
    outputs: Mask, plane: Axes, reached: tuple[Reached, Reached], chunk: int
) -> Wanted:
    """Return which outputs (N, K, P, Q) of some samples and filters somebody wants."""
    if outputs.shape[2:] != plane:
        outputs = on_plane(outputs, plane)
    laid = np.array(outputs.transpose(0, 2, 3, 1), order="C")
    of_filters = laid.any(axis=(1, 2))
    chunks = np.logical_or.reduceat(of_filters, range(0, of_filters.shape[1], chunk), axis=1).T
    return Wanted(laid, *reached, np.array(chunks, order="C"))


def on_plane(mask: Mask, plane: Axes) -> Mask:
    """Return positions, the two last axes, laid out on a plane, which they need not fill."""
    laid = np.zeros((*mask.shape[:2], plane[0] * plane[1]), np.bool_)
    positions = mask.shape[2] * mask.shape[3]
    laid[..., :positions] = mask.reshape(*mask.shape[:2], positions)
    return laid.reshape(*mask.shape[:2], *plane)
