from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import pytest

from swatsim.errors import PolicyError
from swatsim.policies import Policy, Site, SwatU
from swatsim.workload.layer import OPERANDS_OF, Layer

CONV = Layer(name="conv", C=3, K=8, H=8, W=8, R=3, S=3)
LINEAR = Layer(name="fc", kind="linear", C=8, K=4)


def densities(policy: Policy, layer: Layer, first: bool) -> dict[tuple[str, str], Any]:
    return {
        (op, operand): policy.density(Site(layer, op, operand, first))
        for op, operands in OPERANDS_OF.items()
        for operand in operands
    }


@pytest.mark.parametrize("layer", [CONV, LINEAR])
def test_what_swat_drops(layer: Layer) -> None:
    assert densities(SwatU(0.7), layer, first=False) == {
        ("fprop", "weight"): Fraction(3, 10),
        ("fprop", "act"): None,
        ("dgrad", "weight"): Fraction(3, 10),
        ("dgrad", "grad_out"): None,
        ("wgrad", "act"): Fraction(3, 10),
        ("wgrad", "grad_out"): None,
    }


def test_the_first_convolution_is_dense() -> None:
    assert set(densities(SwatU(0.7), CONV, first=True).values()) == {None}


def test_the_first_convolution_is_sparse_if_asked() -> None:
    policy = SwatU(0.7, first_conv_dense=False)
    assert densities(policy, CONV, first=True) == densities(policy, CONV, first=False)


def test_describe_is_json() -> None:
    description = SwatU(0.8).describe()
    assert description == {"name": "swat-u", "sparsity": 0.8, "first_conv_dense": True}
    assert json.loads(json.dumps(description)) == description


@pytest.mark.parametrize("sparsity", [1, -0.5, 80, math.nan, "much", None, True])
def test_sparsities_that_are_refused(sparsity: Any) -> None:
    with pytest.raises(PolicyError, match=r"SwatU: sparsity=.*must be a number in \[0, 1\)"):
        SwatU(sparsity)


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(PolicyError, match="did you mean 'first_conv_dense'"):
        SwatU(0.8, first_convdense=True)


def test_it_is_frozen_and_equal_by_value() -> None:
    policy = SwatU(0.8)
    with pytest.raises(Exception, match="frozen"):
        policy.sparsity = 0.5  # type: ignore[misc]
    assert policy == SwatU(0.8) != SwatU(0.5)
