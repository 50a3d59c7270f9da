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


def as_4d(mask: Mask | None) -> Mask:
    """Return a mask with the unit axes that a linear layer's lacks."""
    assert mask is not None, "the op has no such operand"
    return mask.reshape(mask.shape + (1,) * (4 - mask.ndim))
