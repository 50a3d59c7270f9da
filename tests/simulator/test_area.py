"""Area and leakage: counts times the table, by hand; what tables may be, and what they lack."""

from __future__ import annotations

from importlib import import_module
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from swatsim.errors import ConfigError
from swatsim.reports import tables
from swatsim.results import Results
from swatsim.simulator.area import Area, area_of, peak_tops, why_unknown
from swatsim.simulator.energy.area import SramArea
from swatsim.simulator.energy.table import EnergyTable, energy_table, shipped
from swatsim.simulator.machines import machine, presets
from swatsim.simulator.mechanism import MachineConfig
from swatsim.simulator.run import simulate
from tests.simulator.test_other import NORM
from tests.traces import make_trace

ROOT = Path(__file__).parents[2]
MEMORY = ROOT / "swatsim" / "simulator" / "memory"

LOGIC = {"multiply_um2": 700, "add_um2": 300, "source": "guessed"}
SIZES = [{"kib": 1, "mm2": 0.01, "leak_mw": 2}, {"kib": 4, "mm2": 0.01, "leak_mw": 2}]
AREA: dict[str, Any] = {
    "logic": {"fp32": LOGIC, "fp16": {**LOGIC, "multiply_um2": 200}},
    "sram": {"source": "guessed", "sizes": SIZES},
    "leakage": {"mw_per_mm2": 10, "source": "guessed"},
}

#: 64 multipliers and four lanes; buffers of 1 KiB, 2 KiB in banks of 1, 8 KiB.
SMALL = {"tiles": 1, "rows": 1, "columns": 4, "vector_lanes": 4}
BUFFERS = {
    **{"buffer_a_kib": 1, "buffer_a_banks": 1, "buffer_b_kib": 2, "buffer_b_banks": 2},
    **{"buffer_out_kib": 8, "buffer_out_banks": 1},
}


def table(**area: Any) -> EnergyTable:
    return EnergyTable(name="mine", area={**AREA, **area})


def config(name: str = "tensordash", **changes: Any) -> MachineConfig:
    found = machine(name, **changes).config
    assert found is not None
    return found


def test_parts_by_hand() -> None:
    found = area_of(config(**SMALL, **BUFFERS), table())
    assert found is not None
    kib = 0.01 * (1 + 2) + 8 * 0.01 / 4
    assert found[:4] == pytest.approx((64 * 0.001, 4 * 0.001, kib, 0))
    assert found.mm2 == pytest.approx(0.068 + 0.05)
    assert found.leakage_mw == pytest.approx(0.068 * 10 + 2 * 3 + 8 * 0.5)
    narrow = area_of(config(**SMALL, **BUFFERS, dtype="fp16"), table())
    assert narrow is not None
    assert narrow.multipliers == pytest.approx(64 * 0.0005)
    assert area_of(config(**SMALL, **BUFFERS, dtype="bf16"), table()) == narrow, "the next wider"


def test_a_vector_unit_of_another_type_is_as_large_as_that() -> None:
    narrow = config(**SMALL, **BUFFERS, dtype="fp16")
    found, alike = area_of(narrow, table(), "fp32"), area_of(narrow, table())
    assert found is not None
    assert alike is not None
    assert found[:2] == pytest.approx((64 * 0.0005, 4 * 0.001))
    assert found[2:4] == alike[2:4]
    assert found.leakage_mw == pytest.approx((alike.leakage_mw or 0) + 4 * 0.0005 * 10)


def test_accumulators_in_pes_are_memories() -> None:
    small = {"pe_h": 2, "pe_w": 2, "accumulator": 1024, "banks": 4}
    found = area_of(config("scnn", **small), table())
    assert found is not None
    assert found.accumulators == pytest.approx(4 * 4 * 0.01), "of four PEs, a KiB in each bank"


@pytest.mark.parametrize(("kib", "of_one"), [(0.25, 1), (1, 1), (2, sqrt(2)), (4, 2), (64, 2)])
def test_between_sizes_it_is_interpolated_and_beyond_it_stays(kib: float, of_one: float) -> None:
    sizes = [{"kib": 1, "mm2": 0.5, "leak_mw": 2}, {"kib": 4, "mm2": 4, "leak_mw": 8}]
    sram = SramArea(source="guessed", sizes=sizes)
    assert sram.mm2_per_kib(kib) == pytest.approx(0.5 * of_one)
    assert sram.leak_mw_per_kib(kib) == pytest.approx(2), "in proportion"


def test_a_table_without_leakages_has_areas() -> None:
    bare = [{name: size[name] for name in ("kib", "mm2")} for size in SIZES]
    for one in (table(leakage=None), table(sram={"source": "guessed", "sizes": bare})):
        found = area_of(config(), one)
        assert found is not None
        assert found.mm2 > 0
        assert found.leakage_mw is None


def test_what_has_no_area_says_why() -> None:
    for one, of, words in (
        (config(), EnergyTable(name="mine"), "energy table 'mine' has no [area]"),
        (config(memory="none"), table(), "memory=none"),
        (config("ideal"), table(), "a bound, and no device"),
    ):
        assert area_of(one, of) is None
        assert words in why_unknown(one, of)
    assert not why_unknown(config(), table())


def test_every_preset_has_an_area_of_every_table_that_ships() -> None:
    for name in shipped():
        found = {preset: area_of(config(preset), energy_table(name)) for preset, _, _ in presets()}
        known = {preset: area for preset, area in found.items() if area is not None}
        assert all(isinstance(area, Area) and area.leakage_mw for area in known.values())
        assert {preset.partition("-")[0] for preset in found.keys() - known.keys()} == {"ideal"}


def test_peak_operations_are_those_of_the_data_sheet() -> None:
    assert peak_tops(config("a100")) == pytest.approx(312, abs=0.2), "NVIDIA's, fp16, dense"
    assert peak_tops(config("tpu-v1")) == pytest.approx(92, abs=0.3), "Jouppi et al., ISCA 2017"


@pytest.mark.parametrize(
    ("area", "message"),
    [
        ({"logic": {}}, "logic"),
        ({"logic": {"fp32": {**LOGIC, "multiply_um2": "700"}}}, "must be a number"),
        ({"logic": {"fp32": {**LOGIC, "multiply_um2": 0}}}, "greater than 0"),
        ({"logic": {"fp32": {**LOGIC, "multiply_um2": float("inf")}}}, "finite"),
        ({"logic": {"fp32": {**LOGIC, "mm2": 1}}}, "mm2"),
        ({"logic": {"fp32": {"multiply_um2": 1, "add_um2": 1}}}, "source"),
        ({"leakage": {"mw_per_mm2": -1, "source": "x"}}, "greater than or equal to 0"),
        ({"sram": {"source": "x", "sizes": []}}, "sizes"),
        ({"sram": {"source": "x", "sizes": SIZES[::-1]}}, "must ascend, each once"),
        ({"sram": {"source": "x", "sizes": [SIZES[0], {**SIZES[1], "mm2": 0.001}]}}, "falls"),
        ({"sram": {"source": "x", "sizes": [SIZES[0], {"kib": 4, "mm2": 1}]}}, "of each size, or"),
    ],
)
def test_bad_entries_are_refused(area: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        table(**area)
    assert "\n" not in str(caught.value)


def test_rows_have_the_area_of_their_type_and_totals_the_largest(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace", steps=(0,), others=[NORM])
    results = simulate(trace, "tensordash", energy="45nm", workers=1)
    found = area_of(config(), energy_table("45nm"))
    assert found is not None
    assert {row["area_mm2"] for row in results.rows} == {found.mm2}
    assert {row["leakage_mw"] for row in results.rows} == {found.leakage_mw}
    assert results.rows[0]["role"] == "machine"
    wider = {**results.rows[0], "area_mm2": 1e4}  # as if one op had values of a wider type
    results = Results([wider, *results.rows[1:]], results.provenance)
    step = tables.per_op(results)[-1]
    assert step["area_mm2"] == 1e4
    assert step["baseline"]["area_mm2"] == found.mm2


def test_what_the_vector_unit_does_in_a_wider_type_makes_it_larger(tmp_path: Path) -> None:
    types = {"dtypes": dict.fromkeys(("weight", "act", "grad_out"), "float16")}
    trace = make_trace(tmp_path / "trace", steps=(0,), others=[NORM], **types)
    results = simulate(trace, "tensordash", energy="45nm", workers=1)
    assert {row["dtype"] for row in results.rows} == {"fp16", "fp32"}, "NORM is of float32"
    made, of = config(dtype="fp16"), energy_table("45nm")
    found, narrow = area_of(made, of, "fp32"), area_of(made, of)
    assert found is not None
    assert narrow is not None
    assert found.mm2 > narrow.mm2
    assert {row["area_mm2"] for row in results.rows} == {found.mm2}, "of layers and all else"
    chosen = simulate(trace, machine("tensordash", dtype="fp16"), energy="45nm", workers=1)
    assert {row["area_mm2"] for row in chosen.rows} == {narrow.mm2}, "the user's goes before both"


def test_without_a_memory_system_there_is_none(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace", steps=(0,))
    rows = simulate(trace, machine("tensordash", memory="none"), workers=1).rows
    assert {(row["area_mm2"], row["leakage_mw"]) for row in rows} == {(None, None)}


def test_published_areas_stand_beside_what_the_tables_make(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    made = "\n".join(import_module("area").lines())
    assert f"\n{made}\n<!-- end: area -->" in (MEMORY / "README.md").read_text()


#: A um2 each, so that an area is how many there are; of a multiplexer 1 more a bit.
EACH = {"um2": 1, "source": "guessed"}
FRONT = dict.fromkeys(("scheduler", "staging", "pixel_place", "weight_place"), EACH)
FRONT |= dict.fromkeys(("product_place", "arbiter", "crossbar", "queue"), EACH)
FRONT |= {
    "multiplexer": {**EACH, "um2_per_bit": 1},
    "pattern_multiplexer": {**EACH, "um2_per_bit": 1},
}


@pytest.mark.parametrize(
    ("name", "changes", "um2"),
    [
        ("tensordash", {}, 64 + (64 + 64) * 16 * 3 + (64 * 16 + 4096) * 33),
        ("tensordash", {"scheduled": "weight"}, 64 + 128 * 48 + 5120 * 33),
        ("bit-tactical", {}, 256 * 16 * 3 + 65536 * 17),
        ("bit-tactical", {"lookahead": 1, "lookaside": 0}, 256 * 16 * 2 + 65536 * 17 / 7),
        ("dadiannao", {}, 0),
        ("scnn", {}, 64 * (4 + 4 + 16 + 32 + 32)),
        ("scnn", {"weight_vector": 8}, 64 * (4 + 8 + 32 + 64 + 64)),
        ("scnn-queued", {}, 64 * (4 + 4 + 16 + 32)),
        ("scnn-queued", {"bank_queue": 32}, 64 * (4 + 4 + 16 + 64)),
        ("a100", {}, 108 * 1024 * 17),
        ("a100", {"pattern": "1:2"}, 108 * 1024 * 17 / 3),
        ("a100", {"pattern": "none"}, 0),
        ("scale-sim-os", {"pattern": "2:4"}, 1024 * 17),
        ("scale-sim-os", {}, 0),
    ],
)
def test_front_ends_by_hand(name: str, changes: dict[str, Any], um2: float) -> None:
    found = area_of(config(name, **changes), table(front_end=FRONT))
    assert found is not None
    assert found.front_end == pytest.approx(um2 / 1e6)
    assert found.mm2 == pytest.approx(sum(found[:4]) + um2 / 1e6)
    without = area_of(config(name, **changes), table())
    assert without is not None
    assert without.front_end == (None if um2 else 0), "its parts are not in the table"
    leaks = [area.leakage_mw or 0 for area in (found, without)]
    assert leaks[0] - leaks[1] == pytest.approx(10 * um2 / 1e6)


def test_of_a_machine_that_does_not_say_no_front_end_is_known() -> None:
    found = area_of(config("sparten"), table(front_end=FRONT))
    assert found is not None
    assert found.front_end is None
    assert found.mm2 == pytest.approx(sum(found[:4]))
