"""Results of any machines and traces over one common baseline: values by hand."""

from __future__ import annotations

import json
import re
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest

import swatsim
from swatsim.errors import ResultsError
from swatsim.reports.compare import Comparison
from swatsim.reports.compared import LEFT_OUT
from swatsim.reports.compared_bars import times
from swatsim.reports.compared_names import method
from swatsim.reports.compared_page import page_of
from swatsim.reports.made import ANEW
from swatsim.reports.side_by_side import ALL_LAYERS
from swatsim.results import Results
from tests.pictures import unpainted
from tests.reports.test_step_and_layers import by_hand
from tests.sweeps.test_sweep import LIGHT, Here
from tests.traces import make_trace

OPS = ("fprop", "dgrad", "wgrad")
SWAT, RIGL = ({"name": name, "sparsity": 0.8} for name in ("swat-u", "rigl"))


def made(
    machine: str = "m",
    cycles: tuple[int, int] = (600, 1200),
    *,
    trace: str = "t",
    policy: dict[str, Any] | None = None,
    steps: tuple[int, ...] = (0,),
    ops: tuple[str, ...] = OPS,
    others: tuple[int, int] | None = None,
    energy: tuple[float, float] | None = (30.0, 90.0),
    layer: str = "a",
    **own: Any,
) -> Results:
    """Make results of one layer, whose ops take alike; cycles and energies are a step's."""
    rows = []
    for step in steps:
        for i, role in enumerate(("machine", "baseline")):
            same = {"machine": machine, "trace": trace, "trace_id": f"id of {trace}", **own}
            part = None if energy is None else energy[i] / len(ops)
            for op in ops:
                taken = cycles[i] // len(ops)
                rows.append(by_hand(role, op, taken, step, layer=layer, energy_pj=part, **same))
            if others:
                named = {"phase": "forward", "function": "norm", "energy_pj": 0.0}
                rows.append(by_hand(role, "other", others[i], step, **named, **same))
    why = "" if others else "the trace does not note it"
    said = {"policy": policy or {}, "others_left_out": why, "batch_size": 8}
    return Results(rows, {"parameters": said, "swatsim": "1"})


def column(found: Comparison, name: str) -> list[Any]:
    return [row[name] for row in found.rows]


# ---- one unit, one baseline ----------------------------------------------------------------------


def test_any_machines_are_compared_in_time_over_the_firsts_own_baseline() -> None:
    """At 1000 MHz 600 cycles are 0.6 us; at 500 MHz 450 are 0.9 us."""
    a, b = made(), made("n", (450, 1800), clock_mhz=500, energy=(60.0, 60.0))
    found = swatsim.compare(a, b)
    assert column(found, "label") == ["m", "n"]
    assert column(found, "time_ms") == [0.0006, 0.0009]
    assert column(found, "speed_up") == pytest.approx([1.2 / 0.6, 1.2 / 0.9])
    assert column(found, "own_speed_up") == pytest.approx([2, 4])
    assert column(found, "energy_efficiency") == pytest.approx([90 / 30, 90 / 60])
    assert column(found, "images_per_s") == pytest.approx([2 / 0.6e-6, 2 / 0.9e-6])
    assert column(found, "energy_pj_per_image") == [15, 30]
    assert (found.unit.word, found.unit.of_what) == ("ms", "a step's layers")
    assert found.baseline.words == "m dense on t"
    assert found.sentences[0] == (
        "Fastest: m, 0.0006 ms for a step's layers, 2.00x as fast as m dense on t; 1.50x as fast "
        "as the next, n; they differ in clock"
    )
    assert found.sentences[1] == (
        "Least energy, without leakage: the same, 3e-08 mJ for a step's layers, the baseline's "
        "energy / its own: 3.00"
    )
    assert list(found.frame.speed_up) == column(found, "speed_up")


def test_the_least_energy_is_said_with_leakage_too() -> None:
    """1 W for 1 ms, at 1 MHz, is 1 mJ; 600 cycles are 0.6 ms and 0.6 mJ with 1000 mW."""
    a = made(clock_mhz=1, leakage_mw=1000, area_mm2=1.0, energy=(1e8, 1e8))
    b = made("n", (900, 1800), clock_mhz=1, leakage_mw=100, area_mm2=1.0, energy=(3e8, 3e8))
    first, *_ = swatsim.compare(a, b).sentences[1].split(" for ")
    assert first == "Least energy, without leakage: the same, 0.1 mJ"
    assert swatsim.compare(a, b).sentences[1].endswith("; with leakage: n, 0.39 mJ")


def test_energies_without_a_dram_are_not_ranked_with_others() -> None:
    a, b = made(dram_mb_per_s=1000), made("n", dram_mb_per_s=0, energy=(1.0, 3.0))
    found = swatsim.compare(a, b)
    (said,) = [one for one in found.sentences if one.startswith("Least energy")]
    assert said.startswith("Least energy, without leakage: the same, 3e-08 mJ")
    assert said.endswith(
        "; not ranked: memory=none or dram=ideal, so that no DRAM is in the energy (n)"
    )
    assert column(found, "energy_efficiency") == [3, pytest.approx(nan, nan_ok=True)]
    assert any(
        one.startswith("the energies don't compare, with a DRAM (m), without (n): simulate")
        for one in found.warnings
    )
    alone = swatsim.compare(b, made("o", dram_mb_per_s=0, energy=(2.0, 3.0)))
    assert "not ranked" not in alone.sentences[1], "none has any"


@pytest.mark.parametrize(
    ("baseline", "speed_ups"),
    [
        (None, [1200 / 600, 1200 / 300]),
        ("m dense", [1200 / 600, 1200 / 300]),
        ("n dense", [900 / 600, 900 / 300]),
        ("m", [1, 600 / 300]),
        (1, [300 / 600, 1]),
        ("results", [300 / 600, 1]),
    ],
)
def test_a_baseline_is_chosen_by_label_number_or_results(
    baseline: Any, speed_ups: list[float]
) -> None:
    a, b = made(), made("n", (300, 900))
    found = swatsim.compare(a, b, baseline=b if baseline == "results" else baseline)
    assert column(found, "speed_up") == pytest.approx(speed_ups)
    assert column(found, "own_speed_up") == [2, 3]


def test_steps_of_other_numbers_of_images_are_compared_by_image() -> None:
    a, b = made(samples=2), made("n", (1200, 2400), samples=4)
    found = swatsim.compare(a, b)
    assert column(found, "ms_per_image") == [0.0003, 0.0003]
    assert column(found, "speed_up") == pytest.approx([0.6 / 0.3, 0.6 / 0.3])
    assert column(found, "energy_efficiency") == pytest.approx([45 / 15, 45 / 7.5])
    assert "0.0003 ms for an image of a step's layers" in found.sentences[0]
    assert any(
        one.startswith("steps are of different numbers of images, 2 (m), 4 (n): an image")
        for one in found.warnings
    )
    assert [row["speed_up"] for row in found.layers()[-2:]] == [2, 2]


def test_machines_without_a_clock_are_compared_in_cycles_and_never_with_others() -> None:
    none = {"clock_mhz": 0, "dram_mb_per_s": 0}
    a, b, c = made(**none), made("n", (300, 900), **none, energy=None), made("o")
    found = swatsim.compare(a, b)
    assert column(found, "speed_up") == [2, 4]
    assert all(map(isnan, column(found, "time_ms")))
    assert isnan(found.rows[1]["energy_efficiency"])
    assert "Fastest: n, 300 cycles for a step's layers, 4.00x" in found.sentences[0]
    with pytest.raises(ResultsError, match=r"some have none \(m, n\), a clock \(o\); leave out"):
        swatsim.compare(a, b, c)


def test_layers_alone_are_compared_where_some_results_have_nothing_else() -> None:
    whole, alone = made(others=(400, 500)), made("n", (300, 600))
    found = swatsim.compare(whole, alone)
    assert column(found, "speed_up") == [2, 4]
    assert found.warnings[0].startswith("some are of a step's layers alone, the trace does not")
    assert column(found, "others_left_out") == [LEFT_OUT, "the trace does not note it"]
    both = swatsim.compare(whole, made("n", (300, 600), others=(100, 100)))
    assert column(both, "speed_up") == pytest.approx([1700 / 1000, 1700 / 400])
    assert column(both, "speed_up_layers") == [2, 4]
    assert both.unit.subject == "a step"
    assert not both.warnings


def test_ops_that_not_all_have_are_left_out() -> None:
    found = swatsim.compare(made(), made("n", (100, 400), ops=("fprop",)))
    assert column(found, "time_ms") == pytest.approx([0.0002, 0.0001])
    assert column(found, "speed_up") == [2, 4]
    assert found.warnings[0] == (
        "they are of different ops, fprop and dgrad and wgrad (m), fprop (n): only those that all "
        "have are compared; simulate all without --op"
    )
    with pytest.raises(ResultsError, match=r"no op in common \(fprop; dgrad\): simulate the same"):
        swatsim.compare(made(ops=("fprop",)), made(ops=("dgrad",)))


# ---- what differs --------------------------------------------------------------------------------


def test_different_work_is_said_first_and_where_the_fastest_is() -> None:
    a, b = made(macs_dense=32), made(trace="u", macs_dense=64, steps=(5,))
    found = swatsim.compare(a, b)
    assert column(found, "macs_per_image") == [48, 96]
    assert found.warnings == [
        "different work: an image is 4.8e-08 GMAC (t), 9.6e-08 GMAC (u), dense; times and "
        "energies compare that too, and the own speed-ups do not"
    ]
    assert found.sentences[0].endswith("; they differ in work")


@pytest.mark.parametrize(
    ("other", "warning"),
    [
        ({}, ""),
        ({"steps": (0, 7)}, "the recorded steps are others, step 0 (t), steps 0, 7 (u): "),
        ({"dtype": "bf16"}, "the machines differ in more than was varied (value type: bf16, fp32)"),
    ],
)
def test_what_differs_between_traces_is_warned_of(other: dict[str, Any], warning: str) -> None:
    found = swatsim.compare(made(), made(trace="u", **other))
    assert [text[: len(warning)] for text in found.warnings] == [warning] * bool(warning)


def test_versions_and_batches_that_differ_are_warned_of() -> None:
    a, b = made(), made("n")
    b.provenance["swatsim"] = "2"
    b.provenance["parameters"]["batch_size"] = 64
    batch, version = swatsim.compare(a, b).warnings
    assert batch.startswith("the images are of different batches, 8 (m), 64 (n): ")
    assert version == (
        "different versions of swatsim simulated them, 1 (m), 2 (n): simulate all again with one"
    )


def test_a_long_label_is_there_once_in_all_warnings() -> None:
    a, b = made(), made("n")
    b.provenance["swatsim"] = "2"
    b.provenance["parameters"]["batch_size"] = 64
    batch, version = swatsim.compare(a, b, labels=["the first of two", "another"]).warnings
    assert "different batches, 8 (A: the first of two), 64 (B: another): " in batch
    assert "simulated them, 1 (A), 2 (B): " in version


# ---- names ---------------------------------------------------------------------------------------


def test_a_label_is_what_tells_results_apart() -> None:
    grid = [
        made(machine, trace=policy["name"], policy=policy)
        for policy in (SWAT, RIGL)
        for machine in ("m[rows=4,clock_mhz=500]", "n[clock_mhz=500]")
    ]
    names = ["m[rows=4]", "n"]
    methods = ["swat-u 80 %", "rigl 80 %"]
    assert column(swatsim.compare(*grid), "label") == [
        f"{method} on {name}" for method in methods for name in names
    ]
    assert column(swatsim.compare(*grid[:2]), "label") == names
    assert column(swatsim.compare(*grid[::2]), "label") == methods
    assert column(swatsim.compare(grid[0]), "label") == ["m[rows=4,clock_mhz=500] on swat-u"]


@pytest.mark.parametrize(
    ("others", "labels"),
    [
        ([{"policy": SWAT}, {"policy": SWAT, "trace": "u"}], ["t", "u"]),
        (
            [{"policy": SWAT}, {"policy": {**SWAT, "first_conv_dense": True}, "trace": "u"}],
            ["swat-u 80 %", "swat-u 80 % first_conv_dense=True"],
        ),
        (
            [
                {"policy": {**RIGL, "every": 100}},
                {"policy": {**RIGL, "every": 10}, "trace": "u"},
            ],
            ["rigl 80 % every=100", "rigl 80 % every=10"],
        ),
        # of other networks a method says too little
        ([{"policy": SWAT}, {"policy": RIGL, "trace": "u", "macs_dense": 99}], ["t", "u"]),
        ([{}, {"steps": (1,)}], ["m on t (step 0)", "m on t (step 1)"]),
        ([{}, {}], ["m on t (1)", "m on t (2)"]),
    ],
)
def test_what_results_share_is_in_no_label(others: list[dict[str, Any]], labels: list[str]) -> None:
    assert column(swatsim.compare(*(made(**own) for own in others)), "label") == labels


def test_methods_in_words() -> None:
    assert method({"name": "sr-ste", "n": 2, "m": 4}) == "sr-ste 2:4"
    assert method({"name": "periodic", "policy": SWAT}) == "periodic swat-u 80 %"
    assert method({"name": "dense"}) == "dense"
    assert method({}) == ""


def test_labels_of_a_users_own() -> None:
    found = swatsim.compare(made(), made("n"), labels=["mine", "theirs"], baseline="theirs")
    assert column(found, "label") == ["mine", "theirs"]
    assert found.baseline.label == "theirs"
    for labels, words in (
        (["one"], "there are 1 labels for 2 results"),
        (["x", "x"], "label 'x' is not allowed"),
        (["x", " "], "label ' ' is not allowed"),
    ):
        with pytest.raises(ResultsError, match=words):
            swatsim.compare(made(), made("n"), labels=labels)


def test_baselines_that_are_none_are_refused() -> None:
    a, b = made(), made("n")
    with pytest.raises(ResultsError, match=r"did you mean 'n'\? known are m, m dense, n, n dense"):
        swatsim.compare(a, b, baseline="nn")
    with pytest.raises(ResultsError, match=r"baseline=2 is not allowed: must be from 0 to 1"):
        swatsim.compare(a, b, baseline=2)
    with pytest.raises(ResultsError, match="none of those that are compared"):
        swatsim.compare(a, b, baseline=made())
    with pytest.raises(ResultsError, match="no results are given"):
        swatsim.compare()
    with pytest.raises(ResultsError, match="hold no rows"):
        swatsim.compare(a, Results([], {}))


# ---- layers --------------------------------------------------------------------------------------


def test_layers_and_ops_side_by_side() -> None:
    found = swatsim.compare(made(), made("n", (300, 1200), clock_mhz=500), baseline="m")
    rows = found.layers()
    assert [(row["layer"], row["op"], row["label"]) for row in rows[:3]] == [
        ("a", "fprop", "m"),
        ("a", "fprop", "n"),
        ("a", "dgrad", "m"),
    ]
    assert [row["time_ms"] for row in rows[:2]] == [0.0002, 0.0002]
    assert [row["speed_up"] for row in rows[:2]] == [1, 1]
    assert [row["own_speed_up"] for row in rows[:2]] == [2, 4]
    assert [(row["layer"], row["op"]) for row in rows[-2:]] == [("all layers", "layers")] * 2


def test_layers_that_only_some_have_stand_alone() -> None:
    a = made(others=(1, 1))
    b = made(others=(1, 1))
    b.rows += made(layer="b", others=None).rows
    rows = swatsim.compare(a, b, labels=["A", "B"]).layers()
    assert [row["label"] for row in rows if row["layer"] == "b"] == ["B"] * 3
    assert all(isnan(row["speed_up"]) for row in rows if row["layer"] == "b")
    assert [row["op"] for row in rows[-2:]] == ["step", "step"]
    with pytest.raises(ResultsError, match="A, B have no layer and op in common"):
        swatsim.compare(a, made(layer="c"), labels=["A", "B"]).layers()


# ---- folders, sweeps, files ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give a folder of results, and one of a sweep of six machines on the same trace."""
    folder = tmp_path_factory.mktemp("compared")
    trace = make_trace(folder / "small", (0,)).path
    swatsim.simulate(trace, "scale-sim-os").save(folder / "results")
    spec = {"traces": [str(trace)], "machines": LIGHT}
    swatsim.sweep(spec, folder / "sweep", executor=Here())
    return {name: folder / name for name in ("results", "sweep", "small")}


def test_folders_sweeps_and_points_are_compared_in_any_mix(folders: dict[str, Path]) -> None:
    points = sorted((folders["sweep"] / "points").iterdir())
    one = swatsim.compare(folders["results"], points[0], baseline=0)
    assert column(one, "place") == [str(folders["results"]), str(points[0])]
    found = swatsim.compare(folders["sweep"], swatsim.load_results(folders["results"]))
    machines = [row["machine"] for row in swatsim.sweep(*again(folders), executor=Here()).rows]
    assert column(found, "machine") == [*machines, "scale-sim-os"]
    assert len(found.rows) == 7
    assert found.baseline.words.startswith(f"{machines[0]} dense on small")
    labelled = swatsim.compare(folders["sweep"], folders["results"], labels=["grid", "one"])
    assert labelled.rows[0]["label"].startswith("grid: scale-sim-ws[")
    assert labelled.rows[-1]["label"] == "one"


def again(folders: dict[str, Path]) -> tuple[dict[str, Any], Path]:
    return {"traces": [str(folders["small"])], "machines": LIGHT}, folders["sweep"]


def test_a_sweep_that_was_cut_short_or_has_nothing_done(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "points").mkdir()
    with pytest.raises(ResultsError, match="no point of the sweep in .* is done"):
        swatsim.compare(tmp_path)
    for path in sorted((folders["sweep"] / "points").iterdir())[:2]:
        (tmp_path / "points" / path.name).write_bytes(path.read_bytes())
    assert len(swatsim.compare(tmp_path).rows) == 2
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"sweep.json can't be used: .*; sweep again"):
        swatsim.compare(tmp_path)
    with pytest.raises(ResultsError, match="no results in"):
        swatsim.compare(tmp_path / "none")


def test_a_page_replaces_an_earlier_one_as_a_set(folders: dict[str, Path], tmp_path: Path) -> None:
    with unpainted():
        written = swatsim.compare(folders["sweep"], folders["results"]).save(tmp_path)
        assert written[0] == tmp_path / "report.html"
        names = {"report.html", "times.png", "times.svg", "comparison.csv", "layers.csv"}
        assert names <= {path.name for path in written}
        assert len((tmp_path / "comparison.csv").read_text().splitlines()) == 8
        swatsim.compare(made(), made(layer="b", trace="u")).save(tmp_path)
    assert not (tmp_path / "layers.csv").exists(), "it was of others"
    stated = json.loads((tmp_path / "contents.json").read_text())["files"]
    assert {path.name for path in tmp_path.iterdir()} == {*stated, "contents.json"}
    with pytest.raises(ResultsError, match="a trace is there"):
        swatsim.compare(made()).save(folders["small"])


def test_a_page_says_what_is_fastest_first_and_every_warning() -> None:
    found = swatsim.compare(made(), made("n", (450, 1800), clock_mhz=500))
    page = page_of(found)
    assert [page.verdict, *page.summary][:3] == [f"{one}." for one in found.sentences]
    assert all(f"Warning: {one}." in page.summary for one in found.warnings)
    assert "m dense on t (the own baseline of m), 0.0012 ms for a step's layers" in page.about
    assert [value for _, value in page.tiles] == ["0.0006 ms", "2.00x", "3.00x"]
    first = page.sections[0].tables[0]
    assert [row["label"] for row in first.rows] == ["m", "n"]
    assert {"time_ms", "speed_up", "energy_pj"} <= set(first.columns)
    about = page.sections[2]
    assert list(about.tables[0].columns) == [
        *("label", "method", "trace", "machine", "clock_mhz", "own_baseline")
    ]
    assert about.text.startswith("Alike in all: value type: fp32; DRAM, GB/s: 1; multipliers: 1; ")
    assert "power_w" not in first.columns, "nothing is known of it"
    how = "trace t id of t, simulated in a process that is not known, at a time that is not known"
    assert page.made == f"Made of m (in memory: {how}); n (in memory: {how}). {ANEW}"


def test_of_many_layers_those_that_take_longest_are_printed() -> None:
    every = [made(cycles=(600 * (i + 1), 9000), layer=f"l{i}", energy=None) for i in range(5)]
    both = Results([row for one in every for row in one.rows], every[0].provenance)
    other = Results([{**row, "machine": "n"} for row in both.rows], both.provenance)
    table = page_of(swatsim.compare(both, other)).sections[-1].tables[0]
    assert table.paper is not None
    assert table.paper.words == "the 10 of 15 that take longest, and totals"
    kept = {table.rows[place]["layer"] for place in table.paper.rows}
    assert kept == {"l1", "l2", "l3", "l4", ALL_LAYERS}
    assert len(table.paper.rows) == 2 * (10 + 4)


def test_a_page_says_of_which_files_it_is_made_and_by_which_commands(tmp_path: Path) -> None:
    results = made(energy=None)
    run = {**results.provenance, "command": ["/x/swatsim", "simulate", "t"], "time": "today"}
    Results(results.rows, run).save(tmp_path / "a")
    said = page_of(swatsim.compare(tmp_path / "a")).made
    digest = json.loads((tmp_path / "a" / "provenance.json").read_text())["digest"]
    assert f"({tmp_path / 'a'}, digest {digest}: trace t id of t, simulated by: " in said
    assert "simulated by: swatsim simulate t, at today)" in said


# ---- the picture ---------------------------------------------------------------------------------


def test_the_picture_has_a_bar_a_method_and_machine_and_marks_the_baseline() -> None:
    cycles = {("swat-u", "m"): 600, ("swat-u", "n"): 300, ("rigl", "m"): 900, ("rigl", "o"): 90}
    every = [
        made(machine, (own, 1200), trace=name, policy={"name": name, "sparsity": 0.8})
        for (name, machine), own in cycles.items()
    ]
    figure = times(swatsim.compare(*every))
    left, right = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["swat-u 80 %", "rigl 80 %"]
    assert [text.get_text() for text in left.get_yticklabels()] == ["m", "n", "o"]
    assert [text.get_text() for text in right.texts] == ["0.0009", "9e-05"]
    for axes in figure.axes:
        (mark,) = axes.get_lines()
        assert list(mark.get_xdata()) == [0.0012, 0.0012]
    widths = {round(box.get_width(), 7) for box in left.patches}
    assert widths == {0.0006, 0.0003}
    title, key = (text.get_text() for text in (figure._suptitle, figure._supxlabel))
    assert "Time of a step's layers, ms: swat-u and rigl on 3 machines" in " ".join(title.split())
    assert "dotted: the common baseline, m dense on swat-u, 0.0012 ms" in " ".join(key.split())


def test_what_has_no_place_of_its_own_is_a_line_and_of_many_the_fastest_are_drawn() -> None:
    figure = times(swatsim.compare(made(), made(steps=(1,))))
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["m on t (step 0)", "m on t (step 1)"]
    many = [made(f"m{i}", (3 * (100 - i), 1200)) for i in range(40)]
    figure = times(swatsim.compare(*many))
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == [f"m{i}" for i in range(10, 40)]
    assert "of 40, the fastest" in " ".join(figure._suptitle.get_text().split())


# ---- as text -------------------------------------------------------------------------------------


def test_a_large_number_has_no_exponent() -> None:
    found = swatsim.compare(made(cycles=(2_345_678_901, 4_691_357_802), energy=(2e13, 4e13)))
    assert f"m on t, 2,346 ms for {found.unit.of_what}, 2.00x as" in found.sentences[0]
    assert "the same, 20,000 mJ for" in found.sentences[1]
    assert not re.search(r"\de\+\d", repr(found))


def test_a_comparison_shows_itself() -> None:
    found = swatsim.compare(made("m<b>"), made("n", (450, 1800), clock_mhz=500))
    lines = repr(found).splitlines()
    assert lines[0].startswith("Fastest: m<b>, ")
    assert lines[-1].startswith("warning: the machines differ")
    assert any(line.split()[:3] == ["n", "0.0009", "1.33x"] for line in lines)
    html = found._repr_html_()
    assert "m&lt;b&gt;" in html
    assert "<b>" not in html
    many = swatsim.compare(*(made(f"m{i}") for i in range(22)))
    assert "and 2 more: .frame has all" in repr(many)
