"""SR-STE and transposable masks over several steps, against all patterns."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from swatsim.errors import PolicyError
from swatsim.policies import ByScore, Site, SrSte, Transposable, begin_run
from tests.policies.driver import LAYERS, Run, Seen
from tests.policies.test_arrays import by_groups, by_patterns


def check_gradients(seen: Seen, decay: float, sparse: set[str]) -> None:
    """All weights are trained, those left out decay."""
    for (name, run), gradient in seen.dense.items():
        expected = gradient.copy()
        if name in sparse:
            weight, mask = seen.read[name, run, "weight"], seen.mask(name, run)
            for at in np.ndindex(mask.shape):
                if not mask[at]:
                    expected[at] += np.float32(decay) * weight[at]
        assert np.array_equal(seen.handed[name, run], expected)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 3), (3, 3), (1, 1)])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.25])
def test_sr_ste(n: int, m: int, dense: bool, decay: float) -> None:
    of = {layer.name: layer for layer in LAYERS if layer.name != "first" or not dense}
    sparse = {name for name, layer in of.items() if layer.C // layer.groups > n}
    for seen in Run(SrSte(n, m, decay=decay, first_conv_dense=dense)).go(3):
        for (layer, run, _, operand), mask in seen.masks.items():
            if layer not in sparse or operand != "weight" or n == m:
                assert mask is None
            else:
                weight = np.abs(seen.read[layer, run, "weight"])
                assert np.array_equal(mask, by_groups(weight, n, m))
        if n < m:
            check_gradients(seen, decay, sparse)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("runs", [1, 2])
def test_transposable(n: int, every: int, runs: int) -> None:
    policy = Transposable(n, every=every, decay=0.25)
    held: dict[str, np.ndarray] = {}
    sparse = {it.name for it in LAYERS[1:] if max(it.C, it.K) // it.groups > n}
    for seen in Run(policy, runs=lambda name, step: 1 + (step > 0) * (runs - 1)).go(5):
        for name in sparse:
            weight = np.abs(seen.read[name, 1, "weight"])
            if seen.step % every == 0:
                groups = next(layer.groups for layer in LAYERS if layer.name == name)
                parts = np.split(weight, groups)  # each group a layer of its own
                marks = [by_patterns(part, n, 4, zeros=every > 1) for part in parts]
                held[name] = np.concatenate(marks)
            for run in (key[1] for key in seen.dense if key[0] == name):
                assert np.array_equal(seen.mask(name, run), held[name])
        dense = {layer.name for layer in LAYERS} - sparse
        assert all(seen.masks[name, 1, "fprop", "weight"] is None for name in dense)
        check_gradients(seen, 0.25, sparse)


@pytest.mark.parametrize("policy", [SrSte(2, 4), Transposable(2)])
def test_the_density_is_n_of_m(policy: Any) -> None:
    layer = LAYERS[1].model_copy(update={"C": 8})
    assert policy.density(Site(layer, "fprop", "weight")) == Fraction(1, 2)
    assert policy.density(Site(layer, "wgrad", "act")) is None


def test_the_density_is_what_survives() -> None:
    """Where m does not divide a group's channels the last ones keep n as well, or all."""
    for channels, groups, density in (
        (6, 1, Fraction(4, 6)),
        (6, 2, Fraction(2, 3)),
        (7, 1, Fraction(4, 7)),
        (8, 4, None),  # two channels a group: both are kept
        (8, 8, None),  # depthwise
    ):
        layer = LAYERS[1].model_copy(update={"C": channels, "K": 8, "groups": groups})
        for policy in (SrSte(2, 4), ByScore(abs, 0.5, granularity="2:4", name="size")):
            site = Site(layer, "fprop", "weight")
            assert policy.density(site) == density
            weight = np.ones(layer.shape_of("weight", 1), np.float32)
            if density is not None:
                (mask,) = begin_run(SrSte(2, 4)).masks([site], weight)
                assert Fraction(int(mask.sum()), mask.size) == density


@pytest.mark.parametrize("kind", [SrSte, Transposable])
@pytest.mark.parametrize("wrong", [0, -1, 5, 1.5, "two", None, False, float("nan"), float("inf")])
def test_counts_that_are_refused(kind: Any, wrong: Any) -> None:
    with pytest.raises(PolicyError, match=rf"{kind.__name__}: .*n="):
        kind(wrong, 4)


def test_nan_is_larger_than_any_number() -> None:
    """A diverged run still has masks of the right kind."""
    for policy in (SrSte(2, 4), Transposable(2, every=1)):
        weight = np.ones((8, 8), np.float32)
        weight[::4, ::4] = np.nan
        layer = LAYERS[-1].model_copy(update={"C": 8, "K": 8})
        (mask,) = begin_run(policy).masks([Site(layer, "fprop", "weight")], weight)
        assert mask is not None
        assert mask.reshape(8, 2, 4).sum(2).tolist() == [[2, 2]] * 8
        assert mask[::4, ::4].all()
