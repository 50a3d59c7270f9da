"""A whole run from some steps: closed forms by hand, coverage, a run recorded in full."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim import policies
from swatsim.errors import ResultsError
from swatsim.reports.caveats import periods, spacing_for
from swatsim.reports.run_words import count, duration, energy
from swatsim.results import Results
from swatsim.sampling import Estimate, Stratum, ratio, total
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import OPERANDS_OF, OPS
from tests.traces import LAYERS, part_of

#: Student's t of 97.5 %, as printed in tables.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 10: 2.228}


def results(
    steps: Sequence[int], ours: Sequence[float], dense: Sequence[float], **columns: Any
) -> Results:
    """Make results of one op a step, of the columns that an estimate reads."""
    rows = []
    for step, *cycles in zip(steps, ours, dense, strict=True):
        for role, value in zip(("machine", "baseline"), cycles, strict=True):
            key = {"trace": "t", "trace_id": "1", "step": step, "layer": "a", "op": "fprop"}
            cost = {"cycles": value, "cycles_compute": value / 2, "energy_pj": 3.0 * value}
            names = {"machine": role, "variant": "", "role": role, "function": "", "phase": ""}
            rows.append({**key, **names, "samples": 2, **cost, **columns})
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
    assert (same.known, same.alike, same.more) == (False, True, None)
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


# ---- estimates -----------------------------------------------------------------------------------


def test_an_estimate_by_hand() -> None:
    found = swatsim.estimate(results([0, 3, 6, 9], [4, 6, 10, 14], [20, 20, 20, 20]), run_steps=10)
    # halfway between them: 0, 3, 6, 9 stand for 2, 3, 3, 2 steps; B = 2*1 + 3*2 + 3*2 + 2*1
    assert found.ours["cycles"].value == 2 * 4 + 3 * 6 + 3 * 10 + 2 * 14
    assert found.ours["cycles"].variance == pytest.approx(16 * (4 + 16 + 16) / (2 * 3))
    assert found.ours["cycles"].freedom == pytest.approx(2 * 9 / (3 * 3 - 1))
    assert found.ours["cycles_compute"].value == 84 / 2
    assert found.ours["energy_pj"].value == 3 * 84
    assert found.baseline["cycles"].value == 200
    assert found.ratios["speed_up"].value == pytest.approx(200 / 84)
    # residuals are -R times the cycles, but for a constant
    expected = (200 / 84) ** 2 * found.ours["cycles"].variance / 84**2
    assert found.ratios["speed_up"].variance == pytest.approx(expected)
    assert (found.recorded, found.warnings) == (4, ())
    assert [(p.first, p.last, p.size) for p in found.phases] == [(0, 9, 10)]


def test_what_is_alike_has_no_interval_and_says_so() -> None:
    found = swatsim.estimate(results([0, 5, 9], [7, 7, 7], [9, 9, 9]), run_steps=10)
    for estimate in (found.ours["cycles"], found.baseline["cycles"], found.ratios["speed_up"]):
        assert (estimate.known, estimate.alike) == (False, True)
        assert math.isnan(estimate.half_width)
    assert found.ours["cycles"].value == 70
    assert "all alike in energy_pj, cycles, cycles_compute" in found.warnings[0]
    varying = swatsim.estimate(results([0, 5, 9], [7, 8, 6], [9, 9, 9]), run_steps=10)
    assert varying.baseline["cycles"].alike
    assert varying.ratios["speed_up"].half_width > 0  # the dense baseline is constant, we are not
    assert varying.warnings == ()


def test_a_run_that_is_dense_first_and_then_half() -> None:
    """Dense until step 120 of 1000, every 100th recorded: the jump was anywhere between two."""
    steps = range(0, 1000, 100)
    dense_first = [1000.0 if step < 120 else 500.0 for step in steps]
    found = swatsim.estimate(results(steps, dense_first, [1000.0] * 10), run_steps=1000)
    mean = found.ours["cycles"]
    assert mean.low / 1000 < 560.0 < mean.high / 1000
    # halfway, 150.5 steps of 1000; 500 (100^2 - 1)^0.5 / 12^0.5 and the normal distribution's 1.96
    assert mean.value == 150.5 * 1000 + 849.5 * 500
    assert mean.half_width == pytest.approx(1.95996 * 500 * math.sqrt(9999 / 12), rel=1e-4)
    assert [(p.first, p.last, p.steps) for p in found.phases] == [
        (0, 150, (0, 100)),
        (151, 999, tuple(range(200, 1000, 100))),
    ]
    assert found.ratios["speed_up"].low < 1000 / 560 < found.ratios["speed_up"].high
    assert "nothing was recorded after step 900, 10 % of the run" in found.warnings[0]
    whole = swatsim.estimate(results(steps, dense_first, [1000.0] * 10), 1000, strata=1)
    assert len(whole.phases) == 1
    assert whole.ours["cycles"].half_width > 2 * mean.half_width


def test_a_jump_that_somebody_states_is_exact() -> None:
    steps = range(0, 1000, 100)
    dense_first = [1000.0 if step < 120 else 500.0 for step in steps]
    some = results(steps, dense_first, [1000.0] * 10, clock_mhz=1)
    for row in some.rows:
        left = 1000 if row["step"] < 120 else 300
        row |= {"macs_dense": 1000, "macs_effectual": left, "density_weight": left / 1000}  # type: ignore[operator]
    found = swatsim.estimate(some, 1000, cuts=[120])
    assert found.ours["cycles"].value == 560_000
    assert found.ours["time_ms"].value == 560
    assert found.per_step("time_ms").value == 0.56
    assert found.ratios["speed_up"].value == pytest.approx(1000 / 560)
    assert [(p.first, p.last, p.stated) for p in found.phases] == [
        (0, 119, False),
        (120, 999, True),
    ]
    first, second = found.phases
    assert (first.name, second.name) == ("dense", "sparse, 30 % of the products left")
    assert (first.speed_up, second.speed_up) == (1, 2)
    assert first.share == pytest.approx(120 / 560)
    assert (first.time, second.time) == (1, 0.5)
    assert second.density == {"weight": pytest.approx(0.3)}
    # another one that nobody stated is still found
    dense_first[7:] = [250.0] * 3
    both = swatsim.estimate(results(steps, dense_first, [1000.0] * 10), 1000, cuts=[120])
    assert [p.first for p in both.phases] == [0, 120, 651]
    assert [p.stated for p in both.phases] == [False, True, False]


def in_phases(*begins: int) -> dict[str, Any]:
    policies = [{"name": "dense"}, {"name": "swat-u", "sparsity": 0.7}, {"name": "rigl"}]
    phases = zip((0, *begins), policies, strict=False)
    return {"name": "phased", "phases": [{"from": a, "policy": b} for a, b in phases]}


def test_a_policy_that_changes_cuts_the_run_where_it_does() -> None:
    steps = range(0, 1000, 100)
    dense_first = [1000.0 if step < 120 else 500.0 for step in steps]
    some = results(steps, dense_first, [1000.0] * 10)
    some.provenance["parameters"]["policy"] = in_phases(120)
    found = swatsim.estimate(some, 1000)
    assert found.ours["cycles"].value == 560_000
    assert [(p.first, p.last, p.stated) for p in found.phases] == [
        (0, 119, False),
        (120, 999, True),
    ]
    assert [p.name.partition(":")[0] for p in found.phases] == ["dense", "swat-u 70 %"]
    # what somebody states holds
    assert swatsim.estimate(some, 1000, cuts=[150]).phases[1].first == 150


@pytest.mark.parametrize(
    ("begins", "first", "message"),
    [
        ((120, 150), 150, "no step of the policy's phase 120..149 was recorded"),
        ((120, 950), 120, "no step of the policy's phase 950..999 was recorded"),
        ((120, 2000), 120, ""),
    ],
)
def test_phases_that_were_not_recorded_are_said(
    begins: tuple[int, ...], first: int, message: str
) -> None:
    steps = range(0, 1000, 100)
    some = results(steps, [1000.0 if step < 120 else 500.0 for step in steps], [1000.0] * 10)
    some.provenance["parameters"]["policy"] = in_phases(*begins)
    found = swatsim.estimate(some, 1000)
    assert [p.first for p in found.phases if p.stated] == [first]
    said = [warning for warning in found.warnings if "no step of the policy's" in warning]
    assert len(said) == bool(message)
    assert all(message in warning for warning in said)


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ([0], "cuts=0 is not allowed: must be a step from 1 to 99"),
        ([100], "cuts=100 is not allowed: must be a step from 1 to 99"),
        ([30, 20, 41], r"no step of the phase 20\.\.29 was recorded, so nothing tells"),
        ([5], r"no step of the phase 0\.\.4 was recorded"),
        ([91], r"no step of the phase 91\.\.99 was recorded"),
        ([1.5], "cuts=.*1.5.* is not allowed"),
    ],
)
def test_cuts_that_leave_a_phase_without_a_recorded_step_are_refused(
    cuts: list[Any], message: str
) -> None:
    some = results([10, 40, 90], [1, 2, 3], [4, 4, 4])
    with pytest.raises(ResultsError, match=message):
        swatsim.estimate(some, 100, cuts=cuts)


def test_what_counts_is_time_where_clocks_differ() -> None:
    some = results([0, 4, 9], [100, 120, 110], [400, 400, 400], clock_mhz=1000)
    for row in some.rows:
        row |= {"leakage_mw": 0.5}  # type: ignore[operator]
        if row["role"] == "baseline":
            row |= {"clock_mhz": 500}  # type: ignore[operator]
    found = swatsim.estimate(some, 10)
    cycles, theirs = found.ours["cycles"], found.baseline["cycles"]
    assert found.ours["time_ms"].value == pytest.approx(cycles.value / 1e6)
    assert found.baseline["time_ms"].value == pytest.approx(theirs.value / 5e5)
    for name in ("speed_up", "speed_up_compute"):
        assert found.ratios[name].value == pytest.approx(2 * 4000 / cycles.value)
    assert found.phases[0].speed_up == pytest.approx(2 * 4000 / cycles.value)
    time = found.ours["time_ms"]
    # 0.5 mW for a ms are 0.5 uJ; two images a step
    assert found.ours["energy_with_leakage_pj"].value == pytest.approx(
        found.ours["energy_pj"].value + 5e5 * time.value
    )
    assert found.ours["images_per_s"].value == pytest.approx(1000 * 20 / time.value)
    assert found.per_image("time_ms").value == pytest.approx(time.value / 20)
    assert found.per_image("time_ms", baseline=True).value == pytest.approx(0.0004)
    without = swatsim.estimate(results([0, 9], [1, 2], [3, 4]), 10)
    assert "time_ms" not in without.ours
    assert without.images == 20


def test_an_estimate_shows_itself() -> None:
    found = swatsim.estimate(results([0, 4, 9], [100, 120, 110], [400, 400, 400], clock_mhz=1), 10)
    first, second, *_ = repr(found).splitlines()
    assert first.startswith("A run of 10 steps of 2 images, layers alone, takes 1.12 ms (+-")
    assert "machine; baseline takes 4 ms: a speed-up of 3.5" in first
    assert second == "from t, 3 steps of 2 images, fprop only"
    frame = found.frame.set_index(["of", "quantity"])
    time = frame.loc["machine", "time_ms"]
    assert (time.unit, time.per_step) == ("ms", pytest.approx(time.value / 10))
    assert time.low < time.value < time.high
    assert frame.loc["ratio", "speed_up"].value == found.ratios["speed_up"].value


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (duration(0.5), "0.5 ms"),
        (duration(1500), "1.5 s"),
        (duration(119_000), "119 s"),
        (duration(3 * 6e4), "3 min"),
        (duration(3.6e7), "10 h"),
        (duration(8.64e8), "10 days"),
        (energy(2e11), "200 mJ"),
        (energy(5.1e15), "5.1 kJ"),
        (energy(7.2e18), "2 kWh"),
        (count(27_466_000_000), "27.5 G"),
    ],
)
def test_quantities_are_in_units_that_people_read(shown: str, text: str) -> None:
    assert shown == text


def test_a_jump_of_density_cuts_where_cycles_hide_it() -> None:
    steps = [0, 20, 40, 60, 80, 99]
    some = results(steps, [100, 99, 98, 99, 100, 99], [200] * 6)
    for row in some.rows:
        row["macs_dense"], row["macs_effectual"] = 1000, 900 if row["step"] < 50 else 300
    cut = swatsim.estimate(some, 100)
    assert [p.steps for p in cut.phases] == [(0, 20, 40), (60, 80, 99)]
    assert cut.ours["cycles"].known


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
    found = swatsim.estimate(some, run_steps=2340)
    close, partial = found.warnings
    assert "3 of 6 recorded steps lie close behind another one" in close
    # what two wide gaps tell, not five
    assert found.ours["cycles"].freedom == pytest.approx(2, rel=0.01)
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
        ({"run_steps": math.nan}, "run_steps=nan is not allowed"),
        ({"run_steps": 2**63}, r"run_steps=9223372036854775808 is not allowed: .* below 2\*\*63"),
        ({"run_steps": -(10**5000)}, "run_steps=<int without a text: .*> is not allowed"),
        ({"run_steps": 10, "strata": 5}, "strata=5 is not allowed: .* from 1 to 4, since each"),
        ({"run_steps": 10, "strata": 0}, "strata=0 is not allowed"),
        ({"run_steps": 10, "strata": -1}, "strata=-1 is not allowed"),
        ({"run_steps": 10, "strata": True}, "strata=True is not allowed"),
        ({"run_steps": 10, "strata": 10**5000}, "strata=<int without a text: .*> is not allowed"),
    ],
)
def test_what_can_not_be_estimated_is_refused(arguments: dict[str, Any], message: str) -> None:
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


def test_a_run_may_have_any_number_of_steps() -> None:
    for size in (10**18, 2**63 - 1):
        found = swatsim.estimate(results([0, 3, 9], [1, 2, 1], [3, 3, 3]), run_steps=size)
        assert found.ours["cycles"].value == pytest.approx(size)
        assert found.ours["cycles"].high > size
        assert found.ratios["speed_up"].known


# ---- caveats -------------------------------------------------------------------------------------


def warned(steps: Sequence[int], size: int, policy: Any) -> list[str]:
    some = results(steps, [5 + step % 3 for step in steps], [9] * len(steps))
    some.provenance["parameters"]["policy"] = policy
    return [w for w in swatsim.estimate(some, size).warnings if "the policy has a period" in w]


@pytest.mark.parametrize(
    ("steps", "size", "every", "seen"),
    [
        (range(0, 90_000, 100), 90_000, 1000, "10 of its 1000 phases, since they lie multiples of"),
        (range(0, 1000, 100), 1000, 100, "1 of its 100 phases, since they lie multiples of 100"),
        (range(7, 1000, 60), 1000, 40, "2 of its 40 phases, since they lie multiples of 20"),
        ([0, 500, 900], 1000, 50, "1 of its 50 phases"),
        ([0, 1, 1000, 1001, 2000, 2001], 2002, 1000, "2 of its 1000 phases: what"),
        ([*range(0, 90_000, 100), 89_999], 90_000, 1000, "11 of its 1000 phases: what"),
        (range(0, 1000, 101), 1000, 100, "10 of its 100 phases: what"),  # 0, 1, .. 9
    ],
)
def test_steps_that_alias_with_the_policys_period_are_warned_of(
    steps: Sequence[int], size: int, every: int, seen: str
) -> None:
    (line,) = warned(steps, size, {"name": "rigl", "every": every})
    assert f"every={every}" in line
    assert seen in line
    match = re.search(r"range\(0, (\d+), (\d+)\)", line)
    assert match is not None
    assert int(match[1]) == size
    assert math.gcd(int(match[2]), every) == 1
    assert not warned(range(0, size, int(match[2])), size, {"name": "rigl", "every": every})


@pytest.mark.parametrize(
    ("steps", "size", "every"),
    [
        (range(0, 1000, 100), 1000, 1),
        (range(0, 1000, 100), 1000, 7),
        (range(0, 1000, 100), 1000, 1000),  # the run is one period
        (range(0, 90_000, 101), 90_000, 1000),
        ([0, 1, 1170, 1171, 2338, 2339], 2340, 100),
        (range(1000), 1000, 10),  # everything was recorded
        ([5], 1000, 10),
    ],
)
def test_steps_that_do_not_alias_are_not(steps: Sequence[int], size: int, every: int) -> None:
    assert not warned(steps, size, {"name": "rigl", "every": every})


def test_periods_of_every_policy_are_found() -> None:
    score = policies.ByScore(abs, 0.5, of="weight", every=30, name="mine")
    for policy in (
        policies.RigL(0.9, every=30),
        policies.SET(0.9, every=30),
        policies.SNFS(0.9, every=30),
        policies.SwatM(0.8, every=30),
        policies.TopKast(0.9, backward_sparsity=0.8, every=30),
        policies.Transposable(2, every=30),
        policies.Periodic(policies.SwatU(0.8), every=30),
        score,
    ):
        assert periods(policy.describe()) == (30,), policy
    assert periods(policies.SwatU(0.8).describe()) == ()
    nested = {"every": 4, "of": {"every": 6, "parts": [{"every": 9}, {"every": True}, "x"]}}
    assert periods(nested) == (4, 6, 9)
    assert math.gcd(spacing_for(12, 1000, (4, 6, 9)), 36) == 1
    assert periods(None) == periods([{"every": "x"}, {"every": 2.5}]) == ()


def test_ends_that_were_not_recorded_are_warned_of() -> None:
    def ends(steps: list[int], size: int) -> list[str]:
        some = results(steps, [5 + step % 3 for step in steps], [9] * len(steps))
        return [w for w in swatsim.estimate(some, size).warnings if "nothing was recorded" in w]

    (line,) = ends([0, 40, 80, 119], 1000)  # all in one part of the run
    assert "nothing was recorded after step 119, 88 % of the run" in line
    assert "record step 999 too" in line
    (line,) = ends([100, 500, 980], 1000)
    assert "before step 100 and after step 980, 12 % of the run" in line
    assert "record step 0 and step 999 too" in line
    assert not ends([0, 500, 999], 1000)
    assert not ends([20, 500, 980], 1000)


# ---- coverage ------------------------------------------------------------------------------------


def test_the_interval_covers_the_truth_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small run of benchmarks/intervals.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    rows = importlib.import_module("intervals").table(counts=(5, 12), runs=100)
    assert len({row.family for row in rows}) >= 9
    for row in rows:
        assert row.covered >= 0.9, row
        assert row.used > 0.5, row
    flat = next(row for row in rows if (row.family, row.recorded) == ("flat", 12))
    assert flat.half_width < 0.04  # of steps that scatter by 5 %


@pytest.mark.parametrize(
    "level",
    [
        lambda at, rng: np.where(at < rng.integers(1, 15), 900.0, 500.0),  # near the ends
        lambda at, rng: np.where(at < rng.integers(985, 1000), 900.0, 500.0),
        lambda at, rng: rng.uniform(300, 900, 12)[(at * 12) // 1000],  # a level each, nearly
        lambda at, rng: np.where(at < rng.integers(100, 300), 900.0, 500 - at / 5),
        lambda at, rng: np.where((at >= 300) & (at < 300 + rng.integers(150, 400)), 900.0, 500.0),
    ],
)
def test_odd_runs_are_covered_too(level: Callable[..., np.ndarray]) -> None:
    rng = np.random.default_rng(4)
    for steps in ([0, 190, 400, 610, 805, 999], [*range(0, 999, 77), 999]):
        covered = 0
        for _ in range(60):
            ours = level(np.arange(1000), rng) * rng.normal(1, 0.01, 1000)
            found = swatsim.estimate(results(steps, ours[steps], [1000.0] * len(steps)), 1000)
            cycles, speed_up = found.ours["cycles"], found.ratios["speed_up"]
            covered += (
                cycles.low <= ours.sum() <= cycles.high
                and speed_up.low <= 1e6 / ours.sum() <= speed_up.high
            )
        assert covered >= 54


# ---- whole batches of a run ----------------------------------------------------------------------


def test_some_images_of_some_steps_estimate_the_run(tmp_path: Path) -> None:
    whole = synthesize(
        LAYERS, tmp_path / "whole", policy=policies.SwatU(0.8), batch=6, seed=4, steps=3
    )
    machine = swatsim.machine("tensordash", tiles=1, rows=4, columns=4)
    truth = swatsim.estimate_run(whole, machine, 3, workers=1)
    exact = swatsim.estimate(swatsim.simulate(whole, machine, workers=1), 3)
    assert truth.ours == exact.ours
    assert (truth.notes, truth.ours["time_ms"].variance) == ((), 0)
    some = part_of(whole, tmp_path / "some", range(3))
    found = swatsim.estimate_run(some, machine, 3, workers=1)
    for name in ("time_ms", "energy_pj", "cycles"):
        assert found.ours[name].low < truth.ours[name].value < found.ours[name].high
        assert found.ours[name].half_width < 0.1 * truth.ours[name].value
    assert (found.images_of_step, found.images) == (6, 18)
    assert "of 3 recorded images of each" in found.notes[0]
    assert not any("of the batch of 6" in line for line in found.warnings)
    one = swatsim.estimate_run(part_of(whole, tmp_path / "one", [2]), machine, 3, workers=1)
    assert one.ours["cycles"].known
    assert "One image of each batch was recorded" in one.notes[-1]
    with pytest.raises(ResultsError, match="run_steps=2 is not allowed"):
        swatsim.estimate_run(some, machine, 2)


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
                if seen.alike:
                    assert seen.value == pytest.approx(exact.value)
                else:
                    assert seen.low < exact.value < seen.high
                    assert seen.half_width < 0.3 * exact.value
