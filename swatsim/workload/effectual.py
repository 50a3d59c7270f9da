"""MACs of an op whose two factors are both non-zero: counted, not estimated.

The count is separable: fprop sums, over (c, r, s), filters with a weight there times activations
that meet it; dgrad likewise over (k, r, s); wgrad sums over (n, r, s, p, q) channels times filters.
So it costs the operands' size times R*S, never the MACs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import assert_never

import numpy as np
import numpy.typing as npt

from swatsim.workload.layer import OUTPUT_OF, Layer, Operand, OpName
from swatsim.workload.wanted_kernel import Words, add_common
from swatsim.workload.windows import Mask, as_4d, windows

Counts = npt.NDArray[np.int64]

#: Numbers that are held at a time (32 MiB), or those of a row of an image.
MOST_COUNTS = 2**22
#: Bits that are laid out at a time, as bytes first (32 MiB), or those of a window.
MOST_BITS = 2**25
#: Sums of fewer slices are taken one by one.
FEW_TAPS = 4

#: As many ones a byte counts.
_MOST = 255
#: Lines of values that are summed as they lie, in 16 bits; of shorter ones NumPy is slow.
_LINES = range(16, 2**16)


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
    filters = max(1, MOST_BITS // (layer.groups * weights.shape[2]))
    return sum(
        _wanted_of(layer, weights[:, first : first + filters], first, three)
        for first in range(0, weights.shape[1], filters)
    )


def _wanted_of(layer: Layer, weights: Mask, first: int, three: Mapping[Operand, Mask]) -> int:
    """Return such MACs of some filters of each group, from the first one's number on."""
    rows, total = _words(weights), 0
    for act, grad in zip(as_4d(three["act"]), as_4d(three["grad_out"]), strict=True):
        grads = grad.reshape(layer.groups, -1, layer.P, layer.Q)[:, first : first + rows.shape[1]]
        for p, q in _rectangles(layer, MOST_BITS // (layer.C * layer.R * layer.S)):
            met = _met_by(layer, act[None], p, q)[0].reshape(*rows.shape[:1], -1, len(p) * len(q))
            own = grads[:, :, p.start : p.stop, q.start : q.stop].reshape(*rows.shape[:2], -1)
            total += add_common(_words(met.swapaxes(1, 2)), rows, np.ascontiguousarray(own))
    return total


def _rectangles(layer: Layer, most: int) -> Iterator[tuple[range, range]]:
    """Yield rows and columns of outputs: whole rows, or parts of one, of so many outputs."""
    rows, columns = max(1, most // layer.Q), max(1, min(layer.Q, most))
    for p in range(0, layer.P, rows):
        for q in range(0, layer.Q, columns):
            yield range(p, min(p + rows, layer.P)), range(q, min(q + columns, layer.Q))


def _words(bits: Mask) -> Words:
    """Return the last axis as words of 64 bits, zeros behind it."""
    packed = np.packbits(bits, axis=-1, bitorder="little")
    spare = -packed.shape[-1] % 8
    whole = np.pad(packed, [(0, 0)] * (packed.ndim - 1) + [(0, spare)])
    return np.ascontiguousarray(whole).view(np.uint64)


def inside(layer: Layer, samples: int) -> int:
    """Return the MACs of any op of the layer without a factor in padding: so many have no zero."""
    met = [sum(len(outputs) for outputs, _ in _met_inside(layer, axis)) for axis in (0, 1)]
    return samples * layer.K * (layer.C // layer.groups) * met[0] * met[1]


def _met_inside(layer: Layer, axis: int) -> list[tuple[range, range]]:
    """Return, of each tap of an axis, the outputs that it gives an input, and these inputs."""
    size, taps = ((layer.H, layer.R), (layer.W, layer.S))[axis]
    outputs, stride = (layer.P, layer.Q)[axis], layer.stride[axis]
    found = []
    for tap in range(taps):
        place = tap * layer.dilation[axis] - layer.padding[axis][0]
        first, end = max(0, -(place // stride)), min(outputs, (size - 1 - place) // stride + 1)
        some = range(first, max(first, end))
        begin = some.start * stride + place
        found.append((some, range(begin, begin + len(some) * stride, stride)))
    return found


def _met_by(layer: Layer, mask: Mask, p: range, q: range) -> Mask:
    """Return a mask over (N, C, H, W) as the windows of some outputs of the layer's fprop."""
    origin = tuple(
        some.start * stride - padding[0]
        for some, stride, padding in zip((p, q), layer.stride, layer.padding, strict=True)
    )
    at, output = (origin[0], origin[1]), (len(p), len(q))
    return windows(mask, (layer.R, layer.S), layer.stride, layer.dilation, at, output)


def _ones_along(mask: Mask, axis: int) -> Counts:
    """Return the values along an axis that are not zero, in a fifth of NumPy's own time for it."""
    rest = mask.shape[:axis] + mask.shape[axis + 1 :]
    if mask.size and not any(mask.strides):  # one value, as all of an operand that is dense
        return np.full(rest, mask.shape[axis] * int(mask.flat[0]), np.int64)
    if axis == mask.ndim - 1 and mask.flags.c_contiguous and mask.shape[axis] in _LINES:
        sums: Counts = mask.view(np.uint8).sum(axis=axis, dtype=np.uint16).astype(np.int64)
        return sums
    counts, ones = np.zeros(rest, np.int64), np.moveaxis(mask.view(np.uint8), axis, 0)
    for first in range(0, len(ones), _MOST):  # sums of bytes are bytes, and eight times as fast
        counts += np.add.reduce(ones[first : first + _MOST], axis=0, dtype=np.uint8)
    return counts


def _ones_of_channels(mask: Mask) -> Counts:
    """Return the values of each channel of (N, C, ..) that are not zero."""
    lines = mask.reshape(*mask.shape[:2], -1)
    longer = 0 if len(mask) > lines.shape[2] else 2  # so that few sums are held
    found: Counts = _ones_along(lines, longer).sum(axis=0 if longer else 1)
    return found


def _per_group(mask: Mask, axis: int, groups: int) -> Counts:
    """Return an axis of channels summed group by group; the axis becomes one of `groups`."""
    shape = (*mask.shape[:axis], groups, -1, *mask.shape[axis + 1 :])
    return _ones_along(mask.reshape(shape), axis + 1)


def _fprop(layer: Layer, weight: Mask, act: Mask) -> int:
    slices = [[inputs for _, inputs in _met_inside(layer, axis)] for axis in (0, 1)]
    every = ([range(layer.H)], [range(layer.W)])
    if tuple(slices) == every:  # the only tap meets each activation
        return _products_of_channels(layer, as_4d(weight), act)
    weights = _per_group(as_4d(weight), 0, layer.groups)  # (G, C/G, R, S)
    met = _summed(as_4d(act), slices)  # (C, R, S)
    return int((weights.reshape(met.shape) * met).sum())


def _products_of_channels(layer: Layer, weight: Mask, act: Mask) -> int:
    """Return what weights and activations of each channel make, some of each group at a time."""
    lines = act.reshape(len(act), layer.groups, layer.C // layer.groups, -1)
    at_once, total = max(1, MOST_COUNTS // layer.groups), 0
    for first in range(0, lines.shape[2], at_once):
        own = slice(first, first + at_once)
        met = _ones_of_channels(lines[:, :, own].reshape(len(act), -1, lines.shape[3]))
        total += int(_per_group(weight[:, own], 0, layer.groups).reshape(-1) @ met)
    return total


def _dgrad(layer: Layer, weight: Mask, grad_out: Mask) -> int:
    slices = [[outputs for outputs, _ in _met_inside(layer, axis)] for axis in (0, 1)]
    every = (range(layer.P), range(layer.Q))
    if all(met == whole for axis, whole in zip(slices, every, strict=True) for met in axis):
        return _products_of_filters(as_4d(weight), grad_out)
    weights = _ones_along(as_4d(weight), 1)  # (K, R, S)
    return int((weights * _summed(as_4d(grad_out), slices)).sum())


def _products_of_filters(weight: Mask, grad_out: Mask) -> int:
    """Return what each weight makes with each gradient of its filter, some at a time."""
    at_once, total = max(1, MOST_COUNTS // prod(weight.shape[2:])), 0
    for first in range(0, len(weight), at_once):
        own = slice(first, first + at_once)
        ones = _ones_along(weight[own], 1).sum(axis=(1, 2))
        total += int(ones @ _ones_of_channels(grad_out[:, own]))
    return total


def _summed(mask: Mask, slices: Sequence[Sequence[range]]) -> Counts:
    """Return the ones of all samples in each pair of slices of rows and of columns.

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (N, C, H, W)
    slices : two sequences of range
        As many as there are taps, R and S.

    Returns
    -------
    numpy.ndarray of int64, shape (C, R, S)
    """
    _, channels, height, width = mask.shape
    found = np.empty((channels, len(slices[0]), len(slices[1])), np.int64)
    rows = max(1, MOST_COUNTS // max(width, len(slices[1])))
    at_once = max(1, rows // height)
    for c in range(0, channels, at_once):
        some = mask[:, c : c + at_once]
        along = np.empty((some.shape[1], height, len(slices[1])), np.int64)
        for h in range(0, height, rows):
            along[:, h : h + rows] = _along(_ones_along(some[:, :, h : h + rows], 0), slices[1])
        found[c : c + at_once] = _along(along.swapaxes(1, 2), slices[0]).swapaxes(1, 2)
    return found


def _along(counts: Counts, slices: Sequence[range]) -> Counts:
    """Return the sums of slices of the last axis, which are of one stride: (.., slices)."""
    found = np.zeros((*counts.shape[:-1], len(slices)), np.int64)
    if len(slices) < FEW_TAPS:
        for i, some in enumerate(slices):
            found[..., i] = counts[..., some.start : some.stop : some.step].sum(axis=-1)
        return found
    step = slices[0].step
    for phase in range(step):
        own = [i for i, some in enumerate(slices) if some and some.start % step == phase]
        if own:
            part = counts[..., phase::step]
            sums = np.zeros((*part.shape[:-1], part.shape[-1] + 1), np.int64)
            np.cumsum(part, axis=-1, out=sums[..., 1:])
            first = np.array([slices[i].start // step for i in own])
            found[..., own] = sums[..., first + [len(slices[i]) for i in own]] - sums[..., first]
    return found


def _wgrad(layer: Layer, act: Mask, grad_out: Mask) -> int:
    size = max(layer.H * layer.W, layer.P * layer.Q)
    groups = max(1, min(layer.groups, MOST_COUNTS // size))
    samples = max(1, MOST_COUNTS // (groups * size))
    acts, grads = as_4d(act), as_4d(grad_out)
    c, k = layer.C // layer.groups, layer.K // layer.groups
    some = list(_rectangles(layer, MOST_COUNTS // (layer.stride[0] * layer.stride[1])))
    return sum(
        _met_pairs(
            layer,
            acts[n : n + samples, g * c : (g + groups) * c],
            grads[n : n + samples, g * k : (g + groups) * k],
            outputs,
        )
        for n in range(0, len(act), samples)
        for g in range(0, layer.groups, groups)
        for outputs in some
    )


def _met_pairs(layer: Layer, act: Mask, grad_out: Mask, outputs: tuple[range, range]) -> int:
    """Return the MACs of some samples, groups, and rows and columns of outputs."""
    rows, columns = (_met_of(layer, axis, some) for axis, some in enumerate(outputs))
    if not (rows and columns):
        return 0
    (top, bottom), (left, right) = (
        (min(of.start for _, of in axis), max(of.stop for _, of in axis))
        for axis in (rows, columns)
    )
    (p, q), groups = outputs, act.shape[1] // (layer.C // layer.groups)
    acts = _per_group(act[:, :, top:bottom, left:right], 1, groups)
    grads = _per_group(grad_out[:, :, p.start : p.stop, q.start : q.stop], 1, groups)
    total = 0
    for of_p, h in rows:
        for of_q, w in columns:
            met = acts[:, :, _within(h, top), _within(w, left)]
            total += int((met * grads[:, :, _within(of_p, p.start), _within(of_q, q.start)]).sum())
    return total


def _met_of(layer: Layer, axis: int, some: range) -> list[tuple[range, range]]:
    """Return what `_met_inside` does of some outputs, where a tap gives one of them an input."""
    found = []
    for outputs, inputs in _met_inside(layer, axis):
        first = max(outputs.start, some.start) - outputs.start
        end = min(outputs.stop, some.stop) - outputs.start
        if first < end:
            found.append((outputs[first:end], inputs[first:end]))
    return found


def _within(some: range, first: int) -> slice:
    """Return places as a slice of what begins at the first."""
    return slice(some.start - first, some.stop - first, some.step)
