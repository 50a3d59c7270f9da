"""MVUE: which gradients are drawn, how they are scaled, and that their expectation is the same."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from swatsim.errors import PolicyError
from swatsim.policies import Mvue, Site, begin_run
from swatsim.workload.layer import Layer
from tests.policies.driver import levels, normal

LAYER = Layer(name="fc", kind="linear", C=8, K=3)


def site(step: int = 0, run: int = 1, layer: Layer = LAYER) -> Site:
    return Site(layer, "wgrad", "grad_out", step=step, run=run)


def read(policy: Mvue, values: Any, at: Site) -> tuple[Any, Any]:
    run = begin_run(policy)
    (mask,) = run.masks([at], values)
    assert mask is not None
    return mask, run.estimate(at, values, mask)


def chances(group: list[float], n: int) -> list[float]:
    """Give how likely each of a group is among the drawn, by all orders of drawing."""
    sizes = [abs(value) for value in group]
    if sum(size > 0 for size in sizes) <= n:
        return [float(size > 0) for size in sizes]
    found = [0.0] * len(group)
    for order in permutations(range(len(group)), n):
        chance, left = 1.0, sum(sizes)
        for place in order:
            chance, left = chance * sizes[place] / left, left - sizes[place]
            if left <= 0:
                break
        for place in order:
            found[place] += chance
    return found


GROUPS = {
    (1, 2): [[3.0, -1.0], [0.0, 2.0], [1.0, 1.0], [0.0, 0.0], [1e-6, -5.0]],
    (1, 4): [[1.0, -2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 9.0]],
    (2, 4): [[1.0, -2.0, 3.0, 4.0], [0.0, 5.0, -1.0, 0.5], [0, 0, 0, 7.0], [0, 2, 0, 7.0]],
    (2, 3): [[1.0, 1.0, -8.0]],
}
CASES = [(n, m, group) for (n, m), groups in GROUPS.items() for group in groups]


@pytest.mark.parametrize(("n", "m", "group"), CASES)
def test_the_expectation_is_the_gradient(n: int, m: int, group: list[float]) -> None:
    """Of many draws the mean lies as near as the variance a^2 (1/p - 1) says it has to."""
    times = 20_000
    values = np.tile(np.array(group, np.float64), times)[:, None]
    layer = LAYER.model_copy(update={"K": 1})
    mask, estimate = read(Mvue(n, m, seed=7), values, site(layer=layer))
    of_each, marks = estimate.reshape(times, m), mask.reshape(times, m)
    assert (marks.sum(1) <= n).all()
    for place, (value, chance) in enumerate(zip(group, chances(group, n), strict=True)):
        if not chance:
            assert not marks[:, place].any()
            continue
        deviation = (chance * (1 - chance) / times) ** 0.5
        assert abs(marks[:, place].mean() - chance) <= 5 * deviation + 1e-12
        scaled = of_each[marks[:, place], place]
        assert np.allclose(scaled, value / chance, rtol=1e-9)
        spread = abs(value) * ((1 / chance - 1) / times) ** 0.5
        assert abs(of_each[:, place].mean() - value) <= 5 * spread + 1e-9 * abs(value)


def test_of_two_the_one_that_is_drawn_becomes_the_sum() -> None:
    values = normal(np.random.default_rng(1), (40, 3))
    mask, estimate = read(Mvue(), values, site())
    pairs = np.abs(values.astype(np.float64)).reshape(20, 2, 3).sum(1)
    expected = np.sign(values) * np.repeat(pairs, 2, axis=0) * mask
    assert np.allclose(estimate, expected, rtol=1e-6)
    assert (mask.reshape(20, 2, 3).sum(1) == 1).all()


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (2, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_numpy_and_torch_have_the_same_bits(n: int, m: int, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    layer = Layer(name="c", C=2, K=3, H=3, W=2)
    for draw, shape in ((levels, (5, 3, 3, 2)), (normal, (5, 3, 3, 2)), (normal, (1, 3, 1, 1))):
        values = torch.from_numpy(draw(np.random.default_rng(2), shape)).to(getattr(torch, dtype))
        at = site(step=4, layer=layer)
        mask, estimate = read(Mvue(n, m), values, at)
        assert estimate.dtype == values.dtype
        assert torch.equal(estimate != 0, mask)
        by_channel = mask.movedim(1, 0).reshape(3, -1)
        for start in range(0, by_channel.shape[1], m):
            assert (by_channel[:, start : start + m].sum(1) <= n).all()
        if dtype != "bfloat16":
            mine, its = read(Mvue(n, m), values.numpy(), at)
            assert np.array_equal(mine, mask.numpy())
            assert its.tobytes() == estimate.numpy().tobytes()


def test_draws_depend_on_the_seed_the_layer_the_step_and_the_run() -> None:
    values = normal(np.random.default_rng(3), (64, 3))
    first, again = (read(Mvue(), values, site())[0] for _ in range(2))
    assert np.array_equal(first, again)
    others = (
        read(Mvue(seed=1), values, site()),
        read(Mvue(), values, site(step=1)),
        read(Mvue(), values, site(run=2)),
        read(Mvue(), values, site(layer=LAYER.model_copy(update={"name": "other"}))),
    )
    assert not any(np.array_equal(first, mask) for mask, _ in others)


def test_what_is_not_finite_is_read() -> None:
    """So that a scaler of losses sees that a step overflowed."""
    values = np.ones((8, 2), np.float32)
    values[1, 0], values[6, 1] = np.inf, np.nan
    mask, estimate = read(Mvue(2, 4), values, site())
    assert mask[1, 0]
    assert np.isinf(estimate[1, 0])
    assert mask[:4, 0].sum() == 1
    assert np.isnan(estimate[6, 1])
    assert np.isfinite(estimate[:4, 1]).all()


def test_dgrad_reads_all_and_densities_are_n_of_m() -> None:
    policy = Mvue(2, 4)
    assert policy.density(Site(LAYER, "dgrad", "grad_out")) is None
    assert policy.density(Site(LAYER, "wgrad", "act")) is None
    assert policy.density(site()) == 0.5
    assert Mvue(2, 2).density(site()) is None
    assert [Mvue.of_sparsity(share).m for share in (0.5, 0.75)] == [2, 4]
    for wrong in (0, 0.25, 0.8):
        with pytest.raises(PolicyError, match=r"of 1:2 and 1:4 must be 0.5 or 0.75"):
            Mvue.of_sparsity(wrong)
    with pytest.raises(PolicyError, match="n=2 must be at most m=1"):
        Mvue(2, 1)
