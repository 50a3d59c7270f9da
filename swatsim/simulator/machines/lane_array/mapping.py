"""Cut an op into streams: sets of them on the rows of tiles, sets of them on the columns.

Speaks convolution letters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import assert_never

import numpy as np

from swatsim.simulator.machines.lane_array.config import LaneArrayConfig, Scheduled
from swatsim.simulator.machines.lane_array.kernel import Words
from swatsim.simulator.machines.lane_array.streams import (
    Pass,
    Sets,
    any_of_sets,
    ceil_of,
    lanes_of,
    pack,
    rectangles,
    rows_in_use,
    rows_of,
    sets_of,
    streams_of,
)
from swatsim.simulator.machines.lane_array.wgrad import wgrad_passes
from swatsim.workload.convolutions import Convolution, convolutions
from swatsim.workload.layer import Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask, windows


def scheduled_operand(op: LoweredOp, config: LaneArrayConfig) -> Operand | None:
    """Return the operand whose zeros are skipped: it lies on the rows. None: nothing is skipped.

    'sparser' compares the densities of the whole masks, before padding; a tie goes to the weights,
    in wgrad to the activations. An operand's name is the layer's, also where the op is that of a
    transposed convolution's adjoint.
    """
    match config.scheduled:
        case Scheduled.NONE:
            return None
        case Scheduled.SPARSER:
            (first, a), (second, b) = op.operands.items()
            ones_a, ones_b = op.counts[first], op.counts[second]
            return second if ones_b * a.size < ones_a * b.size else first
        case Scheduled.WEIGHT | Scheduled.ACT | Scheduled.GRAD_OUT:
            return next(
                (name for name in op.operands if op.called(name) == config.scheduled.value), None
            )
        case _:
            assert_never(config.scheduled)


def passes(op: LoweredOp, config: LaneArrayConfig, rows_hold: Operand) -> Iterator[Pass]:
    """Yield the passes of an op, which follow one another."""
    if op.name == "wgrad":
        yield from wgrad_passes(op, config, rows_hold)
        return
    for conv in convolutions(op, config.dgrad_lowering):
        conv = conv.as_one_image() if op.is_matrix_product else conv
        if config.fold_stem and _folds(op):
            data, conv = partial(_fold_data, conv), _fold(conv)
        else:
            data = partial(_data_of, conv)
        if rows_hold != "weight":
            yield from _windows_on_rows(conv, data, config)
        elif conv.groups > 1 and conv.weight.shape[1] == 1:
            yield _depthwise(conv, config)
        else:
            yield _weights_on_rows(conv, config)


def _weights_on_rows(conv: Convolution, config: LaneArrayConfig) -> Pass:
    k, c, r, s = conv.weight.shape
    filters = k // conv.groups
    positions = conv.output[0] * conv.output[1]
    rows = rows_of(filters, config.rows)

    def lines(some: Sets) -> Words:
        held = streams_of(some, rows, filters)
        own = conv.weight[held.start : held.stop].transpose(0, 2, 3, 1)
        streams = pack(own, config.lanes).reshape(len(some.groups), -1, r * s * blocks)
        return sets_of(streams, rows)

    mapped, blocks = rows_in_use(filters, config.rows), ceil_of(c, config.lanes)
    return Pass(
        lines=lines,
        lanes_in_use=lambda: lanes_of(c, r * s, config.lanes),
        mapped=mapped,
        groups=conv.groups,
        length=r * s * blocks,
        elements=c * r * s,
        columns=rows_in_use(positions, config.columns),
        followed=np.full(mapped.size, c * r * s),
        repeats=conv.samples,
        tiles=config.tiles,
        wanted=_wanted(conv, conv.groups, config.rows, config.columns),
    )


def _wanted(
    conv: Convolution, groups: int, filters: int, positions: int, sample: int | None = None
) -> Callable[[range], Mask] | None:
    """Return which sets of filters and of positions have a wanted output with each other.

    Sets of so many, of some groups; shape (samples, groups, sets of positions, sets of filters).
    """
    if conv.wanted is None:
        return None
    some = conv.wanted if sample is None else conv.wanted[sample : sample + 1]

    each = some.shape[1] // groups

    def wanted(of: range) -> Mask:
        own = some[:, of.start * each : of.stop * each]
        split = own.reshape(len(some), len(of), each, -1)
        return any_of_sets(any_of_sets(split, 3, positions), 2, filters).swapaxes(2, 3)

    return wanted


def _depthwise(conv: Convolution, config: LaneArrayConfig) -> Pass:
    """Lay min(lanes, rows) one-channel filters into a set: row i holds filter i in lane i."""
    k, _, r, s = conv.weight.shape
    together = min(config.lanes, config.rows)
    rows = rows_of(k, together)
    positions = conv.output[0] * conv.output[1]

    def lines(some: Sets) -> Words:
        held = streams_of(some, together, k)
        taps = conv.weight[held.start : held.stop].reshape(-1, r * s).astype(np.uint64)
        taps <<= (np.arange(len(taps), dtype=np.uint64) % np.uint64(together))[:, None]
        return sets_of(taps, rows)

    mapped = rows_in_use(k, together)
    return Pass(
        lines=lines,
        lanes_in_use=lambda: (
            np.tile(np.uint64(1) << np.arange(rows, dtype=np.uint64), (r * s, 1)).T
        ),
        mapped=mapped,
        groups=1,
        length=r * s,
        elements=r * s,
        columns=rows_in_use(positions, config.columns),
        followed=mapped * (r * s),
        repeats=conv.samples,
        tiles=1,
        wanted=_wanted(conv, 1, together, config.columns),
    )


def _data_of(conv: Convolution, sample: int) -> Mask:
    data: Mask = conv.data(slice(sample, sample + 1))[0]
    return data


def _windows_on_rows(
    conv: Convolution, data: Callable[[int], Mask], config: LaneArrayConfig
) -> Iterator[Pass]:
    k, channels, r, s = conv.weight.shape
    filters = k // conv.groups
    positions = conv.output[0] * conv.output[1]
    mapped = rows_in_use(positions, config.rows)
    for sample in range(conv.samples):
        wanted = _wanted(conv, conv.groups, config.columns, config.rows, sample)
        yield Pass(
            lines=partial(_window_lines, conv, data(sample), config),
            lanes_in_use=lambda: lanes_of(channels, r * s, config.lanes),
            mapped=mapped,
            groups=conv.groups,
            length=r * s * ceil_of(channels, config.lanes),
            elements=channels * r * s,
            columns=rows_in_use(filters, config.columns),
            followed=np.full(mapped.size, channels * r * s),
            repeats=1,
            tiles=config.tiles,
            # row sets are of windows here
            wanted=None if wanted is None else partial(_exchanged, wanted),
        )


def _exchanged(wanted: Callable[[range], Mask], groups: range) -> Mask:
    return wanted(groups).swapaxes(2, 3)


def _window_lines(conv: Convolution, sample: Mask, config: LaneArrayConfig, some: Sets) -> Words:
    """Return the lines of one sample's windows: channels are packed first, then gathered."""
    _, channels, r, s = conv.weight.shape
    positions, groups = conv.output[0] * conv.output[1], len(some.groups)
    rows = rows_of(positions, config.rows)
    length = r * s * ceil_of(channels, config.lanes)
    cut = np.zeros((groups, len(some.sets) * rows, length), np.uint64)
    own = sample[some.groups.start * channels : some.groups.stop * channels]
    held, at = streams_of(Sets(range(1), some.sets), rows, positions), 0
    for part in rectangles(held, conv.output[1]):
        view = _windows_of(conv, own, groups, part, config.lanes)
        size = len(part[0]) * len(part[1])
        cut[:, at : at + size].reshape(view.shape)[:] = view
        at += size
    return cut.reshape(-1, rows, length)


def _windows_of(
    conv: Convolution, data: Mask, groups: int, outputs: tuple[range, range], lanes: int
) -> Words:
    """Return the windows of some rows and columns of outputs: (G, P, Q, R, S, blocks)."""
    channels, *taps = conv.weight.shape[1:]
    origin, inside = [0, 0], [slice(0), slice(0)]
    for axis, some in enumerate(outputs):  # nothing is packed that these don't read
        first = conv.origin[axis] + some.start * conv.stride[axis]
        span = (len(some) - 1) * conv.stride[axis] + (taps[axis] - 1) * conv.dilation[axis] + 1
        begin, end = (min(max(at, 0), data.shape[1 + axis]) for at in (first, first + span))
        origin[axis], inside[axis] = first - begin, slice(begin, end)
    read = data[:, *inside]
    grouped = read.reshape(groups, channels, *read.shape[1:]).transpose(0, 2, 3, 1)
    blocks = pack(grouped, lanes).transpose(0, 3, 1, 2)  # (G, blocks, H, W)
    sizes = len(outputs[0]), len(outputs[1])
    at = origin[0], origin[1]
    return windows(blocks, tuple(taps), conv.stride, conv.dilation, at, sizes).transpose(
        0, 4, 5, 2, 3, 1
    )


def _folds(op: LoweredOp) -> bool:
    """Whether the op is a stem's: fprop of a strided layer with three channels."""
    layer = op.layer
    plain = layer.groups == 1 and layer.dilation == (1, 1) and op.name == "fprop"
    return plain and layer.C == 3 and max(layer.stride) > 1


def _fold(conv: Convolution) -> Convolution:
    """Return the op with space turned into depth: 7x7 stride 2 on 3 channels becomes 4x4 on 12.

    Folded channel = (row offset * stride + column offset) * C + c; the padded image and the kernel
    are filled with zeros at their far ends to whole multiples of the stride. The data has the shape
    alone: `_fold_data` folds a sample's.
    """
    shape = _fold_data(conv, 0).shape
    return replace(
        conv,
        weight=_space_to_depth(conv.weight, conv.stride),
        stored=np.broadcast_to(np.False_, (conv.samples, *shape)),
        stride=(1, 1),
        origin=(0, 0),
    )


def _fold_data(conv: Convolution, sample: int) -> Mask:
    """Return a sample with space turned into depth."""
    before = [(0, 0), (0, 0), *((-start, 0) for start in conv.origin)]
    data = conv.data(slice(sample, sample + 1))
    folded: Mask = _space_to_depth(np.pad(data, before), conv.stride)[0]
    return folded


def _space_to_depth(mask: Mask, stride: tuple[int, int]) -> Mask:
    n, c, h, w = mask.shape
    (a, b), (rows, columns) = stride, (ceil_of(h, stride[0]), ceil_of(w, stride[1]))
    filled = np.pad(mask, [(0, 0), (0, 0), (0, rows * a - h), (0, columns * b - w)])
    split = filled.reshape(n, c, rows, a, columns, b)
    return split.transpose(0, 3, 5, 1, 2, 4).reshape(n, a * b * c, rows, columns)
