"""An op as products of matrices, for machines that know nothing else: rows, columns and depth.

A group of a layer, and a phase of a split dgrad, is a product of its own. Samples are rows (of
wgrad: depth): a batch is one product, and its images do not follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from swatsim.workload.convolutions import Lowering, convolutions
from swatsim.workload.layer import Operand, OpName
from swatsim.workload.lowering import LoweredOp

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
    """Yield the products of an op, which follow one another."""
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


def _of_wgrad(op: LoweredOp) -> Gemm:
    layer = op.layer
    return Gemm(
        rows=layer.R * layer.S * (layer.C // layer.groups),
        columns=layer.K // layer.groups,
        depth=op.samples * layer.P * layer.Q,
        times=layer.groups,
    )
