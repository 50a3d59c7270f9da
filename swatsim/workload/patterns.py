"""Which groups of an op's operands obey n:m along what the op sums: counted, not estimated.

In the order of a GEMM's K (`gemm.py`): a weight's and an image's values lie, for each filter or
window, tap by tap with the channels within; in wgrad, for each channel and tap, position by
position through all samples. Zeros of padding, and between dilated gradients, count as values.

Where m divides the channels, a group lies within one tap: it is looked at once for each place of an
image, and counts for each window that has the place. So this costs about what reading the masks
does; only groups that go from one tap into the next are looked at window by window.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.jit import read_only
from swatsim.workload.convolutions import Convolution, Lowering, convolutions
from swatsim.workload.layer import OPERANDS, Layer, Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.pattern_kernel import (
    Axis,
    Bytes,
    Counts,
    crowded_lines,
    crowded_places,
    crowded_positions,
    crowded_windows,
    line_of,
)
from swatsim.workload.windows import Mask, as_4d

#: Values of filters that are laid out at a time (16 MiB), or those of one.
MOST_VALUES = 2**24


class Pattern(NamedTuple):
    """Groups of m values of an operand along what its op sums, and those that obey.

    Parameters
    ----------
    groups : int
        In all GEMMs of the op; the last of a line may be shorter.
    obeying : int
        Those that have at most n values that are not zero.
    """

    groups: int
    obeying: int

    @property
    def obeys(self) -> bool:
        """Whether all of them do."""
        return self.groups == self.obeying


def patterns(
    op: LoweredOp,
    lowering: Lowering,
    n: int,
    m: int,
    operands: Collection[Operand] = OPERANDS,
) -> Mapping[Operand, Pattern]:
    """Return, of each operand that an op reads, how many of its groups obey n:m.

    Parameters
    ----------
    op : LoweredOp
    lowering : {"split", "dilated"}
        Of dgrad.
    n, m : int
        1 <= n <= m.
    operands : collection of {"weight", "act", "grad_out"}
        Those that are looked at, by the lowered op's names.
    """
    some = [operand for operand in op.operands if operand in operands]
    if op.name == "wgrad":
        return {operand: _of_wgrad(op, operand, n, m) for operand in some}
    every = list(convolutions(op, lowering))
    crowded = {operand: _crowded(op, operand, every, lowering, n, m) for operand in some}
    groups = {operand: _groups_of(every, operand, m) for operand in some}
    return {it: Pattern(groups[it], groups[it] - crowded[it]) for it in some}


# ---- fprop and dgrad


def _groups_of(every: Iterable[Convolution], operand: Operand, m: int) -> int:
    """Return the groups of an operand in all convolutions."""
    found = 0
    for conv in every:
        windows = conv.groups * conv.samples * prod(conv.output)
        lines = len(conv.weight) if operand == "weight" else windows
        found += lines * -(-prod(conv.weight.shape[1:]) // m)
    return found


def _crowded(
    op: LoweredOp, operand: Operand, every: list[Convolution], lowering: Lowering, n: int, m: int
) -> int:
    if operand == "weight":
        return _crowded_weights(op, every, lowering, n, m)
    return _crowded_images(every, op.counts[operand] == op.operands[operand].size, n, m)


def _crowded_weights(
    op: LoweredOp, every: list[Convolution], lowering: Lowering, n: int, m: int
) -> int:
    """Return the crowded groups of an op's weights.

    Those of dgrad as the layer has them, if a group lies within a tap, and not turned over.
    """
    layer, weight = op.layer, as_4d(op.weight)
    if op.name == "fprop" or (layer.K // layer.groups) % m:
        return sum(_crowded_filters(_bytes(conv.weight), n, m) for conv in every)
    rows, columns = (_taps_met(layer, axis, lowering) for axis in (0, 1))
    grouped = _bytes(weight).reshape(layer.groups, -1, *weight.shape[1:])
    places = _places(grouped, n, m)
    return int((places * rows[:, None] * columns).sum())


def _taps_met(layer: Layer, axis: int, lowering: Lowering) -> npt.NDArray[np.bool_]:
    """Return which taps of an axis dgrad has: those of a phase without outputs it has not."""
    taps = np.arange((layer.R, layer.S)[axis])
    phase = taps * layer.dilation[axis] - layer.padding[axis][0]
    phases = min(layer.stride[axis], (layer.H, layer.W)[axis])
    return (phase % layer.stride[axis] < phases) | (lowering == "dilated")


def _crowded_filters(weight: Bytes, n: int, m: int) -> int:
    """Return the crowded groups of filters (K, C/groups, R, S)."""
    at_once = max(1, MOST_VALUES // weight[0].size)
    some = (weight[first : first + at_once] for first in range(0, len(weight), at_once))
    return sum(_crowded_of_some(filters, n, m) for filters in some)


def _crowded_of_some(weight: Bytes, n: int, m: int) -> int:
    filters, channels, *taps = weight.shape
    if channels % m == 0 and prod(taps) > 1:
        return int(_places(weight, n, m).sum())
    lines = read_only(weight.transpose(0, 2, 3, 1)).reshape(filters, -1)
    return crowded_lines(lines, line_of(lines.shape[1], m), n, m)


def _crowded_images(every: list[Convolution], full: bool, n: int, m: int) -> int:
    """Return the crowded groups of the windows of convolutions that share their data.

    Of data without a zero all samples are alike.
    """
    if not every:
        return 0
    first = every[0]
    samples, times = (1, first.samples) if full else (first.samples, 1)
    at_once = max(1, MOST_VALUES // prod(first.stored.shape[1:]))
    some = (slice(at, min(at + at_once, samples)) for at in range(0, samples, at_once))
    return times * sum(_crowded_of_samples(every, own, full, n, m) for own in some)


def _crowded_of_samples(every: list[Convolution], own: slice, full: bool, n: int, m: int) -> int:
    """Return the crowded groups of the windows of some samples."""
    first = every[0]
    if first.weight.shape[1] % m:
        return sum(_crowded_lines_of_taps(conv, own, n, m) for conv in every)
    some, times = (slice(m), first.stored.shape[1] // m) if full else (slice(None), 1)
    places = _places(_bytes(first.data(own, some)), n, m)
    return times * sum(_of_windows(conv, places) for conv in every)


def _places(data: Bytes, n: int, m: int) -> Counts:
    """Return how many groups of m channels are crowded at each place, of data (N, C, ..)."""
    times = 1
    if not any(data.strides):  # one value, of which a whole operand would be a copy
        data, times = data[:1, :m], data.shape[0] * (data.shape[1] // m)
    flat = read_only(data).reshape(*data.shape[:2], -1)
    held = np.zeros(flat.shape[2], np.uint8 if m < 256 else np.uint16)
    found = crowded_places(flat, held, n, m).reshape(data.shape[2:])
    found *= times
    return found


def _of_windows(conv: Convolution, places: Counts) -> int:
    """Return what is counted at places (H, W), added up over the windows that have each."""
    rows, columns = (_visits(_axis(conv, axis), places.shape[axis]) for axis in (0, 1))
    return int(rows @ (places @ columns))


def _visits(axis: Axis, size: int) -> Counts:
    """Return how many pairs of an output and a tap meet each place of an axis."""
    visits = np.zeros(size, np.int64)
    for tap in range(axis.taps):
        place = tap * axis.dilation + axis.origin
        first = max(0, -(place // axis.stride))
        end = min(axis.outputs, (size - 1 - place) // axis.stride + 1)
        if first < end:
            visits[
                first * axis.stride + place : (end - 1) * axis.stride + place + 1 : axis.stride
            ] += 1
    return visits


def _crowded_lines_of_taps(conv: Convolution, own: slice, n: int, m: int) -> int:
    """Return the crowded groups of samples' windows, some rows and columns of these at a time."""
    line = line_of(prod(conv.weight.shape[1:]), m)
    data, found = _bytes(conv.data(own)), 0
    rows, columns = (_axis(conv, axis) for axis in (0, 1))
    for p in _cut(rows, MOST_VALUES // (data.shape[1] * data.shape[3])):
        across = data[:, :, _read(p, data.shape[2])]
        for q in _cut(columns, MOST_VALUES // (data.shape[1] * max(1, across.shape[2]))):
            some = across[..., _read(q, data.shape[3])]
            axes = _from(p, data.shape[2]), _from(q, data.shape[3])
            last = read_only(some.transpose(0, 2, 3, 1))
            found += crowded_windows(last, *axes, conv.groups, line, n, m)
    return found


def _cut(axis: Axis, most: int) -> Iterator[Axis]:
    """Yield an axis as parts whose outputs read about so many places, or of one output."""
    reach = (axis.taps - 1) * axis.dilation
    at_once = max(1, (most - reach) // axis.stride)
    for first in range(0, axis.outputs, at_once):
        outputs = min(at_once, axis.outputs - first)
        yield axis._replace(origin=axis.origin + first * axis.stride, outputs=outputs)


def _read(axis: Axis, size: int) -> slice:
    """Return the places of so many that an axis reads."""
    end = axis.origin + (axis.outputs - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1
    first = min(max(0, axis.origin), size)
    return slice(first, min(max(first, end), size))


def _from(axis: Axis, size: int) -> Axis:
    """Return an axis of what it reads alone."""
    return axis._replace(origin=axis.origin - _read(axis, size).start)


def _axis(conv: Convolution, axis: int) -> Axis:
    return Axis(
        taps=conv.weight.shape[2 + axis],
        stride=conv.stride[axis],
        dilation=conv.dilation[axis],
        origin=conv.origin[axis],
        outputs=conv.output[axis],
    )


# ---- wgrad


def _of_wgrad(op: LoweredOp, operand: Operand, n: int, m: int) -> Pattern:
    layer, mask = op.layer, as_4d(op.operands[operand])
    data, times = _bytes(mask), 1
    if op.counts[operand] == mask.size:  # all channels are alike
        data, times = data[:, :1], data.shape[1]
    length = op.samples * layer.P * layer.Q
    taps = layer.R * layer.S if operand == "act" else 1
    groups = mask.shape[1] * taps * -(-length // m)
    line = line_of(length, m)
    at_once = max(1, MOST_VALUES // (data[:, 0].size))
    crowded = sum(
        crowded_positions(
            read_only(part[:, c : c + at_once]), *shifts, (layer.P, layer.Q), line, n, m
        )
        for part, shifts in (_met_parts(data, layer) if operand == "act" else _as_it_is(data))
        for c in range(0, data.shape[1], at_once)
    )
    return Pattern(groups, groups - times * crowded)


def _as_it_is(data: Bytes) -> Iterator[tuple[Bytes, tuple[Counts, Counts]]]:
    """Yield gradients: an output meets its own."""
    yield data, (np.zeros(1, np.int64), np.zeros(1, np.int64))


def _met_parts(data: Bytes, layer: Layer) -> Iterator[tuple[Bytes, tuple[Counts, Counts]]]:
    """Yield the parts of images in which neighbouring outputs meet neighbours, with their taps.

    There are stride x stride of them; of each axis, where a tap meets output 0.
    """
    for row, of_row in _shifts(layer, 0).items():
        for column, of_column in _shifts(layer, 1).items():
            part = data[:, :, row :: layer.stride[0], column :: layer.stride[1]]
            yield part, (np.array(of_row), np.array(of_column))


def _shifts(layer: Layer, axis: int) -> dict[int, list[int]]:
    """Return an axis's taps by the part that they meet, as the place in it that output 0 has."""
    taps, stride = (layer.R, layer.S)[axis], layer.stride[axis]
    found: dict[int, list[int]] = {}
    for tap in range(taps):
        place, part = divmod(tap * layer.dilation[axis] - layer.padding[axis][0], stride)
        found.setdefault(part, []).append(place)
    return found


def _bytes(mask: Mask) -> Bytes:
    return mask.view(np.uint8)
