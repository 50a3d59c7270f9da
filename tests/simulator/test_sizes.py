"""Sizes at their ends: what can be counted is, what can't is refused before it is simulated."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.columns import COLUMNS
from swatsim.counters import Counters
from swatsim.errors import ConfigError
from swatsim.results import load
from swatsim.simulator.energy.table import energy_table
from swatsim.simulator.machines import MACHINES, presets
from swatsim.simulator.mechanism import MAX_MULTIPLIERS
from swatsim.simulator.memory.simulate import Demand, schedule, simulate_memory
from swatsim.simulator.rows import MOST_COUNTED, checked_counters
from swatsim.simulator.sizes import LARGEST, Sums, check_before, check_room
from swatsim.simulator.systems import system_of
from swatsim.workload.layer import OPS
from swatsim.workload.lowering import LoweredOp
from tests.command import refused
from tests.traces import make_trace

#: Machines of 2**32 multipliers, by ends of their geometry; and the next larger one.
ENDS: list[tuple[str, dict[str, int], dict[str, int]]] = [
    ("bit-tactical", {"tiles": 2**16, "rows": 2**12, "columns": 1}, {"columns": 2}),
    ("bit-tactical", {"tiles": 1, "rows": 2**12, "columns": 2**16}, {"tiles": 2}),
    ("dadiannao", {"tiles": 2**16, "rows": 1, "columns": 2**16, "lanes": 1}, {"rows": 2}),
    ("tensordash", {"tiles": 2**12, "rows": 2**16, "columns": 1}, {"columns": 2}),
]


@pytest.mark.parametrize(("preset", "ends", "more"), ENDS)
def test_the_largest_machine_runs_and_a_larger_one_is_refused(
    tmp_path: Path, preset: str, ends: dict[str, int], more: dict[str, int]
) -> None:
    with pytest.raises(ConfigError, match="it would have 8589934592 multipliers, and of at most"):
        swatsim.machine(preset, **{**ends, **more})
    found = swatsim.machine(preset, **ends)
    assert found.config.multipliers == MAX_MULTIPLIERS
    results = swatsim.simulate(make_trace(tmp_path / "trace"), found, ops=["fprop"])
    results.save(tmp_path / "results")
    assert load(tmp_path / "results").rows == results.rows
    for row in results.rows:
        assert row["lane_cycles"] == row["cycles"] * MAX_MULTIPLIERS
        buckets = sum(v for name, v in row.items() if name.startswith("lane_cycles_"))
        assert buckets == row["lane_cycles"]


def test_the_largest_cartesian_runs(tmp_path: Path) -> None:
    ends = {"pe_h": 2**10, "pe_w": 2**10}
    results = swatsim.simulate(make_trace(tmp_path / "trace"), swatsim.machine("scnn", **ends))
    assert {row["pes"] * row["lanes"] for row in results.rows} == {2**24}


@pytest.mark.parametrize("mechanism", MACHINES, ids=lambda it: it.name)
def test_every_machine_says_how_many_multipliers_it_has(mechanism: Any, tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace")
    name = next(name for name, _, of in presets() if of is mechanism)
    rows = swatsim.simulate(trace, name, ops=["wgrad"]).rows
    for row in rows:
        assert row["pes"] * row["lanes"] == swatsim.machine(name).config.multipliers


def test_the_case_is_one_line_before_simulating(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace").path
    huge = [f"--set={name}=65536" for name in ("tiles", "rows", "columns")]
    error = refused("simulate", trace, "-m", "tensordash", *huge, "-o", tmp_path / "out")
    assert "it would have 4503599627370496 multipliers" in error
    assert not (tmp_path / "out").exists()


SLOW = {"clock_mhz": 10_000, "dram": "hbm2", "dram_mb_per_s": 1, "dram_latency_ns": 10**6}


def test_a_latency_that_passes_is_refused_before_anything_is_simulated(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace")
    found = swatsim.machine("dadiannao", **ENDS[2][1], **SLOW)
    step = trace.step(trace.steps[0])
    jobs = Counter((layer, name, 2) for layer, name in step.ops())
    least = MAX_MULTIPLIERS * 10**7 * len(jobs)
    check_before(jobs, [(found.name, system_of(found, energy_table("45nm")))])
    assert least < LARGEST
    many = dict.fromkeys(jobs, LARGEST // least + 1)
    with pytest.raises(ConfigError, match=r"its lane-cycles would add up to \d+ or more"):
        check_before(many, [(found.name, system_of(found, energy_table("45nm")))])


def test_a_plane_that_can_not_be_cut_is_refused(tmp_path: Path) -> None:
    found, other = swatsim.machine("swat"), swatsim.machine("tensordash")
    fits, large = (swatsim.Layer(name="x", C=1, K=1, H=side, W=side) for side in (10_000, 12_000))
    for name in OPS:
        check_room([(fits, name)], [found, other])
    check_room([(large, "fprop")], [other])
    said = r"layer 'x', fprop, on swat: .* and take \d+ bytes .*; at most \d+ .*: record smaller"
    with pytest.raises(ConfigError, match=said):
        check_room([(large, "fprop")], [other, found])
    turned = swatsim.Layer(name="x", kind="conv_transpose", C=1, K=1, H=12_000, W=12_000)
    with pytest.raises(ConfigError, match="layer 'x', dgrad, on swat"):
        check_room([(turned, "dgrad")], [found])


def test_a_line_that_is_too_long_is_refused() -> None:
    found, other = swatsim.machine("swat"), swatsim.machine("tensordash")
    long = swatsim.Layer(name="x", C=1, K=1, W=9, S=3, dilation=(1, 10**7), padding=(0, 10**7))
    check_room([(long, name) for name in OPS], [other])
    for name in ("fprop", "dgrad"):
        with pytest.raises(ConfigError, match=f"layer 'x', {name}, on swat"):
            check_room([(long, name)], [found])


def test_what_has_no_room_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trace = make_trace(tmp_path / "trace")
    monkeypatch.setattr("swatsim.simulator.sizes.MOST_ROOM", 10)
    monkeypatch.setattr("swatsim.simulator.trace_run.Run.rows", None)
    with pytest.raises(ConfigError, match="on swat: its planes can't be cut"):
        swatsim.simulate(trace, "swat", store=False)
    spec = {"traces": [str(trace.path)], "machines": [{"preset": "swat"}]}
    with ThreadPoolExecutor(1) as pool:
        done = swatsim.sweep(spec, tmp_path / "out", executor=pool, store=False)
    assert "on swat: its planes can't be cut" in done.failed[0]["error"]


def test_the_slowest_memory_before_the_largest_machine_is_exact(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace")
    found = swatsim.machine("dadiannao", **ENDS[2][1], **SLOW)
    results = swatsim.simulate(trace, found, ops=["fprop"])
    for row in results.rows:
        carried = sum(v for name, v in row.items() if name.startswith("dram_bytes"))
        assert row["cycles"] >= 10**7 + 10_000 * carried
        assert row["lane_cycles"] == row["cycles"] * MAX_MULTIPLIERS
    results.save(tmp_path / "results")
    assert load(tmp_path / "results").rows == results.rows


class Mine:
    """A machine of a user's own that counts whatever it likes."""

    def __init__(self, cycles: int) -> None:
        self.name, self.cycles = "mine", cycles

    def simulate_op(self, op: LoweredOp) -> Counters:
        return Counters(self.cycles, 1, 1, lane_cycles_idle=self.cycles)

    simulate_dense = simulate_op

    def describe(self) -> dict[str, str]:
        return {"name": "mine"}


def test_sums_of_a_run_just_fit_or_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace")
    count = len(swatsim.simulate(trace, Mine(1)).rows)
    fits = swatsim.simulate(trace, Mine(LARGEST // count))
    fits.save(tmp_path / "results")
    assert int(fits.frame.lane_cycles.sum()) == LARGEST // count * count
    assert int(load(tmp_path / "results").frame.cycles.sum()) == LARGEST // count * count
    with pytest.raises(ConfigError, match=f"would add up to .* at most {LARGEST} can be written"):
        swatsim.simulate(trace, Mine(LARGEST // count + 1))
    for cycles in (MOST_COUNTED + 1, 2**63, 2**70):
        for run in (swatsim.simulate, partial(swatsim.timeline, step=0)):
            with pytest.raises(
                ConfigError, match=f"cycles_compute={cycles} for one op: .* 63 bits"
            ):
                run(trace, Mine(cycles))


def test_what_memory_lays_out_is_bounded_and_lane_cycles_are_not() -> None:
    many = 2**20 * MOST_COUNTED
    most = Counters(MOST_COUNTED, 2**10, 2**10, lane_cycles_idle=many, words_a=MOST_COUNTED)
    assert checked_counters(most) == most
    half = MOST_COUNTED // 2 + 1
    for wrong in (
        {"words_a": 2**62},
        {"words_b": 2**62},
        {"sums_written": half, "sums_read": half},
    ):
        with pytest.raises(ConfigError, match=rf"{next(iter(wrong))}\b.*={2**62} for one op"):
            checked_counters(most._replace(**wrong))


def test_the_most_that_is_counted_of_an_op_passes_memory_and_is_drawn() -> None:
    layer = swatsim.Layer(name="x", kind="linear", C=8, K=8)
    masks: dict[str, Any] = {it: np.ones((8, 8), bool) for it in ("weight", "act")}
    op = swatsim.lower(swatsim.Op(layer, "fprop", **masks))
    slow: Any = swatsim.machine("dadiannao", **SLOW).config
    free: Any = swatsim.machine("dadiannao", memory="none").config
    for config in (slow, free):
        demand = Demand(MOST_COUNTED, config.multipliers, 0, 0)
        found = simulate_memory(op, demand, config)
        drawn = schedule(op, demand, config)
        assert MOST_COUNTED <= found.cycles == int(drawn.ends[-1]) < LARGEST
        assert int(drawn.computing.sum()) == MOST_COUNTED


def test_a_parameter_that_does_not_fit_is_refused() -> None:
    row = {it.name: 0 for it in COLUMNS if it.dtype == "int64"}
    about = {"layer": "x", "op": "fprop", "machine": "m"}
    Sums().add([{**row, **about, "pes": LARGEST}])
    with pytest.raises(ConfigError, match="on m: a parameter would add up to more"):
        Sums().add([{**row, **about, "pes": LARGEST + 1}])


def test_a_sweep_keeps_the_points_that_fit(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace")
    spec = {
        "traces": [str(trace.path)],
        "ops": ["fprop"],
        "machines": [{"preset": "dadiannao", "grid": {"tiles": [2**4, 2**16], "rows": [2**16]}}],
    }
    with ThreadPoolExecutor(1) as pool:
        sweep = swatsim.sweep(spec, tmp_path / "sweep", executor=pool)
    assert list(sweep.frame.status) == ["done", "failed"]
    assert "multipliers, and of at most" in sweep.frame.error[1]


def test_no_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = make_trace(tmp_path / "trace")

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("swatsim.simulator.trace_run.describe_op", full)
    with pytest.raises(ConfigError, match="tensordash takes more memory to simulate than there is"):
        swatsim.simulate(trace, "tensordash")
