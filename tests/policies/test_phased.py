"""Phases: each as in a run of its own that begins with the weights that the one before left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from swatsim.errors import PolicyError
from swatsim.policies import (
    SET,
    Dense,
    Mvue,
    Periodic,
    Phased,
    Policy,
    RigL,
    Site,
    Sparsifier,
    StaticRandom,
    SwatU,
    TopKast,
    begin_run,
    site_densities,
)
from swatsim.policies.phased import PhasedRun
from tests.policies.driver import LAYERS, Run, same

SPARSE: tuple[Policy, ...] = (
    SwatU(0.7),
    Periodic(SwatU(0.7), 3),
    RigL(0.7, every=2, fraction=0.4),
    SET(0.7, every=2, fraction=0.4),
    StaticRandom(0.7),
    TopKast(0.7, backward_sparsity=0.4, penalty=0.25),
)


def alone(policy: Policy, step: int, weights: dict[str, Any]) -> Run:
    """A run of one policy from a step on."""
    run = Run(policy, weights=weights)
    run.step = step
    return run


@pytest.mark.parametrize(
    ("before", "after"),
    [*zip(SPARSE, (*SPARSE[1:], SPARSE[0]), strict=True), (RigL(0.7, every=2), Dense())],
    ids=lambda it: type(it).__name__,
)
def test_each_phase_is_a_run_of_its_own(before: Policy, after: Policy) -> None:
    phased = Run(Phased([(0, Dense()), (2, before), (6, after)]))
    seen = phased.go(10)
    start = {name: value.copy() for name, value in Run(Dense()).weights.items()}
    for begin, end, policy in ((0, 2, Dense()), (2, 6, before), (6, 10, after)):
        weights = seen[begin - 1].weights if begin else start
        same(alone(policy, begin, weights).go(end - begin), seen[begin:end])


def test_a_dense_phase_reads_all() -> None:
    seen = Run(Phased([(0, SwatU(0.7)), (3, Dense())])).go(5)
    masks = [[mask is None for mask in one.masks.values()] for one in seen]
    assert not any(all(of) for of in masks[:3])
    assert all(all(of) for of in masks[3:])


def test_a_phase_is_asked_everything_that_a_run_is() -> None:
    asked = {
        name for name in vars(Sparsifier) if name[0] != "_" and callable(vars(Sparsifier)[name])
    }
    assert asked <= set(vars(PhasedRun))


def test_a_phase_reads_what_its_policy_estimates() -> None:
    mvue = Mvue(1, 2, seed=3)
    run, alone = begin_run(Phased([(0, Dense()), (2, mvue)])), begin_run(mvue)
    values = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    site = Site(LAYERS[-1], "wgrad", "grad_out", step=2)
    (mask,) = run.masks([site], values)
    assert mask is not None
    read = run.estimate(site, values, mask)
    assert read is not None
    assert np.array_equal(read, alone.estimate(site, values, mask))
    assert not np.allclose(read[mask], values[mask])
    assert run.estimate(replace(site, step=0), values, mask) is None


def test_a_site_is_asked_of_its_steps_policy() -> None:
    policy = Phased([(0, Dense()), (4, StaticRandom(0.75, allocation="uniform"))])
    layer = LAYERS[0]
    found = [policy.density(Site(layer, "fprop", "weight", step=step)) for step in (0, 3, 4, 9)]
    assert found == [None, None, 0.25, 0.25]
    assert [policy.wanted(Site(layer, "wgrad", "weight", step=n)) for n in (3, 4)] == [None, 0.25]
    assert site_densities(policy, LAYERS, step=3)[layer.name, "fprop", "weight"] is None
    assert site_densities(policy, LAYERS, step=4)[layer.name, "fprop", "weight"] == 0.25


def test_what_it_says_of_itself() -> None:
    policy = Phased([(0, Dense()), (4, SwatU(0.5))])
    assert policy.describe() == {
        "name": "phased",
        "phases": [
            {"from": 0, "policy": {"name": "dense"}},
            {"from": 4, "policy": SwatU(0.5).describe()},
        ],
    }
    assert policy == Phased([(0, Dense()), (np.int64(4), SwatU(0.5))])


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], r"begin with steps \[\]: must be one or more"),
        ([(1, Dense())], r"begin with steps \[1\]: must be one or more, from step 0 on"),
        ([(0, Dense()), (0, SwatU(0.5))], r"steps \[0, 0\]: .* each after the one before it"),
        ([(0, Dense()), (-3, SwatU(0.5))], r"steps \[0, -3\]"),
        ([Dense()], "must be pairs of a step and a policy"),
        ([(0, 0.5)], "must have the methods density and describe"),
        ([(0.5, Dense())], "must be a whole number"),
        (0.8, "must be a sequence"),
    ],
)
def test_refusals_are_one_line(phases: Any, message: str) -> None:
    with pytest.raises(PolicyError, match=message) as caught:
        Phased(phases)
    assert "\n" not in str(caught.value)


def test_thresholds_are_held_within_a_phase() -> None:
    with pytest.raises(PolicyError, match="put Periodic around the policies of its phases"):
        Periodic(Phased([(0, Dense()), (4, SwatU(0.5))]), 3)
