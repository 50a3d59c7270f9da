"""The reproduction: one real measurement, and a table that says only what is in it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from swatsim.reports.series import BOUND
from swatsim.reproduce import swat, swat_plots, swat_speed
from swatsim.reproduce.swat_speed import PUBLISHED, Setting, SpeedUp

MEASURED = Path(__file__).parents[2] / "benchmarks" / "paper" / "swat_speed_ups.csv"


@pytest.fixture(scope="module")
def speed_ups() -> list[SpeedUp]:
    """Load what benchmarks/paper/swat.py measured."""
    rows = csv.DictReader(MEASURED.read_text().splitlines())
    return [
        SpeedUp(
            machine=row["machine"],
            op=row["op"],
            sparsity=int(row["sparsity"]),
            act_density=float(row["act_density"]),
            uneven=row["uneven"] == "True",
            speed_up=float(row["speed_up"]),
            over_alternative=float(row["over_alternative"]),
            cycles=int(row["cycles"]),
        )
        for row in rows
    ]


def test_every_speed_up_is_measured(speed_ups: list[SpeedUp]) -> None:
    wanted = {
        (name, op, setting.sparsity, setting.act_density, setting.uneven)
        for setting in swat_speed.settings()
        for name, ops in setting.runs
        for op in ops
    }
    found = {(o.machine, o.op, o.sparsity, o.act_density, o.uneven) for o in speed_ups}
    assert found == wanted
    assert len(found) == len(speed_ups)


def test_a_measurement_comes_out_as_it_is_written_down(
    speed_ups: list[SpeedUp], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Setting, "runs", [("swat", ("fprop",)), ("bit-tactical", ("dgrad",))])
    for one in swat_speed.measure([Setting(90, 0.5, uneven=True)]):
        assert one in speed_ups


def test_no_one_sided_machine_passes_its_window(speed_ups: list[SpeedUp]) -> None:
    for one in speed_ups:
        if one.machine in ("tensordash", "bit-tactical"):
            assert one.speed_up <= 3
    assert "reach 2.70x at most" in swat.verdict(speed_ups)


def test_the_table_has_every_published_figure(speed_ups: list[SpeedUp]) -> None:
    lines = swat.lines(speed_ups)
    for direction, figures in PUBLISHED.items():
        mine = [line for line in lines if line.what.startswith(direction)]
        assert [line.published for line in mine] == list(figures.values())
        assert all(line.cause for line in mine)
    assert {line.section for line in lines} == {"speed-up", "FLOPs", "memory"}
    for line in lines:
        unexplained = line.difference is not None and abs(line.difference) > 0.1
        assert line.cause or not unexplained, line.what


def test_differences_are_relative_for_speed_ups_and_points_otherwise() -> None:
    line = swat.Line("speed-up", "x", 2.0, 3.0, "x", "", "")
    assert line.difference == 50
    assert swat.Line("FLOPs", "x", 50.0, 51.5, "%", "", "").difference == 1.5
    assert swat.Line("FLOPs", "x", 50.0, None, "%", "", "").difference is None


def test_series_per_layer_add_up_to_the_published_reductions() -> None:
    series = swat.macs_per_layer(80)
    for convention, reduction in (("swat", 76.1), ("exact", 78.4)):
        dense = sum(series[f"dense, counted as {convention}"].values())
        sparse = sum(series[f"80 %, counted as {convention}"].values())
        assert 100 * (1 - sparse / dense) == pytest.approx(reduction, abs=0.05)
    kept = swat.bytes_per_layer(80, batch=2)
    assert sum(kept["80 %, values"].values()) < sum(kept["80 %, bitmask"].values())
    assert sum(kept["80 %, csr"].values()) < sum(kept["dense"].values())


def test_plots_show_every_machine_and_the_published_points(speed_ups: list[SpeedUp]) -> None:
    for direction in PUBLISHED:
        axes = swat_plots.speed_ups(speed_ups, direction).axes[0]
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert {BOUND, "published by SWAT", "tensordash", "bit-tactical"} <= set(labels)
        assert sum("swat" in label for label in labels) >= 2
