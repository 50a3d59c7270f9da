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
    any_of_sets,
    ceil_of,
    lanes_of,
    pack,
    rows_in_use,
    rows_of,
    sets_of,
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
        conv = _fold(conv) if config.fold_stem and _folds(op) else conv
        if rows_hold != "weight":
            yield from _windows_on_rows(conv, config)
        elif conv.groups > 1 and conv.weight.shape[1] == 1:
            yield _depthwise(conv, config)
        else:
            yield _weights_on_rows(conv, config)


def _weights_on_rows(conv: Convolution, config: LaneArrayConfig) -> Pass:
    k, c, r, s = conv.weight.shape
    filters = k // conv.groups
    positions = conv.output[0] * conv.output[1]

    def lines() -> Words:
        streams = pack(conv.weight.transpose(0, 2, 3, 1), config.lanes)
        return sets_of(streams.reshape(conv.groups, filters, -1), rows_of(filters, config.rows))

    mapped = rows_in_use(filters, config.rows)
    return Pass(
        pieces=(lines,),
        at_once=conv.groups * mapped.size,
        lanes_in_use=lambda: lanes_of(c, r * s, config.lanes),
        mapped=mapped,
        groups=conv.groups,
        length=r * s * ceil_of(c, config.lanes),
        elements=c * r * s,
        columns=rows_in_use(positions, config.columns),
        followed=np.full(mapped.size, c * r * s),
        repeats=len(conv.data),
        tiles=config.tiles,
        wanted=_wanted(conv, conv.groups, config.rows, config.columns),
    )


def _wanted(
    conv: Convolution, groups: int, filters: int, positions: int, sample: int | None = None
) -> Callable[[], Mask] | None:
    """Return which sets of filters and of positions have a wanted output with each other.

    Sets of so many; shape (samples, groups, sets of positions, sets of filters).
    """
    if conv.wanted is None:
        return None
    some = conv.wanted if sample is None else conv.wanted[sample : sample + 1]

    def wanted() -> Mask:
        split = some.reshape(len(some), groups, -1, conv.output[0] * conv.output[1])
        return any_of_sets(any_of_sets(split, 3, positions), 2, filters).swapaxes(2, 3)

    return wanted


def _depthwise(conv: Convolution, config: LaneArrayConfig) -> Pass:
    """Lay min(lanes, rows) one-channel filters into a set: row i holds filter i in lane i."""
    k, _, r, s = conv.weight.shape
    together = min(config.lanes, config.rows)
    rows = rows_of(k, together)
    positions = conv.output[0] * conv.output[1]

    def lines() -> Words:
        taps = conv.weight.reshape(k, r * s).astype(np.uint64)
        taps <<= (np.arange(k, dtype=np.uint64) % np.uint64(together))[:, None]
        return sets_of(taps, rows)

    mapped = rows_in_use(k, together)
    return Pass(
        pieces=(lines,),
        at_once=mapped.size,
        lanes_in_use=lambda: (
            np.tile(np.uint64(1) << np.arange(rows, dtype=np.uint64), (r * s, 1)).T
        ),
        mapped=mapped,
        groups=1,
        length=r * s,
        elements=r * s,
        columns=rows_in_use(positions, config.columns),
        followed=mapped * (r * s),
        repeats=len(conv.data),
        tiles=1,
        wanted=_wanted(conv, 1, together, config.columns),
    )


def _windows_on_rows(conv: Convolution, config: LaneArrayConfig) -> Iterator[Pass]:
    k, channels, r, s = conv.weight.shape
    filters = k // conv.groups
    positions = conv.output[0] * conv.output[1]
    mapped = rows_in_use(positions, config.rows)
    for sample, data in enumerate(conv.data):
        wanted = _wanted(conv, conv.groups, config.columns, config.rows, sample)
        yield Pass(
            pieces=(partial(_window_lines, conv, data, config),),
            at_once=conv.groups * mapped.size,
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


def _exchanged(wanted: Callable[[], Mask]) -> Mask:
    return wanted().swapaxes(2, 3)


def _window_lines(conv: Convolution, sample: Mask, config: LaneArrayConfig) -> Words:
    """Return the lines of one sample's windows: channels are packed first, then gathered."""
    _, channels, r, s = conv.weight.shape
    grouped = sample.reshape(conv.groups, channels, *sample.shape[1:]).transpose(0, 2, 3, 1)
    blocks = pack(grouped, config.lanes).transpose(0, 3, 1, 2)  # (G, blocks, H, W)
    view = windows(blocks, (r, s), conv.stride, conv.dilation, conv.origin, conv.output)
    streams = view.transpose(0, 4, 5, 2, 3, 1)  # (G, P, Q, R, S, blocks)
    positions = conv.output[0] * conv.output[1]
    return sets_of(streams.reshape(conv.groups, positions, -1), rows_of(positions, config.rows))


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
    (a, b), (rows, columns) = stride, (ceil_of(h, stride[0]), ceil_of(w, stride[1]))
    filled = np.pad(mask, [(0, 0), (0, 0), (0, rows * a - h), (0, columns * b - w)])
    split = filled.reshape(n, c, rows, a, columns, b)
    return split.transpose(0, 3, 5, 1, 2, 4).reshape(n, a * b * c, rows, columns)
