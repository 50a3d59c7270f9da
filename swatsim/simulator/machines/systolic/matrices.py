"""Values of the two matrices whose product an op is, by their indices there.

Speaks convolution letters: what is a row, a column or a depth of a matrix is unravelled here.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.workload.convolutions import Convolution, Lowering, convolutions
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask, as_4d, windows

Places = npt.NDArray[np.int64]


class Place(NamedTuple):
    """Which product of an op: of which of its convolutions (wgrad: 0), of which group."""

    part: int
    group: int


def left(
    op: LoweredOp, lowering: Lowering, place: Place, rows: Places, depths: Places
) -> npt.NDArray[np.bool_]:
    """Return values of the left matrix, one for each row and depth."""
    layer = op.layer
    if op.name == "wgrad":
        origin = (-layer.padding[0][0], -layer.padding[1][0])
        kernel, output = (layer.R, layer.S), (layer.P, layer.Q)
        view = windows(as_4d(op.act), kernel, layer.stride, layer.dilation, origin, output)
        return _met(view, layer.C // layer.groups, place.group, depths, rows)
    conv = _convolution(op, lowering, place)
    return _met(conv.windows(), conv.weight.shape[1], place.group, rows, depths)


def right(
    op: LoweredOp, lowering: Lowering, place: Place, depths: Places, columns: Places
) -> npt.NDArray[np.bool_]:
    """Return values of the right matrix, one for each depth and column."""
    if op.name == "wgrad":
        grad = as_4d(op.grad_out)
        n, p, q = np.unravel_index(depths, (len(grad), *grad.shape[2:]))
        return np.asarray(grad[n, place.group * (op.layer.K // op.layer.groups) + columns, p, q])
    conv = _convolution(op, lowering, place)
    k, c, r, s = conv.weight.shape
    at_r, at_s, at_c = np.unravel_index(depths, (r, s, c))
    return np.asarray(conv.weight[place.group * (k // conv.groups) + columns, at_c, at_r, at_s])


def _convolution(op: LoweredOp, lowering: Lowering, place: Place) -> Convolution:
    return next(islice(convolutions(op, lowering), place.part, None))


def _met(
    view: Mask, channels: int, group: int, positions: Places, taps: Places
) -> npt.NDArray[np.bool_]:
    """Return what falls at output positions (n, p, q) under taps (r, s, c) of a group."""
    samples, _, r, s, p, q = view.shape
    n, at_p, at_q = np.unravel_index(positions, (samples, p, q))
    at_r, at_s, c = np.unravel_index(taps, (r, s, channels))
    return np.asarray(view[n, group * channels + c, at_r, at_s, at_p, at_q])
