"""Runs seen in part: weights, variances and degrees of freedom by hand; jumps."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from swatsim.course import Course, jumps
from swatsim.sampling import Estimate, Stratum


def test_a_step_stands_for_those_nearest_to_it() -> None:
    course = Course(2340, (0, 1, 1170, 1171, 2338, 2339))
    assert course.weights == (1, 585, 585, 584, 584, 1)
    assert Course(10, (4,)).weights == (10,)
    rng = np.random.default_rng(5)
    for _ in range(100):
        size = int(rng.integers(1, 60))
        steps = sorted(rng.choice(size, int(rng.integers(1, size + 1)), replace=False).tolist())
        course = Course(size, tuple(steps))
        assert math.fsum(course.weights) == size
        assert min(course.weights) >= 1


def test_scatter_is_estimated_without_bias_and_with_its_degrees_of_freedom() -> None:
    """The variance of 4000 errors is the mean of their estimates; these scatter as chi square."""
    rng = np.random.default_rng(2)
    course = Course(60, (0, 4, 5, 20, 31, 44, 59))
    errors, variances = [], []
    for values in rng.normal(100, 1, (4000, 60)):
        found = course.total(values[list(course.steps)].tolist())
        errors.append(found.value - values.sum())
        variances.append(found.variance)
    assert np.mean(variances) == pytest.approx(np.var(errors), rel=0.08)
    freedom = 2 * np.mean(variances) ** 2 / np.var(variances)
    assert freedom == pytest.approx(course.freedom, rel=0.12)


def test_degrees_of_freedom_are_two_thirds_of_the_gaps() -> None:
    for gaps in (1, 2, 9, 100):
        course = Course(10 * gaps + 1, tuple(range(0, 10 * gaps + 1, 10)))
        assert course.freedom == pytest.approx(2 * gaps**2 / (3 * gaps - 1))


def test_neighbours_do_not_pass_for_the_steps_between() -> None:
    """Pairs that are alike: what differs from pair to pair counts, not that they are pairs."""
    course = Course(2340, (0, 1, 1170, 1171, 2338, 2339))
    found = course.total([900.0, 901.0, 800.0, 801.0, 700.0, 701.0])
    assert found.freedom < 2.1
    assert found.half_width > 101 * 585


def test_no_gap_counts_for_less_than_a_level_that_changes_in_it() -> None:
    # one wide gap among many: d^2 / 12 of its squared difference
    course = Course(1099, (*range(1000), 1098))
    assert course.shares[-1] == pytest.approx((99**2 - 1) / 6)
    assert course.shares[0] == pytest.approx(course.scatter / 1098)
    assert course.shares[0] < 5


def test_a_jump_between_neighbours_has_a_known_place() -> None:
    course = Course(21, (0, 1, 10, 11, 20), frozenset({2}))
    found = course.total([9.0, 9.0, 9.0, 5.0, 5.0])
    assert found.alike  # the jump is at step 11; nothing else differs
    assert found.value == 11 * 9 + 10 * 5


def test_all_steps_seen_is_exact() -> None:
    values = [1e9 + 0.25 * step for step in range(7)]
    assert Course(7, tuple(range(7))).total(values) == Estimate(math.fsum(values), 0.0, math.inf)
    one = Course(1, (0,)).total([3.0])
    assert (one.value, one.half_width) == (3.0, 0.0)


def test_rounding_is_no_difference() -> None:
    course = Course(30, (0, 10, 20, 29))
    assert course.total([0.1 + 0.2, 0.3, 0.3, 0.3]).alike
    assert course.ratio([0.3, 0.6, 0.9, 1.2], [0.1, 0.2, 0.3, 0.4]).alike
    assert math.isinf(course.ratio([1.0] * 4, [0.0] * 4).value)
    assert math.isnan(course.ratio([0.0] * 4, [0.0] * 4).value)


def test_so_many_more_do_halve_the_interval() -> None:
    rng = np.random.default_rng(3)
    level = np.where(np.arange(1001) < 400, 100.0, 60.0)
    for scatter in (0.0, 2.0):
        values = level + rng.normal(0, scatter, 1001)
        steps = tuple(range(0, 1001, 50))
        found = Course(1001, steps, frozenset({7})).total(values[list(steps)].tolist())
        assert found.more is not None
        spread = [abs(b - a) for a, b in pairwise(values[::50])]
        jump, spread = spread[7], spread[:7] + spread[8:]
        noise = np.mean(np.square(spread)) / 2
        for more, enough in ((found.more + 1, True), (found.more - 2, False)):
            gap = 1001 / (len(steps) + more)
            left = noise * 1001 * (gap - 1) + jump**2 * (gap**2 - 1) / 12
            assert bool(left <= found.variance / 4) == enough


STEPS = tuple(range(0, 1000, 100))


@pytest.mark.parametrize(
    ("values", "cuts"),
    [
        ([9, 9, 5, 5, 5, 5, 5, 5, 5, 5], {1}),
        ([9, 5, 5, 5, 5, 5, 5, 5, 5, 5], {0}),
        ([9, 9, 9, 9, 9, 9, 9, 9, 9, 5], {8}),
        ([9, 9, 9, 5, 5, 5, 5, 7, 7, 7], {2, 6}),
        ([9, 9, 9, 5, 9, 9, 9, 9, 9, 9], set()),  # one odd step, not a level
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], set()),  # a drift
        ([9, 8, 7, 6, 5, 5, 5, 5, 5, 5], set()),  # a ramp
        ([5, 9, 5, 9, 5, 9, 5, 9, 5, 9], set()),
        ([9.1, 9, 9.2, 5.1, 5, 5.2, 5, 5.1, 5, 5.1], {2}),
        ([9.1, 8.2, 9.3, 7.1, 7, 7.8, 6, 7.1, 7.7, 7.1], set()),  # scatter explains it
    ],
)
def test_levels_that_jump_are_found(values: list[float], cuts: set[int]) -> None:
    assert jumps(STEPS, [values]) == cuts


def test_jumps_of_any_series_count_and_the_largest_stay() -> None:
    first, second = [9] * 4 + [5] * 6, [1] * 7 + [100] * 3
    assert jumps(STEPS, [first, second]) == {3, 6}
    assert jumps(STEPS, [first, second], 1) == {6}
    assert jumps(STEPS, [first, second], 0) == set()
    assert jumps(STEPS, [[0] * 10]) == set()
    assert jumps((3,), [[1.0]]) == jumps((3, 9), [[1.0, 5.0]]) == set()


def test_more_jumps_than_levels_are_how_a_run_goes() -> None:
    saw = [float(step % 5) for step in range(60)]
    assert jumps(range(0, 600, 10), [[5 * (x == 0) + x for x in saw]]) == set()


def test_scatter_is_rarely_taken_for_a_jump() -> None:
    rng = np.random.default_rng(8)
    for n in (4, 10, 40):
        steps = range(0, 10 * n, 10)
        found = sum(bool(jumps(steps, [rng.normal(100, 5, n).tolist()])) for _ in range(300))
        assert found <= 12


def test_many_steps_take_no_time_to_speak_of() -> None:
    rng = np.random.default_rng(9)
    steps = tuple(range(0, 200_000, 10))
    values = rng.normal(100, 5, len(steps)).tolist()
    found = Course(200_000, steps, jumps(steps, [values])).total(values)
    assert found.half_width < 0.01 * found.value


# ---- steps that are themselves estimated from some of their images ------------------------------


def test_a_stated_jump_is_placed_and_tells_nothing_of_scatter() -> None:
    levels = [1000.0 if step < 120 else 500.0 for step in STEPS]
    course = Course(1000, STEPS, placed={1: 120})
    assert course.weights[:3] == (50.5, 69.5, 130.5)
    found = course.total(levels)
    assert (found.value, found.known, found.alike) == (120 * 1000 + 880 * 500, False, True)
    assert jumps(STEPS, [levels], placed={1: 120}) == set()
    # scatter is what the other gaps tell
    levels[9] += 30
    gap = 100 * course.scatter / 800
    assert course.total(levels).variance == pytest.approx(gap * 30**2 / 2)
    # of two steps with a stated jump between, nothing is known
    assert math.isnan(Course(10, (2, 7), placed={0: 4}).total([9.0, 5.0]).variance)


def test_two_stages_by_hand() -> None:
    course = Course(9, (1, 4, 7))  # each stands for 3; B = 3 * 3 * 2
    images = [[Stratum(8, (v - 1, v + 1))] for v in (2.0, 3.0, 2.0)]
    found = course.total([16.0, 24.0, 16.0], images)
    # s^2 = 64 / 2; of each step N (N - n) s^2 / n = 8 * 6 * 2 / 2 = 48, w of that
    assert found.variance == pytest.approx(18 * 32 + 3 * (3 * 48))
    parts = (18 * 32) ** 2 / course.freedom + (3 * 3 * 48) ** 2 / 3
    assert found.freedom == pytest.approx(found.variance**2 / parts)
    # one image: what steps differ by stands for it
    lone = course.total([16.0, 24.0, 16.0], [[Stratum(8, (0.0,))]] * 3)
    assert lone.variance == pytest.approx((18 + 9) * 32)
    assert lone.freedom == course.freedom
    # every step was recorded: what is left are their images
    whole = Course(3, (0, 1, 2)).total([16.0, 24.0, 16.0], images)
    assert (whole.value, whole.variance, whole.more) == (56, 3 * 48, None)
    alone = Course(3, (0, 1, 2)).total([16.0, 24.0, 16.0], [[Stratum(8, (0.0,))]] * 3)
    assert (alone.variance, alone.freedom, alone.more) == (3 * 32, pytest.approx(1.6), None)
    assert math.isnan(Course(1, (0,)).total([16.0], [[Stratum(8, (0.0,))]]).variance)
    # the only gap is cut: nothing else has what images differ by
    cut = Course(4, (0, 3), frozenset({0})).total([16.0, 24.0], [images[0], images[1]])
    assert cut.variance == pytest.approx(64 * 8 / 12 + 2 * 2**2 * 48)


def test_a_quotient_of_two_stages_by_hand() -> None:
    course = Course(2, (0, 1))
    top = [[Stratum(4, (2.0, 4.0))], [Stratum(4, (3.0, 3.0))]]
    bottom = [[Stratum(4, (1.0, 2.0))], [Stratum(4, (1.0, 2.0))]]
    found = course.ratio([12.0, 12.0], [6.0, 6.0], (top, bottom))
    # residuals 2 - 2 * 1 = 0, 4 - 2 * 2 = 0; 1, -1: 4 * 2 * 2 / 2 = 8
    assert (found.value, found.variance) == (2, pytest.approx(8 / 12**2))


def test_the_variance_of_two_stages_is_that_of_its_errors() -> None:
    rng = np.random.default_rng(7)
    course = Course(30, (0, 6, 13, 21, 29))
    errors, variances, covered = [], [], 0
    for _ in range(1500):
        run = rng.normal(100, 2, 30)[:, None] + rng.normal(0, 8, (30, 16))
        seen = run[list(course.steps), :4]
        images = [[Stratum(16, tuple(row))] for row in seen.tolist()]
        found = course.total((16 * seen.mean(axis=1)).tolist(), images)
        errors.append(found.value - run.sum())
        variances.append(found.variance)
        covered += found.low <= run.sum() <= found.high
    assert np.mean(variances) == pytest.approx(np.var(errors), rel=0.1)
    assert 0.93 < covered / 1500 < 0.98
