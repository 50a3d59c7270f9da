"""A report: one page that needs nothing else, whose numbers are in tables beside it."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.errors import ResultsError
from swatsim.outputs import PLOT_FILES
from swatsim.reports import html as pages
from swatsim.reports import page_tables, sweep_points, tables
from swatsim.reports.page import sections_of
from swatsim.results import Results
from swatsim.sealed import seal
from tests.pictures import unpainted
from tests.sweeps.test_sweep import Here
from tests.traces import make_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trace(tmp_path_factory.mktemp("page") / "small").path


@pytest.fixture(scope="module")
def results(trace: Path) -> Results:
    return swatsim.simulate(trace, "tensordash")


@pytest.fixture(scope="module")
def written(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    results.save(folder)
    with unpainted():  # a browser is shown painted ones
        page = swatsim.report(folder)[0]
    assert page == folder / "report" / "report.html"
    return page.parent


@pytest.fixture(scope="module")
def swept(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept") / "out"
    grid = {"rows": [1, 4], "buffer_b_kib": [64, 1024], "lookaside": [5]}
    machines = [
        {"preset": "tensordash", "grid": grid},
        {"preset": "dadiannao", "set": {"tiles": 1}, "grid": {"lookaside": [0, 1]}},
    ]
    swatsim.sweep({"traces": [str(trace)], "machines": machines}, folder, executor=Here())
    with unpainted():  # notebook 03 paints a sweep's
        return swatsim.report(folder)[0].parent


class Page(HTMLParser):
    """Collects what a page refers to, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.images = 0
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.links += [known[name] or "" for name in ("src", "href") if name in known]
        self.images += tag == "img"
        if tag not in ("meta", "img", "br", "wbr", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("which", ["written", "swept"])
def test_the_page_needs_nothing_else_and_its_parts_are_there(
    which: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert page.links
    # sharp at any size and on paper, unless that takes too much room
    assert all(re.match(r"data:image/(svg\+xml|png);base64,\S", link) for link in page.links)
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in re.sub(r"base64,[^\"]*", "", text)
    named = set(re.findall(r"([a-z_]+\.(?:png|svg|csv))", re.sub(r"base64,[^\"]*", "", text)))
    assert len(named) > 15
    assert named <= {path.name for path in folder.iterdir()}
    assert page.images == len({name for name in named if name.endswith(".png")})
    assert all(path.stat().st_size for path in folder.iterdir())


def _rendered(table: pages.Table) -> str:
    section = pages.Section("a", tables=[table])
    return pages.Page("t", "of nothing", sections=[section]).files()["report.html"].decode()


def test_of_a_long_table_some_rows_are_printed_and_it_says_which() -> None:
    rows = [{"name": f"row {i}", "cycles": i} for i in range(70)]
    text = _rendered(pages.Table("all", rows, "All"))
    assert "; on paper: the first 60 of 70 rows" in text
    assert text.count('<tr class="screen">') == 10
    paper = pages.on_paper(rows, lambda row: row["cycles"], "those that take longest", 2)
    text = _rendered(pages.Table("all", rows, "All", paper=paper))
    assert "; on paper: 2 of 70 rows, those that take longest" in text
    kept = re.findall(r'<tr><th scope="row" class="text">(row \d+)', text)
    assert kept == ["row 68", "row 69"]
    assert pages.on_paper(rows[:2], lambda row: row["cycles"], "those", 2) is None
    assert 'class="screen"' not in _rendered(pages.Table("all", rows[:60], "All"))


def test_a_long_name_may_be_broken_where_its_parts_end() -> None:
    names = ("scnn[a=1]", "tensordash[clock_mhz=700,<b>=1]")
    text = _rendered(pages.Table("all", [{"name": name} for name in names], "All"))
    assert "scnn[a=1]<" in text
    assert "tensordash[<wbr>clock_mhz=700,<wbr>&lt;b&gt;=1]<" in text


def test_a_section_without_numbers_is_left_out(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> set[str]:
        return {table.name for section in sections_of(results) for table in section.tables}

    assert "sparsity" in names()
    monkeypatch.setattr(page_tables, "sparsity", lambda _results: [])
    assert "sparsity" not in names()


def test_the_headline_is_what_the_tables_say(written: Path, results: Results) -> None:
    step = tables.per_op(results)[-1]
    words = Page((written / "report.html").read_text()).words
    for value in (step["speed_up"], step["speed_up_compute"], step["energy_efficiency"]):
        assert f"{value:.2f}x" in words
    assert f"{100 * (1 - step['macs_effectual'] / step['macs_unpadded']):.0f} %" in words


def test_every_plot_of_results_is_on_their_page(written: Path) -> None:
    text = (written / "report.html").read_text()
    assert [name for name in PLOT_FILES if f"<code>{name}</code>" not in text] == []


def test_tables_of_a_page_add_up_to_the_results(written: Path, results: Results) -> None:
    with (written / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    mine = [row for row in results.rows if row["role"] == "machine"]
    assert sum(int(row["cycles"]) for row in rows) == sum(row["cycles"] for row in mine)
    assert sum(float(row["energy_pj_dram"]) for row in rows) == pytest.approx(
        sum(row["energy_pj_dram"] for row in mine)
    )
    with (written / "over_steps.csv").open() as file:
        steps = list(csv.DictReader(file))
    assert {int(row["step"]) for row in steps} == {row["step"] for row in mine}


def test_densities_over_steps_and_operands_are_exact(results: Results, trace: Path) -> None:
    opened = swatsim.open_trace(trace)
    for row in page_tables.over_steps(results):
        step = opened.step(row["step"])
        records = [r for r in step.records if (r.op, r.operand) == (row["op"], "weight")]
        if records:
            ones = sum(r.ones for r in records) / sum(r.elements for r in records)
            assert row["density_weight"] == pytest.approx(ones)
    kept = {(row["layer"], row["tensor"]): row for row in page_tables.operand_bytes(results)}
    first = opened.step(opened.steps[0])
    for layer, operand, mask, _ in first.kept():
        assert kept[layer.name, operand]["elements"] == mask.size


def test_no_point_off_the_front_is_beaten_by_none() -> None:
    def point(name: str, *costs: float) -> dict[str, Any]:
        names = ("time_ms", "energy_pj", "multipliers", "buffer_kib")
        return {"point": name, **dict(zip(names, costs, strict=True))}

    points = [
        point("fast", 1, 9, 9, 9),
        point("frugal", 9, 1, 9, 9),
        point("small", 9, 9, 1, 9),
        point("twin", 1, 9, 9, 9),
        point("beaten", 2, 9, 9, 9),
    ]
    assert [row["point"] for row in page_tables.pareto(points)] == [
        "fast",
        "frugal",
        "small",
        "twin",
    ]


def test_a_front_is_of_area_and_leakage_where_all_points_have_them() -> None:
    def point(name: str, energy: float, leakage: float, multipliers: int, area: float) -> Any:
        known = {"energy_pj": energy, "energy_with_leakage_pj": energy + leakage}
        size = {"multipliers": multipliers, "buffer_kib": 1, "area_mm2": area}
        return {"point": name, "time_ms": 1.0, "energy_table": "45nm", **known, **size}

    points = [point("a", 1, 9, 1, 5.0), point("b", 2, 1, 2, 4.0)]
    assert [row["point"] for row in page_tables.pareto(points)] == ["b"]
    words = "time, energy (with leakage) and size (area); table 45nm"
    assert page_tables.weighed_by(points) == words
    points[1]["area_mm2"] = nan
    assert page_tables.costs_of(points)[2:] == ("multipliers", "buffer_kib")
    assert [row["point"] for row in page_tables.pareto(points)] == ["a", "b"]
    points[1]["energy_with_leakage_pj"] = nan
    assert [row["point"] for row in page_tables.pareto(points)] == ["a"]
    assert "without leakage, which is not known" in page_tables.weighed_by(points)


def test_a_front_leaves_out_points_without_a_dram_in_their_energy() -> None:
    size = {"multipliers": 1, "buffer_kib": 1}
    points: list[dict[str, Any]] = [
        {"point": "a", "time_ms": 2.0, "energy_pj": 2.0, "area_mm2": 1.0, "dram_mb_per_s": 9},
        {"point": "b", "time_ms": 1.0, "energy_pj": 1.0, "area_mm2": nan, "dram_mb_per_s": 0},
    ]
    points = [{**size, **point} for point in points]
    assert [row["point"] for row in page_tables.pareto(points)] == ["a"]
    assert "size (area)" in page_tables.weighed_by(points), "it is known of all that are weighed"
    words = "1 point is left out: memory=none or dram=ideal, so that no DRAM is in the energy"
    assert page_tables.not_weighed(points) == words
    assert [row["point"] for row in page_tables.pareto(points[1:])] == ["b"]
    assert not page_tables.not_weighed(points[1:])


def test_what_is_said_of_a_point_stands_where_it_is_drawn() -> None:
    """With leakage in the energy, an axis says so, and points lie there; so does what is said."""
    of = {"trace": "t", "steps": 1, "images": 1, "batch_size": 1, "ops": "fprop", "share": 1.0}
    kind = {"preset": "p", "dtype": "fp32", "clock_mhz": 500, "dram_mb_per_s": 0}
    size = {"multipliers": 64, "buffer_kib": 1, "area_mm2": 2.0, "energy_table": "45nm"}
    points: list[dict[str, Any]] = [
        {**of, **kind, **size, "point": name, "machine": name, "time_ms": time, **energies}
        for name, time, energies in (
            ("a", 1.0, {"energy_pj": 1e9, "energy_with_leakage_pj": 3e9}),
            ("b", 2.0, {"energy_pj": 2e9, "energy_with_leakage_pj": 2.5e9}),
        )
    ]
    figure = sweep_points.pareto(points, points[:1])
    dots = figure.axes[0].collections
    drawn = {tuple(place) for one in dots for place in np.asarray(one.get_offsets()).tolist()}
    assert drawn == {(1.0, 3.0), (2.0, 2.5)} == {(x[0], y[0]) for _, x, y, _ in figure._said}
    assert figure._said[0][3].startswith("a: time 1 ms, energy with leakage 3 mJ (")


def test_a_sweep_says_which_is_fastest_and_which_failed(swept: Path) -> None:
    words = Page((swept / "report.html").read_text()).words
    assert "small: fastest " in words
    assert "lookaside=1 needs lookahead" in words
    assert "What each parameter does" in words
    index = json.loads((swept.parent / "sweep.json").read_text())
    done = [row for row in index["points"] if row["status"] == "done"]
    fastest = min(done, key=lambda row: row["time_ms"])
    assert f"The fastest: {fastest['machine']}" in words


@unpainted()
def test_names_can_not_break_the_page(results: Results, tmp_path: Path) -> None:
    rows = [{**row, "layer": f"<script>{row['layer']}"} for row in results.rows]
    page = swatsim.report(Results(rows, results.provenance), tmp_path / "out")[0]
    text = page.read_text()
    assert text.count("<script") == 1
    assert "&lt;script&gt;" in text


def test_what_can_not_be_reported_is_refused(results: Results, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no results in"):
        swatsim.report(tmp_path)
    with pytest.raises(ResultsError, match="name the report's output"):
        swatsim.report(results)
    with pytest.raises(ResultsError, match="hold no rows"):
        swatsim.report(Results([], {}), tmp_path / "out")
    for text in ("{", '{"points": [{}]}', '{"points": 3}', '{"points": [{"status": "done"}]}'):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(ResultsError, match="can't be used"):
            swatsim.report(tmp_path)
    for points in ([{}], 3, [{"status": "done"}], [{"status": "done", "trace": "t"}]):
        (tmp_path / "sweep.json").write_bytes(seal({"points": points}))
        with pytest.raises(ResultsError, match="can't be read"):
            swatsim.report(tmp_path)
    whole = seal({"points": [{"status": "failed"}]})
    (tmp_path / "sweep.json").write_bytes(whole.replace(b"failed", b"done"))
    with pytest.raises(ResultsError, match="it was changed after it was written; sweep again"):
        swatsim.report(tmp_path)
    (tmp_path / "sweep.json").write_bytes(seal({"points": []}))
    with pytest.raises(ResultsError, match="no point of the sweep"):
        swatsim.report(tmp_path)


def test_frames_are_flat_and_add_up(results: Results) -> None:
    layers, ops = swatsim.per_layer(results), swatsim.per_op(results)
    assert not any(isinstance(value, dict | list) for value in layers.iloc[0])
    assert list(ops.index) == ["fprop", "dgrad", "wgrad", "step"]
    assert layers.cycles.sum() == ops.cycles["step"]
    assert layers.baseline_cycles.sum() == ops.baseline_cycles["step"]
    assert ops.speed_up["step"] == ops.baseline_cycles["step"] / ops.cycles["step"]
    assert "speed_up over tensordash dense, weights on rows" in ops


def test_a_sweep_gives_its_points_and_its_front(trace: Path, tmp_path: Path) -> None:
    grid = {"rows": [1, 4], "lookaside": [5, 16]}
    machines = [{"preset": "bit-tactical", "set": {"tiles": 1}, "grid": grid}]
    spec = {"traces": [trace], "machines": machines}
    found = swatsim.sweep(spec, tmp_path / "out", executor=Here())
    assert len(found.failed) == 2
    best = found.front[0]
    kept = found.results(best["point"])
    assert tables.per_op(kept)[-1]["cycles"] == 2 * best["cycles"]  # two recorded steps
    assert found.folder == tmp_path / "out"


@unpainted()
def test_each_trace_of_a_sweep_has_a_front_of_its_own(trace: Path, tmp_path: Path) -> None:
    other = make_trace(tmp_path / "longer", steps=(0, 1, 2)).path
    spec = {"traces": [trace, other], "machines": [{"preset": "scale-sim-ws"}, {"preset": "a100"}]}
    swatsim.sweep(spec, tmp_path / "out", executor=Here())
    folder = swatsim.report(tmp_path / "out")[0].parent
    words = Page((folder / "report.html").read_text()).words
    assert "small: fastest " in words
    assert "longer: fastest " in words
    assert "Warning: the machines differ in more than was varied (value type: bf16, fp16;" in words
    for number, name in ((1, "small"), (2, "longer")):
        with (folder / f"front_{number}.csv").open() as file:
            assert {Path(row["trace"]).name for row in csv.DictReader(file)} == {name}
    # other points, though none is to do: the page is of none of them
    swatsim.sweep(spec | {"traces": [trace]}, tmp_path / "out", executor=Here())
    assert not list(folder.iterdir())


@unpainted()
def test_an_op_that_has_nothing_to_compute_can_be_reported(
    results: Results, tmp_path: Path
) -> None:
    rows = [dict(row) for row in results.rows]
    for row in rows:
        if (row["layer"], row["op"], row["role"]) == ("fc", "wgrad", "machine"):
            row["cycles_compute"] = 0  # an operand without a value: it is still moved
    page = swatsim.report(Results(rows, results.provenance), tmp_path / "out")[0]
    assert page.is_file()
    points = page_tables.sparsity(Results(rows, results.provenance))
    assert ("fc", "wgrad") not in {(row["layer"], row["op"]) for row in points}
