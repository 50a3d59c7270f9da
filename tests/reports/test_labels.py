"""Columns in the words and units of people: one mapping, and no number without its unit."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from swatsim.columns import COLUMNS
from swatsim.reports.labels import LABELS, alike, cell, label, scaled, shown, trimmed


@pytest.mark.parametrize(
    ("column", "value", "heading", "text"),
    [
        ("time_ms", 0.32123, "time, ms", "0.321 ms"),
        ("energy_pj", 3.42e9, "energy without leakage, mJ", "3.42 mJ"),
        ("own_speed_up", 1.5, "own speed-up", "1.50x"),
        ("macs_per_image", 2_000_000, "MACs an image, dense", "2,000,000"),
        ("power_w", 12.345, "power with leakage, W", "12.3 W"),
        ("leakage_mw", 580.7, "leakage, W", "0.581 W"),
        ("images_per_s", 123456.7, "throughput, images/s", "123,457 images/s"),
        ("tops_per_w_effectual", 0.0123, "effectual, TOPS/W", "0.0123 TOPS/W"),
        ("area_mm2", 241.78, "area, mm2", "242 mm2"),
        ("dram_bytes", 123_456_789, "DRAM, MB", "123 MB"),
        ("dram_mb_per_s", 51_200, "DRAM, GB/s", "51.2 GB/s"),
        ("dram_mb_per_s", 0, "DRAM, GB/s", "endless"),
        ("clock_mhz", 0, "clock, MHz", "none"),
        ("cycles", 1_234_567, "cycles", "1,234,567"),
        ("speed_up", 1.5, "speed-up", "1.50x"),
        ("speed_up_compute_zeros", inf, "speed-up, compute cycles, by zeros", "no cycles"),
        ("speed_up_layers", nan, "speed-up, layers alone", "-"),
        ("of_ideal_layers", 0.5, "of the ideal, layers alone, %", "50.0 %"),
        ("density_act", 0.333, "density act, %", "33.3 %"),
        ("energy_pj_dram", 1e9, "energy: DRAM, mJ", "1 mJ"),
        ("buffer_kib", None, "buffers, KiB", "-"),
        ("lookahead", 2, "lookahead", "2"),
        ("move_shape", "T", "move shape", "T"),
    ],
)
def test_words_unit_and_scale_belong_together(
    column: str, value: Any, heading: str, text: str
) -> None:
    assert label(column) == heading
    assert shown(column, value) == text


def test_what_rows_have_alike_is_a_sentence() -> None:
    rows = [{"dtype": "fp16", "clock_mhz": 500, "area_mm2": nan, "multipliers": i} for i in (1, 2)]
    words = "Alike in all: value type: fp16; clock, MHz: 500."
    assert alike(rows, ("dtype", "clock_mhz", "area_mm2", "multipliers")) == (
        ["multipliers"],
        words,
    )


def test_a_cell_is_in_the_unit_of_its_heading() -> None:
    assert cell("energy_pj", 3.42e9) == "3.42"
    assert scaled("energy_pj", 3.42e9) == pytest.approx(3.42)
    assert cell("of_ideal", 0.5) == "50.0"
    assert cell("speed_up", 2.0) == "2.00x"
    assert label("time_ms", "a step") == "time of a step, ms"
    assert [trimmed(value) for value in (999.96, 0, 1.5e-5, -1234.5)] == [
        "1,000",
        "0",
        "1.5e-05",
        "-1,234",
    ]


def test_no_unit_of_a_column_is_lost() -> None:
    """A name that ends in a unit has one for people, and so has every pJ, byte and mm2."""
    for column in COLUMNS:
        if column.unit in ("pJ", "bytes", "MHz", "MB/s", "mm2", "mW"):
            assert label(column.name).rpartition(", ")[2] in ("mJ", "MB", "MHz", "GB/s", "mm2", "W")
    ends = {"_ms": "ms", "_pj": "mJ", "_w": "W", "_per_s": "/s", "_mm2": "mm2"}
    ends |= {"ms_per_image": "ms", "_pj_per_image": "mJ"}
    for name in LABELS:
        for end, unit in ends.items():
            assert not name.endswith(end) or unit in label(name).rpartition(", ")[2], name
