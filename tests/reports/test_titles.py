"""What is shown is of what it says: headlines recomputed from results.csv by plain sums."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import swatsim
from swatsim.cli.main import cli
from swatsim.errors import ConfigError
from swatsim.reports import differences, page_tables, tables
from swatsim.reports.page import of_results
from swatsim.reports.span import Span, span_of
from swatsim.reports.sweep_page import of_sweep
from swatsim.reports.verdict import verdict
from swatsim.results import Results
from swatsim.sweeps.spec import Spec
from swatsim.sweeps.store import Store
from swatsim.tracefile import Operation, OtherWork
from tests.pictures import unpainted
from tests.scripts import load
from tests.sweeps.test_sweep import Here
from tests.traces import make_trace

ROOT = Path(__file__).parents[2]
STEPS, CLOCK = 3, 500  # recorded steps; MHz of tensordash


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps, and of each batch of 8 images two."""
    return make_trace(tmp_path_factory.mktemp("titles") / "small", steps=(0, 3, 7)).path


@pytest.fixture(scope="module")
def results(trace: Path) -> Results:
    return swatsim.simulate(trace, "tensordash")


@pytest.fixture(scope="module")
def saved(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "tensordash"
    results.save(folder)
    with unpainted():
        swatsim.report(folder)
    return folder


@pytest.fixture(scope="module")
def other(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other") / "scnn"
    swatsim.simulate(trace, "scnn").save(folder)
    return folder


def total(folder: Path, column: str, role: str = "machine", **where: str) -> float:
    """Add up a column of results.csv."""
    with (folder / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["role"] == role]
    return sum(float(row[column]) for row in rows if where.items() <= row.items())


def tiles(page: Path) -> dict[str, str]:
    found = re.findall(r'class="tile"><b>(.*?)</b><span>(.*?)</span>', page.read_text())
    return {html.unescape(label): html.unescape(value) for value, label in found}


def test_headlines_of_a_page_are_sums_of_its_results(saved: Path) -> None:
    of: Callable[..., float] = lambda *args, **where: total(saved, *args, **where)  # noqa: E731
    speed_up = of("cycles", "baseline") / of("cycles")
    compute = of("cycles_compute", "baseline") / of("cycles_compute")
    efficiency = of("energy_pj", "baseline") / of("energy_pj")
    zeros = 100 * (1 - of("macs_effectual") / of("macs_unpadded"))
    with (saved / "results.csv").open() as file:
        mine = [row for row in csv.DictReader(file) if row["role"] == "machine"]
    energy = of("energy_pj") / STEPS
    leaked = (energy + float(mine[0]["leakage_mw"]) * of("cycles") / STEPS / CLOCK * 1e3) / 1e9
    ideal = 100 * sum(-(-int(row["macs_effectual"]) // 4096) for row in mine)
    page = saved / "report" / "report.html"
    found = tiles(page)
    assert {label: value for label, value in found.items() if "as fast" not in label} == {
        "a step's layers: mean of 3 steps of 2 of 8 images": (
            f"{of('cycles') / STEPS / (1000 * CLOCK):.3g} ms"
        ),
        "images a second, of those that the trace holds": (
            f"{2 * STEPS * 1e6 * CLOCK / of('cycles'):,.0f}"
        ),
        f"energy of the same without leakage, 45nm; {leaked:.3g} mJ with it": (
            f"{energy / 1e9:.3g} mJ"
        ),
        "speed-up of the layers over tensordash dense": f"{speed_up:.2f}x",
    }
    words = html.unescape(page.read_text())
    assert f"{compute:.2f}x of the layers' compute cycles only" in words
    assert f"The baseline's energy is {efficiency:.2f}x this one's." in words
    assert f"{zeros:.0f} % of the MACs have a zero factor" in words
    of_ideal = f"Of the ideal: {ideal / of('cycles'):.1f} %, of compute cycles only "
    assert f"{of_ideal}{ideal / of('cycles_compute'):.1f} %." in words


def test_a_page_begins_with_the_verdict_and_what_would_change_it(
    saved: Path, results: Results
) -> None:
    page, found = saved / "report" / "report.html", verdict(results)
    begin = html.unescape(page.read_text().partition("<main>")[2])
    assert re.match(r"\s*<h1>[^<]*</h1>\s*<p class=\"verdict\">", begin)
    assert begin.partition('class="verdict">')[2].startswith(found.sentence)
    changes = [value for label, value in tiles(page).items() if "as fast" in label]
    factors = (found.no_dram_wait, found.ideal_pes, found.ideal)
    assert changes == [f"{factor:.2f}x" for factor in factors]


def test_a_page_names_the_results_that_it_is_made_of(saved: Path, results: Results) -> None:
    text = html.unescape((saved / "report" / "report.html").read_text())
    made = text.partition('class="made">')[2]
    assert json.loads((saved / "provenance.json").read_text())["digest"] in made
    assert f"{results.rows[0]['trace_id']}, simulated by: " in made
    assert results.provenance["time"] in made


def test_a_page_says_type_clock_bandwidth_and_what_it_is_of(saved: Path) -> None:
    text = html.unescape((saved / "report" / "report.html").read_text())
    assert "256 PEs of 16 multipliers, fp32, 500 MHz, 25.6 GB/s" in text
    assert f" %. That is {tables.OF_IDEAL}." in text
    assert "3 steps of 2 of 8 images: a step is their mean" in text
    assert "Every layer and op, 3 steps of 2 of 8 images added up (layers.csv)" in text


def test_no_page_claims_a_footprint_or_a_paper_s_figure(saved: Path) -> None:
    text = re.sub(r"base64,[^\"]*", "", (saved / "report" / "report.html").read_text())
    assert not re.search("less memory|kept|[Pp]ublished", text)
    assert "swatsim footprint counts it, each tensor once" in text
    assert not (saved / "report" / "published.csv").exists()


def test_bytes_of_operands_are_called_so(saved: Path) -> None:
    with (saved / "report" / "reductions.csv").open() as file:
        rows = {row["what"]: row for row in csv.DictReader(file)}
    for op, name in (("fprop", "FLOPs, fprop"), ("wgrad", "FLOPs, wgrad")):
        assert float(rows[name]["dense"]) * STEPS == 2 * total(saved, "macs_unpadded", op=op)
    inputs = (2 * 3 * 12 * 12, 2 * 8 * 12 * 12, 2 * 16 * 6 * 6, 2 * 16)  # N C H W of each layer
    assert float(rows["inputs in wgrad, values"]["dense"]) == 4 * sum(inputs)


def test_a_simulation_says_what_a_step_takes(trace: Path, saved: Path) -> None:
    chosen = ["simulate", str(trace), "-m", "tensordash", "--baseline", "scnn", "--all"]
    out = CliRunner().invoke(cli, chosen).output
    time = total(saved, "cycles") / STEPS / (1000 * CLOCK)
    words = " ".join(out.split())
    assert f"A step's layers (mean of 3 steps of 2 of 8 images) take {time:.3g} ms and " in words
    assert "Totals over all layers; small, 3 steps of 2 of 8 images, added up" in words
    assert "warning: the machines differ in more than was varied (value type: fp16, fp32" in words
    assert "--baseline 'scnn[dtype=fp32,clock_mhz=500,dram_mb_per_s=25600]'" in words
    assert not re.search("^ (baseline )?step ", out, flags=re.M)


# ---- sweeps ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept") / "out"
    machines = [{"preset": "tensordash", "grid": {"rows": [2, 4]}}, {"preset": "scnn"}]
    swatsim.sweep({"traces": [trace], "machines": machines}, folder, executor=Here())
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_point_is_a_mean_step_of_its_results(swept: Path, tmp_path: Path) -> None:
    for row in rows_of(swept):
        folder = tmp_path / row["point"]
        Store(swept).load(row["point"]).save(folder)
        for column in ("cycles", "cycles_compute", "energy_pj", "macs_dense", "macs_effectual"):
            assert float(row[column]) == pytest.approx(total(folder, column) / STEPS), column
        time = total(folder, "cycles") / STEPS / (1000 * int(row["clock_mhz"]))
        assert float(row["time_ms"]) == pytest.approx(time)
        speed_up = total(folder, "cycles", "baseline") / total(folder, "cycles")
        assert float(row["speed_up"]) == pytest.approx(speed_up)
        said = [row[name] for name in ("steps", "images", "batch_size", "ops")]
        assert said == ["3", "2", "8", "fprop dgrad wgrad"]


def test_the_page_of_a_sweep_ranks_steps_with_type_clock_and_bandwidth(swept: Path) -> None:
    rows = rows_of(swept)
    best = min(rows, key=lambda row: float(row["time_ms"]))
    frugal = min(float(row["energy_with_leakage_pj"]) for row in rows)
    index = json.loads((swept / "sweep.json").read_text())
    fastest = Store(swept).load(best["point"])
    page = of_sweep(index["points"], "out", fastest, index["warnings"])
    found, words = dict(page.tiles), " ".join([page.verdict, *page.summary])
    assert found["a step, the fastest"] == f"{float(best['time_ms']):.3g} ms"
    assert found["a step, the most frugal (leakage in it)"] == f"{frugal / 1e9:.3g} mJ"
    assert f"fastest {best['machine']} ({best['dtype']}, {best['clock_mhz']} MHz, " in words
    assert "ms a step's layers (mean of 3 steps of 2 of 8 images)." in words
    assert "Warning: the machines differ in more than was varied (value type: fp16, fp32; " in words
    (chart,), (front, points) = page.sections[0].charts, page.sections[0].tables
    for table in (front, points):
        assert {"dtype", "clock_mhz", "dram_mb_per_s", "multipliers"} <= set(table.columns)
        assert "a step's: mean of 3 steps of 2 of 8 images" in table.caption
    assert "mean of 3 steps of 2 of 8 images" in chart.draw().axes[0].get_title(loc="left")
    assert (
        "(fp16, 1000 MHz, 50 GB/s, 1024 multipliers, 34.2 mm2)" in chart.draw().axes[0].get_xlabel()
    )


def test_common_parameters_make_presets_equal_and_quiet(trace: Path, tmp_path: Path) -> None:
    common = {"dtype": "fp32", "clock_mhz": 500, "dram_mb_per_s": 25_600}
    machines = [
        {"preset": "tensordash", "set": {"tiles": 4}},
        {"preset": "scnn", "set": {"pe_h": 8, "dtype": "bf16"}},
    ]
    spec = {"traces": [trace], "common": common, "machines": machines, "steps": [0]}
    found = swatsim.sweep({**spec, "ops": ["fprop"]}, tmp_path / "out", executor=Here())
    assert [row["dtype"] for row in found.rows] == ["fp32", "bf16"]  # a machine's own goes first
    assert {(row["clock_mhz"], row["dram_mb_per_s"]) for row in found.rows} == {(500, 25_600)}
    assert {row["ops"] for row in found.rows} == {"fprop"}
    assert not found.warnings  # the user set both types, and both sizes


def test_common_parameters_are_those_of_every_machine() -> None:
    machines = [{"preset": "tensordash"}]
    with pytest.raises(ConfigError, match="common: unknown parameter of every machine 'tiles'"):
        Spec(traces=["t"], common={"tiles": 4}, machines=machines)


# ---- what differs unasked ----------------------------------------------------------------------


def ranked(preset: str, chosen: dict[str, Any], *values: Any, size: int = 1) -> differences.Ranked:
    names = ("dtype", "clock_mhz", "dram_mb_per_s")
    own = {name: value for name, value in chosen.items() if name == "tiles"}
    return differences.Ranked(
        preset, chosen, own, {**dict(zip(names, values, strict=True)), "multipliers": size}
    )


A, B = ("fp32", 500, 25_600), ("fp16", 500, 25_600)


@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        ([ranked("a", {}, *A), ranked("b", {}, *A)], ""),
        ([ranked("a", {}, *A), ranked("b", {}, *B)], "dtype"),
        ([ranked("a", {}, *A), ranked("a", {"dtype": "fp16"}, *B)], ""),
        ([ranked("a", {"dtype": "fp32"}, *A), ranked("b", {"dtype": "fp16"}, *B)], ""),
        ([ranked("a", {"dtype": "fp32"}, *A), ranked("b", {}, *B)], "dtype"),
        # one kind of DRAM, of as many channels as each preset has
        (
            [
                ranked("a", {"dram": "hbm2"}, "fp32", 500, 128_000),
                ranked("b", {"dram": "hbm2"}, "fp32", 500, 256_000),
            ],
            "dram_mb_per_s",
        ),
        ([ranked("a", {}, *A, size=4), ranked("b", {}, *A)], "multipliers"),
        ([ranked("a", {"tiles": 4}, *A, size=4), ranked("b", {"tiles": 1}, *A)], ""),
        # machines of a user's own have no clock: nothing is known of their type either
        ([ranked("a", {}, "", 0, 0), ranked("b", {}, *A)], ""),
    ],
)
def test_what_differs_unasked(machines: list[differences.Ranked], expected: str) -> None:
    for order in (machines, machines[::-1]):
        assert [what.column for what in differences.unasked(order)] == expected.split()


def test_a_vector_unit_differs_where_one_side_has_it_set() -> None:
    """Of everything else that a step does, the ratio is then that of two vector units."""
    chosen: list[dict[str, Any]] = [
        {"vector_lanes": 64},
        {"vector_lanes": 64},
        {"fusion": "elementwise"},
        {},
    ]
    machines = [
        differences.Ranked(name, one, {}, {**ranked(name, {}, *A).values, **unit})
        for name, one in zip("abcd", chosen, strict=True)
        for unit in [differences.of_vector_unit(one, whole=True)]
    ]
    found = differences.unasked(machines)
    assert [what.column for what in found] == ["fusion", "vector_lanes"]
    assert differences.unasked(machines[:2]) == []
    (text,) = differences.warning(machines, str)
    assert "(fusion: elementwise, none; vector lanes: 64, auto): their times compare" in text
    assert "{'fusion': 'none', 'vector_lanes': 64} for the same fusion, vector lanes" in text
    assert differences.of_vector_unit({"fusion": "elementwise"}, whole=False) == {}


def test_a_baseline_whose_chains_are_not_fused_is_warned_of(tmp_path: Path) -> None:
    relu = Operation(function="relu", elements=9, read=36, written=36)
    alone = OtherWork(module="", phase="forward", operations=(relu,), read=36, written=36)
    trace = make_trace(tmp_path / "t", (0,), others=[alone])
    same = {"memory": "none", "dtype": "fp32", "clock_mhz": 500}
    pair = [swatsim.machine("ideal", **same, fusion="elementwise"), swatsim.machine("a100", **same)]
    for whole in (True, False):
        found = swatsim.simulate(trace, pair[0], baseline=pair[1], layers_only=not whole)
        (warning,) = differences.against_baseline(found)
        assert ("fusion: elementwise, none" in warning) is whole
        assert ("fusion=elementwise" in warning) is whole


def test_a_comparison_is_of_a_step_and_its_remedy_is_one(
    saved: Path, other: Path, trace: Path
) -> None:
    a, b = (swatsim.load_results(folder) for folder in (saved, other))
    found = swatsim.compare(a, b, baseline=0)
    times = [total(saved, "cycles") / 500_000, total(other, "cycles") / 1_000_000]
    assert [row["time_ms"] for row in found.rows] == pytest.approx([t / STEPS for t in times])
    assert [row["speed_up"] for row in found.rows] == pytest.approx([1, times[0] / times[1]])
    assert found.rows[1]["energy_pj"] == pytest.approx(total(other, "energy_pj") / STEPS)
    (warning,) = found.warnings
    settings = dict(re.findall(r"--set (\w+)=(\w+)", warning))
    assert settings == {"dtype": "fp32", "clock_mhz": "500", "dram_mb_per_s": "25600"}
    equal = swatsim.simulate(trace, swatsim.machine("scnn", **settings), steps=[0])
    steps, size = swatsim.compare(a, equal).warnings
    assert steps.startswith(
        "the recorded steps are others, steps 0, 3, 7 (A: tensordash), step 0 (B: "
    )
    assert "(multipliers: 1024, 4096)" in size  # it is left: no one parameter sets it
    out = CliRunner().invoke(cli, ["compare", str(saved), str(other)]).output
    words = " ".join(out.split())
    assert re.search(r" tensordash [\d.]+ \S+x fp32 500 MHz 25.6 GB/s 4096 ", words)
    assert "Of a step's layers, the fastest first: mean of 3 steps of 2 of 8 images" in words
    assert "warning: the machines differ" in words


def test_energies_of_two_tables_are_not_compared_silently(trace: Path, results: Results) -> None:
    small = swatsim.simulate(trace, "tensordash", energy="7nm")
    assert swatsim.compare(results, small).warnings == [
        "the energies are of different tables, 45nm (A: tensordash on small (45nm energies)), 7nm "
        "(B: tensordash on small (7nm energies)): simulate all with one"
    ]


# ---- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "words", "mean"),
    [
        (Span(6, 8, 128, ("fprop", "dgrad", "wgrad")), "6 steps of 8 of 128 images", "mean of "),
        (Span(1, 1, 1, ("fprop", "dgrad", "wgrad")), "1 step of 1 image", ""),
        (Span(2, 8, 0, ("fprop",)), "2 steps of 8 images, fprop only", "mean of "),
    ],
)
def test_a_span_is_worded_and_read_back(span: Span, words: str, mean: str) -> None:
    assert (str(span), span.mean) == (words, mean + words)
    assert Span.from_row(span.columns) == span


def test_one_op_alone_is_no_step(trace: Path) -> None:
    results = swatsim.simulate(trace, "tensordash", ops=["wgrad"])
    assert str(span_of(results)) == "3 steps of 2 of 8 images, wgrad only"
    tile = "a step's layers: mean of 3 steps of 2 of 8 images, wgrad only"
    assert tile in dict(of_results(results).tiles)


def test_zeros_of_dense_training_are_no_saving(results: Results) -> None:
    head = page_tables.headline(results)
    assert not [name for name in head if "memory" in name or "flop" in name]


# ---- pages ---------------------------------------------------------------------------------------


def cells(preset: str) -> list[str]:
    block = "\n".join(load("pages").block("machines"))
    (line,) = re.findall(rf"^\| `{preset}`, .*$", block, flags=re.M)
    return [cell.strip() for cell in line.strip("|").split("|")]


def numbers(texts: Iterable[str]) -> list[float]:
    return [float(re.sub("[^0-9.]", "", text)) for text in texts]


@pytest.mark.parametrize("preset", ["tensordash", "scnn"])
def test_a_row_of_a_page_is_a_sum_of_results_csv(preset: str, tmp_path: Path) -> None:
    trace = ROOT / "traces" / "resnet8-fashion-mnist-swat-u-80"
    common = "dtype=fp32,clock_mhz=500,dram=lpddr4-3200,dram_channels=4"
    swatsim.simulate(trace, f"{preset}[{common}]").save(tmp_path)
    _, size, whole, layers, *ratios = cells(preset)
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    ops = ("fprop", "dgrad", "wgrad")
    assert int(size) == int(rows[0]["pes"]) * int(rows[0]["lanes"])
    given = tuple(rows[0][it] for it in ("dtype", "clock_mhz", "dram_mb_per_s"))
    assert given == ("fp32", "500", "25600")

    def added(column: str, role: str, *of: str) -> float:
        mine = (row for row in rows if row["role"] == role and (not of or row["op"] in of))
        return sum(float(row[column]) for row in mine)

    def over(column: str, *of: str) -> float:
        return added(column, "baseline", *of) / added(column, "machine", *of)

    times = [added("cycles", "machine", *of) / 6 / 500_000 for of in ((), ops)]
    assert numbers([whole, layers]) == pytest.approx(times, abs=5e-4)
    expected = [over("cycles", op) for op in ops]
    expected += [over("cycles", *ops), over("cycles_compute", *ops), over("cycles")]
    expected += [added("energy_pj", "machine") / 6 / 1e9, over("energy_pj")]
    assert numbers(ratios[:-1]) == pytest.approx(expected, abs=5.1e-3)
    mine = [row for row in rows if row["role"] == "machine" and row["op"] in ops]
    ideal = sum(-(-int(row["macs_effectual"]) // int(size)) for row in mine)
    of_ideal = 100 * ideal / added("cycles", "machine", *ops)
    assert numbers(ratios[-1:]) == pytest.approx([of_ideal], abs=0.051)
