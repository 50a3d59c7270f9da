"""Rows put together: sums, means, quotients; and the refusal to compare what doesn't belong."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

import swatsim
from swatsim.cli.drawing import draw
from swatsim.columns import COLUMNS
from swatsim.errors import ResultsError
from swatsim.reports import labels, layer_bars, page_tables, tables
from swatsim.reports.names import labels as shortest
from swatsim.reports.over_steps import over_steps
from swatsim.reports.page import of_results
from swatsim.reports.roofline import roofline
from swatsim.reports.style import as_png
from swatsim.reports.weighted import MOST, apart, weighted
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
    for rows in ([row for row in results.rows if row != last], [*results.rows, last]):
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
        assert "baseline" in figure.axes[1].get_xlabel()
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert len(legend) == len(set(legend)) >= 4


def test_bars_of_pe_cycles_add_up_to_the_time_relative_to_the_baseline(results: Results) -> None:
    summary = tables.summarise(results)
    for plot, ratio, whole in (
        (layer_bars.pe_cycles, "speed_up", "lane_cycles"),
        (layer_bars.energy, "energy_efficiency", "energy_pj"),
    ):
        above, below = map(bars_of, plot(results).axes)
        totals = [summary.of_layers, *summary.ops[:-1]]
        assert [end for end, _ in above] == pytest.approx([1 / row[ratio] for row in totals])
        taken = sum(row["baseline"][whole] for row in summary.layers)
        known = [(1 / row[ratio], row["baseline"][whole] / taken) for row in summary.layers]
        np.testing.assert_allclose(sorted(below), sorted(known))
        # areas are what each takes, of the baseline's
        area = sum(end * height for end, height in below)
        assert area == pytest.approx(1 / summary.of_layers[ratio])


def bars_of(axes: Axes) -> list[tuple[float, float]]:
    """Return the ends and the heights of a plot's stacked bars, from the top down."""
    found: dict[float, tuple[float, float]] = {}
    for boxes in (it for it in axes.collections if isinstance(it, PolyCollection)):
        for box in boxes.get_paths():
            (_, top), (end, foot) = box.vertices[:4].min(axis=0), box.vertices[:4].max(axis=0)
            found[top] = max(found.get(top, (0, 0)), (end, foot - top))
    return [found[top] for top in sorted(found)]


def test_bars_of_speed_ups_are_as_high_as_their_time(results: Results) -> None:
    summary = tables.summarise(results)
    figure = layer_bars.speed_up(results)
    bars = [(bar.get_width(), bar.get_height()) for bar in figure.axes[1].patches]
    taken = sum(row["cycles"] for row in summary.layers)
    known = [(row["speed_up"], row["cycles"] / taken) for row in summary.layers]
    np.testing.assert_allclose(sorted(bars), sorted(known))
    mean = sum(value * share for value, share in bars)
    assert mean == pytest.approx(summary.of_layers["speed_up"])
    longest: dict[str, int] = {}
    for row in summary.layers:
        longest[row["layer"]] = longest.get(row["layer"], 0) + row["cycles"]
    shown = [group.name for group in weighted(summary, lambda row: row["cycles"])]
    assert shown == sorted(longest, key=lambda name: -longest[name])
    as_png(figure)
    assert len(figure.spots()) == len(summary.layers) + 4
    assert all(0 <= it.x < 1 and it.width > 0 and it.y + it.height <= 1 for it in figure.spots())
    said = {spot.text.splitlines()[0] for spot in figure.spots()}
    row = summary.layers[0]
    assert f"{row['layer']}, {row['op']}: {row['speed_up']:.2f}x" in said
    step = tables.per_step(summary.of_layers, row["steps"])
    words = next(it.text for it in figure.spots() if it.text.startswith("all layers: "))
    taken = labels.shown("time_ms", step["time_ms"])
    assert words.splitlines()[1].startswith(f"{taken} a step, the baseline ")


def test_layers_that_take_little_are_one_bar(results: Results) -> None:
    rows = [
        {**row, "layer": f"model.blocks.{number}.{row['layer']}"}
        for number in range(40)
        for row in results.rows
    ]
    deep = Results(rows, results.provenance)
    groups = weighted(deep, lambda row: row["cycles"])
    *named, rest = groups
    assert len(named) == MOST
    assert rest.label == f"{40 * len({row['layer'] for row in results.rows}) - MOST} others"
    assert len({group.label for group in groups}) == len(groups)
    assert all(group.label.count(".") < 3 for group in named)
    assert sum(group.height for group in groups) == pytest.approx(1)
    every = tables.summarise(deep)
    cycles = sum(bar.row["cycles"] for group in groups for bar in group.bars)
    assert cycles == every.of_layers["cycles"]
    places = apart([group.middle for group in groups], 0.02, 0.99)
    assert all(b - a >= 0.02 - 1e-9 for a, b in pairwise(places))
    assert places[-1] <= 0.99


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (
            [f"encoder.layer.{i}.attention.{it}" for i in range(12) for it in "qk"],
            [f"{i}.attention.{it}" for i in range(12) for it in "qk"],
        ),
        (["features.0", "features.3", "fc"], ["0", "3", "fc"]),
        (["a.b", "b"], ["a.b", "b"]),
        (["net.$w$", "net.w"], ["$w$", "w"]),
        (["x" * 40, "x" * 41], None),
        (["", "."], None),
    ],
)
def test_labels_drop_what_names_share_and_differ(
    names: list[str], labels: list[str] | None
) -> None:
    found = shortest(names)
    assert len(set(found.values())) == len(names)
    assert labels is None or [*found.values()] == labels


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
    summary = tables.summarise(results)
    above, below = layer_bars.speed_up(results).axes
    for axes, rows in ((above, [summary.of_layers, *summary.ops[:-1]]), (below, summary.layers)):
        (lines,) = (it for it in axes.collections if it.get_label() == layer_bars.DENSE_OPERANDS)
        ticks = lines.get_paths()
        known = sorted(row["speed_up_dense_operands"] for row in rows)
        assert sorted(tick.vertices[0, 0] for tick in ticks) == known


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
