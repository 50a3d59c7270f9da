"""Groups along what an op sums: as fast paths count them, and as windows laid out have them."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swatsim.workload.convolutions import Lowering, convolutions
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer, OpName
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.patterns import Pattern, patterns
from swatsim.workload.training_ops import Op
from swatsim.workload.windows import as_4d, windows
from tests.strategies import ops

MANY = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
#: Words of each width, one of several words, and some that no word holds.
SHAPES = [(1, 1), (1, 2), (1, 3), (2, 4), (3, 4), (2, 5), (2, 8), (3, 16), (5, 24), (300, 301)]


def laid_out(op: LoweredOp, lowering: Lowering) -> dict[str, list[np.ndarray]]:
    """Lay out an op's operands as matrices, whose rows are what is summed, by the formulas."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in op.operands}
    if op.name == "wgrad":
        layer, grads = op.layer, as_4d(op.grad_out)
        origin = (-layer.padding[0][0], -layer.padding[1][0])
        shape = ((layer.R, layer.S), layer.stride, layer.dilation, origin, (layer.P, layer.Q))
        acts = windows(as_4d(op.act), *shape)  # type: ignore[arg-type]
        found["act"] = [acts.transpose(2, 3, 1, 0, 4, 5).reshape(acts[0, :, :, :, 0, 0].size, -1)]
        found["grad_out"] = [grads.swapaxes(0, 1).reshape(grads.shape[1], -1)]
        return found
    other = "act" if op.name == "fprop" else "grad_out"
    for conv in convolutions(op, lowering):
        seen = conv.windows()  # (N, C, R, S, P, Q)
        size = conv.weight.shape[1]
        for first in range(0, seen.shape[1], size):
            rows = seen[:, first : first + size].transpose(0, 4, 5, 2, 3, 1)
            found[other].append(rows.reshape(-1, size * conv.weight[0, 0].size))
        found["weight"].append(conv.weight.transpose(0, 2, 3, 1).reshape(len(conv.weight), -1))
    return found


def counted(matrices: list[np.ndarray], n: int, m: int) -> Pattern:
    groups = [
        np.count_nonzero(matrix[:, first : first + m], axis=1)
        for matrix in matrices
        for first in range(0, matrix.shape[1], m)
    ]
    return Pattern(sum(map(len, groups)), sum(int((held <= n).sum()) for held in groups))


@MANY
@given(drawn=ops(), shape=st.sampled_from(SHAPES), lowering=st.sampled_from(get_args(Lowering)))
def test_groups_are_those_of_the_matrices_laid_out(
    drawn: tuple[LoweredOp, Any], shape: tuple[int, int], lowering: Lowering
) -> None:
    found = patterns(drawn[0], lowering, *shape)
    expected = {
        operand: counted(matrices, *shape)
        for operand, matrices in laid_out(drawn[0], lowering).items()
    }
    assert found == expected


#: Where m divides channels, positions, neither; what strides, and what pads nothing.
LAYERS = (
    Layer(name="same", C=8, K=4, H=6, W=6, R=3, S=3, padding=1),
    Layer(name="strided", C=4, K=8, H=9, W=8, R=3, S=3, stride=2, padding=1),
    Layer(name="point", C=12, K=4, H=4, W=3, R=1, S=1),
    Layer(name="stem", C=3, K=4, H=9, W=9, R=5, S=5, stride=2, padding=2),
    Layer(name="groups", C=16, K=8, H=5, W=5, R=3, S=3, groups=2, padding=1),
    Layer(name="fc", kind="linear", C=20, K=8),
)


@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda it: it.name)
def test_groups_of_layers_that_networks_have(layer: Layer, name: OpName, density: float) -> None:
    rng = np.random.default_rng(1)
    shapes = {it: layer.shape_of(it, 3) for it in OPERANDS_OF[name]}
    op = LoweredOp(layer, name, **{it: rng.random(shapes[it]) < density for it in shapes})
    found = patterns(op, "split", 2, 4)
    assert found == {it: counted(of, 2, 4) for it, of in laid_out(op, "split").items()}
    some = OPERANDS_OF[name][1]
    assert patterns(op, "split", 2, 4, (some,)) == {some: found[some]}


def test_one_group_that_misses_is_seen() -> None:
    layer = Layer(name="fc", kind="linear", C=16, K=5)
    weight = np.tile(np.array([1, 0, 1, 0], bool), (5, 4))
    op = LoweredOp(layer, "fprop", weight=weight, act=np.ones((2, 16), bool))
    assert patterns(op, "split", 2, 4) == {"weight": (20, 20), "act": (8, 0)}
    weight[3, 8:12] = True, False, True, True
    found = patterns(LoweredOp(layer, "fprop", weight=weight, act=op.act), "split", 2, 4)
    assert found["weight"] == (20, 19)
    assert not found["weight"].obeys


def test_a_transposed_layer_is_counted_as_its_adjoint() -> None:
    layer = Layer(name="up", kind="conv_transpose", C=4, K=4, H=3, W=3, R=2, S=2, stride=2)
    rng = np.random.default_rng(2)
    masks = {it: rng.random(layer.shape_of(it, 2)) < 0.5 for it in OPERANDS_OF["fprop"]}
    op = lower(Op(layer, "fprop", **masks))
    expected = {it: counted(of, 2, 4) for it, of in laid_out(op, "dilated").items()}
    assert patterns(op, "dilated", 2, 4) == expected
