"""fprop and dgrad as correlations, one after another, each in the order of its reduction.

Speaks convolution letters. fprop is one; dgrad is several over grad_out, with the kernel rotated
and its two channel axes exchanged. A machine says how its dgrad is lowered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd
from typing import Literal, assert_never

import numpy as np

from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Axes, Mask, as_4d, windows

Lowering = Literal["split", "dilated"]


@dataclass(frozen=True, eq=False)
class Convolution:
    """A correlation of `data` with `weight`, in the order of its reduction.

    ::

        out[n,k,p,q] = sum over c,r,s of weight[k,c,r,s]
                       * data[n, c, p*stride + r*dilation + origin, q*stride + ... + origin]

    Parameters
    ----------
    weight : numpy.ndarray of bool, shape (K, C/groups, R, S)
    stored : numpy.ndarray of bool, shape (N, C, .., ..)
        What `data` makes the data of, (N, C, H, W): with zeros between. Zero outside.
    origin : pair of int
        Where in `data` the first tap of the first output lies: minus the padding before it. A
        phase of dgrad may begin inside the data, so it can be positive too.
    output : pair of int
        P and Q.
    wanted : numpy.ndarray of bool, shape (N, K, P, Q), optional
        Which outputs somebody wants; by default all.
    apart : pair of int
        How far apart neighbours of `stored` lie in the data.
    """

    weight: Mask
    stored: Mask
    stride: Axes
    dilation: Axes
    origin: Axes
    output: Axes
    groups: int
    wanted: Mask | None = None
    apart: Axes = (1, 1)

    @property
    def samples(self) -> int:
        """Samples, N."""
        return len(self.stored)

    def data(self, samples: slice = slice(None), channels: slice = slice(None)) -> Mask:
        """Return the data of some samples and channels: a view, where no zeros lie between."""
        some = self.stored[samples, channels]
        return some if self.apart == (1, 1) else _stuff(some, self.apart)

    def windows(self) -> Mask:
        """Return the data as windows: (N, C, R, S, P, Q), zero where a tap falls outside."""
        return windows(
            self.data(),
            self.weight.shape[2:4],
            self.stride,
            self.dilation,
            self.origin,
            self.output,
        )

    def as_one_image(self) -> Convolution:
        """Return a linear layer's samples as the windows of one image."""
        n, c, _, _ = self.stored.shape
        data = self.stored.reshape(n, c).T.reshape(1, c, 1, n)
        wanted = self.wanted
        if wanted is not None:
            wanted = wanted.reshape(n, -1).T.reshape(1, -1, 1, n)
        return replace(self, stored=data, output=(1, n), wanted=wanted)


def convolutions(op: LoweredOp, lowering: Lowering = "split") -> Iterator[Convolution]:
    """Yield the convolutions that compute fprop or dgrad, one after another.

    There are two ways to lower the dgrad of a strided layer, of equal values and unequal cost:

    - `split`: outputs (h, v) fall into stride x stride phases; each phase meets the taps with
      r*dilation = h + padding modulo the stride, and is a convolution of stride 1 over the dense
      grad_out. No inserted zero is ever touched. A phase without taps makes zeros and costs
      nothing: it is left out.
    - `dilated`: stride-1 zeros go between the elements of grad_out, and one convolution of stride
      1 with the rotated kernel runs at input resolution. A dense machine pays for the zeros.
    """
    if op.name == "fprop":
        yield _fprop(op)
    elif op.name == "dgrad":
        yield from _dgrad(op, lowering)
    else:
        raise ValueError("wgrad is an outer product, not a convolution")


def _dgrad(op: LoweredOp, lowering: Lowering) -> Iterator[Convolution]:
    match lowering:
        case "split":
            yield from _dgrad_split(op)
        case "dilated":
            yield _dgrad_dilated(op)
        case _:
            assert_never(lowering)


def _fprop(op: LoweredOp) -> Convolution:
    layer = op.layer
    return Convolution(
        weight=as_4d(op.weight),
        stored=as_4d(op.act),
        stride=layer.stride,
        dilation=layer.dilation,
        origin=(-layer.padding[0][0], -layer.padding[1][0]),
        output=(layer.P, layer.Q),
        groups=layer.groups,
        wanted=_wanted(op),
    )


def _wanted(op: LoweredOp) -> Mask | None:
    return None if op.output is None else as_4d(op.output)


def _dgrad_split(op: LoweredOp) -> Iterator[Convolution]:
    layer = op.layer
    weight = _exchange_channels(as_4d(op.weight), layer.groups)
    wanted = _wanted(op)
    rows = _phases(layer.H, layer.R, layer.stride[0], layer.dilation[0], layer.padding[0][0])
    columns = _phases(layer.W, layer.S, layer.stride[1], layer.dilation[1], layer.padding[1][0])
    for row in rows:
        for column in columns:
            yield Convolution(
                weight=weight[:, :, row.taps, column.taps],
                stored=as_4d(op.grad_out),
                stride=(1, 1),
                dilation=(row.dilation, column.dilation),
                origin=(row.origin, column.origin),
                output=(row.outputs, column.outputs),
                groups=layer.groups,
                wanted=None if wanted is None else wanted[:, :, row.places, column.places],
            )


def _dgrad_dilated(op: LoweredOp) -> Convolution:
    layer = op.layer
    weight = _exchange_channels(as_4d(op.weight), layer.groups)
    taps = (layer.R, layer.S)
    return Convolution(
        weight=weight[:, :, ::-1, ::-1],
        stored=as_4d(op.grad_out),
        apart=layer.stride,
        stride=(1, 1),
        dilation=layer.dilation,
        origin=tuple(  # type: ignore[arg-type]
            layer.padding[axis][0] - (taps[axis] - 1) * layer.dilation[axis] for axis in (0, 1)
        ),
        output=(layer.H, layer.W),
        groups=layer.groups,
        wanted=_wanted(op),
    )


def _stuff(data: Mask, stride: Axes) -> Mask:
    """Return stride-1 zeros between the elements of the two last axes."""
    *outer, height, width = data.shape
    stuffed = np.zeros(
        (*outer, (height - 1) * stride[0] + 1, (width - 1) * stride[1] + 1), np.bool_
    )
    stuffed[..., :: stride[0], :: stride[1]] = data
    return stuffed


def _exchange_channels(weight: Mask, groups: int) -> Mask:
    """Return (K, C/groups, R, S) as (C, K/groups, R, S): dgrad makes channels out of filters."""
    if groups == 1:
        return weight.swapaxes(0, 1)  # a view, which a large one had better be
    k, c, r, s = weight.shape
    grouped = weight.reshape(groups, k // groups, c, r, s).swapaxes(1, 2)
    return grouped.reshape(groups * c, k // groups, r, s)


@dataclass(frozen=True)
class _Phase:
    """The outputs h = first, first + stride, .. of one axis, as a convolution of stride 1."""

    taps: slice  # descending: the rotated kernel's order
    outputs: int
    dilation: int
    origin: int
    places: slice  # of the outputs


def _phases(size: int, taps: int, stride: int, dilation: int, padding: int) -> list[_Phase]:
    """Return the phases: ``dx[h]`` reads ``dy[(h + padding - r*dilation) / stride]``."""
    phases = []
    for first in range(min(stride, size)):
        met = [r for r in reversed(range(taps)) if (first + padding - r * dilation) % stride == 0]
        if met:
            origin = (first + padding - met[0] * dilation) // stride
            outputs = (size - first - 1) // stride + 1
            # taps of one phase lie stride/gcd apart: dilation/gcd positions of dy
            common = gcd(dilation, stride)
            every = slice(met[0], None, -(stride // common))  # what it takes of a kernel is a view
            places = slice(first, None, stride)
            phases.append(_Phase(every, outputs, dilation // common, origin, places))
    return phases
