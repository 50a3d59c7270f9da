"""Tensors as windows: what falls under which tap of a kernel. Pure arrays, no op in sight."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Axes = tuple[int, int]
Mask = npt.NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)


def windows(
    data: npt.NDArray[Scalar],
    taps: tuple[int, ...],
    stride: Axes,
    dilation: Axes,
    origin: Axes,
    output: Axes,
) -> npt.NDArray[Scalar]:
    """Return (N, C, H, W) as (N, C, R, S, P, Q): where tap (r, s) of output (p, q) falls.

    A read-only view of a copy of the size of the part that is read; taps that fall outside are
    zero.
    """
    for axis in (0, 1):
        span = (output[axis] - 1) * stride[axis] + (taps[axis] - 1) * dilation[axis] + 1
        data = crop_or_pad(data, axis + 2, origin[axis], span)
    n, c, h, w = data.strides
    return np.lib.stride_tricks.as_strided(
        data,
        (*data.shape[:2], *taps, *output),
        (n, c, h * dilation[0], w * dilation[1], h * stride[0], w * stride[1]),
        writeable=False,
    )


def crop_or_pad(
    data: npt.NDArray[Scalar], axis: int, start: int, length: int
) -> npt.NDArray[Scalar]:
    """Return `length` positions from `start` on along an axis, zeros where there are none."""
    size = data.shape[axis]
    inside = slice(min(max(start, 0), size), min(max(start + length, 0), size))
    part = data[(slice(None),) * axis + (inside,)]
    before = min(max(-start, 0), length)
    pads = [(0, 0)] * data.ndim
    pads[axis] = (before, length - before - part.shape[axis])
    return np.pad(part, pads) if any(pads[axis]) else part


#: Bytes of a processor's fastest cache, and rows that are moved at once at least.
CACHE, ROWS_AT_ONCE = 2**15, 16


def channels_first(weight: Mask) -> Mask:
    """Return a copy (C, K, R, S) of (K, C, R, S).

    Taps move as one, and some filters at a time, so that what is read stays in the cache: NumPy's
    own copy takes some times as long.
    """
    if not weight.flags.c_contiguous:
        return np.array(weight.transpose(1, 0, 2, 3), order="C")
    filters, channels, *taps = weight.shape
    size = taps[0] * taps[1]
    kind = np.dtype(np.uint8 if size == 1 else f"V{size}")
    whole = weight.reshape(filters, channels * size).view(kind)
    copy = np.empty((channels, filters), kind)
    at_once = max(ROWS_AT_ONCE, CACHE // channels) if size == 1 else 2 * ROWS_AT_ONCE
    for first in range(0, filters, at_once):
        some = slice(first, first + at_once)
        copy[:, some] = whole[some].T
    return copy.view(np.bool_).reshape(channels, filters, *taps)


def as_4d(mask: Mask | None) -> Mask:
    """Return a mask with the unit axes that a linear layer's lacks."""
    assert mask is not None, "the op has no such operand"
    return mask.reshape(mask.shape + (1,) * (4 - mask.ndim))
