"""MACs and lowered convolutions against plain loops over the definition of the three ops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings

from swatsim.workload import flops
from swatsim.workload.convolutions import convolutions
from swatsim.workload.effectual import effectual
from swatsim.workload.layer import OPS, Layer, Operand, OpName
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.training_ops import Op
from swatsim.workload.windows import Mask, windows
from tests.strategies import ops, transposed_layers

SLOWLY = settings(max_examples=80, deadline=None, derandomize=True)


def brute_force(op: LoweredOp) -> int:
    """Visit every MAC of the op and count those whose two operands are there and non-zero."""
    layer = op.layer
    shapes = {name: layer.shape_of(name, op.samples) for name in ("weight", "act", "grad_out")}
    full = {name: op.operands.get(name, np.ones(shapes[name], bool)) for name in shapes}
    weight, act, grad = (
        full[name].reshape(full[name].shape + (1,) * (4 - full[name].ndim))
        for name in ("weight", "act", "grad_out")
    )
    per_group, filters = layer.C // layer.groups, layer.K // layer.groups
    total = 0
    for n, k, p, q in product(*map(range, grad.shape)):
        for c, r, s in product(*map(range, weight.shape[1:])):
            h = p * layer.stride[0] + r * layer.dilation[0] - layer.padding[0][0]
            v = q * layer.stride[1] + s * layer.dilation[1] - layer.padding[1][0]
            if 0 <= h < layer.H and 0 <= v < layer.W:
                x = act[n, k // filters * per_group + c, h, v]
                total += bool(weight[k, c, r, s] and x and grad[n, k, p, q])
    return total


@SLOWLY
@given(drawn=ops())
def test_effectual_macs(drawn: tuple[LoweredOp, object]) -> None:
    op = drawn[0]
    assert flops.macs_effectual(op) == brute_force(op)


@settings(SLOWLY, max_examples=60)
@given(drawn=ops(), transposed=transposed_layers())
def test_macs_without_zeros_and_without_padding(
    drawn: tuple[LoweredOp, object], transposed: Layer
) -> None:
    dense = drawn[0].without_zeros()
    assert flops.macs_unpadded(dense.layer, dense.samples) == brute_force(dense)
    assert flops.macs_effectual(dense) == brute_force(dense)
    (adjoint,) = {lower(Op.dense(transposed, op, 2)).layer for op in OPS}
    assert flops.macs_unpadded(transposed, 2) == flops.macs_unpadded(adjoint, 2)
    assert flops.macs_unpadded(transposed, 2) <= flops.macs_dense(transposed, 2)


@SLOWLY
@given(drawn=ops())
def test_both_lowerings_do_the_same_macs(drawn: tuple[LoweredOp, object]) -> None:
    op = drawn[0]
    if op.name == "wgrad":
        return
    for lowering in ("split", "dilated"):
        total = 0
        for conv in convolutions(op, lowering):
            k, c = conv.weight.shape[:2]
            taps = conv.weight.shape[2:]
            seen = conv.windows().sum(axis=(0, 4, 5)).reshape(conv.groups, c, *taps)
            filters = conv.weight.reshape(conv.groups, k // conv.groups, c, *taps)
            total += int((filters.sum(axis=1) * seen).sum())
        assert total == flops.macs_effectual(op)


@pytest.mark.parametrize("width", [4, 15, 16, 2**16 - 1, 2**16])
def test_lines_of_values_are_summed_without_running_over(width: int) -> None:
    layer = Layer(name="x", C=4, K=4, H=1, W=width, groups=2)
    names: tuple[tuple[OpName, Operand], ...] = (("fprop", "act"), ("dgrad", "grad_out"))
    for name, operand in names:
        values = np.ones((1, 4, 1, width), bool)
        values[0, 0, 0, 1] = values[0, 3, 0, 2:] = False
        weight = np.ones((4, 2, 1, 1), bool)
        weight[0, 1] = False
        masks: dict[Operand, Mask] = {"weight": weight, operand: values}
        of_channels = [width - 1, width, width, 2]
        of_weights = [2, 1, 2, 2] if name == "fprop" else [1, 2, 2, 2]
        expected = sum(a * b for a, b in zip(of_channels, of_weights, strict=True))
        assert effectual(layer, name, masks) == expected


def test_windows_of_a_small_image_by_hand() -> None:
    data = np.arange(1, 13).reshape(1, 1, 3, 4)
    seen = windows(data, (2, 2), (2, 1), (1, 2), (-1, 1), (2, 2))[0, 0]
    for r, s, p, q in product(range(2), repeat=4):
        h, v = 2 * p + r - 1, q + 2 * s + 1
        assert seen[r, s, p, q] == (data[0, 0, h, v] if 0 <= h < 3 and 0 <= v < 4 else 0)


def test_dense_macs_are_the_published_ones() -> None:
    stem = Layer(name="conv1", C=3, K=64, H=224, W=224, R=7, S=7, stride=2, padding=3)
    assert flops.macs_dense(stem, 1) == 118_013_952  # ResNet-50's first convolution
    assert flops.macs_dense(Layer(name="fc", kind="linear", C=2048, K=1000), 2) == 4_096_000


def test_a_strided_dgrad_touches_no_inserted_zero() -> None:
    layer = Layer(name="x", C=1, K=1, H=8, W=8, R=3, S=3, stride=2, padding=1)
    grad = np.ones(layer.shape_of("grad_out", 1), bool)
    op = Op(layer, "dgrad", weight=np.ones((1, 1, 3, 3), bool), grad_out=grad)
    phases = list(convolutions(lower(op)))
    assert [conv.weight.shape[2:] for conv in phases] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert {conv.stride for conv in phases} == {(1, 1)}
    assert sum(conv.output[0] * conv.output[1] for conv in phases) == 64


def test_phases_without_taps_are_left_out() -> None:
    layer = Layer(name="x", C=2, K=2, H=6, W=6, stride=3)
    op = Op(
        layer, "dgrad", weight=np.ones((2, 2, 1, 1), bool), grad_out=np.ones((1, 2, 2, 2), bool)
    )
    assert len(list(convolutions(lower(op)))) == 1
