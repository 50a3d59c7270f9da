"""Layers that start at zero, values with many ties, gradients that overflow: what is held then."""

from __future__ import annotations

import logging
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from swatsim.policies import (
    ByScore,
    Periodic,
    Policy,
    Rule,
    Site,
    SrSte,
    SwatU,
    TopKast,
    Transposable,
    View,
    begin_run,
)
from swatsim.policies.granularity import GRANULARITIES, granularity
from swatsim.policies.rules import magnitude
from swatsim.workload.layer import Layer
from tests.policies.driver import Array, Run, count_of, levels, normal, same
from tests.policies.test_arrays import SPLIT, by_blocks, by_samples, key_of

FC = Layer(name="experts.w[3]", kind="linear", C=8, K=8)
CONV = Layer(name="conv", C=6, K=10, R=3, S=1, H=4, W=4, groups=2)
HALF = Fraction(1, 2)


def size(it: View) -> Array:
    return abs(it.values)


def ups(it: View) -> Array:
    return it.values


def taylor(it: View) -> Array:
    return abs(it.values * it.gradient)


def by_gradient(it: View) -> Array:
    return abs(it.gradient)


def zeros(layers: tuple[Layer, ...]) -> dict[str, np.ndarray]:
    return {it.name: np.zeros(it.shape_of("weight", 1), np.float32) for it in layers}


# ---- masks that are held -------------------------------------------------------------------------

HELD: list[Policy] = [
    Transposable(2, every=40, decay=0.25),
    TopKast(0.5, every=40),
    ByScore(size, 0.5, every=40),
    ByScore(size, 0.5, every=40, trains="kept"),
    ByScore(taylor, 0.5, every=40, trains="kept", uses_gradient=True),
    ByScore(size, 0.5, granularity="filter", every=40, trains="kept"),
    ByScore(size, 0.5, granularity="kernel", every=40),
    ByScore(size, 0.5, granularity="2:4", every=40, trains="kept"),
    ByScore(size, 0.5, every=40, holds="threshold", trains="kept"),
    ByScore(size, 0.5, trains="kept"),
    ByScore(size, 0.5, granularity="channel", trains="kept"),
]


@pytest.mark.parametrize("policy", HELD, ids=range(len(HELD)))
def test_a_layer_that_starts_at_zero_is_as_dense_as_asked(policy: Policy) -> None:
    torch = pytest.importorskip("torch")
    options: dict[str, Any] = {"layers": (FC,), "draw": normal, "weights": zeros((FC,))}
    mine = Run(policy, **options).go(5)
    same(mine, Run(policy, torch=torch, **options).go(5))
    for seen in mine:
        mask, weight = seen.mask(FC.name), seen.read[FC.name, 1, "weight"]
        assert mask.sum() == 32
        assert np.count_nonzero(weight[mask]) == (32 if seen.step else 0)
        assert np.count_nonzero(seen.handed[FC.name, 1][mask]) == 32  # it is trained at once


def test_ties_of_zeros_are_broken_as_all_others() -> None:
    weight = np.zeros((8, 8), np.float32)
    weight[3, 5] = -1
    for policy, first in (
        (ByScore(size, 0.75, every=2), [*range(15), 29]),
        (ByScore(size, 0.75, every=2, granularity="filter"), [*range(8), *range(24, 32)]),
    ):
        (mask,) = begin_run(policy).masks([Site(FC, "fprop", "weight")], weight)
        assert mask is not None
        assert np.flatnonzero(mask).tolist() == first
    (mask,) = begin_run(Transposable(2)).masks([Site(FC, "fprop", "weight")], weight)
    assert mask is not None
    assert mask[3, 5]
    assert mask.reshape(2, 4, 2, 4).sum(1).tolist() == [[[2] * 4] * 2] * 2
    assert mask.reshape(2, 4, 2, 4).sum(3).tolist() == [[[2, 2]] * 4] * 2


@pytest.mark.parametrize("layer", SPLIT, ids=lambda layer: layer.name)
@pytest.mark.parametrize("name", GRANULARITIES)
def test_zeros_hold_places_behind_all_others(name: str, layer: Layer) -> None:
    """As if each were a number that is smaller than any."""
    torch = pytest.importorskip("torch")
    for seed in range(3):
        weight = levels(np.random.default_rng(seed), layer.shape_of("weight", 1), 2)
        weight[np.random.default_rng(seed).random(weight.shape) < seed / 3 + 0.3] = 0
        rule, site = Rule(magnitude, granularity(name), every=9), Site(layer, "fprop", "weight")
        twin = by_samples if name == "sample" else by_blocks
        tiny = np.where(weight == 0, 1e-300, np.abs(weight).astype(np.float64))
        for density in (HALF, Fraction(9, 10)):
            expected = twin(tiny, density, key_of(name, layer))
            found = rule.choose(View(weight, site), density, zeros=True)
            assert np.array_equal(found, expected)
            its = rule.choose(View(torch.from_numpy(weight), site), density, zeros=True)
            assert np.array_equal(its.numpy(), expected)


def test_what_scores_below_zero_holds_no_place() -> None:
    """A natural zero does, a value that the score does not want never."""
    weight = np.array([[-1.0, 0.0, 3.0, -2.0, 0.0, 0.0, 0.0, -5.0]] * 8, np.float32)
    (mask,) = begin_run(ByScore(ups, 0.25, every=9)).masks([Site(FC, "fprop", "weight")], weight)
    assert np.array_equal(mask, weight >= 0)


def test_what_a_policy_of_ones_own_trains_holds_places() -> None:
    class TrainsKept(SwatU):
        def weight_gradient(self, mask: Array, weight: Array, gradient: Array) -> Array:
            return gradient * mask

    run = Run(TrainsKept(0.5), (FC,), draw=normal, weights=zeros((FC,)))
    assert [int((it.handed[FC.name, 1] != 0).sum()) for it in run.go(3)] == [32] * 3


@pytest.mark.parametrize("policy", [SwatU(0.5), SrSte(2, 4)])
def test_what_is_chosen_anew_in_each_step_and_trained_anyhow_holds_none(policy: Policy) -> None:
    run = Run(policy, (FC,), draw=normal, weights=zeros((FC,)))
    assert [int(it.mask(FC.name).sum()) for it in run.go(3)] == [0, 32, 32]


# ---- thresholds that are held --------------------------------------------------------------------

TEN = Layer(name="ten", kind="linear", C=100, K=10)
SITE = {operand: Site(TEN, op, operand) for op, operand in (("fprop", "weight"), ("wgrad", "act"))}


def densities(values: list[np.ndarray], operand: str = "weight", every: int = 100) -> list[float]:
    """Tell what a periodic policy leaves of values, step after step."""
    torch = pytest.importorskip("torch")
    own, its = (begin_run(Periodic(SwatU(0.8), every)) for _ in range(2))
    found = []
    for step, each in enumerate(values):
        site = Site(TEN, SITE[operand].op, operand, step=step)  # type: ignore[arg-type]
        (mask,), (other,) = own.masks([site], each), its.masks([site], torch.from_numpy(each))
        assert np.array_equal(mask, other.numpy())
        found.append(float(mask.mean()) if mask.size else 0.0)
        own.end_step(step, {})
        its.end_step(step, {})
    assert own.report() == its.report()
    return found


@pytest.mark.parametrize("operand", SITE)
def test_a_layer_that_starts_at_zero_has_no_threshold(operand: str) -> None:
    """And grows for a while: the first step that has one is not reused."""
    weight = normal(np.random.default_rng(0), (10, 100))
    steps = [weight * np.float32(step / 10) for step in range(8)]
    assert densities(steps, operand) == [0.0, *[0.2] * 7]


def test_values_of_few_levels_have_no_threshold(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(1)
    constant = np.full((10, 100), 0.25, np.float32)
    signs = np.sign(normal(rng, (10, 100)))
    few = np.round(normal(rng, (10, 100)) * 2) / 2
    for values in (constant, signs, few):
        assert densities([values] * 4) == [0.2] * 4
    assert not caplog.records


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_thresholds_of_half_precision(dtype: str) -> None:
    """Of ties at the threshold a few are let through, of many none."""
    torch = pytest.importorskip("torch")
    weight = torch.from_numpy(normal(np.random.default_rng(6), (10, 100))).to(getattr(torch, dtype))
    for values, most in ((weight, 220), (torch.round(weight), 200)):
        own = begin_run(Periodic(SwatU(0.8), 9))
        for step in range(4):
            (mask,) = own.masks([Site(TEN, "fprop", "weight", step=step)], values)
            assert mask is not None
            assert 200 <= int(mask.sum()) <= most
            own.end_step(step, {})


def test_a_layer_that_becomes_zero_and_comes_back() -> None:
    weight = normal(np.random.default_rng(2), (10, 100))
    gone = np.zeros_like(weight)
    assert densities([weight, gone, weight, gone, gone, weight * 9], every=3) == [
        *(0.2, 0.0, 0.2),  # by the threshold of step 0
        *(0.0, 0.0, 0.2),  # step 3 found none
    ]


def test_a_batch_without_rows_sets_no_threshold() -> None:
    """An expert that gets no token in the step of the choice, and one in others."""
    rows = [normal(np.random.default_rng(n), (n, 100)) for n in (0, 4, 1, 0, 7, 10)]
    assert densities(rows, "act") == pytest.approx([0, 0.2, 0.2, 0, 0.2, 0.2])
    found = densities(rows[::-1], "act", 3)
    assert found[:1] + found[2:4] + found[5:] == pytest.approx([0.2, 0.0, 0.2, 0.0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_overflowed_is_no_threshold(bad: float) -> None:
    fine = normal(np.random.default_rng(3), (10, 100))
    one, most = fine.copy(), fine.copy()
    one[3, 7], most[:5] = bad, bad
    assert densities([one, fine, fine]) == pytest.approx([0.2, 0.2, 0.2], abs=0.002)
    assert densities([most, fine, fine]) == [0.2, 0.2, 0.2]
    assert densities([fine, one]) == pytest.approx([0.2, 0.2], abs=0.002)
    assert densities([fine, most])[1] > 0.5  # what overflowed reaches any threshold


def test_a_density_that_strays_is_said_at_once(caplog: pytest.LogCaptureFixture) -> None:
    weight = normal(np.random.default_rng(4), (10, 100))
    found = densities([weight, weight * 1.1, weight * 10, weight * 20, weight])
    assert found[2] > 0.8
    lines = [record.getMessage() for record in caplog.records[::2]]  # NumPy's run, then torch's
    expected = f"step 2: densities by thresholds of an earlier step: ten/weight {found[2]:.2g} "
    assert lines == [expected + "(asked: 0.2); report() has all"]
    assert caplog.records[0].levelno == logging.WARNING


# ---- gradients that overflow ---------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("runs", [1, 2])
def test_a_score_sees_the_last_finite_gradient(bad: float, runs: int) -> None:
    torch = pytest.importorskip("torch")
    policy = ByScore(by_gradient, 0.5, granularity="filter", uses_gradient=True)
    rng = np.random.default_rng(5)
    weight = np.ones((8, 8), np.float32)
    made = [normal(rng, (8, 8)) for _ in range(6)]
    for give in (np.asarray, torch.from_numpy):
        own, last = begin_run(policy), np.ones((8, 8), np.float32)
        for step, gradient in enumerate(made):
            overflows = step in (0, 2, 3)
            (mask,) = own.masks([Site(FC, "fprop", "weight", step=step)], give(weight))
            expected = by_blocks(np.abs(last), HALF, key_of("filter", FC))
            assert np.array_equal(np.asarray(mask), expected)
            for run in range(runs):
                part = gradient / runs
                if overflows and run == 0:
                    part = np.where(np.arange(8) == 3, np.float32(bad), part)
                own.weight_gradient(FC, give(weight), give(part))
            own.end_step(step, {})
            last = last if overflows else gradient


def test_half_precision_overflows_in_no_score_and_no_sum() -> None:
    torch = pytest.importorskip("torch")
    policy = ByScore(taylor, 0.5, uses_gradient=True)
    exact = np.arange(1, 65, dtype=np.float64).reshape(8, 8) * 16
    for dtype in (torch.float16, torch.bfloat16):
        weight = torch.from_numpy(exact).to(dtype)
        own = begin_run(policy)
        own.masks([Site(FC, "fprop", "weight", step=0)], weight)
        for _ in range(2):  # two runs, whose sum is past 65504
            own.weight_gradient(FC, weight, weight * 0 + 60_000)
        own.end_step(0, {})
        (mask,) = own.masks([Site(FC, "fprop", "weight", step=1)], weight)
        assert mask is not None
        assert np.flatnonzero(mask.numpy()).tolist() == list(range(32, 64))


# ---- shapes that change --------------------------------------------------------------------------


def test_a_mask_of_another_shape_is_chosen_anew() -> None:
    """A rule of one's own may hold an activation's mask; the next batch has another size."""

    class Held(SwatU):
        def rule(self, site: Site) -> Rule:
            return Rule(every=9)

    own = begin_run(Held(0.8))
    for step, n in enumerate((4, 4, 0, 1, 4)):
        values = normal(np.random.default_rng(step), (n, 100))
        (mask,) = own.masks([Site(TEN, "wgrad", "act", step=step)], values)
        assert mask is not None
        assert mask.shape == values.shape
        assert mask.sum() == count_of(Fraction(1, 5), values.size)
