"""MACs of an op whose two factors are both non-zero: counted, not estimated.

The count is separable: fprop sums, over (c, r, s), filters with a weight there times activations
that meet it; dgrad likewise over (k, r, s); wgrad sums over (n, r, s, p, q) channels times filters.
So it costs the operands' size times R*S, never the MACs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import numpy as np
import numpy.typing as npt

from swatsim.workload.layer import OUTPUT_OF, Layer, Operand, OpName
from swatsim.workload.wanted_kernel import Words, add_common
from swatsim.workload.windows import Mask, Scalar, as_4d, windows

Counts = npt.NDArray[np.int64]

#: As many ones a byte counts.
_MOST = 255


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


def wanted(layer: Layer, op: OpName, masks: Mapping[Operand, Mask], output: Mask) -> int:
    """Return the MACs with two non-zero factors that are summed to outputs somebody wants.

    Each op sums the same products w[k,c,r,s] * x[n,c,h,v] * dy[n,k,p,q], and has a mask of each
    factor: of two as operands, of the third as its output.
    """
    three = {**masks, OUTPUT_OF[op]: output}
    weights = as_4d(three["weight"]).reshape(layer.groups, layer.K // layer.groups, -1)
    rows, total = _words(weights), 0
    for act, grad in zip(as_4d(three["act"]), as_4d(three["grad_out"]), strict=True):
        positions = _met(layer, act[None])[0].reshape(layer.groups, -1, layer.P * layer.Q)
        grads = grad.reshape(layer.groups, -1, layer.P * layer.Q)
        total += add_common(_words(positions.swapaxes(1, 2)), rows, np.ascontiguousarray(grads))
    return total


def _words(bits: Mask) -> Words:
    """Return the last axis as words of 64 bits, zeros behind it."""
    packed = np.packbits(bits, axis=-1, bitorder="little")
    spare = -packed.shape[-1] % 8
    whole = np.pad(packed, [(0, 0)] * (packed.ndim - 1) + [(0, spare)])
    return np.ascontiguousarray(whole).view(np.uint64)


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


def _met(layer: Layer, counts: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """Return counts, or a mask, over (N, C, H, W) as the windows of the layer's fprop."""
    origin = (-layer.padding[0][0], -layer.padding[1][0])
    taps, output = (layer.R, layer.S), (layer.P, layer.Q)
    return windows(counts, taps, layer.stride, layer.dilation, origin, output)


def _ones_along(mask: Mask, axis: int) -> Counts:
    """Return the values along an axis that are not zero, in a fifth of NumPy's own time for it."""
    rest = mask.shape[:axis] + mask.shape[axis + 1 :]
    if mask.size and not any(mask.strides):  # one value, as all of an operand that is dense
        return np.full(rest, mask.shape[axis] * int(mask.flat[0]), np.int64)
    counts, ones = np.zeros(rest, np.int64), np.moveaxis(mask.view(np.uint8), axis, 0)
    for first in range(0, len(ones), _MOST):  # sums of bytes are bytes, and eight times as fast
        counts += np.add.reduce(ones[first : first + _MOST], axis=0, dtype=np.uint8)
    return counts


def _per_group(mask: Mask, axis: int, groups: int) -> Counts:
    """Return an axis of channels summed group by group; the axis becomes one of `groups`."""
    shape = (*mask.shape[:axis], groups, -1, *mask.shape[axis + 1 :])
    return _ones_along(mask.reshape(shape), axis + 1)


def _fprop(layer: Layer, weight: Mask, act: Mask) -> int:
    weights = _per_group(as_4d(weight), 0, layer.groups)  # (G, C/G, R, S)
    acts = _ones_along(as_4d(act), 0)
    met = _met(layer, acts[None]).sum(axis=(0, 4, 5))  # (C, R, S)
    return int((weights.reshape(met.shape) * met).sum())


def _dgrad(layer: Layer, weight: Mask, grad_out: Mask) -> int:
    weights = _ones_along(as_4d(weight), 1)  # (K, R, S)
    within = _met(layer, np.ones((1, 1, layer.H, layer.W), np.int64))[0, 0]  # (R, S, P, Q)
    if within.all():  # each weight meets each gradient of its filter
        of_filters = grad_out.reshape(len(grad_out), layer.K, -1)
        return int(weights.sum(axis=(1, 2)) @ _ones_along(of_filters, 2).sum(axis=0))
    grads = _ones_along(as_4d(grad_out), 0)  # (K, P, Q)
    return int(np.einsum("krs,kpq,rspq->", weights, grads, within, optimize=True))


def _wgrad(layer: Layer, act: Mask, grad_out: Mask) -> int:
    acts = _met(layer, _per_group(as_4d(act), 1, layer.groups))  # (N, G, R, S, P, Q)
    grads = _per_group(as_4d(grad_out), 1, layer.groups)  # (N, G, P, Q)
    return sum(
        int((acts[:, :, r, s] * grads).sum()) for r in range(layer.R) for s in range(layer.S)
    )
