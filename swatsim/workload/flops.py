"""MACs and FLOPs of an op, dense and effectual, by counting: exact, and no machine involved.

Convention `exact`: dgrad is counted over the gradients that exist (no inserted zeros), the first
layer has none, and products with padding count as dense MACs, as published layer tables count
them. Effectual MACs have two non-zero operands; products with padding are not effectual.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swatsim.workload.layer import Layer
from swatsim.workload.streams import as_4d, windows
from swatsim.workload.training_ops import Mask, Op

#: A multiply-accumulate is one multiplication and one addition.
FLOPS_PER_MAC = 2

Counts = npt.NDArray[np.int64]


def macs_dense(layer: Layer, samples: int) -> int:
    """Count the MACs of any one of the layer's three ops with dense operands."""
    return samples * layer.weights * layer.P * layer.Q


def macs_effectual(op: Op) -> int:
    """Count the MACs of an op whose two operands are both non-zero.

    The count is separable: fprop sums, over (c, r, s), filters with a weight there times
    activations that meet it; dgrad likewise over (k, r, s); wgrad sums over (n, r, s, p, q)
    channels times filters. So it costs the operands' size times R*S, never the MACs.
    """
    if "macs_effectual" not in op.counted:
        count = {"fprop": _fprop, "dgrad": _dgrad, "wgrad": _wgrad}[op.name]
        op.counted["macs_effectual"] = count(op)
    return op.counted["macs_effectual"]


def _met(op: Op, counts: Counts) -> Counts:
    """View counts over (N, C, H, W) as the windows of the layer's fprop."""
    layer = op.layer
    origin = (-layer.padding[0][0], -layer.padding[1][0])
    taps, output = (layer.R, layer.S), (layer.P, layer.Q)
    return windows(counts, taps, layer.stride, layer.dilation, origin, output)


def _per_group(mask: Mask, axis: int, groups: int) -> Counts:
    """Sum an axis of channels group by group; the axis becomes one of `groups`."""
    shape = (*mask.shape[:axis], groups, -1, *mask.shape[axis + 1 :])
    return np.count_nonzero(mask.reshape(shape), axis=axis + 1)


def _fprop(op: Op) -> int:
    weights = _per_group(as_4d(op.weight), 0, op.layer.groups)  # (G, C/G, R, S)
    acts = np.count_nonzero(as_4d(op.act), axis=0, keepdims=True)
    met = _met(op, acts).sum(axis=(0, 4, 5))  # (C, R, S)
    return int((weights.reshape(met.shape) * met).sum())


def _dgrad(op: Op) -> int:
    weights = np.count_nonzero(as_4d(op.weight), axis=1)  # (K, R, S)
    grads = np.count_nonzero(as_4d(op.grad_out), axis=0)  # (K, P, Q)
    inside = _met(op, np.ones((1, 1, op.layer.H, op.layer.W), np.int64))[0, 0]  # (R, S, P, Q)
    return int(np.einsum("krs,kpq,rspq->", weights, grads, inside, optimize=True))


def _wgrad(op: Op) -> int:
    groups = op.layer.groups
    acts = _met(op, _per_group(as_4d(op.act), 1, groups))  # (N, G, R, S, P, Q)
    grads = _per_group(as_4d(op.grad_out), 1, groups)  # (N, G, P, Q)
    return sum(
        int((acts[:, :, r, s] * grads).sum()) for r in range(op.layer.R) for s in range(op.layer.S)
    )
