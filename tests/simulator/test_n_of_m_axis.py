"""A policy's N:M and the format that stores it are along the same channels, in every layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import swatsim
import swatsim.policies
from swatsim.errors import WorkloadError
from swatsim.policies import Bdwp, ByScore, Mvue, Policy, Slope, SrSte, Transposable, Vnm
from swatsim.policies.granularity import share_of
from swatsim.tracer.synthetic import synthesize
from swatsim.workload import footprint, storage
from swatsim.workload.layer import Channels, Layer

#: Of each kind one whose channels 4 does not divide.
LAYERS = (
    Layer(name="conv", C=8, K=6, R=3, S=3, H=4, W=4, padding=1),
    Layer(name="grouped", C=12, K=10, R=1, S=1, H=3, W=3, groups=2),
    Layer(name="depthwise", C=4, K=4, R=3, S=3, H=3, W=3, groups=4),
    Layer(name="up", kind="conv_transpose", C=6, K=5, R=2, S=2, H=2, W=2, stride=2),
    Layer(name="up grouped", kind="conv_transpose", C=12, K=10, R=2, S=1, H=2, W=2, groups=2),
    Layer(name="fc", kind="linear", C=7, K=9),
)
POLICIES = (
    SrSte(2, 4, first_conv_dense=False),
    ByScore(lambda it: abs(it.values), 0.5, granularity="2:4", name="size"),
    Transposable(2, first_conv_dense=False),
)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_what_a_policy_leaves_is_stored_as_it_is_called(policy: Policy, tmp_path: Path) -> None:
    trace = synthesize(LAYERS, tmp_path / "trace", policy=policy, batch=2, seed=1)
    parameters = {"format_weight": "2:4", "tiles": 1}
    rows = swatsim.simulate(trace, swatsim.machine("tensordash", **parameters)).rows
    assert {row["layer"] for row in rows} == {layer.name for layer in LAYERS}
    weights = [kept for kept in trace.step(0).kept() if kept[1] == "weight"]
    stored = {row.layer: row for row in footprint.of_masks(weights, format="2:4").rows}
    for layer in LAYERS[:1] + LAYERS[3:]:
        axis, groups = layer.channels_of("weight")
        channels = layer.shape_of("weight", 1)[axis] // groups
        assert channels == layer.C // layer.groups
        slots = share_of(2, 4, channels) * layer.weights
        assert stored[layer.name].format == "2:4"
        assert stored[layer.name].bytes == -(-int(slots) * (32 + 2) // 8)
    assert stored["depthwise"].format == "dense", "a group of one channel has no 2 of 4"


def test_the_density_that_a_policy_states_can_be_stored() -> None:
    """Six channels of 2:4 keep four: more than a half."""
    policy = SrSte(2, 4)
    for layer in LAYERS[1:]:
        density = policy.density(swatsim.policies.Site(layer, "fprop", "weight"))
        shape, channels = layer.shape_of("weight", 1), layer.channels_of("weight")
        format, _ = storage.expected(shape, density or 1, "2:4", "fp32", channels)
        assert format == ("2:4" if density else "dense")


def test_the_other_axis_is_refused() -> None:
    """Two of four filters are not two of four channels."""
    mask = np.zeros((8, 4, 1, 1), bool)
    mask[:, :2] = True  # 2:4 along axis 1, and four of four along axis 0
    assert storage.stored(mask, "2:4", "fp32")[0] == "2:4"
    with pytest.raises(WorkloadError, match=r"at \(2, 0, 0, 0\) is value number 3 .*axis 0"):
        storage.stored(mask, "2:4", "fp32", Channels(axis=0))
    mask = np.zeros((6, 2), bool)
    mask[1:5, 0] = True  # rows 0..2 and 3..5 are two groups: two of three in each
    assert storage.stored(mask, "2:3", "fp32", Channels(0, 2)) == ("2:3", (8 * 34 + 7) // 8)
    with pytest.raises(WorkloadError, match=r"at \(3, 0\) is value number 3"):
        storage.stored(mask, "2:4", "fp32", Channels(0, 1))


@pytest.mark.parametrize("m", [255, 256, 257, 9999])
def test_a_pattern_of_any_width_is_checked(m: int) -> None:
    mask = np.ones((1, 2 * m), bool)
    mask[0, :m] = False
    mask[0, 1] = True
    with pytest.raises(WorkloadError, match=rf"is value number {m} of its group of {m}"):
        storage.stored(mask, f"{m - 1}:{m}", "fp32")
    mask[0, -1] = False
    assert storage.stored(mask, f"{m - 1}:{m}", "fp32")[0] == f"{m - 1}:{m}"


@pytest.mark.parametrize(
    ("policy", "compressed"),
    [
        (SrSte(2, 4, first_conv_dense=False), {"fprop": "weight"}),
        (Vnm(2, 4, first_conv_dense=False), {"fprop": "weight"}),
        (Bdwp(2, 4, first_conv_dense=False), {"fprop": "weight", "dgrad": "weight"}),
        (Slope(2, 4, first_conv_dense=False), {"fprop": "weight", "dgrad": "weight"}),
        (Transposable(2, first_conv_dense=False), {"fprop": "weight", "dgrad": "weight"}),
        (Mvue(1, 2), {"wgrad": "grad_out"}),
        (Mvue(2, 4), {"wgrad": "grad_out"}),
    ],
    ids=str,
)
def test_what_a_machine_compresses_of_each_method(
    policy: Policy, compressed: dict[str, str], tmp_path: Path
) -> None:
    """Each operand is n:m along what the op adds up, which a 2:4 machine takes no other way."""
    layers = (
        Layer(name="first", C=4, K=4),
        Layer(name="conv", C=16, K=32, R=3, S=3, H=6, W=6, padding=1),
        Layer(name="fc", kind="linear", C=32, K=16),
    )
    trace = synthesize(layers, tmp_path / "trace", policy=policy, batch=4, seed=1)
    rows = swatsim.simulate(trace, swatsim.machine("a100")).rows
    found = {
        (row["layer"], row["op"]): row["compressed"]
        for row in rows
        if row["role"] == "machine" and row["layer"] in ("conv", "fc")
    }
    assert found == {
        (layer, op): compressed.get(op, "")
        for layer in ("conv", "fc")
        for op in ("fprop", "dgrad", "wgrad")
    }
