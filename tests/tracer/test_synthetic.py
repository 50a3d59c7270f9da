from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swatsim.errors import PolicyError, RecordingError, SwatsimError, TraceError
from swatsim.policies import Site, SwatErk, SwatU, keep_count
from swatsim.tracefile import Step, Trace, open_trace
from swatsim.tracer import drawing, synthetic
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import OPERANDS_OF, Layer, Operand, OpName
from swatsim.workload.networks import network
from tests.traces import LAYERS

ROOT = Path(__file__).parents[2]
WIDE = (
    Layer(name="stem", C=3, K=16, H=16, W=16, R=3, S=3, padding=1),
    Layer(name="conv", C=64, K=128, H=16, W=16, R=3, S=3, padding=1, stride=2),
    Layer(name="fc", kind="linear", C=128, K=10),
)


def made(path: Path, layers: Any = LAYERS, **options: Any) -> Trace:
    given = {"policy": SwatU(0.8), "batch": 3, "seed": 5} | options
    return synthesize(layers, path, **given)


def masks(trace: Trace, number: int = 0) -> dict[tuple[str, str, str], np.ndarray]:
    step = trace.step(number)
    return {record.key: step.mask(*record.key) for record in step.records}


def test_every_op_is_there_but_the_first_layers_dgrad(tmp_path: Path) -> None:
    trace = made(tmp_path / "t", steps=2)
    assert trace.steps == (0, 1)
    assert trace.layers == LAYERS
    ops = [(layer.name, op) for layer, op in trace.step(1).ops()]
    wanted = [(layer.name, op) for layer in LAYERS for op in OPERANDS_OF]
    assert ops == [key for key in wanted if key != ("stem", "dgrad")]


def test_what_swat_keeps(tmp_path: Path) -> None:
    for (layer, op, operand), mask in masks(made(tmp_path / "t", layers=WIDE)).items():
        if layer == "stem" or operand == "grad_out":
            assert mask.all(), (layer, op, operand)
        elif (op, operand) == ("fprop", "act"):
            assert abs(mask.mean() - 0.5) < 0.12
        else:
            assert mask.sum() == keep_count(mask.size, 0.8), (layer, op, operand)


def test_one_weight_mask_for_fprop_and_dgrad_and_kept_acts_are_natural_ones(tmp_path: Path) -> None:
    found = masks(made(tmp_path / "t", layers=WIDE))
    np.testing.assert_array_equal(
        found["conv", "fprop", "weight"], found["conv", "dgrad", "weight"]
    )
    assert not (found["conv", "wgrad", "act"] & ~found["conv", "fprop", "act"]).any()


def test_fewer_natural_ones_than_top_k_keeps_are_all_kept(tmp_path: Path) -> None:
    found = masks(made(tmp_path / "t", layers=WIDE, act_density=0.1))
    np.testing.assert_array_equal(found["conv", "fprop", "act"], found["conv", "wgrad", "act"])


def test_sparse_gradients_are_one_mask_for_both_ops(tmp_path: Path) -> None:
    found = masks(made(tmp_path / "t", layers=WIDE, grad_density=0.3))
    grad = found["conv", "dgrad", "grad_out"]
    np.testing.assert_array_equal(grad, found["conv", "wgrad", "grad_out"])
    assert abs(grad.mean() - 0.3) < 0.02


def test_a_policy_of_ones_own_can_drop_gradients(tmp_path: Path) -> None:
    class Gradients:
        def density(self, site: Site) -> float | None:
            return 0.25 if site.operand == "grad_out" else None

        def describe(self) -> dict[str, Any]:
            return {"name": "gradients"}

    found = masks(made(tmp_path / "t", layers=WIDE, policy=Gradients()))
    assert found["conv", "dgrad", "grad_out"].mean() == 0.25
    assert found["conv", "fprop", "weight"].all()


def test_swat_erk_gives_each_layer_its_own(tmp_path: Path) -> None:
    policy = SwatErk(0.8).allocate(WIDE)
    found = masks(made(tmp_path / "t", layers=WIDE, policy=policy))
    for name in ("conv", "fc"):
        kept = found[name, "fprop", "weight"].mean()
        assert kept == pytest.approx(float(policy.allocation.by_layer[name]), abs=0.001)


# ---- what is drawn -----------------------------------------------------------------------------


def test_a_seed_gives_the_same_masks_and_another_one_others(tmp_path: Path) -> None:
    a, b, c = (
        masks(made(tmp_path / name, seed=seed, uneven=True, steps=2), 1)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all((a[key] == b[key]).all() for key in a)
    assert not (a["block.conv", "fprop", "weight"] == c["block.conv", "fprop", "weight"]).all()


@pytest.mark.parametrize("uneven", [False, True])
def test_how_many_values_are_thinned_at_once_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uneven: bool
) -> None:
    drawn = {"act_density": 0.4, "grad_density": 0.6, "uneven": uneven}
    whole = masks(made(tmp_path / "whole", **drawn))
    monkeypatch.setattr(drawing, "MOST_VALUES", 1)
    pieces = masks(made(tmp_path / "pieces", **drawn))
    assert all((whole[key] == pieces[key]).all() for key in whole)


def test_a_large_weight_takes_its_values_and_one_mask(tmp_path: Path) -> None:
    small, large = (Layer(name="head", kind="linear", C=size, K=2048) for size in (16, 2048))
    synthesize([small], tmp_path / "small", policy=SwatU(0.9), batch=1, seed=1)  # loads kernels
    tracemalloc.start()
    try:
        synthesize([large], tmp_path / "large", policy=SwatU(0.9), batch=1, seed=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * large.C * large.K  # four bytes a value, one of a mask, and its bits


def test_a_layers_masks_depend_on_no_other_layer(tmp_path: Path) -> None:
    whole = masks(made(tmp_path / "a", layers=WIDE, uneven=True))
    part = masks(made(tmp_path / "b", layers=(WIDE[0], WIDE[2]), uneven=True))
    assert all((whole[key] == part[key]).all() for key in part)


def test_steps_differ(tmp_path: Path) -> None:
    trace = made(tmp_path / "t", layers=WIDE, steps=2)
    first, second = masks(trace, 0), masks(trace, 1)
    key = ("conv", "fprop", "weight")
    assert not (first[key] == second[key]).all()


def test_survivors_are_spread_as_of_independent_values(tmp_path: Path) -> None:
    kept = masks(made(tmp_path / "t", layers=WIDE))["conv", "fprop", "weight"]
    deviation = kept.mean((1, 2, 3)).std()
    assert deviation == pytest.approx((0.2 * 0.8 / (64 * 9)) ** 0.5, rel=0.2)


def test_uneven_acts_keep_the_density_asked_for(tmp_path: Path) -> None:
    layers = (WIDE[0], Layer(name="conv", C=2048, K=2, H=4, W=4, R=1, S=1))
    found = masks(made(tmp_path / "t", layers=layers, uneven=True, act_density=0.3))
    natural = found["conv", "fprop", "act"].mean((0, 2, 3))
    assert natural.mean() == pytest.approx(0.3, abs=0.015)
    assert natural.std() > 0.1


# ---- how uneven --------------------------------------------------------------------------------

ROWS: dict[str, tuple[OpName, Operand, int]] = {
    "weights, filters": ("fprop", "weight", 0),
    "weights, input channels": ("fprop", "weight", 1),
    "activations, natural": ("fprop", "act", 1),
    "activations, wgrad": ("wgrad", "act", 1),
}


def spread(step: Step, op: OpName, operand: Operand, axis: int) -> np.ndarray:
    """Percentiles 0, 5, 50, 95, 100 of a channel's density, over all convolutions but the first."""
    names = [layer.name for layer in step.manifest.layers if layer.kind == "conv"][1:]
    found = []
    for name in names:
        mask = np.moveaxis(step.mask(name, op, operand), axis, 0)
        found.append(mask.reshape(len(mask), -1).mean(1))
    return np.percentile(np.concatenate(found), [0, 5, 50, 95, 100])


@pytest.fixture(scope="module")
def spreads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[..., np.ndarray]]:
    folder = tmp_path_factory.mktemp("spreads")
    recorded = open_trace(ROOT / "tests/data/format_1/resnet8-fashion-mnist-swat-u-80").step(2339)
    steps = {"recorded, ResNet-8": recorded}
    for name, title in (("resnet8", "ResNet-8"), ("resnet18", "ResNet-18")):
        batch = 8 if name == "resnet8" else 1
        trace = made(folder / name, layers=network(name), batch=batch, seed=1, uneven=True)
        steps[f"uneven, {title}"] = trace.step(0)
    even = made(folder / "even", layers=network("resnet18"), batch=1, seed=1)
    steps["even, ResNet-18"] = even.step(0)
    return {
        f"{what}: {title}": spread(step, *row)
        for what, row in ROWS.items()
        for title, step in steps.items()
    }


def test_the_docstring_states_the_spread_that_comes_out(spreads: dict[str, np.ndarray]) -> None:
    stated = {
        match[1].strip(): [float(number) for number in match[2].split()]
        for match in re.finditer(r"^ +(\w.*?: .*?) +((?:\d\.\d\d *){5})$", synthetic.__doc__, re.M)
    }
    assert list(stated) == list(spreads)
    for title, found in spreads.items():
        np.testing.assert_allclose(stated[title], found, atol=0.0051, err_msg=title)


def test_uneven_channels_are_about_as_uneven_as_recorded_ones(
    spreads: dict[str, np.ndarray],
) -> None:
    for what in ROWS:
        recorded, drawn = (
            spreads[f"{what}: recorded, ResNet-8"],
            spreads[f"{what}: uneven, ResNet-8"],
        )
        np.testing.assert_allclose(drawn[1:4], recorded[1:4], atol=0.13, err_msg=what)


def test_large_networks_have_channels_that_are_all_but_empty_or_full(
    spreads: dict[str, np.ndarray],
) -> None:
    for what in ("filters", "input channels"):
        found = spreads[f"weights, {what}: uneven, ResNet-18"]
        assert found[0] < 0.01
        assert found[4] > 0.9


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("batch", 0, r"batch=0 is not allowed: must be a whole number of at least 1"),
        ("batch", 2.5, "batch=2.5"),
        ("batch", True, "batch=True"),
        ("steps", 0, "steps=0"),
        ("seed", -1, "seed=-1 is not allowed: must be a whole number of at least 0"),
        ("act_density", 0, r"act_density=0 is not allowed: must be a number in \(0, 1\]"),
        ("act_density", float("nan"), "act_density=nan"),
        ("grad_density", 1.5, "grad_density=1.5"),
        ("policy", 0.8, "must have the methods density and describe"),
        ("layers", (), r"layers=\(\)"),
    ],
)
def test_arguments_that_are_refused(tmp_path: Path, option: str, value: Any, message: str) -> None:
    with pytest.raises(RecordingError, match=message) as caught:
        made(tmp_path / "t", **{option: value})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "t").exists()


def test_a_trace_is_never_written_over(tmp_path: Path) -> None:
    made(tmp_path / "t")
    with pytest.raises(TraceError, match="exists already"):
        made(tmp_path / "t")


def test_a_policys_density_is_checked(tmp_path: Path) -> None:
    class Nothing(SwatU):
        def density(self, site: Site) -> Any:
            return 0

    with pytest.raises(PolicyError, match=r"density 0 of fprop weight is not allowed"):
        made(tmp_path / "t", policy=Nothing(0.5))


def test_a_policy_for_other_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SwatsimError, match="unknown layer 'stem'"):
        made(tmp_path / "t", policy=SwatErk(0.8).allocate(WIDE[1:]), layers=WIDE)


def test_the_manifest_says_how_it_was_made(tmp_path: Path) -> None:
    trace = made(tmp_path / "t", layers=network("resnet8"), uneven=True)
    parameters = trace.manifest.provenance["parameters"]
    assert parameters["synthetic"] is True
    assert (parameters["network"], parameters["seed"]) == ("resnet8", 5)
    assert trace.manifest.policy["name"] == "swat-u"


def test_progress_counts_layers(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    made(tmp_path / "t", steps=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 8) for done in range(1, 9)]
