"""An op as products of matrices, for machines that know nothing else: rows, columns and depth.

A group of a layer, and a phase of a split dgrad, is a product of its own. Samples are rows (of
wgrad: depth): a batch is one product, and its images do not follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from swatsim.workload.convolutions import Convolution, Lowering, convolutions
from swatsim.workload.layer import Operand, OpName
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask, as_4d

#: Left and right operand of each op's products.
SIDES: Mapping[OpName, tuple[Operand, Operand]] = {
    "fprop": ("act", "weight"),
    "dgrad": ("grad_out", "weight"),
    "wgrad": ("act", "grad_out"),
}


class Gemm(NamedTuple):
    """Products of a `rows` x `depth` matrix and a `depth` x `columns` one, so many alike.

    Of an op they are, outermost first:

    =====  ========================  ====================  ==========================
    op     rows                      columns               depth
    =====  ========================  ====================  ==========================
    fprop  n, p, q                   filters of a group    r, s, c
    dgrad  n, positions of a phase   channels of a group   taps of the phase, k
    wgrad  r, s, c                   filters of a group    n, p, q
    =====  ========================  ====================  ==========================

    Parameters
    ----------
    rows, columns, depth : int
    times : int
        Groups of the layer.
    """

    rows: int
    columns: int
    depth: int
    times: int


def gemms(op: LoweredOp, lowering: Lowering = "split") -> Iterator[Gemm]:
    """Yield the products of an op: those of all groups at once, phase after phase."""
    if op.name == "wgrad":
        yield _of_wgrad(op)
        return
    for conv in convolutions(op, lowering):
        filters, channels, *taps = conv.weight.shape
        yield Gemm(
            rows=op.samples * conv.output[0] * conv.output[1],
            columns=filters // conv.groups,
            depth=taps[0] * taps[1] * channels,
            times=conv.groups,
        )


def wanted(op: LoweredOp, lowering: Lowering = "split") -> Iterator[Mask | None]:
    """Yield which outputs of each product are wanted: (times, rows, columns); None: all."""
    if op.name == "wgrad":
        yield None if op.output is None else _of_weights(op)
        return
    for conv in convolutions(op, lowering):
        yield None if conv.wanted is None else _of_images(conv, conv.wanted)


def _of_weights(op: LoweredOp) -> Mask:
    groups, output = op.layer.groups, as_4d(op.output)
    grouped = output.reshape(groups, len(output) // groups, *output.shape[1:])
    return grouped.transpose(0, 3, 4, 2, 1).reshape(groups, -1, grouped.shape[1])


def _of_images(conv: Convolution, output: Mask) -> Mask:
    samples, filters = output.shape[:2]
    grouped = output.reshape(samples, conv.groups, filters // conv.groups, -1)
    return grouped.transpose(1, 0, 3, 2).reshape(conv.groups, -1, filters // conv.groups)


def _of_wgrad(op: LoweredOp) -> Gemm:
    layer = op.layer
    return Gemm(
        rows=layer.R * layer.S * (layer.C // layer.groups),
        columns=layer.K // layer.groups,
        depth=op.samples * layer.P * layer.Q,
        times=layer.groups,
    )
