"""Rows put together: sums, means, quotients; and the refusal to compare what doesn't belong."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import swatsim
from swatsim.cli.drawing import draw
from swatsim.columns import COLUMNS
from swatsim.errors import ResultsError
from swatsim.reports import layer_bars, page_tables, tables
from swatsim.reports.over_steps import over_steps
from swatsim.reports.page import of_results
from swatsim.reports.roofline import roofline
from swatsim.results import Results
from swatsim.tracefile import Trace
from tests.traces import LAYERS, make_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return make_trace(tmp_path_factory.mktemp("report") / "small")


@pytest.fixture(scope="module")
def results(trace: Trace) -> Results:
    return swatsim.simulate(trace, "tensordash")


def test_counts_are_summed_over_steps_and_densities_averaged(results: Results) -> None:
    rows = tables.per_layer(results)
    assert list(dict.fromkeys(row["layer"] for row in rows)) == [layer.name for layer in LAYERS]
    frame = results.frame
    ours = frame[(frame.layer == "block.conv") & (frame.op == "wgrad") & (frame.role == "machine")]
    theirs = frame[
        (frame.layer == "block.conv") & (frame.op == "wgrad") & (frame.role == "baseline")
    ]
    row = next(r for r in rows if (r["layer"], r["op"]) == ("block.conv", "wgrad"))
    assert len(ours) == 2
    assert row["cycles_compute"] == ours.cycles_compute.sum()
    assert row["speed_up"] == theirs.cycles.sum() / ours.cycles.sum()
    assert row["speed_up_compute"] == theirs.cycles_compute.sum() / ours.cycles_compute.sum()
    assert row["energy_efficiency"] == pytest.approx(theirs.energy_pj.sum() / ours.energy_pj.sum())
    assert row["baseline"]["cycles"] == theirs.cycles.sum()
    assert row["density_act"] == pytest.approx(ours.density_act.mean())
    assert math.isnan(row["density_weight"])
    assert row["utilisation"] == row["lane_cycles_effectual"] / row["lane_cycles"]
    ideal = sum(-(-macs // 4096) for macs in ours.macs_effectual)
    assert row["of_ideal"] == ideal / ours.cycles.sum()
    assert row["of_ideal_compute"] == ideal / ours.cycles_compute.sum()
    assert row["flops_effectual"] == 2 * row["macs_effectual"]


def test_the_step_is_the_sum_of_its_ops(results: Results) -> None:
    rows = tables.per_op(results)
    assert [row["op"] for row in rows] == ["fprop", "dgrad", "wgrad", "step"]
    for column in (column.name for column in COLUMNS if column.adds == "sum"):
        if column == "macs_held":
            continue  # not known of this trace
        assert rows[-1][column] == pytest.approx(sum(row[column] for row in rows[:-1]))


def test_of_the_ideal_is_its_time_by_ours(results: Results, trace: Trace) -> None:
    ideal = tables.per_op(swatsim.simulate(trace, swatsim.machine("ideal", multipliers=4096)))
    for row, bound in zip(tables.per_op(results), ideal, strict=True):
        assert row["of_ideal"] == bound["cycles"] / row["cycles"] <= row["of_ideal_compute"] < 1
        assert bound["of_ideal"] == bound["of_ideal_compute"] == 1
    found = swatsim.compare(results).layers()
    assert [row["of_ideal"] for row in found[-4:]] == [
        row["of_ideal"] for row in tables.per_op(results)
    ]


def test_bytes_of_a_value_type_that_nobody_knows_are_refused(results: Results) -> None:
    rows = [{**row, "dtype": "fp8"} for row in results.rows]
    with pytest.raises(ResultsError, match="unknown value type 'fp8'"):
        of_results(Results(rows, {}))


def test_an_op_without_cycles_has_no_finite_speed_up(results: Results) -> None:
    rows = [dict(row) for row in results.rows if (row["layer"], row["op"]) == ("fc", "wgrad")]
    for row in rows:
        row["cycles"] *= row["role"] == "baseline"
    assert tables.per_layer(Results(rows, {}))[0]["speed_up"] == math.inf
    for row in rows:
        row["cycles"] = 0
    assert math.isnan(tables.per_layer(Results(rows, {}))[0]["speed_up"])


def test_rows_of_two_traces_or_two_machines_are_not_compared(results: Results) -> None:
    other = [{**row, "trace_id": "else"} for row in results.rows]
    with pytest.raises(ResultsError, match="2 different traces"):
        tables.per_layer(Results([*results.rows, *other], {}))
    other = [{**row, "machine": "x"} for row in results.rows if row["role"] == "machine"]
    with pytest.raises(ResultsError, match=r"2 machines of role 'machine' \(tensordash, x\)"):
        tables.per_op(Results([*results.rows, *other], {}))
    with pytest.raises(ResultsError, match="0 different traces"):
        tables.per_op(Results([], {}))


def test_rows_of_unequal_ops_are_not_compared(results: Results) -> None:
    last = next(row for row in reversed(results.rows) if row["role"] == "baseline")
    for rows in ([row for row in results.rows if row is not last], [*results.rows, last]):
        with pytest.raises(ResultsError, match="'tensordash dense' are not of the same ops"):
            tables.per_layer(Results(rows, {}))


def test_plots_name_machine_baseline_trace_and_unit(results: Results) -> None:
    for plot in (layer_bars.speed_up, layer_bars.pe_cycles, layer_bars.energy):
        figure = plot(results)
        axes = figure.axes[0]
        title = axes.get_title(loc="left")
        words = " ".join(title.split())
        size = "256 PEs of 16 multipliers, fp32, 500 MHz, 25.6 GB/s"
        assert f"tensordash, baseline tensordash dense ({size})" in words
        assert "small, 2 steps of 2 of 8 images" in title
        assert "baseline" in axes.get_ylabel()
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert len(legend) == len(set(legend)) >= 4


def test_bars_of_pe_cycles_add_up_to_the_time_relative_to_the_baseline(results: Results) -> None:
    rows = tables.per_layer(results) + tables.per_op(results)[:-1]
    for plot, ratio in (
        (layer_bars.pe_cycles, "speed_up"),
        (layer_bars.energy, "energy_efficiency"),
    ):
        tops: dict[float, float] = {}
        for boxes in plot(results).axes[0].collections:
            for box in boxes.get_paths():
                left, top = box.vertices[0, 0], box.vertices[:, 1].max()
                tops[left] = max(tops.get(left, 0), top)
        heights = [tops[left] for left in sorted(tops)]
        assert heights == pytest.approx([1 / row[ratio] for row in rows])


def test_no_point_lies_above_the_roof(results: Results) -> None:
    axes = roofline(results).axes[0]
    assert "tensordash, baseline tensordash dense" in axes.get_title(loc="left")
    (roof,) = axes.get_lines()
    row = results.rows[0]
    peak, per_cycle = row["pes"] * row["lanes"], row["dram_mb_per_s"] / row["clock_mhz"]
    assert max(roof.get_ydata()) == peak
    points = [point for cloud in axes.collections for point in cloud.get_offsets()]
    assert len(points) > 10
    for per_byte, reached in points:
        assert reached <= min(peak, per_byte * per_cycle)


def test_without_a_memory_system_there_is_no_roofline(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "small")
    alone = swatsim.simulate(trace, swatsim.machine("tensordash", memory="none"))
    assert set(draw(alone)[0]) == {"speed_up.png", "pe_cycles.png", "energy.png"}
    (words,) = roofline(alone).axes[0].texts
    assert "no memory system" in words.get_text()


def repeated(results: Results, steps: int) -> Results:
    """Make as many steps of one: their costs differ."""
    first = [row for row in results.rows if row["step"] == results.rows[0]["step"]]
    rows = [
        {**row, "step": number, "cycles": row["cycles"] + number * (row["role"] == "machine")}
        for number in range(steps)
        for row in first
    ]
    return Results(rows, results.provenance)


def test_each_total_of_a_page_is_added_up_once(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    add_up = tables.add_up
    monkeypatch.setattr(tables, "add_up", lambda *of: seen.append(len(of[0])) or add_up(*of))
    of_results(repeated(results, 20))
    # of the machine and of its baseline: layers and ops, ops, all layers, the step; however many
    assert len(seen) == 2 * (11 + 3 + 1 + 1)


def test_a_summary_stands_for_its_results(results: Results) -> None:
    summary = tables.summarise(results)
    assert tables.summarise(summary) is summary
    for table in (
        tables.per_layer,
        tables.per_op,
        tables.by_step,
        page_tables.layers,
        page_tables.sparsity,
    ):
        assert str(table(summary)) == str(table(results))  # a nan is not equal to itself
    assert tables.per_layer(summary)[0] is summary.layers[0]
    assert page_tables.over_steps(summary)[0] is page_tables.over_steps(summary)[0]
    with pytest.raises(AttributeError, match="rows can't be set: a summary is frozen"):
        summary.rows = []


def test_totals_of_steps_add_up_to_those_of_ops(results: Results) -> None:
    for row in tables.by_step(results):
        alone = Results([it for it in results.rows if it["step"] == row["step"]], {})
        own = next(it for it in tables.per_op(alone) if it["op"] == row["op"])
        assert {name: own[name] for name in row if name != "step"} | {"step": row["step"]} == row


def test_a_long_run_is_drawn_in_bounds_and_says_so(results: Results) -> None:
    long = repeated(results, 950)
    rows = [row for row in page_tables.over_steps(long) if row["op"] == "fprop"]
    assert len(rows) == 950
    above = over_steps(long).axes[0]
    title = " ".join(above.get_title(loc="left").split())
    assert "means of 5 recorded steps each, bands from the lowest to the highest" in title
    line = next(line for line in above.get_lines() if line.get_label() == "fprop")
    assert len(line.get_xdata()) == 190
    assert line.get_marker() == "None"
    means = [sum(row["speed_up"] for row in rows[i : i + 5]) / 5 for i in range(0, 950, 5)]
    assert list(line.get_ydata()) == pytest.approx(means)
    band = above.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == max(row["speed_up"] for row in rows)
    short = over_steps(results).axes[0]
    assert "means" not in short.get_title(loc="left")
    assert list(short.get_lines()[0].get_xdata()) == [0, 7]


def test_a_bar_is_marked_where_dense_operands_would_be(results: Results) -> None:
    rows = tables.per_layer(results) + tables.per_op(results)[:-1]
    (ticks,) = layer_bars.speed_up(results).axes[0].collections
    heights = sorted(tick.vertices[0, 1] for tick in ticks.get_paths())
    assert heights == sorted(row["speed_up_dense_operands"] for row in rows)


@pytest.mark.parametrize("baseline", ["dadiannao", "bit-tactical"])
def test_each_machine_stays_under_a_roof_of_its_own(tmp_path: Path, baseline: str) -> None:
    trace = make_trace(tmp_path / "small")
    axes = roofline(swatsim.simulate(trace, "swat", baseline=baseline)).axes[0]
    roofs = {line.get_label(): max(line.get_ydata()) for line in axes.get_lines()}
    names = sorted(roofs)
    assert [name.split(":")[0] for name in names] == [
        "roof of the baseline",
        "roof of the machine",
    ]
    for cloud in axes.collections:
        whose = names["baseline" not in cloud.get_label()]
        assert max(cloud.get_offsets()[:, 1]) <= roofs[whose]
    assert "both factors non-zero" in axes.get_ylabel()
