"""Policies of a user's own, against loops."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from swatsim.errors import PolicyError
from swatsim.policies import ByScore, Rule, Site, Sparsifier, SwatU, View
from swatsim.policies.allocation import erdos_renyi_kernel
from swatsim.workload.layer import OPERANDS_OF
from tests.policies.driver import LAYERS, Array, Run, same, top_of
from tests.policies.test_arrays import BLOCKS, by_blocks, by_groups, by_samples, key_of
from tests.policies.test_periodic import threshold

TENTHS = Fraction(3, 10)
PAIRS = {(op, operand) for op, operands in OPERANDS_OF.items() for operand in operands}


def size(it: View) -> Array:
    return abs(it.values)


def ups(it: View) -> Array:
    """Only positive values; what is below 0 counts as 0."""
    return it.values


def taylor(it: View) -> Array:
    return abs(it.values * it.gradient)


@pytest.mark.parametrize("granularity", [*BLOCKS, "sample", "2:4", "1:3"])
@pytest.mark.parametrize("score", [size, ups])
def test_all_granularities(granularity: str, score: Any) -> None:
    for seen in Run(ByScore(score, 0.7, granularity=granularity)).go(3):
        for layer in LAYERS:
            values = np.maximum(score(View(seen.read[layer.name, 1, "weight"], None)), 0)  # type: ignore
            if ":" in granularity:
                n, m = map(int, granularity.split(":"))
                if layer.C // layer.groups <= n:  # all of each group's channels
                    assert seen.masks[layer.name, 1, "fprop", "weight"] is None
                    continue
                expected = by_groups(values, n, m)
            elif granularity == "sample":
                expected = by_samples(values, TENTHS, key_of(granularity, layer))
            elif granularity == "kernel" and layer.kind == "linear":
                expected = by_blocks(values, TENTHS, BLOCKS["element"])
            else:
                expected = by_blocks(values, TENTHS, key_of(granularity, layer))
            assert np.array_equal(seen.mask(layer.name), expected)
            assert np.array_equal(seen.handed[layer.name, 1], seen.dense[layer.name, 1])


@pytest.mark.parametrize(
    ("of", "sites"),
    [
        ("weight", {("fprop", "weight"), ("dgrad", "weight")}),
        ("act", {("wgrad", "act")}),
        ("grad_out", {("dgrad", "grad_out"), ("wgrad", "grad_out")}),
        (("act", ("dgrad", "grad_out")), {("wgrad", "act"), ("dgrad", "grad_out")}),
        ([("fprop", "act")], {("fprop", "act")}),
        ((["fprop", "weight"], "weight"), {("fprop", "weight"), ("dgrad", "weight")}),
    ],
)
def test_words_and_pairs(of: Any, sites: set[tuple[str, str]]) -> None:
    for seen in Run(ByScore(size, 0.7, of=of, first_conv_dense=True)).go(2):
        for (layer, run, op, operand), mask in seen.masks.items():
            if layer == "first" or (op, operand) not in sites:
                assert mask is None
            else:
                assert np.array_equal(mask, top_of(seen.read[layer, run, operand], TENTHS))


def test_it_is_swat_u_by_other_words() -> None:
    mine = ByScore(size, 0.7, of=("weight", "act"), first_conv_dense=True)
    same(Run(mine).go(4), Run(SwatU(0.7)).go(4))


def test_allocation_by_erk() -> None:
    share = erdos_renyi_kernel(LAYERS, Fraction(1, 2))
    seen = Run(ByScore(size, 0.5, allocation="erk")).go(1)[0]
    for layer in LAYERS:
        mask, values = (
            seen.masks[layer.name, 1, "fprop", "weight"],
            seen.read[layer.name, 1, "weight"],
        )
        whole = share[layer.name] == 1
        assert mask is None if whole else np.array_equal(mask, top_of(values, share[layer.name]))


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("every", [1, 3])
def test_a_score_of_the_gradient_of_the_step_before(runs: int, every: int) -> None:
    policy = ByScore(taylor, 0.7, uses_gradient=True, every=every, trains="kept")
    before: dict[str, np.ndarray] = {}
    held: dict[str, np.ndarray] = {}
    used = lambda name, step: runs if name != "wide" or step % 3 else 0  # noqa: E731
    for seen in Run(policy, runs=used).go(7):
        for layer in LAYERS:
            name = layer.name
            if (name, 1) not in seen.dense:
                continue
            weight = seen.read[name, 1, "weight"]
            scores = np.abs(weight * before.get(name, np.ones_like(weight)))
            # "wide" is not used in steps 0, 3 and 6: it chooses in the next one
            if every == 1 or seen.step % 3 == (name == "wide"):
                held[name] = top_of(scores, TENTHS)
            for run in range(1, runs + 1):
                assert np.array_equal(seen.mask(name, run), held[name]), (seen.step, name)
                kept = np.where(held[name], seen.dense[name, run], 0)
                assert np.array_equal(seen.handed[name, run], kept)
            before[name] = np.sum([seen.dense[name, run] for run in range(1, runs + 1)], axis=0)


def test_a_gradient_that_is_clipped_in_place_is_not_remembered() -> None:
    """What the optimizer does to its gradient is its own matter."""
    layer = LAYERS[-1]
    rng = np.random.default_rng(0)
    weight, gradient = (rng.integers(1, 9, (5, 7)).astype(np.float32) for _ in range(2))
    own = Run(ByScore(taylor, 0.7, uses_gradient=True), (layer,)).sparsifier
    own.masks([Site(layer, "fprop", "weight", step=0)], weight)
    scores = weight * gradient
    own.weight_gradient(layer, weight, gradient)[...] = 1
    own.end_step(0, {"fc": weight})
    (mask,) = own.masks([Site(layer, "fprop", "weight", step=1)], weight)
    assert np.array_equal(mask, top_of(scores, TENTHS))


def test_thresholds_of_a_score() -> None:
    policy = ByScore(ups, 0.7, every=3, holds="threshold", of=("weight", "act"))
    run = Run(policy)
    held: dict[Any, float | None] = {}
    stale: set[str] = set()
    for seen in run.go(7):
        for layer in LAYERS:
            for op, operand in (("fprop", "weight"), ("wgrad", "act")):
                scores = np.maximum(seen.read[layer.name, 1, operand], 0)
                key = layer.name, operand
                if seen.step % 3 == 0:
                    expected = top_of(scores, TENTHS)
                    held[key] = threshold(scores, expected)
                elif held[key] is None:
                    expected = top_of(scores, TENTHS)
                else:
                    expected = (scores >= held[key]) & (scores > 0)
                    stale.add("/".join(key))
                assert np.array_equal(seen.masks[layer.name, 1, op, operand], expected)
    assert set(run.sparsifier.report()["drift"]) == stale


def test_describe_is_json() -> None:
    found = ByScore(taylor, 0.7, of=["act", ("fprop", "weight")], uses_gradient=True).describe()
    assert json.loads(json.dumps(found)) == found
    assert found["name"] == "taylor"
    assert found["sparsity"] == 0.7
    assert {tuple(pair) for pair in found["of"]} == {("wgrad", "act"), ("fprop", "weight")}
    assert ByScore(lambda it: it.values, 0.5, name="mine").describe()["name"] == "mine"

    class Scorer:
        def __call__(self, it: View) -> Array:
            return it.values

    assert ByScore(Scorer(), 0.5).describe()["name"] == "Scorer"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"of": "weights"}, r"of='weights'.*did you mean 'weight'"),
        ({"of": ("fprop", "weight")}, r"of="),
        ({"of": [("fprop", "grad_out")]}, r"of="),
        ({"of": 3}, r"of=3"),
        ({"of": None}, r"of=None"),
        ({"of": ()}, r"of=\(\)"),
        ({"of": [3]}, r"of="),
        ({"granularity": "filters"}, r"granularity='filters'.*did you mean 'filter'"),
        ({"granularity": "4:2"}, r"granularity='4:2'"),
        ({"granularity": 4}, r"granularity=4.*unknown granularity '4'"),
        ({"granularity": None}, r"granularity=None"),
        ({"allocation": "even"}, r"allocation='even'"),
        ({"every": 0}, r"every=0.*1"),
        ({"every": "often"}, r"every='often'"),
        ({"holds": "masks"}, r"holds='masks'.*'mask' or 'threshold'"),
        ({"trains": None}, r"trains=None.*'all' or 'kept'"),
        ({"uses_gradient": "perhaps"}, r"uses_gradient='perhaps'"),
        ({"sparcity": 3}, r"did you mean 'sparsity'"),
        ({"of": "act", "every": 3}, r"every=3 holds a mask, which act can\'t"),
        ({"granularity": "filter", "holds": "threshold"}, r"holds=\"threshold\" goes with"),
    ],
)
def test_what_is_refused(options: Any, words: str) -> None:
    with pytest.raises(PolicyError, match=f"ByScore: .*{words}"):
        ByScore(size, 0.5, **options)


@pytest.mark.parametrize("score", [None, 3, "taylor"])
def test_scores_that_are_refused(score: Any) -> None:
    with pytest.raises(PolicyError, match=r"ByScore: score=.*must be callable"):
        ByScore(score, 0.5)


def test_any_object_with_two_methods_is_a_policy() -> None:
    class Halves:
        """Half of the weights in fprop, a quarter in dgrad, held for a while."""

        def density(self, site: Site) -> float | None:
            shares = {"fprop": 0.5, "dgrad": 0.25}
            return shares[site.op] if site.operand == "weight" and site.op in shares else None

        def describe(self) -> dict[str, Any]:
            return {"name": "halves"}

        def rule(self, site: Site) -> Rule:
            return Rule(every=2)

    run = Run(Halves())
    assert type(run.sparsifier) is Sparsifier
    held: dict[str, np.ndarray] = {}
    for seen in run.go(4):
        for layer in LAYERS:
            weight = seen.read[layer.name, 1, "weight"]
            if seen.step % 2 == 0:
                held[layer.name] = weight
            for op, part in (("fprop", Fraction(1, 2)), ("dgrad", Fraction(1, 4))):
                expected = top_of(held[layer.name], part)
                assert np.array_equal(seen.masks[layer.name, 1, op, "weight"], expected)


@pytest.mark.parametrize("density", [0, -0.5, 1.5, "half", float("nan"), True])
def test_densities_that_are_no_share(density: Any) -> None:
    class Wrong(SwatU):
        def density(self, site: Site) -> Any:
            return density

    with pytest.raises(PolicyError, match=r"not allowed"):
        Run(Wrong(0.5)).go(1)
