"""Which outputs of a part of an op somebody wants, as the kernels read it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from swatsim.simulator.machines.cartesian.kernel_patterns import Counts
from swatsim.simulator.machines.cartesian.kernel_wanted import Wanted
from swatsim.workload.convolutions import Convolution
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Axes, Mask, as_4d


def reached(taps: Counts, stride: int, size: int, outputs: int) -> Counts:
    """Return the outputs that pixels of a padded axis reach through each tap; -1: none.

    `taps` are the pixels under them at the first output. Shape (X, R).
    """
    reach = np.arange(size)[:, None] - taps  # stride times the output
    output = reach // stride
    valid = (reach % stride == 0) & (output >= 0) & (output < outputs)
    return np.ascontiguousarray(np.where(valid, output, -1), np.int64)


def _reached(conv: Convolution, axis: int, size: int) -> Counts:
    taps = np.arange(conv.weight.shape[2 + axis]) * conv.dilation[axis]
    return reached(taps, conv.stride[axis], size, conv.output[axis])


def wanted_of_groups(conv: Convolution, padded: Axes, chunk: int) -> Iterator[Wanted | None]:
    """Yield which outputs of each group somebody wants; None: all of them."""
    if conv.wanted is None:
        yield from [None] * conv.groups
        return
    rows, columns = (_reached(conv, axis, size) for axis, size in enumerate(padded))
    samples, filters = conv.wanted.shape[:2]
    split = conv.wanted.reshape(samples, conv.groups, filters // conv.groups, *conv.output)
    for group in range(conv.groups):
        outputs = np.array(split[:, group].transpose(0, 2, 3, 1), order="C")
        of_filters = outputs.any(axis=(1, 2))
        firsts = range(0, of_filters.shape[1], chunk)
        chunks = np.logical_or.reduceat(of_filters, firsts, axis=1).T
        yield Wanted(outputs, rows, columns, np.array(chunks, order="C"))


def on_plane(wanted: Mask | None, plane: Axes) -> Mask | None:
    """Return which outputs of positions that are laid out on a plane are wanted."""
    if wanted is None:
        return None
    laid = np.zeros((*wanted.shape[:2], plane[0] * plane[1]), np.bool_)
    positions = wanted.shape[2] * wanted.shape[3]
    laid[..., :positions] = wanted.reshape(*wanted.shape[:2], positions)
    return laid.reshape(*wanted.shape[:2], *plane)


def wanted_sums(op: LoweredOp) -> list[Mask | None]:
    """Return, of each group of a wgrad, which weights are wanted: (R * S, C, K); None: all."""
    layer = op.layer
    if op.output is None:
        return [None] * layer.groups
    taps = layer.R * layer.S
    split = as_4d(op.output).reshape(layer.groups, -1, layer.C // layer.groups, taps)
    return [np.array(group.transpose(2, 1, 0), order="C") for group in split]
