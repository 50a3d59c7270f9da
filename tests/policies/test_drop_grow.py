"""Masks that a run keeps: static random, SET, RigL, SNFS, against loops."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from swatsim.policies import SET, SNFS, Policy, RigL, Site, StaticRandom, begin_run
from swatsim.policies.allocation import ErdosRenyiKernel, erdos_renyi_kernel
from swatsim.workload.layer import Layer
from tests.policies.driver import LAYERS, Run, Seen, count_of, exactly

KEEPING = (StaticRandom, SET, RigL, SNFS)
NAMES = [layer.name for layer in LAYERS]


def counts_of(policy: Any) -> dict[str, int]:
    """Tell how many weights each layer keeps."""
    density = 1 - Fraction(str(policy.sparsity))
    share = dict.fromkeys(NAMES, density)
    if policy.allocation == ErdosRenyiKernel():
        share = erdos_renyi_kernel(LAYERS, density, {"first"} if policy.first_conv_dense else ())
    elif policy.first_conv_dense:
        share["first"] = Fraction(1)
    return {layer.name: count_of(share[layer.name], layer.weights) for layer in LAYERS}


def sparse(seen: Seen) -> dict[str, np.ndarray]:
    """Give the masks of the layers that are not left as they are."""
    read = {key[0] for key, mask in seen.masks.items() if mask is not None}
    return {name: seen.mask(name) for name in NAMES if name in read}


def inside(array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    out = np.zeros_like(array)
    for at in np.ndindex(mask.shape):
        if mask[at]:
            out[at] = array[at]
    return out


def check_held(seen: Seen, masks: dict[str, np.ndarray]) -> None:
    """Only weights in the mask are read and trained; other operands are left as they are."""
    for key, mask in seen.masks.items():
        assert mask is None or key[3] == "weight"
    for (name, run), gradient in seen.dense.items():
        expected = inside(gradient, masks[name]) if name in masks else gradient
        assert np.array_equal(seen.handed[name, run], expected)


# ---- the first mask ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KEEPING)
@pytest.mark.parametrize("allocation", ["erk", "uniform"])
@pytest.mark.parametrize("dense", [True, False])
def test_the_first_mask_has_exact_counts(kind: Any, allocation: str, dense: bool) -> None:
    policy = kind(0.6, allocation=allocation, first_conv_dense=dense)
    masks = sparse(Run(policy).go(1)[0])
    counts = counts_of(policy)
    for layer in LAYERS:
        if layer.name in masks:
            assert masks[layer.name].sum() == counts[layer.name]
        else:
            assert counts[layer.name] == layer.weights
    assert ("first" not in masks) >= dense


def test_the_first_mask_depends_on_the_seed_and_the_layers_name_alone() -> None:
    def masks_of(policy: Policy, layers: tuple[Layer, ...], seed: int = 0) -> dict[str, bytes]:
        seen = Run(policy, layers, seed=seed).go(1)[0]
        return {layer.name: seen.mask(layer.name).tobytes() for layer in layers}

    uniform = StaticRandom(0.6, allocation="uniform")
    known = masks_of(uniform, LAYERS)
    assert masks_of(uniform, LAYERS, seed=5) == known  # whatever the weights are
    assert masks_of(uniform, LAYERS[:0:-1]) == {name: known[name] for name in NAMES[1:]}
    other = masks_of(StaticRandom(0.6, allocation="uniform", seed=1), LAYERS)
    assert all(known[name] != other[name] for name in NAMES if name != "one")
    renamed = tuple(layer.model_copy(update={"name": layer.name + "2"}) for layer in LAYERS)
    again = masks_of(uniform, renamed)
    assert all(known[name] != again[name + "2"] for name in NAMES if name != "one")
    for kind in KEEPING:
        assert masks_of(kind(0.6, allocation="uniform"), LAYERS) == known


def test_first_masks_are_spread_evenly() -> None:
    layer = Layer(name="fc", kind="linear", C=20, K=10)
    total = np.zeros((10, 20))
    for seed in range(200):
        run = Run(StaticRandom(0.75, allocation="uniform", seed=seed), (layer,))
        total += run.go(1)[0].mask("fc")
    assert total.sum() == 200 * 50
    assert abs(total - 50).max() < 5 * math.sqrt(200 * 0.25 * 0.75)


# ---- static ------------------------------------------------------------------------------------


def test_static_random_never_changes() -> None:
    run = Run(StaticRandom(0.6, seed=3)).go(6)
    masks = sparse(run[0])
    for seen in run:
        assert all(np.array_equal(mask, masks[name]) for name, mask in sparse(seen).items())
        check_held(seen, masks)
        for name, weight in seen.weights.items():
            moved = seen.moved[name]
            assert np.array_equal(weight, inside(moved, masks[name]) if name in masks else moved)


# ---- SET and RigL ------------------------------------------------------------------------------


def changed(
    mask: np.ndarray, weight: np.ndarray, scores: np.ndarray, dropped: int
) -> tuple[np.ndarray, np.ndarray]:
    """Drop and grow, weight by weight: the new mask and the new weights."""
    places = [at for at in np.ndindex(mask.shape) if mask[at]]
    smallest = sorted(places, key=lambda at: (abs(float(weight[at])), [-i for i in at]))
    left = mask.copy()
    for at in smallest[:dropped]:
        left[at] = False
    grown = exactly(scores, dropped, ~left)
    now = left | grown
    values = np.zeros_like(weight)
    for at in places:  # what comes in anew starts at zero
        if now[at]:
            values[at] = weight[at]
    return now, values


def whole(fraction: float, count: int) -> int:
    """Round the share of a count down; the fraction is the decimal that is written."""
    return math.floor(Fraction(str(fraction)) * count)


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("until", [None, 5, 100])
def test_rigl(every: int, until: int | None) -> None:
    policy = RigL(0.6, every=every, until=until, fraction=0.4)
    run = Run(policy, runs=lambda name, step: 1 + (step % 2), seed=every)
    counts = counts_of(policy)
    masks: dict[str, np.ndarray] = {}
    changes = 0
    for seen in run.go(9):
        found = sparse(seen)
        masks = masks or found
        check_held(seen, masks)
        due = seen.step > 0 and seen.step % every == 0 and (until is None or seen.step < until)
        fraction = 0.4
        if until is not None:
            fraction = 0.4 / 2 * (1 + math.cos(seen.step * math.pi / until))
        for name, mask in masks.items():
            assert np.array_equal(found[name], mask)
            assert mask.sum() == counts[name]
            values = inside(seen.moved[name], mask)
            if due:
                runs = [seen.dense[key] for key in seen.dense if key[0] == name]
                scores, count = np.abs(np.sum(runs, axis=0)), whole(fraction, counts[name])
                masks[name], values = changed(mask, seen.moved[name], scores, count)
                changes += not np.array_equal(masks[name], mask)
            assert np.array_equal(seen.weights[name], values)
            assert not seen.weights[name][~masks[name]].any()
    assert changes > 3


def test_rigls_schedule_by_hand() -> None:
    policy = RigL(0.5, until=100, fraction=0.3)
    by_hand = {0: 0.3, 50: 0.15, 100: 0.0, 25: 0.15 * (1 + 0.5**0.5), 75: 0.15 * (1 - 0.5**0.5)}
    for step, share in by_hand.items():
        assert policy.fraction_at(step) == pytest.approx(share, abs=1e-12)
    assert RigL(0.5, fraction=0.3).fraction_at(10**6) == 0.3
    policy = RigL(0.5, every=10, until=30)
    assert [step for step in range(60) if policy.due(step)] == [10, 20]


@pytest.mark.parametrize("kind", [RigL, SNFS])
def test_a_share_of_a_count_is_exact(kind: Any) -> None:
    """0.29 * 100 is 28.999999999999996 in floats."""
    layer = Layer(name="fc", kind="linear", C=20, K=10)
    weight = np.arange(1, 201, dtype=np.float32).reshape(10, 20)
    own = begin_run(kind(0.5, every=1, fraction=0.29, allocation="uniform"))
    masks = []
    for step in range(3):
        (mask,) = own.masks([Site(layer, "fprop", "weight", step=step)], weight)
        masks.append(np.array(mask))
        own.weight_gradient(layer, weight, np.where(mask, 0, 1).astype(np.float32))
        own.end_step(step, {"fc": weight})
    assert [int(mask.sum()) for mask in masks] == [100] * 3
    assert np.array_equal(masks[0], masks[1])
    assert (masks[1] & ~masks[2]).sum() == 29


@pytest.mark.parametrize("kind", [SET, RigL])
def test_what_is_dropped_and_grown_again_keeps_its_value(kind: Any) -> None:
    kept = 0
    for seed in range(6):
        run = Run(kind(0.3, every=1, fraction=0.5, allocation="uniform"), LAYERS[1:4], seed=seed)
        before, after = run.go(2)[1:], run.go(1)
        for name in NAMES[1:4]:
            both = before[0].mask(name) & after[0].mask(name)
            assert np.array_equal(before[0].weights[name][both], before[0].moved[name][both])
            kept += int((before[0].weights[name][both] != 0).sum())
            new = after[0].mask(name) & ~before[0].mask(name)
            assert not before[0].weights[name][new].any()
    assert kept


def test_set_drops_the_smallest_and_grows_at_random() -> None:
    policy = SET(0.6, every=2, fraction=0.4, until=7)
    counts = counts_of(policy)
    run = Run(policy).go(10)
    grown: dict[str, set[bytes]] = {name: set() for name in NAMES}
    for seen, then in pairwise(run):
        for name, mask in sparse(seen).items():
            later = sparse(then)[name]
            assert later.sum() == mask.sum() == counts[name]
            if seen.step not in (2, 4, 6):
                assert np.array_equal(mask, later)
                continue
            count = whole(0.4, counts[name])
            stayed = exactly(np.abs(seen.moved[name]), counts[name] - count, mask)
            assert not (stayed & ~later).any()  # the rest is what was drawn
            assert (later & ~stayed).sum() == count
            grown[name].add((later & ~stayed).tobytes())
            values = inside(inside(seen.moved[name], mask), later)
            assert np.array_equal(seen.weights[name], values)
    assert len(grown["grouped"]) == 3
    assert len(grown["wide"]) == 3


def test_set_draws_by_its_seed() -> None:
    def last(seed: int, data: int) -> bytes:
        policy = SET(0.6, every=1, fraction=0.4, allocation="uniform", seed=seed)
        ones = {name: np.ones(LAYERS[i].shape_of("weight", 1), "f") for i, name in enumerate(NAMES)}
        run = Run(policy, weights=ones, draw=lambda rng, shape: np.zeros(shape, "f"))
        return run.go(4)[-1].mask("grouped").tobytes()

    assert last(1, 0) == last(1, 7) != last(2, 0)


# ---- SNFS --------------------------------------------------------------------------------------


def shared(budget: int, shares: list[float], room: list[int]) -> list[int]:
    """Give one after another to whom most is owed: once all caps are known, it is in proportion."""
    given = [0] * len(room)
    while left := min(budget, sum(room)) - sum(given):
        free = [i for i in range(len(room)) if given[i] < room[i]]
        known = [Fraction(shares[i]) for i in free]
        if not any(known):
            known = [Fraction(1)] * len(free)
        wanted = [left * share / sum(known) for share in known]
        parts = [math.floor(each) for each in wanted]
        for _ in range(left - sum(parts)):
            owed = [each - part for each, part in zip(wanted, parts, strict=True)]
            parts[owed.index(max(owed))] += 1
        for i, part in zip(free, parts, strict=True):
            given[i] = min(room[i], given[i] + part)
    return given


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.9])
def test_snfs(every: int, sparsity: float) -> None:
    policy = SNFS(sparsity, every=every, fraction=0.4, smoothing=0.5, allocation="uniform", until=6)
    run = Run(policy, runs=lambda name, step: 1 + (name == "deep"), seed=every)
    total = sum(counts_of(policy).values())
    masks: dict[str, np.ndarray] = {}
    momentum: dict[str, np.ndarray] = {}
    for seen in run.go(8):
        found = sparse(seen)
        masks = masks or found
        check_held(seen, masks)
        assert sum(int(mask.sum()) for mask in found.values()) == total
        for name, mask in masks.items():
            assert np.array_equal(found[name], mask)
            runs = [seen.dense[key] for key in seen.dense if key[0] == name]
            gradient = np.sum(runs, axis=0)
            old = momentum.get(name, np.zeros_like(gradient))
            momentum[name] = old * 0.5 + gradient * 0.5
        expected = {name: inside(seen.moved[name], mask) for name, mask in masks.items()}
        if 0 < seen.step < 6 and seen.step % every == 0:
            masks = snfs_change(seen, masks, momentum)
            expected = {name: inside(expected[name], masks[name]) for name in masks}
        for name, values in expected.items():
            assert np.array_equal(seen.weights[name], values)


def snfs_change(
    seen: Seen, masks: dict[str, np.ndarray], momentum: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    left, means, dropped = {}, [], 0
    for name, mask in masks.items():
        count = whole(0.4, int(mask.sum()))
        left[name] = exactly(np.abs(seen.moved[name]), int(mask.sum()) - count, mask)
        means.append(
            float(np.abs(momentum[name][mask]).mean(dtype=np.float64)) if mask.any() else 0.0
        )
        dropped += count
    room = [int((~mask).sum()) for mask in left.values()]
    grown = shared(dropped, means, room)
    return {
        name: mask | exactly(np.abs(momentum[name]), count, ~mask)
        for (name, mask), count in zip(left.items(), grown, strict=True)
    }


# ---- layers that are not trained, or not used --------------------------------------------------


@pytest.mark.parametrize("kind", [RigL, SNFS])
def test_a_layer_without_a_gradient_keeps_its_mask(kind: Any) -> None:
    run = Run(kind(0.6, every=1, allocation="uniform"), frozen=("wide",)).go(5)
    assert len({seen.mask("wide").tobytes() for seen in run}) == 1
    assert len({seen.mask("grouped").tobytes() for seen in run}) > 1


@pytest.mark.parametrize("kind", KEEPING)
def test_a_layer_that_is_not_used_for_a_while(kind: Any) -> None:
    more = {} if kind is StaticRandom else {"every": 2}
    run = Run(
        kind(0.6, allocation="uniform", **more), runs=lambda name, step: name != "wide" or step > 2
    )
    seen = run.go(8)
    counts = counts_of(run.policy)
    total = sum(counts.values())
    assert sum(int(mask.sum()) for mask in sparse(seen[-1]).values()) == total
    if kind is not SNFS:
        assert seen[-1].mask("wide").sum() == counts["wide"]
