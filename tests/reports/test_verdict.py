"""What bounds a step, and what it takes in other units: recomputed by hand."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import pytest

import swatsim
from swatsim.reports import tables
from swatsim.reports.rates import rates, watts
from swatsim.reports.verdict import verdict
from swatsim.results import Results
from tests.reports.test_step_and_layers import by_hand
from tests.traces import LAYERS, make_trace


def _step(machine: dict[str, Any], baseline: dict[str, Any], **other: Any) -> Results:
    """Make a step of one op, and of everything else if anything is said of it."""
    rows = [by_hand("machine", "fprop", **machine), by_hand("baseline", "fprop", **baseline)]
    if other:
        own = {"phase": "forward", "function": "norm", **other}
        rows += [by_hand(role, "other", **own) for role in ("machine", "baseline")]
    return Results(rows, {})


#: 100 cycles, 60 of which are spent waiting; 30 bytes take 30 cycles at 1000 MB/s and MHz; 8 MACs.
WAITS = {
    "cycles": 100,
    "cycles_compute": 30,
    "lane_cycles_effectual": 8,
    "lane_cycles_idle": 22,
    "lane_cycles_dram": 50,
    "lane_cycles_fill_drain": 10,
    "lane_cycles_buffer": 10,
    "dram_bytes_weight": 30,
}
DENSE = {"cycles": 200, "lane_cycles_dram": 40, "lane_cycles_idle": 152}


def test_a_step_that_waits_for_dram() -> None:
    found = verdict(_step(WAITS, DENSE))
    assert found.bound == "dram"
    assert found.shares == {"dram": 0.6, "vector": 0.0, "pes": 0.3, "buffers": 0.1}
    assert (found.no_dram_wait, found.speed_up_no_dram_wait) == (100 / 40, 160 / 40)
    assert (found.ideal_pes, found.ideal) == (100 / 30, 100 / 8)
    assert found.sentence == (
        "Bound by waiting for DRAM, 60 % of the time of a step's layers: were DRAM never waited "
        "for, 2.50x as fast (4.00x over a baseline that waits as little); with PEs that lose no "
        "cycle, on this DRAM, at best 3.33x as fast; with both 12.50x as fast"
    )


@pytest.mark.parametrize("parameters", [{}, {"pattern": "3:4", "prune_each_step": True}])
def test_dram_never_waited_for_is_an_ideal_dram(parameters: dict[str, Any], tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t", steps=(0,), layers=LAYERS[-1:])
    kinds = ("lpddr4-3200", "ideal")
    here, there = (
        swatsim.simulate(trace, swatsim.machine("stc", dram=dram, **parameters), workers=1)
        for dram in kinds
    )
    pruned = sum(row["lane_cycles_prune"] for row in here.rows)
    assert bool(pruned) == bool(parameters), "what this is about"
    said, again = verdict(here), verdict(there)
    taken = [tables.summarise(results).ops[-1] for results in (here, there)]
    assert said.no_dram_wait == taken[0]["cycles"] / taken[1]["cycles"]
    assert said.speed_up_no_dram_wait == taken[1]["speed_up"]
    assert (said.ideal, again.no_dram_wait) == (pytest.approx(said.no_dram_wait * again.ideal), 1)
    assert said.shares["buffers"] * taken[0]["cycles"] == pytest.approx(
        again.shares["buffers"] * taken[1]["cycles"]
    )


def test_everything_else_is_bound_by_its_values_or_by_its_bytes() -> None:
    other = {"cycles": 300, "cycles_compute": 240, "lane_cycles_vector": 300}
    found = verdict(_step(WAITS, DENSE, **other))
    assert (found.subject, found.bound) == ("a step", "vector")
    assert found.shares == {"dram": 120 / 400, "vector": 0.6, "pes": 30 / 400, "buffers": 10 / 400}
    assert found.no_dram_wait == 400 / 280
    assert found.ideal_pes == 400 / 330, "the vector unit and its bytes stay"
    assert found.ideal == 400 / 248
    assert found.speed_up_no_dram_wait == (160 + 240) / 280


def test_a_step_that_its_pes_bound() -> None:
    busy = {"cycles": 10, "lane_cycles_effectual": 8, "lane_cycles_row_sync": 2}
    found = verdict(_step({**busy, "lane_cycles_idle": 0}, DENSE))
    assert (found.bound, found.share, found.effectual) == ("pes", 1.0, 0.8)
    assert found.sentence == (
        "Bound by the PEs' own cycles, 100 % of the time of a step's layers (80 % of their "
        "lane-cycles are products that count; lost most to: waiting for other rows): with PEs that "
        "lose no cycle at best 1.25x as fast"
    )
    ideal = {"cycles": 8, "lane_cycles_effectual": 8, "lane_cycles_idle": 0}
    assert verdict(_step(ideal, DENSE)).sentence.endswith(
        "neither a DRAM that is never waited for nor ideal PEs would change it"
    )


@pytest.mark.parametrize(
    ("pes", "both", "words"),
    [
        (
            1.0,
            9.0,
            "a baseline that waits as little); and with PEs that lose no cycle besides, 9.00x",
        ),
        (1.0, 2.5, "a baseline that waits as little)"),
        (3.0, 3.0, "; with PEs that lose no cycle at best 3.00x"),
    ],
)
def test_both_are_named_where_only_one_of_them_is_said(pes: float, both: float, words: str) -> None:
    found = replace(verdict(_step(WAITS, DENSE)), ideal_pes=pes, ideal=both)
    assert found.sentence.removesuffix(" as fast").endswith(words)
    alone = replace(found, no_dram_wait=1.0, ideal_pes=1.0, ideal=2.0)
    assert alone.sentence.endswith(
        "were DRAM never waited for and did PEs lose no cycle, 2.00x as fast"
    )


def test_what_takes_nothing_is_no_number() -> None:
    nothing = {"cycles": 0, "macs_effectual": 0, "lane_cycles_effectual": 0, "lane_cycles_idle": 0}
    assert verdict(_step(nothing, nothing)).sentence == (
        "Nothing bounds a step's layers: no cycle is taken"
    )
    idle = {**nothing, "cycles": 10, "lane_cycles_idle": 10}
    found = verdict(_step(idle, DENSE))
    assert found.ideal_pes == found.ideal == inf
    assert found.sentence.endswith("with PEs that lose no cycle at best no cycles")


def test_another_clock_counts_in_a_speed_up() -> None:
    slow = verdict(_step({**WAITS, "clock_mhz": 500}, DENSE))
    assert slow.speed_up_no_dram_wait == 160 / 40 / 2
    assert slow.ideal_pes == 100 / 15, "bytes take half as many of its cycles"


def test_rates_are_of_a_mean_step() -> None:
    size = {"area_mm2": 0.5, "leakage_mw": 2e6}
    results = _step({**WAITS, "energy_pj": 4e9, **size}, DENSE)
    total = tables.summarise(results).ops[-1]
    found = rates(total, steps=2, images=4)
    assert found["time_ms"] == 50e-6
    assert found["ms_per_image"] == 12.5e-6
    assert found["images_per_s"] == pytest.approx(4 / 50e-9)
    assert (found["energy_pj"], found["energy_pj_per_image"]) == (2e9, 0.5e9)
    assert found["power_dynamic_w"] == pytest.approx(2e-3 / 50e-9)
    assert found["power_w"] == pytest.approx(2e-3 / 50e-9 + 2e3)
    assert found["leakage_pj"] == pytest.approx(2e3 * 50e-9 * 1e12)
    assert found["energy_with_leakage_pj"] == found["energy_pj"] + found["leakage_pj"]
    assert found["tops_dense"] == pytest.approx(2 * 32 / 100e-9 / 1e12)
    assert found["tops_effectual"] == pytest.approx(2 * 8 / 100e-9 / 1e12)
    assert found["tops_per_w_dense"] == pytest.approx(2 * 32 / 100e-9 / 42e3 / 1e12)
    assert found["tops_per_mm2_effectual"] == pytest.approx(2 * 8 / 100e-9 / 1e12 / 0.5)
    unknown = rates(total["baseline"], 1, 4)
    assert all(map(isnan, (unknown["power_w"], unknown["power_dynamic_w"], unknown["area_mm2"])))


def test_power_without_a_leakage_is_that_of_what_happens() -> None:
    results = _step({**WAITS, "energy_pj": 4e9, "area_mm2": 0.5}, DENSE)
    found = rates(tables.summarise(results).ops[-1], steps=1, images=1)
    assert found["power_dynamic_w"] == pytest.approx(4e-3 / 100e-9)
    assert watts(found) == "40,000 W without leakage, which is not known"
    assert watts({**found, "power_w": 50_000.0}) == "40,000 W without leakage, 50,000 W with it"
    assert watts({**found, "power_dynamic_w": nan}) == ""
    assert isnan(found["power_w"])
    assert isnan(found["tops_per_w_dense"])
