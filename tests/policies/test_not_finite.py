"""A gradient that overflowed, as loss scaling makes them, changes neither masks nor momenta."""

from __future__ import annotations

import math

import numpy as np
import pytest

from swatsim.policies import SNFS, RigL, Site, SwatM, begin_run
from swatsim.policies.interface import Policy
from swatsim.workload.layer import Layer

LAYER = Layer(name="fc", kind="linear", C=6, K=8)
POLICIES: list[Policy] = [
    RigL(0.5, every=1, allocation="uniform"),
    SNFS(0.5, every=1, allocation="uniform", fraction=0.5),
    SwatM(0.5, every=1),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_step_that_is_not_finite_is_left_out(policy: Policy, bad: float) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 6)).astype(np.float32)
    masks = []
    run = begin_run(policy)
    for step in range(4):
        sites = [Site(LAYER, op, "weight", False, step) for op in ("fprop", "dgrad")]
        masks.append(run.masks(sites, weight)[0])
        gradient = rng.standard_normal((8, 6)).astype(np.float32)
        if step == 1:
            gradient[3, 2] = bad
        run.weight_gradient(LAYER, weight, gradient)
        weight = run.end_step(step, {"fc": weight}).get("fc", weight)
    assert np.isfinite(weight).all()
    assert {int(mask.sum()) for mask in masks if mask is not None} == {24}
    if isinstance(policy, RigL):
        assert np.array_equal(masks[1], masks[2])
        assert not np.array_equal(masks[2], masks[3])
