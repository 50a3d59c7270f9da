"""Periodic thresholds, against loops."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from swatsim.errors import PolicyError
from swatsim.policies import (
    SET,
    SNFS,
    ByScore,
    Periodic,
    RigL,
    Site,
    StaticRandom,
    SwatM,
    SwatStructured,
    SwatU,
    begin_run,
)
from tests.policies.driver import LAYERS, Run, Seen, levels, normal, same, top_of
from tests.policies.test_swat_runs import SPARSE, by_l1

TENTHS = Fraction(3, 10)


class Thresholds:
    """What is held, by (layer, run, operand), and how dense stale masks were."""

    def __init__(self) -> None:
        self.of: dict[Any, float] = {}
        self.realised: dict[str, list[float]] = {}

    def mask(self, key: Any, values: np.ndarray, exact: bool) -> np.ndarray:
        if exact or self.of.get(key) is None:
            mask = top_of(values, TENTHS)
            if exact or key not in self.of:
                self.of[key] = threshold(values, mask)
            return mask
        flat = [abs(float(v)) for v in values.reshape(-1)]
        mask = np.array([v >= self.of[key] and v > 0 for v in flat]).reshape(values.shape)
        layer, run, operand = key
        name = f"{layer}/{operand}" if run == 1 else f"{layer}@{run}/{operand}"
        self.realised.setdefault(name, []).append(int(mask.sum()) / mask.size)
        return mask


def threshold(values: np.ndarray, mask: np.ndarray) -> float | None:
    """The least that was chosen, if some others were not and few more have it."""
    lowest = min((abs(float(v)) for v in values[mask]), default=0.0)
    reach = sum(abs(float(v)) >= lowest for v in values.reshape(-1) if v)
    useful = np.count_nonzero(values) > mask.sum() and reach <= 1.1 * mask.sum()
    return lowest if useful else None


def check(run: list[Seen], exact: Any) -> Thresholds:
    held = Thresholds()
    for seen in run:
        for (layer, number, op, operand), mask in seen.masks.items():
            if layer == "first" or (op, operand) not in SPARSE:
                assert mask is None
            elif op != "dgrad":
                key = (layer, number, operand)
                expected = held.mask(key, seen.read[key], exact(seen.step))
                assert np.array_equal(mask, expected), (seen.step, key)
                if op == "fprop":
                    assert np.array_equal(seen.masks[layer, number, "dgrad", operand], expected)
    return held


@pytest.mark.parametrize(("every", "warmup"), [(1, 0), (3, 0), (4, 0), (3, 2), (4, 5), (100, 3)])
@pytest.mark.parametrize("draw", [levels, normal])
def test_exact_now_and_then_and_stale_in_between(every: int, warmup: int, draw: Any) -> None:
    run = Run(Periodic(SwatU(0.7), every, warmup), draw=draw)
    seen = run.go(10)
    held = check(seen, lambda step: step % every == 0 or step <= warmup)
    drift = {
        name: {"asked": 0.3, "last": dens[-1], "least": min(dens), "most": max(dens)}
        for name, dens in held.realised.items()
    }
    assert run.sparsifier.report() == ({"drift": drift} if drift else {})
    assert all(np.array_equal(it.dense[key], it.handed[key]) for it in seen for key in it.dense)


def test_a_layer_that_is_not_used_when_it_is_time_chooses_later() -> None:
    used = {"wide": [0, 2, 4, 5, 7]}
    run = Run(Periodic(SwatU(0.7), 3), runs=lambda name, step: step in used.get(name, range(99)))
    seen = run.go(8)
    held = Thresholds()
    for step in used["wide"]:
        exact = step in (0, 4, 7)  # 3 and 6 were left out
        for operand, op in (("weight", "fprop"), ("act", "wgrad")):
            values = seen[step].read["wide", 1, operand]
            expected = held.mask(("wide", 1, operand), values, exact)
            assert np.array_equal(seen[step].masks["wide", 1, op, operand], expected)


def test_runs_of_a_layer_in_a_step_read_the_same_weights() -> None:
    """The second run begins in step 2, between two choices."""
    run = Run(Periodic(SwatU(0.7), 4), runs=lambda name, step: 1 + (step >= 2))
    seen = run.go(8)
    for it in seen:
        for layer in LAYERS[1:]:
            if it.step >= 2:
                assert np.array_equal(it.mask(layer.name, 1), it.mask(layer.name, 2))
    # activations have a threshold for each run
    acts = [it.masks["wide", 2, "wgrad", "act"] for it in seen[2:]]
    values = [it.read["wide", 2, "act"] for it in seen[2:]]
    assert np.array_equal(acts[0], top_of(values[0], TENTHS))
    assert np.array_equal(acts[2], top_of(values[2], TENTHS))


def test_whole_blocks_stay_exact() -> None:
    for seen in Run(Periodic(SwatStructured(0.7), 3)).go(5):
        for layer in LAYERS[1:-1]:
            weight = seen.read[layer.name, 1, "weight"]
            assert np.array_equal(seen.mask(layer.name), by_l1(weight, "channel", TENTHS))


def test_drift_is_from_the_density_asked_for_by_now() -> None:
    run = Run(Periodic(SwatM(0.7, every=2), 4), draw=normal)
    run.go(8)
    report = run.sparsifier.report()
    for name, density in report["densities"].items():
        if name != "one":  # its only weight is always read
            assert report["drift"][f"{name}/weight"]["asked"] in (density, 0.3)
    asked = {name: it["asked"] for name, it in report["drift"].items()}
    assert set(asked.values()) != {0.3}


@pytest.mark.parametrize("policy", [SET(0.5), RigL(0.5), SNFS(0.5), StaticRandom(0.5)])
def test_policies_that_keep_masks_are_refused(policy: Any) -> None:
    with pytest.raises(PolicyError, match=f"Periodic: {type(policy).__name__} keeps masks"):
        Periodic(policy, 4)


@pytest.mark.parametrize("every", [0, -1, 1.5, "3", None, True, float("nan")])
def test_parameters_that_are_refused(every: Any) -> None:
    with pytest.raises(PolicyError, match="Periodic: every=.* is not allowed: must be"):
        Periodic(SwatU(0.5), every)
    if every != 0:
        with pytest.raises(PolicyError, match="Periodic: warmup=.* is not allowed: must be"):
            Periodic(SwatU(0.5), 2, every)


def test_nothing_is_remembered_of_an_evaluation() -> None:
    """It reads the weights that training reads, and changes nothing."""
    plain, disturbed = (Run(Periodic(SwatU(0.7), 4)) for _ in range(2))
    expected = plain.go(6)
    for step in range(6):
        own, weights = disturbed.sparsifier, disturbed.weights
        for layer in LAYERS[1:]:
            site = Site(layer, "fprop", "weight", step=step)
            (mask,) = own.masks([site], weights[layer.name], training=False)
            assert np.array_equal(mask, expected[step].mask(layer.name))
            (acts,) = own.masks(
                [Site(layer, "wgrad", "act", step=step)], np.ones((7, 2, 2, 2)), training=False
            )
            assert acts.shape == (7, 2, 2, 2)  # a batch of another size
        disturbed.go(1)
    same(disturbed.go(3), plain.go(3))
    assert disturbed.sparsifier.report() == plain.sparsifier.report()


def test_activations_hold_no_mask_of_theirs() -> None:
    """Their masks are as large as they are, and never read again."""
    run = Run(Periodic(SwatU(0.7), 4))
    run.go(2)
    arrays = []

    def collect(state: Any) -> None:
        for value in state.values() if isinstance(state, dict) else ():
            collect(value)
            if isinstance(value, np.ndarray):
                arrays.append(value)

    collect(run.sparsifier.state())
    assert sum(it.size for it in arrays) < 2 * sum(layer.weights for layer in LAYERS)


def test_periodic_scores() -> None:
    """Of a ByScore it holds the threshold of the score."""
    policy = Periodic(ByScore(lambda it: abs(it.values), 0.7, name="size"), 3)
    plain = Periodic(SwatU(0.7), 3)
    mine, its = Run(policy, LAYERS[1:4]).go(6), Run(plain, LAYERS[:4]).go(6)
    assert mine[2].mask("wide").any()
    assert its[2].mask("wide").any()
    assert begin_run(policy).rule(Site(LAYERS[3], "fprop", "weight")).holds == "threshold"
