"""Outputs that nobody wants, and products of two activations: counted product by product."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings

from swatsim import Layer, Op, lower
from swatsim.errors import WorkloadError
from swatsim.workload.convolutions import convolutions
from swatsim.workload.layer import OPERANDS_OF, OPS, OUTPUT_OF
from tests.strategies import matmuls, ops_of_some_outputs


def products(op):
    """Yield, of each product of an op, its two factors' places and that of what it is added to."""
    layer, samples = op.layer, op.samples
    own = layer.C // layer.groups
    axes = (samples, layer.K, own, layer.R, layer.S, layer.P, layer.Q)
    for n, k, c, r, s, p, q in product(*map(range, axes)):
        h = p * layer.stride[0] + r * layer.dilation[0] - layer.padding[0][0]
        v = q * layer.stride[1] + s * layer.dilation[1] - layer.padding[1][0]
        if 0 <= h < layer.H and 0 <= v < layer.W:
            channel = k // (layer.K // layer.groups) * own + c
            yield {"weight": (k, c, r, s), "act": (n, channel, h, v), "grad_out": (n, k, p, q)}


def four(mask):
    return mask.reshape(mask.shape + (1,) * (4 - mask.ndim))


@given(ops_of_some_outputs())
@settings(max_examples=40)
def test_effectual_macs_are_those_of_outputs_that_somebody_wants(drawn):
    op, _ = drawn
    masks = {it: four(mask) for it, mask in op.operands.items()}
    if op.output is not None:
        masks[OUTPUT_OF[op.name]] = four(op.output)
    count = sum(all(masks[it][at[it]] for it in masks) for at in products(op))
    assert op.macs_effectual == count
    assert op.of_all_outputs().macs_effectual >= count
    assert op.without_zeros().output is None


@given(ops_of_some_outputs())
@settings(max_examples=20)
def test_convolutions_say_which_of_their_outputs_are_wanted(drawn):
    op, _ = drawn
    if op.name == "wgrad":
        return
    for lowering in ("split", "dilated"):
        parts = list(convolutions(op, lowering))
        if op.output is None:
            assert all(each.wanted is None for each in parts)
        else:
            assert sum(int(each.wanted.sum()) for each in parts) <= op.outputs_wanted
            for each in parts:
                assert each.wanted.shape == (op.samples, each.weight.shape[0], *each.output)


@given(matmuls())
@settings(max_examples=30)
def test_a_product_of_activations_is_a_grouped_convolution_of_one_sample(drawn):
    op, _ = drawn
    layer, run = op.layer, lower(op)
    assert (run.samples, run.of_samples) == (1, op.samples)
    assert run.layer.groups == op.samples * layer.groups
    heads = {
        it: mask.reshape(op.samples, layer.groups, -1, mask.shape[2]).astype(int)
        for it, mask in op.operands.items()
    }
    letters = {"weight": "nhkc", "act": "nhct", "grad_out": "nhkt"}
    first, second = OPERANDS_OF[op.name]
    count = np.einsum(f"{letters[first]},{letters[second]}->", heads[first], heads[second])
    assert run.macs_effectual == count


def test_what_is_made_keeps_its_mask_when_an_op_is_lowered():
    layer = Layer(name="qk", kind="matmul", C=4, K=10, H=5, groups=2)
    causal = np.broadcast_to(np.tri(5, dtype=bool).T[None, None], (3, 2, 5, 5))
    op = replace(Op.dense(layer, "fprop", 3), output=causal.reshape(3, 10, 5, 1))
    assert op.outputs_wanted == 3 * 2 * 15
    assert lower(op).macs_effectual == 3 * 2 * 15 * 2
    assert lower(op.of_all_outputs()).macs_effectual == 3 * 2 * 25 * 2


def test_a_transposed_convolution_wants_what_its_adjoint_makes():
    layer = Layer(name="up", kind="conv_transpose", C=2, K=3, H=2, W=2, R=2, S=2, stride=2)
    for name in OPS:
        wanted = np.zeros(layer.shape_of(OUTPUT_OF[name], 1), bool)
        wanted.flat[0] = True
        op = replace(Op.dense(layer, name, 1), output=wanted)
        assert 0 < lower(op).macs_effectual < lower(op.of_all_outputs()).macs_effectual


def test_all_outputs_are_no_mask():
    layer = Layer(name="fc", kind="linear", C=2, K=3)
    op = replace(Op.dense(layer, "wgrad", 2), output=np.ones((3, 2), bool))
    assert op.output is None
    assert op.outputs_wanted == 6


@pytest.mark.parametrize(
    ("output", "wrong"),
    [
        (np.ones((2, 3), bool), "weight mask is"),
        (np.ones((3, 2)), "output mask is float64"),
    ],
)
def test_a_mask_of_another_shape_or_type_is_refused(output, wrong):
    op = Op.dense(Layer(name="fc", kind="linear", C=2, K=3), "wgrad", 2)
    with pytest.raises(WorkloadError, match=wrong):
        replace(op, output=output)


@pytest.mark.parametrize("wrong", [{"W": 2}, {"R": 2, "H": 4}, {"stride": 2}, {"padding": 1}])
def test_a_product_of_activations_has_no_kernel(wrong):
    with pytest.raises(WorkloadError, match="product of activations"):
        Layer(**{"name": "qk", "kind": "matmul", "C": 2, "K": 2, "H": 3} | wrong)
