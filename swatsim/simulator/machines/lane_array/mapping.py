"""Cut an op into streams: sets of them on the rows of tiles, sets of them on the columns.

Speaks convolution letters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from swatsim.simulator.machines.lane_array.config import LaneArrayConfig, Scheduled
from swatsim.simulator.machines.lane_array.kernel import Counts, Words, pack_lines
from swatsim.workload.convolutions import Convolution, convolutions
from swatsim.workload.layer import Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask, as_4d, windows


@dataclass(frozen=True)
class Pass:
    """Row streams and column streams: a part of an op, or several alike that follow one another.

    Parameters
    ----------
    lines : callable returning numpy.ndarray of uint64, shape (groups * row sets, rows, T)
        Packed when asked for; the dense baseline never asks.
    lanes_in_use : callable returning numpy.ndarray of uint64, shape (1 or rows, T)
        The lanes of each line that hold an element, zero or not: free lanes are none.
    mapped : numpy.ndarray of int64, shape (row sets,)
        Rows of each set of a group that hold a stream.
    groups : int
        Parts alike: groups of a layer, each with row streams of its own.
    length : int
        Lines of a stream, T.
    elements : int
        Elements of all row streams of all groups; the free lanes of partly filled lines are none.
    column_sets, following : int
        Sets of column streams, and the streams in them.
    followed : int
        Elements of one column stream, over all row sets of all groups.
    repeats : int
        Times that the same pass runs: samples, where the rows hold weights.
    tiles : int
        Tiles over which row sets are spread.
    """

    lines: Callable[[], Words]
    lanes_in_use: Callable[[], Words]
    mapped: Counts
    groups: int
    length: int
    elements: int
    column_sets: int
    following: int
    followed: int
    repeats: int
    tiles: int


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
        yield from _wgrad(op, config, rows_hold)
        return
    for conv in convolutions(op, config.dgrad_lowering):
        conv = _as_one_image(conv) if op.is_matrix_product else conv
        conv = _fold(conv) if config.fold_stem and _folds(op) else conv
        if rows_hold != "weight":
            yield from _windows_on_rows(conv, config)
        elif conv.groups > 1 and conv.weight.shape[1] == 1:
            yield _depthwise(conv, config)
        else:
            yield _weights_on_rows(conv, config)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def pack(mask: Mask, lanes: int) -> Words:
    """Return the last axis as lines: (.., n) as (.., ceil(n/lanes)) words, lane l in bit l."""
    rows = np.array(mask, order="C").reshape(-1, mask.shape[-1])
    return pack_lines(rows, lanes).reshape(*mask.shape[:-1], -1)


def _lanes_in_use(values: int, times: int, lanes: int) -> Words:
    """Return the lanes in use of a stream that takes `values` elements `times` times."""
    return np.tile(pack(np.ones((1, values), np.bool_), lanes), times)


def _sets(streams: Words, rows: int) -> Words:
    """Cut streams (.., n, T) into sets of at most so many rows, the last one's missing ones empty.

    Shape (.. * sets, rows, T).
    """
    *outer, n, length = streams.shape
    rows = min(rows, n)  # a single set has no use for rows without a stream
    sets = _ceil(n, rows)
    cut = np.zeros((*outer, sets * rows, length), np.uint64)
    cut[..., :n, :] = streams
    return cut.reshape(-1, rows, length)


def _mapped(streams: int, rows: int, times: int = 1) -> Counts:
    """Return the rows in use in each set of `streams` streams, for `times` such groups of sets."""
    counts = np.full(_ceil(streams, rows), rows, np.int64)
    counts[-1] = streams - rows * (len(counts) - 1)
    return np.tile(counts, times)


def _weights_on_rows(conv: Convolution, config: LaneArrayConfig) -> Pass:
    k, c, r, s = conv.weight.shape
    filters = k // conv.groups
    positions = conv.output[0] * conv.output[1]

    def lines() -> Words:
        streams = pack(conv.weight.transpose(0, 2, 3, 1), config.lanes)
        return _sets(streams.reshape(conv.groups, filters, -1), config.rows)

    return Pass(
        lines=lines,
        lanes_in_use=lambda: _lanes_in_use(c, r * s, config.lanes),
        mapped=_mapped(filters, config.rows),
        groups=conv.groups,
        length=r * s * _ceil(c, config.lanes),
        elements=k * c * r * s,
        column_sets=_ceil(positions, config.columns),
        following=positions,
        followed=conv.groups * _ceil(filters, config.rows) * c * r * s,
        repeats=len(conv.data),
        tiles=config.tiles,
    )


def _depthwise(conv: Convolution, config: LaneArrayConfig) -> Pass:
    """Lay min(lanes, rows) one-channel filters into a set: row i holds filter i in lane i."""
    k, _, r, s = conv.weight.shape
    together = min(config.lanes, config.rows)
    positions = conv.output[0] * conv.output[1]

    def lines() -> Words:
        taps = conv.weight.reshape(k, r * s).astype(np.uint64)
        taps <<= (np.arange(k, dtype=np.uint64) % np.uint64(together))[:, None]
        return _sets(taps, together)

    return Pass(
        lines=lines,
        lanes_in_use=lambda: (
            np.tile(np.uint64(1) << np.arange(together, dtype=np.uint64), (r * s, 1)).T
        ),
        mapped=_mapped(k, together),
        groups=1,
        length=r * s,
        elements=k * r * s,
        column_sets=_ceil(positions, config.columns),
        following=positions,
        followed=k * r * s,
        repeats=len(conv.data),
        tiles=1,
    )


def _windows_on_rows(conv: Convolution, config: LaneArrayConfig) -> Iterator[Pass]:
    k, channels, r, s = conv.weight.shape
    filters = k // conv.groups
    positions = conv.output[0] * conv.output[1]
    for sample in conv.data:
        yield Pass(
            lines=lambda sample=sample: _window_lines(conv, sample, config),  # type: ignore[misc]
            lanes_in_use=lambda: _lanes_in_use(channels, r * s, config.lanes),
            mapped=_mapped(positions, config.rows),
            groups=conv.groups,
            length=r * s * _ceil(channels, config.lanes),
            elements=conv.groups * positions * channels * r * s,
            column_sets=_ceil(filters, config.columns),
            following=filters,
            followed=conv.groups * _ceil(positions, config.rows) * channels * r * s,
            repeats=1,
            tiles=config.tiles,
        )


def _window_lines(conv: Convolution, sample: Mask, config: LaneArrayConfig) -> Words:
    """Return the lines of one sample's windows: channels are packed first, then gathered."""
    _, channels, r, s = conv.weight.shape
    grouped = sample.reshape(conv.groups, channels, *sample.shape[1:]).transpose(0, 2, 3, 1)
    blocks = pack(grouped, config.lanes).transpose(0, 3, 1, 2)  # (G, blocks, H, W)
    view = windows(blocks, (r, s), conv.stride, conv.dilation, conv.origin, conv.output)
    streams = view.transpose(0, 4, 5, 2, 3, 1)  # (G, P, Q, R, S, blocks)
    positions = conv.output[0] * conv.output[1]
    return _sets(streams.reshape(conv.groups, positions, -1), config.rows)


def _wgrad(op: LoweredOp, config: LaneArrayConfig, rows_hold: Operand) -> Iterator[Pass]:
    for sample in range(op.samples):
        match rows_hold:
            case "act":
                yield _act_on_rows(op, as_4d(op.act)[sample], config)
            case "grad_out":
                yield _grad_on_rows(op, as_4d(op.grad_out)[sample], config)
            case _:
                raise ValueError(f"wgrad does not read {rows_hold}")


def _act_on_rows(op: LoweredOp, act: Mask, config: LaneArrayConfig) -> Pass:
    """Lay the (r, s, c) streams of one sample on rows: sets of channels of one (r, s)."""
    layer = op.layer
    channels, filters = layer.C // layer.groups, layer.K // layer.groups
    taps, positions = layer.R * layer.S, layer.P * layer.Q

    def lines() -> Words:
        origin = (-layer.padding[0][0], -layer.padding[1][0])
        output, kernel = (layer.P, layer.Q), (layer.R, layer.S)
        view = windows(act[None], kernel, layer.stride, layer.dilation, origin, output)[0]
        grouped = view.reshape(layer.groups, channels, taps, positions)
        return _sets(pack(grouped.swapaxes(1, 2), config.lanes), config.rows)

    return Pass(
        lines=lines,
        lanes_in_use=lambda: _lanes_in_use(positions, 1, config.lanes),
        mapped=_mapped(channels, config.rows, times=taps),
        groups=layer.groups,
        length=_ceil(positions, config.lanes),
        elements=layer.C * taps * positions,
        column_sets=_ceil(filters, config.columns),
        following=filters,
        followed=layer.groups * taps * _ceil(channels, config.rows) * positions,
        repeats=1,
        tiles=config.tiles,
    )


def _grad_on_rows(op: LoweredOp, grad: Mask, config: LaneArrayConfig) -> Pass:
    """Lay the out-channel streams of one sample on rows."""
    layer = op.layer
    channels, filters = layer.C // layer.groups, layer.K // layer.groups
    taps, positions = layer.R * layer.S, layer.P * layer.Q
    grouped = grad.reshape(layer.groups, filters, positions)
    return Pass(
        lines=lambda: _sets(pack(grouped, config.lanes), config.rows),
        lanes_in_use=lambda: _lanes_in_use(positions, 1, config.lanes),
        mapped=_mapped(filters, config.rows),
        groups=layer.groups,
        length=_ceil(positions, config.lanes),
        elements=layer.K * positions,
        column_sets=taps * _ceil(channels, config.columns),
        following=taps * channels,
        followed=layer.groups * _ceil(filters, config.rows) * positions,
        repeats=1,
        tiles=config.tiles,
    )


def _as_one_image(conv: Convolution) -> Convolution:
    """Return a linear layer's samples as the windows of one image."""
    n, c, _, _ = conv.data.shape
    return replace(conv, data=conv.data.reshape(n, c).T.reshape(1, c, 1, n), output=(1, n))


def _folds(op: LoweredOp) -> bool:
    """Whether the op is a stem's: fprop of a strided layer with three channels."""
    layer = op.layer
    plain = layer.groups == 1 and layer.dilation == (1, 1) and op.name == "fprop"
    return plain and layer.C == 3 and max(layer.stride) > 1


def _fold(conv: Convolution) -> Convolution:
    """Return the op with space turned into depth: 7x7 stride 2 on 3 channels becomes 4x4 on 12.

    Folded channel = (row offset * stride + column offset) * C + c; the padded image and the kernel
    are filled with zeros at their far ends to whole multiples of the stride.
    """
    before = [(0, 0), (0, 0), *((-start, 0) for start in conv.origin)]
    return replace(
        conv,
        weight=_space_to_depth(conv.weight, conv.stride),
        data=_space_to_depth(np.pad(conv.data, before), conv.stride),
        stride=(1, 1),
        origin=(0, 0),
    )


def _space_to_depth(mask: Mask, stride: tuple[int, int]) -> Mask:
    n, c, h, w = mask.shape
    (a, b), (rows, columns) = stride, (_ceil(h, stride[0]), _ceil(w, stride[1]))
    filled = np.pad(mask, [(0, 0), (0, 0), (0, rows * a - h), (0, columns * b - w)])
    split = filled.reshape(n, c, rows, a, columns, b)
    return split.transpose(0, 3, 5, 1, 2, 4).reshape(n, a * b * c, rows, columns)
