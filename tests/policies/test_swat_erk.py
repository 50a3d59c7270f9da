from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swatsim.errors import PolicyError, WorkloadError
from swatsim.policies import (
    POLICIES,
    Policy,
    Site,
    SwatErk,
    SwatU,
    allocate_once,
    begin_run,
    make_policy,
    site_densities,
)
from swatsim.policies.allocation import erdos_renyi_kernel
from swatsim.workload.layer import OPERANDS_OF, Layer
from swatsim.workload.networks import network

SIZES = st.integers(1, 40)


@st.composite
def networks(draw: st.DrawFn) -> list[Layer]:
    layers = []
    for index in range(draw(st.integers(1, 6))):
        shape = {"name": f"l{index}", "C": draw(SIZES), "K": draw(SIZES)}
        if draw(st.booleans()):
            taps = {"R": draw(st.integers(1, 5)), "S": draw(st.integers(1, 5))}
            layers.append(Layer(**shape, **taps, H=5, W=5))
        else:
            layers.append(Layer(**shape, kind="linear"))
    return layers


def by_bisection(layers: list[Layer], density: float) -> list[float]:
    """Find the factor at which min(1, factor * ERK) uses up the budget, without any iteration."""
    sums = [sum(layer.shape_of("weight", 1)) for layer in layers]
    sizes = np.array([layer.weights for layer in layers], float)
    raw = np.array(sums) / sizes
    low, high = 0.0, 1 / raw.min()
    for _ in range(200):
        middle = (low + high) / 2
        kept = (np.minimum(1, middle * raw) * sizes).sum()
        low, high = (middle, high) if kept < density * sizes.sum() else (low, middle)
    return list(np.minimum(1, high * raw))


@settings(deadline=None, max_examples=60)
@given(networks(), st.fractions(Fraction(1, 50), 1, max_denominator=100))
def test_it_is_the_allocation_that_bisection_finds(layers: list[Layer], density: Fraction) -> None:
    found = erdos_renyi_kernel(layers, density)
    kept = sum(found[layer.name] * layer.weights for layer in layers)
    assert kept == density * sum(layer.weights for layer in layers)
    assert all(0 < share <= 1 for share in found.values())
    np.testing.assert_allclose(
        [float(share) for share in found.values()], by_bisection(layers, float(density)), atol=1e-9
    )


def test_an_allocation_by_hand() -> None:
    small = Layer(name="a", C=2, K=2)  # (2 + 2 + 1 + 1) / 4: would get more than its 4 weights
    conv = Layer(name="b", C=4, K=8, R=3, S=3, H=3, W=3)  # 18 of 288
    fc = Layer(name="c", kind="linear", C=10, K=20)  # 30 of 200
    # the rest, 0.25 * 492 - 4 = 119, goes to b and c as 18 to 30
    assert erdos_renyi_kernel([small, conv, fc], Fraction(1, 4)) == {
        "a": 1,
        "b": Fraction(119 * 18, 48 * 288),
        "c": Fraction(119 * 30, 48 * 200),
    }


def test_groups_count_one_groups_channels() -> None:
    layers = [
        Layer(name="grouped", C=8, K=8, groups=2),
        Layer(name="plain", C=4, K=8),
        Layer(name="other", C=64, K=64),
    ]
    found = erdos_renyi_kernel(layers, Fraction(1, 10))
    assert found["grouped"] == found["plain"]


def test_resnet50_keeps_the_flops_that_rigl_publishes() -> None:
    """Evci et al., table of ResNet-50: ERK, test FLOPs 0.42x at 80 %, 0.24x at 90 %."""
    layers = network("resnet50").layers
    for sparsity, flops in ((0.8, 0.42), (0.9, 0.24)):
        share = SwatErk(sparsity).allocate(layers).allocation.by_layer
        macs = {layer.name: layer.weights * layer.P * layer.Q for layer in layers}
        kept = sum(float(share[name]) * macs[name] for name in macs) / sum(macs.values())
        assert kept == pytest.approx(flops, abs=0.01)


def test_what_swat_erk_drops() -> None:
    layers = network("resnet8").layers
    allocated: Policy = SwatErk(0.8).allocate(layers)
    found = site_densities(allocated, layers)
    share = SwatErk(0.8).allocate(layers).allocation.by_layer["stages.2.conv2"]
    assert {key[1:]: found["stages.2.conv2", *key[1:]] for key in found} == {
        ("fprop", "weight"): share,
        ("fprop", "act"): None,
        ("dgrad", "weight"): share,
        ("dgrad", "grad_out"): None,
        ("wgrad", "act"): share,
        ("wgrad", "grad_out"): None,
    }
    assert 0 < share < Fraction(1, 5)


def test_a_layer_that_gets_all_its_weights_is_left_as_it_is() -> None:
    layers = network("resnet8").layers
    found = SwatErk(0.5).allocate(layers)
    assert found.allocation.by_layer["conv1"] == 1
    assert found.density(Site(layers[0], "fprop", "weight", True)) is None


def test_the_first_convolution_is_dense_if_asked() -> None:
    layers = network("resnet50").layers
    plain = SwatErk(0.9).allocate(layers)
    dense = SwatErk(0.9, first_conv_dense=True).allocate(layers)
    assert plain.allocation.by_layer["conv1"] < 1 == dense.allocation.by_layer["conv1"]
    for allocated in (plain, dense):
        kept = sum(allocated.allocation.by_layer[layer.name] * layer.weights for layer in layers)
        assert kept == Fraction(1, 10) * sum(layer.weights for layer in layers)


def test_describe_is_json() -> None:
    description = SwatErk(0.8).allocate(network("resnet8").layers).describe()
    assert description == {"name": "swat-erk", "sparsity": 0.8, "first_conv_dense": False}
    assert json.loads(json.dumps(description)) == description


@pytest.mark.parametrize("sparsity", [1, -0.5, 80, None, True])
def test_sparsities_that_are_refused(sparsity: Any) -> None:
    with pytest.raises(PolicyError, match=r"SwatErk: sparsity=.*must be a number in \[0, 1\)"):
        SwatErk(sparsity)


def test_networks_that_cant_be_allocated_to_are_refused() -> None:
    with pytest.raises(PolicyError, match="no layers"):
        SwatErk(0.8).allocate(())
    layers = (Layer(name="a", C=30, K=30), Layer(name="b", C=2, K=2))
    with pytest.raises(PolicyError, match="kept dense have 900 weights, the sparsity leaves 180"):
        SwatErk(0.8, first_conv_dense=True).allocate(layers)


def test_a_layer_of_another_network_is_refused() -> None:
    allocated = SwatErk(0.8).allocate(network("resnet8").layers)
    with pytest.raises(PolicyError, match=r"unknown layer 'conv'.*did you mean 'conv1'"):
        allocated.density(Site(Layer(name="conv", C=1, K=1), "fprop", "weight"))
    with pytest.raises(PolicyError, match=r"has weights \(4, 4, 1, 1\).*allocate over the layers"):
        allocated.density(Site(Layer(name="conv1", C=4, K=4), "fprop", "weight"))


def test_its_word_is_taken_and_no_other() -> None:
    layers = network("resnet8").layers
    named = SwatErk(0.8, allocation="erk")
    assert named == SwatErk(0.8)
    assert named.allocate(layers).density(Site(layers[1], "fprop", "weight")) == SwatErk(
        0.8
    ).allocate(layers).density(Site(layers[1], "fprop", "weight"))
    with pytest.raises(PolicyError, match="SwatErk: allocation='uniform' is not allowed: must be "):
        SwatErk(0.8, allocation="uniform")


def test_a_layer_that_is_met_later_gets_what_its_shape_gets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layers = network("resnet8").layers
    known = SwatErk(0.8).allocate(layers)
    twin = layers[4].model_copy(update={"name": "experts.w[3]"})
    small = Layer(name="small", kind="linear", C=2, K=2)
    run = begin_run(known)
    share = known.allocation.by_layer
    found = [run.density(Site(layer, "fprop", "weight")) for layer in (twin, small, layers[4])]
    assert found == [share[layers[4].name], None, share[layers[4].name]]
    pruned = layers[4].model_copy(update={"K": layers[4].K // 2})  # in mid-training
    assert run.density(Site(pruned, "fprop", "weight")) > share[layers[4].name]
    run.end_step(3, {})
    run.end_step(4, {})
    assert [record.getMessage() for record in caplog.records] == [
        "step 3: SwatErk shared out its sparsity without experts.w[3], small, "
        f"{pruned.name}: each gets its shape's share"
    ]
    with pytest.raises(PolicyError, match="unknown layer"):  # the policy itself stays as it is
        known.density(Site(twin, "fprop", "weight"))


def test_where_every_layer_is_whole_one_more_is_too() -> None:
    layers = network("resnet8").layers
    run = begin_run(SwatErk(0).allocate(layers))
    assert run.density(Site(Layer(name="late", C=9, K=9), "fprop", "weight")) is None


def test_another_networks_allocation_is_refused_before_a_run() -> None:
    allocated = SwatErk(0.8).allocate(network("resnet8").layers)
    assert allocate_once(allocated, network("resnet8").layers) is allocated
    with pytest.raises(PolicyError, match=r"SwatErk: unknown layer|has weights"):
        allocate_once(allocated, network("resnet50").layers)


# ---- by name -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
def test_policies_by_name(name: str) -> None:
    layers = network("resnet8").layers
    made = make_policy(name, 0.75, layers)
    assert made.describe()["name"] == name
    read = {
        (layer.name, op, operand)
        for layer in layers
        for op, operands in OPERANDS_OF.items()
        for operand in operands
    }
    made_too = {(layer.name, "wgrad", "weight") for layer in layers}
    assert read <= site_densities(made, layers).keys() <= read | made_too


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(PolicyError, match="unknown policy 'swat_u': did you mean 'swat-u'"):
        make_policy("swat_u", 0.8, ())


def test_densities_know_the_first_convolution() -> None:
    layers = (Layer(name="fc", kind="linear", C=2, K=2), *network("resnet8").layers[:2])
    found = site_densities(SwatU(0.5), layers)
    assert [found[layer.name, "fprop", "weight"] for layer in layers] == [
        Fraction(1, 2),
        None,
        Fraction(1, 2),
    ]


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(WorkloadError, match="did you mean 'resnet50'"):
        network("resnet-50")
