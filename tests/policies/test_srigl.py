"""SRigL: as many weights for each neuron, some neurons ablated, against loops."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from swatsim.policies import Site, SRigL, begin_run, site_densities
from swatsim.workload.layer import Layer
from tests.policies.driver import LAYERS, Run, exactly, levels, normal

#: Each neuron's weights, in the order in which they lie.
Rows = list[list[tuple[int, ...]]]
UP = Layer(name="up", kind="conv_transpose", C=6, K=8, R=2, S=2, H=2, W=2, groups=2)
ALL = (*LAYERS, UP)


def neurons(layer: Layer) -> Rows:
    """Give the places of each output channel's weights, group by group."""
    shape = layer.shape_of("weight", 1)
    rows: dict[Any, list[tuple[int, ...]]] = {}
    for at in np.ndindex(shape):
        if layer.kind == "conv_transpose":  # (C, K/groups, R, S)
            rows.setdefault((at[0] // (shape[0] // layer.groups), at[1]), []).append(at)
        else:
            rows.setdefault(at[0], []).append(at)
    return [rows[key] for key in sorted(rows)]


def fan_in_of(layer: Layer, sparsity: float) -> int:
    return math.ceil((1 - Fraction(str(sparsity))) * layer.weights / layer.K)


def as_rows(array: np.ndarray, rows: Rows) -> np.ndarray:
    return np.array([[array[at] for at in row] for row in rows])


def changed(
    mask: np.ndarray, weight: np.ndarray, gradient: np.ndarray, budget: int, **how: Any
) -> np.ndarray:
    """Change a mask (neurons, fan-in) by the steps of the paper."""
    count = int(Fraction(str(how["fraction"])) * int(mask.sum()))
    size, slope = np.abs(weight), np.abs(gradient)
    salient = exactly(size, int(mask.sum()) - count, mask)
    salient |= exactly(slope, min(count, int((~mask).sum())), ~mask)
    least = Fraction(str(how["salient"])) * max(row.sum() for row in mask)
    active = [int(row.sum()) >= least for row in salient]
    active = active if any(active) else [True] * len(active)
    fan_in = min(mask.shape[1], budget // sum(active))
    among = mask & np.array(active)[:, None]
    kept = exactly(size, min(int(mask.sum()) - count, int(among.sum())), among)
    for i, row in enumerate(kept):
        kept[i] = exactly(size[i], min(fan_in, int(row.sum())), row)
        if active[i]:
            free = ~kept[i]
            kept[i] |= exactly(slope[i], min(fan_in - int(kept[i].sum()), int(free.sum())), free)
    return kept


@pytest.mark.parametrize("salient", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("draw", [levels, normal])
@pytest.mark.parametrize("sparsity", [0.5, 0.8])
def test_srigl(salient: float, draw: Any, sparsity: float) -> None:
    how = {"fraction": 0.4, "salient": salient}
    policy = SRigL(sparsity, allocation="uniform", every=2, **how)
    held: dict[str, np.ndarray] = {}
    ablated = 0
    for seen in Run(policy, ALL, draw=draw, seed=4).go(9):
        for layer in ALL:
            rows, fan_in = neurons(layer), fan_in_of(layer, sparsity)
            if fan_in * layer.K >= layer.weights:
                assert seen.masks[layer.name, 1, "fprop", "weight"] is None
                continue
            mask = as_rows(seen.mask(layer.name), rows)
            if seen.step == 0:
                assert mask.sum(1).tolist() == [fan_in] * layer.K
            else:
                assert np.array_equal(mask, held[layer.name])
            counts = {int(row.sum()) for row in mask} - {0}
            assert len(counts) == 1
            assert mask.sum() <= fan_in * layer.K
            ablated += int((~mask.any(1)).sum())
            if seen.step in (2, 4, 6, 8):
                gradient = as_rows(seen.dense[layer.name, 1], rows)
                weight = as_rows(seen.moved[layer.name], rows)
                mask = changed(mask, weight, gradient, fan_in * layer.K, **how)
            held[layer.name] = mask
            outside = ~as_rows(seen.mask(layer.name), rows)
            assert not as_rows(seen.handed[layer.name, 1], rows)[outside].any()
            assert not as_rows(seen.weights[layer.name], rows)[~mask].any()
    assert (ablated > 0) == (salient > 0)


def test_an_ablated_neuron_leaves_its_weights_to_the_others_and_comes_back() -> None:
    layer = Layer(name="fc", kind="linear", C=8, K=4)
    run = begin_run(SRigL(0.75, allocation="uniform", every=1, fraction=0.5, salient=0.6))
    weight = np.repeat(np.array([[4], [3], [2], [1]], np.float32), 8, axis=1)

    def change(step: int, steep: int) -> list[int]:
        site, gradient = Site(layer, "fprop", "weight", step=step), np.zeros_like(weight)
        gradient[steep] = 9
        run.masks([site], weight)
        run.weight_gradient(layer, weight, gradient)
        run.end_step(step, {"fc": weight})
        (mask,) = run.masks([site], weight)
        assert mask is not None
        return [int(count) for count in mask.sum(1)]

    # four of eight stay, of the first two neurons, and four of the third would grow
    assert change(1, steep=2) == [2, 2, 2, 0]
    # three of six stay, of the first and the second neuron, and three of the fourth would grow
    assert change(2, steep=3) == [4, 0, 0, 4]


def test_the_density_is_a_whole_fan_in() -> None:
    layer = Layer(name="a", C=3, K=5, R=3, S=3, H=4, W=4)
    found = site_densities(SRigL(0.9, allocation="uniform"), [layer], step=1)
    assert found["a", "fprop", "weight"] == found["a", "wgrad", "weight"] == Fraction(3, 27)
    assert SRigL(0.9, allocation="uniform").wanted(Site(layer, "wgrad", "weight", step=100)) is None


def test_first_masks_are_spread_evenly() -> None:
    layer = Layer(name="fc", kind="linear", C=6, K=3)
    counts = np.zeros((3, 6))
    for seed in range(400):
        run = begin_run(SRigL(0.5, allocation="uniform", seed=seed))
        (mask,) = run.masks([Site(layer, "fprop", "weight")], np.ones((3, 6), np.float32))
        counts += mask
    assert (abs(counts - 200) < 4 * 100**0.5).all()
