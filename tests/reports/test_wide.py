"""Counts as large as one op may have: totals of many pass 63 bits, and wrap around nowhere."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import swatsim
from swatsim import parquet
from swatsim.columns import COLUMNS, FORM, Role
from swatsim.counters import BUCKETS
from swatsim.errors import ResultsError
from swatsim.form import LARGEST
from swatsim.reports import page_tables, tables
from swatsim.reports.verdict import verdict
from swatsim.results import Results
from swatsim.simulator.rows import MOST_COUNTED
from tests.reports.test_export import cycles_of
from tests.traces import make_trace

SUMMED = [it.name for it in COLUMNS if it.dtype == "int64" and it.adds == "sum"]


def with_counts(results: Results, count: int) -> Results:
    """Return results whose rows all count so many of everything, on one multiplier."""
    counted = dict.fromkeys(SUMMED, count) | dict.fromkeys(BUCKETS, 0)
    counted |= {"pes": 1, "lanes": 1, "lane_cycles_effectual": count}
    dense = {"cycles_dense_operands": float(count)}
    rows = [{**row, **counted, **dense} for row in results.rows]
    return Results(rows, results.provenance)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Results:
    trace = make_trace(tmp_path_factory.mktemp("wide") / "trace")
    return swatsim.simulate(trace, "scale-sim-ws")


@pytest.fixture(scope="module")
def wide(plain: Results) -> Results:
    return with_counts(plain, MOST_COUNTED)


@pytest.fixture(scope="module")
def total(wide: Results) -> int:
    """What a column adds up to, over the machine's rows."""
    found = MOST_COUNTED * sum(row["role"] == Role.MACHINE for row in wide.rows)
    assert found > 2**64
    return found


def test_tables_have_wide_numbers(wide: Results, total: int) -> None:
    step, layers = tables.per_op(wide)[-1], tables.per_layer(wide)
    for name in (*SUMMED, "cycles_ideal"):
        assert name in BUCKETS or step[name] == step["baseline"][name] == total
        assert name in BUCKETS or sum(row[name] for row in layers) == total
    assert step["lane_cycles_effectual"] == step["lane_cycles"] == total
    assert step["flops_effectual"] == 2 * total
    assert step["dram_bytes"] == total * sum(name.startswith("dram_bytes") for name in SUMMED)
    assert (step["speed_up"], step["of_ideal"], step["utilisation"]) == (1, 1, 1)


def test_frames_of_tables_have_wide_numbers(wide: Results, total: int) -> None:
    frame = swatsim.per_op(wide)
    for name in ("cycles", "baseline_cycles", "lane_cycles", "macs_dense"):
        assert frame[name]["step"] == total
    assert sum(map(int, swatsim.per_layer(wide).cycles)) == total


def test_headlines_verdicts_and_estimates_are_those_of_small_counts(
    plain: Results, wide: Results, total: int
) -> None:
    one = with_counts(plain, 1)
    large, small = page_tables.headline(wide), page_tables.headline(one)
    for name in ("time_ms", "cycles", "dram_bytes", "macs_effectual"):
        assert large[name] == pytest.approx(MOST_COUNTED * small[name], rel=1e-12)
    steps = len({row["step"] for row in wide.rows})
    assert large["cycles"] == pytest.approx(total / steps, rel=1e-12)
    assert verdict(wide).shares == verdict(one).shares
    runs = [swatsim.estimate(it, 1000).ours["cycles"].value for it in (wide, one)]
    assert runs[0] == pytest.approx(MOST_COUNTED * runs[1], rel=1e-12)


def test_comparisons_are_those_of_small_counts(plain: Results, wide: Results) -> None:
    one = with_counts(plain, 1)
    found = swatsim.compare(wide, one)
    assert [row["speed_up"] for row in found.rows] == pytest.approx([1, MOST_COUNTED])
    assert found.rows[0]["cycles"] == pytest.approx(MOST_COUNTED * found.rows[1]["cycles"])
    last = [row for row in found.layers() if row["op"] == "layers"]
    assert last[0]["cycles"] == pytest.approx(MOST_COUNTED * last[1]["cycles"])
    assert all(value >= 0 for value in found.frame.select_dtypes("number").min())


def test_exports_are_wide_or_refused(wide: Results, tmp_path: Path) -> None:
    (path,) = swatsim.export(wide, tmp_path / "step.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["cycles"]) for row in rows) == cycles_of(wide, 0, Role.MACHINE)
    carried = sum(name.startswith("dram_bytes") for name in SUMMED)
    assert {int(row["dram_bytes"]) for row in rows} == {carried * MOST_COUNTED}
    with pytest.raises(ResultsError, match=r"\d+ does not fit into the 64 bits .*: export latenc"):
        swatsim.export(wide, tmp_path / "step", "chakra")


def test_what_would_wrap_around_as_it_is_summed_is_no_frame_and_no_file(
    plain: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = len(plain.rows)
    fits, more = (with_counts(plain, LARGEST // rows + extra) for extra in (0, 1))
    assert int(fits.frame.cycles.sum()) == LARGEST // rows * rows
    fits.save(tmp_path)
    assert swatsim.load_results(tmp_path).rows == fits.rows
    said = rf"column '\w+' comes to {rows * (LARGEST // rows + 1)}, and at most {LARGEST} fits"
    for group in (parquet.GROUP, 7):
        monkeypatch.setattr(parquet, "GROUP", group)
        monkeypatch.setattr("swatsim.results.AT_A_TIME", group)
        for use in (lambda: more.frame, lambda: more.save(tmp_path), more.to_parquet):
            with pytest.raises(ResultsError, match=said):
                use()
    assert swatsim.load_results(tmp_path).rows == fits.rows, "what was there is still there"


@pytest.mark.parametrize("name", ["cycles", "pes"])
def test_a_number_of_64_bits_is_no_negative_one(plain: Results, name: str) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in plain.rows]
    rows[0][name] = 2**63
    with pytest.raises(ResultsError, match=rf"column '{name}' comes to \d+, and at most {LARGEST}"):
        _ = Results(rows, plain.provenance).frame


def test_sums_are_exact_at_all_widths() -> None:
    import pyarrow as pa

    form = type(FORM)(1, tuple(it for it in COLUMNS if it.name == "cycles"))
    values = [LARGEST - 2**33, 2**32 - 1, 2**32, 1]
    totals = parquet.Totals(form)
    for value in values:
        totals.add(pa.table({"cycles": pa.array([value], pa.int64())}))
    with pytest.raises(ResultsError, match=f"comes to {sum(values) + 2**32}, "):
        totals.add(pa.table({"cycles": pa.array([2**32 - 1, 1], pa.int64())}))
