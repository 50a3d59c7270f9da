"""A layer's shape, and the refusal of layers and masks that can't be."""

from __future__ import annotations

import numpy as np
import pytest

from swatsim.errors import WorkloadError
from swatsim.workload.layer import Layer
from swatsim.workload.training_ops import Op

CONV = Layer(name="conv1", C=3, K=64, H=224, W=224, R=7, S=7, stride=2, padding=3)


def test_output_size_is_torchs() -> None:
    assert (CONV.P, CONV.Q) == (112, 112)
    dilated = Layer(
        name="d", C=1, K=1, H=9, W=8, R=3, S=2, stride=(2, 3), padding=((1, 0), (2, 1)), dilation=2
    )
    assert (dilated.P, dilated.Q) == ((10 - 4 - 1) // 2 + 1, (11 - 2 - 1) // 3 + 1)


def test_shapes() -> None:
    grouped = Layer(name="g", C=8, K=12, H=5, W=5, R=3, S=3, padding=1, groups=4)
    assert grouped.shape_of("weight", 2) == (12, 2, 3, 3)
    assert grouped.shape_of("act", 2) == (2, 8, 5, 5)
    assert grouped.shape_of("grad_out", 2) == (2, 12, 5, 5)
    linear = Layer(name="fc", kind="linear", C=8, K=3)
    assert [linear.shape_of(o, 2) for o in ("weight", "act", "grad_out")] == [
        (3, 8),
        (2, 8),
        (2, 3),
    ]
    assert linear.weights == 24


def test_padding_can_be_one_number_a_pair_or_four() -> None:
    def padding(value: object) -> object:
        return Layer(name="p", C=1, K=1, H=9, W=9, padding=value).padding

    assert padding(1) == ((1, 1), (1, 1))
    assert padding((1, 2)) == ((1, 1), (2, 2))
    assert padding(((1, 0), (2, 3))) == ((1, 0), (2, 3))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"groups": 2}, "groups=2 must divide C=3 and K=64"),
        ({"H": 1, "padding": 0}, "output would be -2 x 109"),
        ({"C": 0}, "C=0 is not allowed"),
        ({"K": 10**15}, "K=1000000000000000 is not allowed"),
        ({"strde": 2}, "unknown parameter 'strde': did you mean 'stride'?"),
        ({"kind": "linear"}, "a linear layer has H = W = R = S = 1"),
        ({"padding": -1}, "padding"),
        ({"padding": 2**20}, "at most 2147483648 can be simulated"),
        ({"stride": 0}, "stride"),
    ],
)
def test_refuses(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(WorkloadError, match="layer 'conv1'") as refusal:
        Layer(**{**CONV.model_dump(), **change})
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["", "a\rb", "a\nb", "\x00"])
def test_names_with_control_characters_are_refused(name: str) -> None:
    with pytest.raises(WorkloadError, match="name=.* is not allowed"):
        Layer(name=name, C=1, K=1)


def test_a_wrong_mask_is_named_with_both_shapes_and_the_reason() -> None:
    layer = Layer(name="conv1", C=64, K=64, H=56, W=56, R=3, S=3, padding=1)
    weight = np.ones(layer.shape_of("weight", 8), bool)
    with pytest.raises(WorkloadError) as refusal:
        Op(layer, "dgrad", weight=weight, grad_out=np.ones((8, 64, 28, 28), bool))
    assert str(refusal.value).startswith(
        "layer 'conv1': grad_out mask is (8, 64, 28, 28), expected (8, 64, 56, 56) from stride 1"
    )


def test_an_op_takes_its_two_boolean_masks_and_no_others() -> None:
    layer = Layer(name="fc", kind="linear", C=4, K=2)
    weight, act = np.ones((2, 4), bool), np.ones((3, 4), bool)
    with pytest.raises(WorkloadError, match="fprop needs the mask of act"):
        Op(layer, "fprop", weight=weight)
    with pytest.raises(WorkloadError, match="fprop does not read grad_out"):
        Op(layer, "fprop", weight=weight, act=act, grad_out=np.ones((3, 2), bool))
    with pytest.raises(WorkloadError, match="act mask is float64, expected a numpy array of bool"):
        Op(layer, "fprop", weight=weight, act=act.astype(float))
    with pytest.raises(WorkloadError, match="unknown op 'fprp': did you mean 'fprop'"):
        Op(layer, "fprp", weight=weight, act=act)
    with pytest.raises(WorkloadError, match="no samples"):
        Op(layer, "fprop", weight=weight, act=np.ones((0, 4), bool))


def test_the_masks_of_an_op_are_read_only() -> None:
    weight, act = np.ones((2, 4), bool), np.ones((3, 4), bool)
    op = Op(Layer(name="fc", kind="linear", C=4, K=2), "fprop", weight=weight, act=act)
    assert op.samples == 3
    with pytest.raises(ValueError, match="read-only"):
        op.operands["weight"][0, 0] = False
    weight[0, 0] = False  # the caller's own array stays writeable
