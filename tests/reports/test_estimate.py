"""A whole run from some steps: closed forms by hand, coverage, a run recorded in full."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import swatsim
from swatsim.errors import ResultsError
from swatsim.reports.estimate import cut
from swatsim.results import Results
from swatsim.sampling import Estimate, Stratum, ratio, total
from swatsim.workload.layer import OPERANDS_OF, OPS
from tests.traces import LAYERS

#: Student's t of 97.5 %, as printed in tables.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 10: 2.228}


def results(steps: Sequence[int], ours: Sequence[float], dense: Sequence[float]) -> Results:
    """Make results of one op a step, of the columns that an estimate reads."""
    rows = []
    for step, *cycles in zip(steps, ours, dense, strict=True):
        for role, value in zip(("machine", "baseline"), cycles, strict=True):
            key = {"trace": "t", "trace_id": "1", "step": step, "layer": "a", "op": "fprop"}
            cost = {"cycles": value, "cycles_compute": value / 2, "energy_pj": 3.0 * value}
            rows.append({**key, "machine": role, "role": role, "samples": 2, **cost})
    return Results(rows, {"parameters": {"batch_size": 2}})


# ---- sampling, by hand ---------------------------------------------------------------------------


def test_a_simple_random_sample_by_hand() -> None:
    found = total([Stratum(10, (1.0, 2.0, 3.0))])
    assert found.value == pytest.approx(20)  # 10 * 2
    assert found.variance == pytest.approx(10 * 7 * 1 / 3)  # N (N - n) s^2 / n, s^2 = 1
    assert found.freedom == pytest.approx(2)
    assert found.half_width == pytest.approx(T[2] * math.sqrt(70 / 3), rel=1e-3)
    assert (found.low, found.high) == (0.0, 20 + found.half_width)  # 20 - 20.8 can't be


def test_strata_and_satterthwaites_freedom_by_hand() -> None:
    # s^2 = 2, 8; variances 4*2*2/2 = 8 and 6*4*8/2 = 96; freedom (8 + 96)^2 / (8^2 + 96^2)
    found = total([Stratum(4, (1.0, 3.0)), Stratum(6, (5.0, 9.0))])
    assert (found.value, found.variance) == (4 * 2 + 6 * 7, 104)
    assert found.freedom == pytest.approx(104**2 / (8**2 + 96**2))
    # n' of N = 10: (10 / n' - 1) * (4*2 + 6*8) = 104 / 4, n' = 560 / 82 = 6.8, 4 are there
    assert found.more == 3


def test_a_ratio_by_hand() -> None:
    # 5 * 4 / (5 * 2) = 2; residuals 3 - 2 = 1 and 5 - 6 = -1, s^2 = 2, V = 5 * 3 * 2 / 2 = 15
    found = ratio([Stratum(5, (3.0, 5.0))], [Stratum(5, (1.0, 3.0))])
    assert (found.value, found.variance, found.freedom) == (2, 15 / 10**2, 1)
    assert found.half_width == pytest.approx(T[1] * math.sqrt(0.15), rel=1e-3)


def test_quotients_that_do_not_vary_and_that_are_none() -> None:
    same = ratio([Stratum(9, (0.3, 0.6))], [Stratum(9, (0.1, 0.2))])
    assert same.value == pytest.approx(3)
    assert (same.half_width, same.more) == (0, None)
    assert math.isinf(ratio([Stratum(3, (1.0, 2.0))], [Stratum(3, (0.0, 0.0))]).value)
    assert math.isnan(ratio([Stratum(3, (0.0, 0.0))], [Stratum(3, (0.0, 0.0))]).value)


def test_what_is_seen_whole_is_exact_and_adds_no_freedom() -> None:
    assert total([Stratum(2, (1.0, 8.0))]) == Estimate(9.0, 0.0, math.inf)
    partly = total([Stratum(2, (1.0, 8.0)), Stratum(10, (1.0, 2.0, 3.0))])
    assert partly.freedom == pytest.approx(2)
    assert total([Stratum(1, (7.0,))]).half_width == 0


def test_so_many_more_do_halve_the_interval() -> None:
    rng = np.random.default_rng(3)
    values = tuple(rng.normal(100, 10, 20))
    now = total([Stratum(1000, values)])
    assert now.more is not None
    spread = np.var(values, ddof=1)
    for more, enough in ((now.more, True), (now.more - 1, False)):
        n = 20 + more
        assert bool(1000 * (1000 - n) * spread / n <= now.variance / 4) == enough


# ---- strata --------------------------------------------------------------------------------------


def test_strata_meet_halfway_between_recorded_steps() -> None:
    pieces = cut([0, 1, 1170, 1171, 2338, 2339], 2340, 3)
    assert [(p.first, p.last) for p in pieces] == [(0, 585), (586, 1754), (1755, 2339)]
    assert [p.steps for p in pieces] == [(0, 1), (1170, 1171), (2338, 2339)]


@pytest.mark.parametrize(
    ("steps", "strata", "sizes"),
    [
        ([5], 1, [1]),
        ([5, 9, 11], 1, [3]),
        ([0, 1, 2, 100, 101], 2, [3, 2]),
        ([0, 1, 100, 101, 102], 2, [2, 3]),
        (range(0, 120, 10), 3, [4, 4, 4]),
        (range(0, 120, 10), 6, [2] * 6),
        (range(0, 70, 10), 3, [2, 3, 2]),
        ([0, 9, 10, 19, 20, 29, 30, 99], 4, [2] * 4),
    ],
)
def test_strata_have_two_steps_and_gaps_between(
    steps: Sequence[int], strata: int, sizes: list[int]
) -> None:
    assert [len(piece.steps) for piece in cut(steps, 200, strata)] == sizes


def test_strata_are_the_run_whatever_was_recorded() -> None:
    rng = np.random.default_rng(5)
    for _ in range(300):
        size = int(rng.integers(1, 60))
        steps = sorted(rng.choice(size, int(rng.integers(1, size + 1)), replace=False).tolist())
        strata = int(rng.integers(1, max(1, len(steps) // 2) + 1))
        pieces = cut(steps, size, strata)
        assert len(pieces) == strata
        assert [n for p in pieces for n in range(p.first, p.last + 1)] == list(range(size))
        assert [n for p in pieces for n in p.steps] == steps
        assert all(p.first <= p.steps[0] and p.steps[-1] <= p.last for p in pieces)
        assert len(steps) == 1 or all(len(p.steps) >= 2 for p in pieces)


# ---- estimates -----------------------------------------------------------------------------------


def test_an_estimate_by_hand() -> None:
    found = swatsim.estimate(results([0, 3, 6, 9], [4, 6, 10, 14], [20, 20, 20, 20]), run_steps=10)
    # strata 0..4 and 5..9, halfway between 3 and 6
    assert [p.size for p in found.strata] == [5, 5]
    assert found.ours["cycles"].value == 5 * 5 + 5 * 12
    assert found.ours["cycles"].variance == 5 * 3 * 2 / 2 + 5 * 3 * 8 / 2
    assert found.ours["cycles_compute"].value == 85 / 2
    assert found.ours["energy_pj"].value == 3 * 85
    assert found.baseline["cycles"] == Estimate(200.0, 0.0, math.inf)
    assert found.ratios["speed_up"].value == pytest.approx(200 / 85)
    # residuals are -R times the cycles, but for a constant
    expected = (200 / 85) ** 2 * found.ours["cycles"].variance / 85**2
    assert found.ratios["speed_up"].variance == pytest.approx(expected)
    assert (found.recorded, found.warnings) == (4, ())


def test_everything_recorded_is_exact() -> None:
    rng = np.random.default_rng(1)
    ours, dense = rng.integers(1, 2**40, (2, 7)).tolist()
    found = swatsim.estimate(results(range(7), ours, dense), run_steps=7)
    assert found.ours["cycles"] == Estimate(sum(ours), 0.0, math.inf)
    speed_up = found.ratios["speed_up"]
    assert speed_up.low == speed_up.high == sum(dense) / sum(ours)
    assert found.warnings == ()


def test_one_step_gives_no_interval_and_says_so() -> None:
    found = swatsim.estimate(results([4], [3], [9]), run_steps=10)
    assert found.ours["cycles"].value == 30
    assert math.isnan(found.ours["cycles"].low)
    assert math.isnan(found.ratios["speed_up"].half_width)
    assert found.ratios["speed_up"].more is None
    assert "only step 4 was recorded" in found.warnings[0]
    whole = swatsim.estimate(results([0], [3], [9]), run_steps=1)
    assert (whole.ours["cycles"].half_width, whole.warnings) == (0, ())


def test_neighbours_and_partial_batches_are_warned_of() -> None:
    steps = [0, 1, 1170, 1171, 2338, 2339]
    some = results(steps, range(1, 7), range(7, 13))
    some.provenance["parameters"]["batch_size"] = 128
    close, partial = swatsim.estimate(some, run_steps=2340).warnings
    assert "3 of 6 recorded steps lie close behind another one" in close
    assert "of the batch of 128 the results hold 2" in partial


def test_energy_that_is_not_known_is_left_out() -> None:
    some = results([0, 5], [1, 2], [3, 4])
    for row in some.rows:
        row["energy_pj"] = None if row["role"] == "machine" else 1.0  # type: ignore[index]
    found = swatsim.estimate(some, run_steps=9)
    assert set(found.ratios) == {"speed_up", "speed_up_compute"}
    assert set(found.ours) == {"cycles", "cycles_compute"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run_steps": 9}, "run_steps=9 is not allowed: must be a whole number of at least 10"),
        ({"run_steps": 12.5}, "run_steps=12.5 is not allowed"),
        ({"run_steps": True}, "run_steps=True is not allowed"),
        ({"run_steps": 10, "strata": 3}, "strata=3 is not allowed: .* from 1 to 2, since each"),
        ({"run_steps": 10, "strata": 0}, "strata=0 is not allowed"),
    ],
)
def test_what_can_not_be_estimated_is_refused(arguments: dict[str, int], message: str) -> None:
    some = results([0, 3, 6, 9], [1] * 4, [2] * 4)
    with pytest.raises(ResultsError, match=message):
        swatsim.estimate(some, **arguments)


def test_results_without_a_baseline_are_refused() -> None:
    some = results([0, 3], [1, 2], [2, 3])
    for role, other in (("baseline", "machine"), ("machine", "baseline")):
        rows = [row for row in some.rows if row["role"] != role]
        with pytest.raises(ResultsError, match=f"no rows of role '{role}', only '{other}'"):
            swatsim.estimate(Results(rows, {}), run_steps=9)
    with pytest.raises(ResultsError, match="no rows of role 'machine', only none"):
        swatsim.estimate(Results([], {}), run_steps=9)


# ---- coverage ------------------------------------------------------------------------------------


def by_chance(rng: np.random.Generator) -> list[int]:
    return sorted(rng.choice(400, 20, replace=False).tolist())


def by_chance_in_tenths(rng: np.random.Generator) -> list[int]:
    return [40 * i + int(n) for i in range(10) for n in sorted(rng.choice(40, 2, replace=False))]


def evenly(rng: np.random.Generator) -> list[int]:
    return list(range(int(rng.integers(20)), 400, 20))


@pytest.mark.parametrize("draw", [by_chance, by_chance_in_tenths, evenly])
@pytest.mark.parametrize("strata", [None, 5])
def test_the_interval_covers_the_truth_as_often_as_it_says(
    draw: Callable[[np.random.Generator], list[int]], strata: int | None
) -> None:
    rng = np.random.default_rng(11)
    drift = 1000 - 150 * np.arange(400) / 400
    dense = np.full(400, 2000.0)
    covered = {"cycles": 0, "speed_up": 0}
    for _ in range(500):
        ours = drift * rng.normal(1, 0.05, 400)  # a new jitter each time: all of a run's are alike
        steps = draw(rng)
        found = swatsim.estimate(results(steps, ours[steps], dense[steps]), 400, strata)
        cycles, speed_up = found.ours["cycles"], found.ratios["speed_up"]
        covered["cycles"] += cycles.low <= ours.sum() <= cycles.high
        covered["speed_up"] += speed_up.low <= dense.sum() / ours.sum() <= speed_up.high
    for count in covered.values():
        assert 0.9 <= count / 500 <= 0.99


# ---- a run recorded in full ----------------------------------------------------------------------


def test_a_run_recorded_in_full_lies_in_the_interval_of_every_third_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(23)
    recorder = swatsim.Recorder(tmp_path / "run", batch_size=2)
    for layer in LAYERS:
        recorder.declare(layer)
    for number in range(12):
        density = {"weight": 0.2, "act": 0.7 - 0.03 * number, "grad_out": 0.9}
        with recorder.step(number) as step:
            for layer in LAYERS:
                for op in OPS:
                    for operand in OPERANDS_OF[op]:
                        mask = rng.random(layer.shape_of(operand, 2)) < density[operand]
                        step.operand(layer.name, op, operand, mask)
    machine = swatsim.machine("tensordash", tiles=1, rows=4, columns=4)
    everything = swatsim.simulate(tmp_path / "run", machine, workers=1)
    truth = swatsim.estimate(everything, run_steps=12)
    for first in range(3):
        rows = [row for row in everything.rows if row["step"] % 3 == first]
        found = swatsim.estimate(Results(rows, everything.provenance), run_steps=12)
        for part in ("ours", "ratios"):
            for name, exact in getattr(truth, part).items():
                assert exact.half_width == 0
                seen = getattr(found, part)[name]
                assert seen.low < exact.value < seen.high
                assert seen.half_width < 0.3 * exact.value
