"""MACs of an op whose two factors are both non-zero: counted, not estimated.

The count is separable: fprop sums, over (c, r, s), filters with a weight there times activations
that meet it; dgrad likewise over (k, r, s); wgrad sums over (n, r, s, p, q) channels times filters.
So it costs the operands' size times R*S, never the MACs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from swatsim.workload.count_kernel import Counts, ones_along
from swatsim.workload.layer import Layer, Operand, OpName
from swatsim.workload.windows import Mask, as_4d, windows


def effectual(layer: Layer, op: OpName, masks: Mapping[Operand, Mask]) -> int:
    """Return the MACs of an op of a convolution or linear layer with two non-zero factors."""
    match op:
        case "fprop":
            return _fprop(layer, masks["weight"], masks["act"])
        case "dgrad":
            return _dgrad(layer, masks["weight"], masks["grad_out"])
        case "wgrad":
            return _wgrad(layer, masks["act"], masks["grad_out"])
        case _:
            assert_never(op)


def inside(layer: Layer, samples: int) -> int:
    """Return the MACs of any op of the layer without a factor in padding: so many have no zero."""
    sizes = zip((layer.H, layer.W), (layer.R, layer.S), (layer.P, layer.Q), strict=True)
    met = [_met_inside(layer, axis, *of_axis) for axis, of_axis in enumerate(sizes)]
    return samples * layer.K * (layer.C // layer.groups) * met[0] * met[1]


def _met_inside(layer: Layer, axis: int, size: int, taps: int, outputs: int) -> int:
    """Return the pairs of an output and a tap of one axis that meet inside the input."""
    tap = np.arange(taps)[:, None] * layer.dilation[axis] - layer.padding[axis][0]
    place = tap + np.arange(outputs) * layer.stride[axis]
    return int(np.count_nonzero((place >= 0) & (place < size)))


def _met(layer: Layer, counts: Counts) -> Counts:
    """Return counts over (N, C, H, W) as the windows of the layer's fprop."""
    origin = (-layer.padding[0][0], -layer.padding[1][0])
    taps, output = (layer.R, layer.S), (layer.P, layer.Q)
    return windows(counts, taps, layer.stride, layer.dilation, origin, output)


def _per_group(mask: Mask, axis: int, groups: int) -> Counts:
    """Return an axis of channels summed group by group; the axis becomes one of `groups`."""
    shape = (*mask.shape[:axis], groups, -1, *mask.shape[axis + 1 :])
    return ones_along(mask.reshape(shape), axis + 1)


def _fprop(layer: Layer, weight: Mask, act: Mask) -> int:
    weights = _per_group(as_4d(weight), 0, layer.groups)  # (G, C/G, R, S)
    acts = ones_along(as_4d(act), 0)
    met = _met(layer, acts[None]).sum(axis=(0, 4, 5))  # (C, R, S)
    return int((weights.reshape(met.shape) * met).sum())


def _dgrad(layer: Layer, weight: Mask, grad_out: Mask) -> int:
    weights = ones_along(as_4d(weight), 1)  # (K, R, S)
    grads = ones_along(as_4d(grad_out), 0)  # (K, P, Q)
    within = _met(layer, np.ones((1, 1, layer.H, layer.W), np.int64))[0, 0]  # (R, S, P, Q)
    return int(np.einsum("krs,kpq,rspq->", weights, grads, within, optimize=True))


def _wgrad(layer: Layer, act: Mask, grad_out: Mask) -> int:
    acts = _met(layer, _per_group(as_4d(act), 1, layer.groups))  # (N, G, R, S, P, Q)
    grads = _per_group(as_4d(grad_out), 1, layer.groups)  # (N, G, P, Q)
    return sum(
        int((acts[:, :, r, s] * grads).sum()) for r in range(layer.R) for s in range(layer.S)
    )
