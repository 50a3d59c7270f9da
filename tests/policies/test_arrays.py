"""Sums, places and granularities, against loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swatsim.policies.allocation import share_out
from swatsim.policies.arrays import fold, mean_magnitude, only
from swatsim.policies.granularity import GRANULARITIES, granularity, n_of_m
from swatsim.policies.topk import _mark_elsewhere, largest, topk_mask
from swatsim.policies.transposable_masks import transposable
from swatsim.workload.layer import Layer
from tests.policies.driver import count_of, exactly, levels, normal, top

DENSITIES = (Fraction(1, 1000), Fraction(1, 10), Fraction(1, 3), Fraction(1, 2), Fraction(1))
SHAPES = ((5, 3, 2, 2), (1, 1, 1, 1), (4, 6, 1, 3), (7, 5), (1, 1), (2, 9))


def scores_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.abs(levels(np.random.default_rng(seed), shape))


# ---- sums --------------------------------------------------------------------------------------


def by_halves(numbers: list[float]) -> float:
    while len(numbers) > 1:
        half = -(-len(numbers) // 2)
        pairs = [numbers[i] + numbers[half + i] for i in range(len(numbers) - half)]
        numbers = pairs + numbers[len(pairs) : half]
    return numbers[0]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 33, 100])
@pytest.mark.parametrize("axis", [-1, 0])
def test_fold(size: int, axis: int) -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(size).standard_normal((3, size)).astype(np.float32) * 1e3
    expected = np.array([by_halves([float(v) for v in row]) for row in values])
    given_ = values if axis == -1 else np.ascontiguousarray(values.T)
    assert fold(given_, axis).tobytes() == expected.tobytes()
    assert fold(torch.from_numpy(given_), axis).numpy().tobytes() == expected.tobytes()


def test_mean_magnitude() -> None:
    values = np.array([[1.0, -2.0], [0.0, 4.5]], np.float32)
    assert mean_magnitude(values, np.array([[True, True], [True, False]])) == 1.0
    assert mean_magnitude(values, np.array([[False, True], [False, True]])) == 3.25
    assert mean_magnitude(values, np.zeros((2, 2), bool)) == 0.0
    wild = np.array([math.nan, math.inf, 3.0], np.float32)
    assert mean_magnitude(wild, np.array([False, False, True])) == 3.0


# ---- exact counts ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_largest(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    scores, among = scores_of(seed, (4, 5)), rng.random((4, 5)) < 0.6
    for k in range(int(among.sum()) + 1):
        expected = exactly(scores, k, among)
        assert expected.sum() == k
        assert np.array_equal(largest(scores, k, among), expected)
        found = largest(torch.from_numpy(scores), k, torch.from_numpy(among))
        assert np.array_equal(found.numpy(), expected)


WILD = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 3.0, math.inf, -math.inf, math.nan, 1e-45])


@settings(deadline=None, max_examples=60)
@given(st.lists(WILD, max_size=24), st.integers(0, 26))
def test_the_way_of_accelerators(numbers: list[float], k: int) -> None:
    torch = pytest.importorskip("torch")
    for dtype in (np.float32, np.float64):
        values = np.array(numbers, dtype)
        expected = topk_mask(values, k)
        assert np.array_equal(_mark_elsewhere(torch.from_numpy(values), k).numpy(), expected)
        square = values[: len(values) // 2 * 2].reshape(2, -1)
        found = _mark_elsewhere(torch.from_numpy(square), k)
        assert np.array_equal(found.numpy(), topk_mask(square, k))
    half = torch.tensor(numbers, dtype=torch.bfloat16)
    assert np.array_equal(_mark_elsewhere(half, k).numpy(), topk_mask(half, k).numpy())


# ---- granularities -----------------------------------------------------------------------------

Index = tuple[int, ...]
BLOCKS: dict[str, Callable[[Index], Any]] = {
    "filter": lambda at: at[0],
    "channel": lambda at: at[1],
    "kernel": lambda at: at[:2],
    "position": lambda at: at[1:],
    "element": lambda at: at,
}


def key_of(name: str, layer: Layer) -> Callable[[Index], Any]:
    """What a weight's value is a part of: filters and channels are those of the whole layer.

    A sample is a filter; a position is a tap of a channel, in all filters that read it.
    """
    first, second = layer.shape_of("weight", 1)[:2]
    transposed = layer.kind == "conv_transpose"

    def numbered(at: Index) -> tuple[int, int]:
        group = at[0] // (first // layer.groups)
        return at[0], group * second + at[1]

    channel, filter = (0, 1) if transposed else (1, 0)
    if name == "position":
        return lambda at: (numbered(at)[channel], at[2:])
    axes = {"filter": filter, "channel": channel, "sample": filter}
    return (lambda at: numbered(at)[axes[name]]) if name in axes else BLOCKS[name]


def by_samples(scores: np.ndarray, density: Fraction, key: Callable[[Index], Any]) -> np.ndarray:
    """Keep the largest of each sample, equally many."""
    places: dict[Any, list[Index]] = {}
    for at in np.ndindex(scores.shape):
        places.setdefault(key(at), []).append(at)
    mask = np.zeros(scores.shape, bool)
    for each in places.values():
        marks = top([float(scores[at]) for at in each], count_of(density, len(each)))
        for at, kept in zip(each, marks, strict=True):
            mask[at] = kept
    return mask


def by_blocks(scores: np.ndarray, density: Fraction, key: Callable[[Index], Any]) -> np.ndarray:
    """Sum up each block, and keep those of largest sum whole, with their zeros."""
    sums: dict[Any, float] = {}
    for at in np.ndindex(scores.shape):
        sums[key(at)] = sums.get(key(at), 0.0) + float(scores[at])
    marks = top(list(sums.values()), count_of(density, len(sums)))
    kept = dict(zip(sums, marks, strict=True))
    mask = np.zeros(scores.shape, bool)
    for at in np.ndindex(scores.shape):
        mask[at] = kept[key(at)]
    return mask


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks(name: str, shape: tuple[int, ...]) -> None:
    kind = "conv" if len(shape) == 4 else "linear"
    for seed, density in enumerate(DENSITIES):
        scores = scores_of(seed, shape)
        expected = by_blocks(scores, density, BLOCKS[name])
        assert np.array_equal(GRANULARITIES[name](scores, density, kind), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_samples(shape: tuple[int, ...]) -> None:
    for seed, density in enumerate(DENSITIES):
        scores = scores_of(seed, shape)
        expected = [by_blocks(each[None], density, BLOCKS["element"])[0] for each in scores]
        found = GRANULARITIES["sample"](scores, density, "conv" if len(shape) == 4 else "linear")
        assert np.array_equal(found, np.array(expected))


def test_all_zero_scores_keep_nothing() -> None:
    for name in (*GRANULARITIES, "2:4"):
        assert not granularity(name)(np.zeros((4, 4), np.float32), Fraction(1), "linear").any()


def test_granularities_by_name() -> None:
    assert set(GRANULARITIES) == {"element", "sample", "position", "filter", "channel", "kernel"}
    scores = scores_of(3, (3, 10, 2, 2))
    found, expected = granularity("1:3"), n_of_m(1, 3)
    third = Fraction(1, 3)
    assert np.array_equal(found(scores, third, "conv"), expected(scores, third, "conv"))
    for wrong in (
        "elements",
        "2:",
        ":4",
        "4:2",
        "0:4",
        "a:b",
        "",
        "-1:4",
        "2:5:8",
        "0:2:8",
        "8:2:3",
        "1:2:4:8",
        "block:32",
        "block:0x8",
        "block:4x",
        "block",
        "2:" + "9" * 10,
    ):
        with pytest.raises(ValueError, match="unknown granularity|N:M|must"):
            granularity(wrong)


@pytest.mark.parametrize("name", [*GRANULARITIES, "2:4"])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2, 2), (1, 1), (1, 1, 1, 1), (2, 3, 0, 4)])
def test_a_batch_of_no_sample_or_one(name: str, shape: tuple[int, ...]) -> None:
    """An expert may get no token in a step."""
    torch = pytest.importorskip("torch")
    mask = granularity(name)(np.ones(shape, np.float32), Fraction(1, 2), "conv")
    assert mask.shape == shape
    assert mask.sum() == math.prod(shape)
    found = granularity(name)(torch.ones(shape), Fraction(1, 2), "conv")
    assert np.array_equal(found.numpy(), mask)
    assert transposable(2, 4)(np.ones(shape, np.float32), Fraction(1, 2), "conv").shape == shape


# ---- N:M ---------------------------------------------------------------------------------------


def best_of_group(group: list[float], n: int) -> tuple[int, ...]:
    """Try all sets of n places; of equal sums the first, as places are ordered."""
    sets = combinations(range(len(group)), min(n, len(group)))
    return max(sets, key=lambda places: sum(group[i] for i in places))


def by_groups(scores: np.ndarray, n: int, m: int) -> np.ndarray:
    mask = np.zeros(scores.shape, bool)
    others = [range(size) for axis, size in enumerate(scores.shape) if axis != 1]
    for first, *rest in product(*others):
        for start in range(0, scores.shape[1], m):
            places = range(start, min(start + m, scores.shape[1]))
            group = [float(scores[(first, c, *rest)]) for c in places]
            for i in best_of_group(group, n):
                mask[(first, start + i, *rest)] = group[i] > 0
    return mask


@pytest.mark.parametrize("n_m", [(1, 1), (1, 2), (2, 4), (1, 4), (3, 4), (4, 4), (2, 5)])
@pytest.mark.parametrize(
    "shape", [(3, 4, 2, 2), (2, 7, 1, 2), (2, 1, 3, 3), (3, 8), (5, 6), (1, 3)]
)
def test_n_of_m_tries_all_patterns(n_m: tuple[int, int], shape: tuple[int, ...]) -> None:
    n, m = n_m
    kind = "conv" if len(shape) == 4 else "linear"
    for seed in range(4):
        scores = scores_of(seed, shape)
        mask = n_of_m(n, m)(scores, Fraction(n, m), kind)
        assert np.array_equal(mask, by_groups(scores, n, m))
        moved = np.moveaxis(mask, 1, -1).reshape(-1, shape[1])
        for start in range(0, shape[1], m):
            assert (moved[:, start : start + m].sum(1) <= n).all()


def patterns(n: int, m: int) -> Iterable[tuple[tuple[int, ...], ...]]:
    """All that have n in each row and each column, rows in the order of their places."""
    rows = list(combinations(range(m), n))
    for pattern in product(rows, repeat=m):
        counts = [sum(column in row for row in pattern) for column in range(m)]
        if counts == [n] * m:
            yield pattern


def by_patterns(scores: np.ndarray, n: int, m: int, zeros: bool = False) -> np.ndarray:
    """Try all patterns on each block, the edges filled up with zeros.

    With `zeros` they hold places too: of a block of nothing else, as many as it has room for.
    """
    K, C = scores.shape[:2]
    taps = scores.reshape(K, C, -1)
    mask = np.zeros(taps.shape, bool)
    known = list(patterns(n, m))
    for tap, k, c in product(range(taps.shape[2]), range(0, K, m), range(0, C, m)):
        block = [
            [float(taps[k + i, c + j, tap]) if k + i < K and c + j < C else 0.0 for j in range(m)]
            for i in range(m)
        ]
        inside = [[k + i < K and c + j < C for j in range(m)] for i in range(m)]
        best, most = known[0], (-1.0, 0)
        for pattern in known:
            total = 0.0
            for i, row in enumerate(pattern):
                for j in row:
                    total += block[i][j]
            room = sum(inside[i][j] for i, row in enumerate(pattern) for j in row)
            if (total, 0 if total or not zeros else room) > most:
                best, most = pattern, (total, 0 if total or not zeros else room)
        for i, row in enumerate(best):
            for j in row:
                if block[i][j] > 0 or (zeros and inside[i][j]):
                    mask[k + i, c + j, tap] = True
    return mask.reshape(scores.shape)


@pytest.mark.parametrize("n_m", [(1, 1), (1, 2), (2, 2), (1, 3), (2, 3), (1, 4), (2, 4), (3, 4)])
@pytest.mark.parametrize(
    "shape", [(4, 4), (5, 7), (1, 1), (3, 3), (8, 4), (6, 5, 1, 2), (4, 1, 2, 1)]
)
def test_transposable_tries_all_patterns(n_m: tuple[int, int], shape: tuple[int, ...]) -> None:
    n, m = n_m
    kind = "conv" if len(shape) == 4 else "linear"
    for seed, draw in enumerate((levels, normal)):
        scores = np.abs(draw(np.random.default_rng(seed), shape))
        mask = transposable(n, m)(scores, Fraction(n, m), kind)
        assert np.array_equal(mask, by_patterns(scores, n, m))
        planes = mask.reshape(*shape[:2], -1)
        for k, c in product(range(0, shape[0], m), range(0, shape[1], m)):
            block = planes[k : k + m, c : c + m]
            assert (block.sum(0) <= n).all()
            assert (block.sum(1) <= n).all()


#: Grouped, depthwise, transposed, both; groups of 3 and 5, which 4 does not divide.
SPLIT = (
    Layer(name="depthwise", C=8, K=8, R=3, S=3, H=3, W=3, groups=8),
    Layer(name="multiplied", C=3, K=6, R=2, S=1, H=3, W=3, groups=3),
    Layer(name="grouped", C=6, K=10, R=1, S=2, H=3, W=3, groups=2),
    Layer(name="up", kind="conv_transpose", C=6, K=5, R=2, S=2, H=2, W=2),
    Layer(name="up grouped", kind="conv_transpose", C=10, K=6, R=2, S=1, H=2, W=2, groups=2),
    Layer(name="up depthwise", kind="conv_transpose", C=5, K=5, R=2, S=2, H=2, W=2, groups=5),
    Layer(name="fc", kind="linear", C=7, K=5),
)


@pytest.mark.parametrize("layer", SPLIT, ids=lambda layer: layer.name)
@pytest.mark.parametrize("name", GRANULARITIES)
def test_an_index_inside_a_group_is_no_channel(name: str, layer: Layer) -> None:
    torch = pytest.importorskip("torch")
    for seed, density in enumerate(DENSITIES):
        scores = scores_of(seed, layer.shape_of("weight", 1))
        twin = by_samples if name == "sample" else by_blocks
        expected = twin(scores, density, key_of(name, layer))
        lies = density, layer.kind, layer.groups
        assert np.array_equal(GRANULARITIES[name](scores, *lies), expected)
        found = GRANULARITIES[name](torch.from_numpy(scores), *lies)
        assert np.array_equal(found.numpy(), expected)


def test_half_of_the_channels_of_a_depthwise_layer_are_four_of_eight() -> None:
    scores = np.ones((8, 1, 3, 3), np.float32) * np.arange(1, 9).reshape(8, 1, 1, 1)
    mask = granularity("channel")(scores, Fraction(1, 2), "conv", 8)
    assert mask.all(axis=(1, 2, 3)).tolist() == [False] * 4 + [True] * 4
    assert mask.sum() == 4 * 9


@pytest.mark.parametrize("layer", SPLIT, ids=lambda layer: layer.name)
def test_no_pattern_lies_across_two_groups(layer: Layer) -> None:
    """Each group is a layer of its own; a transposed one's channels are its first axis."""
    torch = pytest.importorskip("torch")
    transposed = layer.kind == "conv_transpose"
    for seed, (n, m) in enumerate([(2, 4), (1, 4), (1, 3), (2, 300)]):
        scores = scores_of(seed, layer.shape_of("weight", 1))
        parts = np.split(scores, layer.groups)
        turned = [np.swapaxes(part, 0, 1) if transposed else part for part in parts]
        for made, twin in ((n_of_m, by_groups), (transposable, by_patterns)):
            if twin is by_patterns and m > 4:
                continue
            marks = [twin(part, n, m) for part in (turned if twin is by_groups else parts)]
            back = [
                np.swapaxes(mark, 0, 1) if transposed and twin is by_groups else mark
                for mark in marks
            ]
            lies = Fraction(n, m), layer.kind, layer.groups
            mask = made(n, m)(scores, *lies)
            assert np.array_equal(mask, np.concatenate(back))
            found = made(n, m)(torch.from_numpy(scores), *lies)
            assert np.array_equal(found.numpy(), mask)


@pytest.mark.parametrize(
    ("n", "m", "columns"),
    [(256, 512, 512), (100, 300, 300), (1, 257, 600), (255, 256, 300), (65_536, 65_537, 70_000)],
)
def test_n_of_m_of_any_width(n: int, m: int, columns: int) -> None:
    """Ranks were once counted in bytes."""
    torch = pytest.importorskip("torch")
    scores = np.random.default_rng(m).permuted(
        np.tile(np.arange(1, columns + 1, dtype=np.float32), (2, 1)), axis=1
    )
    mask = granularity(f"{n}:{m}")(scores, Fraction(n, m), "linear")
    expected = np.zeros_like(mask)
    for row, start in product(range(2), range(0, columns, m)):
        group = scores[row, start : start + m]
        expected[row, start + np.argsort(-group)[:n]] = True
    assert np.array_equal(mask, expected)
    found = granularity(f"{n}:{m}")(torch.from_numpy(scores), Fraction(n, m), "linear")
    assert np.array_equal(found.numpy(), expected)


def test_n_of_m_takes_no_room_for_groups_that_are_not_there() -> None:
    scores = scores_of(1, (3, 5))
    assert np.array_equal(
        granularity("999999999:999999999")(scores, Fraction(1), "linear"), scores > 0
    )


def test_there_are_90_patterns_of_two_of_four() -> None:
    assert len(list(patterns(2, 4))) == 90


# ---- shares ------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.0, 7.25]), st.integers(0, 9)),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 40),
)
def test_share_out(layers: list[tuple[float, int]], budget: int) -> None:
    shares, room = [share for share, _ in layers], [size for _, size in layers]
    found = share_out(budget, shares, room)
    assert sum(found) == min(budget, sum(room))
    assert all(0 <= got <= size for got, size in zip(found, room, strict=True))
    total = sum(map(Fraction, shares))
    for i, (share, size) in enumerate(layers):
        fair = budget * Fraction(share) / total if total else Fraction(budget, len(layers))
        assert found[i] >= min(size, math.floor(fair))  # what others can't take only adds
    if total and all(budget * Fraction(share) / total + 1 <= size for share, size in layers):
        wanted = [budget * Fraction(share) / total for share in shares]
        left = budget - sum(map(math.floor, wanted))
        order = sorted(range(len(shares)), key=lambda i: (math.floor(wanted[i]) - wanted[i], i))
        up = set(order[:left])
        assert found == [math.floor(each) + (i in up) for i, each in enumerate(wanted)]


def test_shares_by_hand() -> None:
    assert share_out(10, [1.0, 1.0, 2.0], [9, 9, 9]) == [3, 2, 5]  # 2.5, 2.5, 5
    assert share_out(10, [1.0, 1.0, 2.0], [9, 9, 3]) == [4, 3, 3]  # 2 are left: one each
    assert share_out(4, [0.0, 0.0], [9, 9]) == [2, 2]
    assert share_out(6, [1.0, 0.0, 0.0], [2, 9, 9]) == [2, 2, 2]  # the others' are all 0
    assert share_out(99, [1.0, 2.0], [3, 4]) == [3, 4]
    assert share_out(0, [1.0], [3]) == [0]
    assert share_out(5, [], []) == []


# ---- values under a mask -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_only_has_the_bits_of_where(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    wild = rng.choice([0.0, -0.0, math.inf, math.nan, -1.5, 2.0], (3, 5, 4, 2))
    values = torch.from_numpy(wild).to(getattr(torch, dtype))
    mask = torch.from_numpy(rng.random(wild.shape) < 0.5)
    last = torch.channels_last
    for mine in (values, values.to(memory_format=last), values[:, ::2], values.transpose(1, 3)):
        for its in (mask, mask.to(memory_format=last)):
            fits = its[: mine.shape[0], : mine.shape[1], : mine.shape[2], : mine.shape[3]]
            fits = fits if fits.shape == mine.shape else its.transpose(1, 3)
            found, expected = only(mine, fits), torch.where(fits, mine, 0)
            assert found.double().numpy().tobytes() == expected.double().numpy().tobytes()
    assert only(values[:0], mask[:0]).shape == (0, 5, 4, 2)
    if dtype != "bfloat16":
        found = only(values.numpy(), mask.numpy())
        assert found.tobytes() == torch.where(mask, values, 0).numpy().tobytes()


def test_only_leaves_autograd_to_where() -> None:
    torch = pytest.importorskip("torch")
    values = torch.ones(3, requires_grad=True)
    only(values, torch.tensor([True, False, True])).sum().backward()
    assert values.grad.tolist() == [1, 0, 1]
