"""Transposed convolutions: shapes and values as torch has them, MACs by plain loops."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from swatsim.errors import WorkloadError
from swatsim.workload import flops
from swatsim.workload.layer import MAX_DIMENSION, OPERANDS, OPERANDS_OF, OPS, Layer
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.tables import Network
from swatsim.workload.training_ops import Op
from tests.naive import common
from tests.strategies import transposed_layers

SLOWLY = settings(max_examples=60, deadline=None, derandomize=True)
UP = Layer(
    name="up", kind="conv_transpose", C=6, K=4, H=5, W=4, R=4, S=3, stride=2, padding=1, groups=2
)


def values_of(layer: Layer, samples: int, seed: int = 7) -> dict[str, np.ndarray]:
    """Small whole numbers, half of them zero: sums are exact."""
    rng = np.random.default_rng(seed)
    shapes = {operand: layer.shape_of(operand, samples) for operand in OPERANDS}
    return {name: rng.integers(-3, 4, s) * (rng.random(s) < 0.5) for name, s in shapes.items()}


def meetings(layer: Layer) -> list[tuple[int, ...]]:
    """Where a value of the input meets a tap and reaches the output: (h, v, r, s, p, q)."""
    found = []
    for h, v, r, s in product(*map(range, (layer.H, layer.W, layer.R, layer.S))):
        p = h * layer.stride[0] + r * layer.dilation[0] - layer.padding[0][0]
        q = v * layer.stride[1] + s * layer.dilation[1] - layer.padding[1][0]
        if 0 <= p < layer.P and 0 <= q < layer.Q:
            found.append((h, v, r, s, p, q))
    return found


def reference(layer: Layer, name: str, values: dict[str, np.ndarray]) -> np.ndarray:
    """What an op of a transposed convolution computes: each input value spreads the kernel."""
    samples = len(values["act"])
    made = {"fprop": "grad_out", "dgrad": "act", "wgrad": "weight"}[name]
    output = np.zeros(layer.shape_of(made, samples), np.int64)  # type: ignore[arg-type]
    per_group, filters = layer.C // layer.groups, layer.K // layer.groups
    weight, x, dy = (values[operand] for operand in OPERANDS)
    for h, v, r, s, p, q in meetings(layer):
        for n, c, k in product(range(samples), range(layer.C), range(filters)):
            at = c // per_group * filters + k
            if name == "fprop":
                output[n, at, p, q] += weight[c, k, r, s] * x[n, c, h, v]
            elif name == "dgrad":
                output[n, c, h, v] += weight[c, k, r, s] * dy[n, at, p, q]
            else:
                output[c, k, r, s] += x[n, c, h, v] * dy[n, at, p, q]
    return output


# ---- against torch -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch() -> Any:
    found = pytest.importorskip("torch")
    found.set_num_threads(1)
    return found


def module_and_layer(torch: Any, *, groups: int, **shape: Any) -> tuple[Any, Layer]:
    """A module, and its layer; output_padding is a smaller padding at the bottom and the right."""
    extra = shape.pop("output_padding")
    module = torch.nn.ConvTranspose2d(
        3 * groups,
        2 * groups,
        (4, 3),
        groups=groups,
        output_padding=extra,
        bias=False,
        dtype=torch.float64,
        **shape,
    )
    sides = tuple((side, side - more) for side, more in zip(module.padding, extra, strict=True))
    same = {name: getattr(module, name) for name in ("stride", "dilation", "groups")}
    channels = {"C": module.in_channels, "K": module.out_channels}
    sizes = {"H": 3, "W": 5, "R": 4, "S": 3, "padding": sides}
    return module, Layer(name="up", kind="conv_transpose", **channels, **sizes, **same)


def shapes() -> list[dict[str, Any]]:
    """Every combination that torch allows and a layer can tell."""
    strides, paddings = [(1, 1), (2, 2), (3, 2)], [(0, 0), (1, 1), (2, 1), (2, 2)]
    extras = [(0, 0), (1, 1), (1, 0), (0, 2)]
    found = []
    for stride, padding, dilation, extra, groups in product(
        strides, paddings, [(1, 1), (2, 1), (1, 3)], extras, (1, 2)
    ):
        limits = [max(pair) for pair in zip(stride, dilation, strict=True)]
        small = all(more < limit for more, limit in zip(extra, limits, strict=True))
        if small and all(more <= side for more, side in zip(extra, padding, strict=True)):
            names = ("stride", "padding", "dilation", "output_padding", "groups")
            values = (stride, padding, dilation, extra, groups)
            found.append(dict(zip(names, values, strict=True)))
    return found


def test_shapes_are_torchs(torch: Any) -> None:
    cases = shapes()
    assert len(cases) > 100
    for case in cases:
        module, layer = module_and_layer(torch, **case)
        y = module(torch.zeros(layer.shape_of("act", 2), dtype=torch.float64))
        assert layer.shape_of("grad_out", 2) == tuple(y.shape), case
        assert layer.shape_of("weight", 2) == tuple(module.weight.shape), case
        assert layer.weights == module.weight.numel()
        adjoint = layer.adjoint
        assert (adjoint.P, adjoint.Q) == (layer.H, layer.W)
        assert adjoint.shape_of("weight", 1) == layer.shape_of("weight", 1)
        assert Layer(**adjoint.model_dump()) == adjoint  # it could be made by hand


@pytest.mark.parametrize("case", shapes()[::7], ids=str)
def test_values_are_torchs_and_those_of_the_adjoint(torch: Any, case: dict[str, Any]) -> None:
    module, layer = module_and_layer(torch, **case)
    values = values_of(layer, 2)
    weight, x, dy = (torch.tensor(values[name], dtype=torch.float64) for name in OPERANDS)
    with torch.no_grad():
        module.weight.copy_(weight)
    x.requires_grad_()
    y = module(x)
    y.backward(dy)
    theirs = {"fprop": y.detach(), "dgrad": x.grad, "wgrad": module.weight.grad}
    for name in OPS:
        right = theirs[name].numpy()
        np.testing.assert_array_equal(reference(layer, name, values), right)
        masks = {operand: values[operand] != 0 for operand in OPERANDS_OF[name]}
        lowered = lower(Op(layer, name, **masks))
        renamed = {operand: values[lowered.called(operand)] for operand in lowered.operands}
        made = common.reference(lowered.name, lowered.layer, **renamed)
        np.testing.assert_array_equal(made, right)


# ---- ops -----------------------------------------------------------------------------------------


@SLOWLY
@given(layer=transposed_layers())
def test_effectual_macs_are_the_pairs_that_meet(layer: Layer) -> None:
    values = values_of(layer, 2)
    for name in OPS:
        first, second = OPERANDS_OF[name]
        full = {operand: np.ones_like(mask) for operand, mask in values.items()}
        given = {first: values[first] != 0, second: values[second] != 0}
        op = Op(layer, name, **given)
        pairs = reference(layer, name, {**full, **{k: m.astype(int) for k, m in given.items()}})
        assert flops.macs_effectual(op) == pairs.sum()
        assert flops.macs_effectual(op) <= flops.macs_dense(layer, 2)


def test_an_op_is_its_adjoints_under_other_names() -> None:
    values = values_of(UP, 3)
    for name, other in (("fprop", "dgrad"), ("dgrad", "fprop"), ("wgrad", "wgrad")):
        masks = {operand: values[operand] != 0 for operand in OPERANDS_OF[name]}
        op = Op(UP, name, **masks, known=dict.fromkeys(masks, 5))
        lowered = lower(op)
        assert (lowered.name, lowered.own_name, lowered.samples) == (other, name, 3)
        assert lowered.layer.kind == "conv"
        assert (lowered.layer.C, lowered.layer.K) == (UP.K, UP.C)
        assert lower(lowered) is lowered
        assert {lowered.called(operand) for operand in lowered.operands} == set(masks)
        for operand, mask in lowered.operands.items():
            np.testing.assert_array_equal(mask, masks[lowered.called(operand)])
            assert lowered.counts[operand] == 5  # not counted again
        assert lowered.title == f"layer 'up', {name}"
        assert lowered.with_masks(lowered.operands).own_name == name


def test_other_ops_are_what_they_are() -> None:
    layer = Layer(name="fc", kind="linear", C=4, K=2)
    op = Op(layer, "fprop", weight=np.ones((2, 4), bool), act=np.ones((3, 4), bool))
    lowered = lower(op)
    assert lowered.is_matrix_product
    assert (lowered.called("act"), lowered.own_name) == ("act", "fprop")
    for operand, mask in op.operands.items():
        assert np.shares_memory(lowered.operands[operand], mask)
    with pytest.raises(WorkloadError, match="layer 'fc': kind='linear' has no adjoint"):
        _ = layer.adjoint


def test_it_is_lowered_as_its_adjoint_only() -> None:
    masks = {operand: values_of(UP, 1)[operand] != 0 for operand in OPERANDS_OF["fprop"]}
    with pytest.raises(WorkloadError, match="machines take no conv_transpose: lower its op first"):
        LoweredOp(UP, "fprop", **masks)


def test_dense_macs_under_both_conventions() -> None:
    # 6 x 2 x 4 x 3 weights at 5 x 4 places of the input
    for op, convention in product(OPS, flops.CONVENTIONS):
        assert flops.macs_dense(UP, 3, op, convention) == 3 * 144 * 20
    assert Network("n", "", (UP,), ()).macs == 144 * 20


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"groups": 4}, "groups=4 must divide C=6 and K=4"),
        ({"H": 1, "padding": 2}, "its output would be 0 x 5: the padding ((2, 2), (2, 2)) must"),
        ({"padding": ((1, -1), (0, 0))}, "padding"),
        ({"H": MAX_DIMENSION, "W": 1, "S": 1, "padding": 0}, f"no side may be above {2**24}"),
        ({"H": 2**13, "W": 2**13, "stride": 4}, "its input, output before its padding is cut or"),
        ({"kind": "conv_transposed"}, "kind='conv_transposed' is not allowed"),
    ],
)
def test_refuses(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(WorkloadError, match="layer 'up'") as refusal:
        Layer(**{**UP.model_dump(), **change})
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_wrong_mask_is_named_with_both_shapes_and_the_reason() -> None:
    values = {operand: values != 0 for operand, values in values_of(UP, 2).items()}
    as_of_conv = np.ones((4, 3, 4, 3), bool)
    with pytest.raises(WorkloadError) as refusal:
        Op(UP, "fprop", weight=as_of_conv, act=values["act"])
    assert str(refusal.value) == (
        "layer 'up': weight mask is (4, 3, 4, 3), expected (6, 2, 4, 3) from C=6, K=4, groups=2, "
        "kernel 4 x 3"
    )
