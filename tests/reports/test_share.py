"""Every figure says which share of a step's multiplications it is of."""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np
import pytest

import swatsim
from swatsim.errors import ResultsError
from swatsim.reports import remarks, tables
from swatsim.reports.page import of_results
from swatsim.reports.span import Span, percent, span_of, tenths
from swatsim.reports.sweep_page import of_sweep
from swatsim.results import Results, load, read_parquet
from swatsim.simulator.images import estimate_images
from swatsim.sweeps.store import Store
from swatsim.tracefile import Coverage, Macs, Unheld
from swatsim.tracer.recorder import Recorder
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer
from tests.command import swatsim as run
from tests.pictures import unpainted
from tests.sweeps.test_sweep import Here
from tests.traces import make_trace

DATA = Path(__file__).parents[1] / "data"
LAYERS = (
    Layer(name="conv", C=8, K=8, H=8, W=8, R=3, S=3, padding=1),
    Layer(name="fc", kind="linear", C=32, K=16),
)
OF_7 = "of the 7 % of a step's multiplications that the trace holds"


def coverage(held: int, seen: int = 3000) -> Coverage:
    """Give a step's: of three parts the forward pass has one; attention has most of the rest."""
    rest = seen - held
    parts = [
        Unheld(module=f"block.{i}", what="attention", forward=rest // 12, backward=rest // 6)
        for i in range(3)
    ]
    parts.append(Unheld(module="head", what="mm", forward=rest // 12, backward=rest // 12))
    return Coverage(
        seen=Macs(forward=seen // 3, backward=seen - seen // 3),
        held=Macs(forward=held // 3, backward=held - held // 3),
        not_held=tuple(parts),
        left_alone=("norm",),
        unseen=("table.weight",),
    )


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give traces of the same masks, with different shares."""
    folder = tmp_path_factory.mktemp("shares")
    shares = {"little": coverage(210), "most": coverage(2910), "unknown": None}
    for name, found in shares.items():
        make_trace(folder / name, (0, 5), layers=LAYERS, coverage=found)
    return {name: folder / name for name in shares}


@pytest.fixture(scope="module")
def results(traces: dict[str, Path]) -> dict[str, Results]:
    return {name: swatsim.simulate(path, "tensordash") for name, path in traces.items()}


@pytest.fixture(scope="module")
def saved(results: dict[str, Results], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("saved")
    for name, one in results.items():
        one.save(folder / name)
    return {name: folder / name for name in results}


def said(*arguments: object) -> str:
    code, out, errors = run(*arguments)
    assert code == 0, errors
    return " ".join(out.split())


# ---- what results hold -------------------------------------------------------------------------


def test_results_know_their_share_and_keep_it(
    results: dict[str, Results], saved: dict[str, Path]
) -> None:
    for one in (results["little"], load(saved["little"])):
        assert one.share == pytest.approx(0.07)
        assert span_of(one).partial
        known = one.provenance["parameters"]["coverage"]
        assert known["seen"] == {"forward": 2000, "backward": 4000}  # of both steps
        assert known["held"] == {"forward": 140, "backward": 280}
        assert known["not_held"]["attention in 3 modules"] == 2 * 3 * (232 + 465)
    assert results["most"].share == pytest.approx(0.97)
    assert results["unknown"].share is None
    assert "nobody counted" in results["unknown"].provenance["parameters"]["coverage"]["unknown"]


def test_what_is_left_out_is_in_no_share(traces: dict[str, Path]) -> None:
    fprop = swatsim.simulate(traces["most"], "tensordash", ops=["fprop"])
    assert fprop.share == pytest.approx(970 / 3000)
    rows = [row for row in fprop.rows if row["layer"] == "conv"]
    macs = {layer.name: 8 * layer.weights * layer.positions for layer in LAYERS}
    expected = 970 / 3000 * macs["conv"] / sum(macs.values())
    assert Results(rows, fprop.provenance).share == pytest.approx(expected)
    step = [row for row in fprop.rows if row["step"] == 5]
    assert Results(step, fprop.provenance).share == pytest.approx(970 / 3000)


def test_shares_of_steps_are_weighted_by_what_they_multiply(tmp_path: Path) -> None:
    with Recorder(tmp_path / "steps", batch_size=1) as recorder:
        recorder.declare(LAYERS[1])
        for number, found in enumerate((coverage(300, 300), coverage(0, 2700))):
            with recorder.step(number) as step:
                for op, operand in ((name, it) for name in OPS for it in OPERANDS_OF[name]):
                    ones = np.ones(LAYERS[1].shape_of(operand, 1), bool)
                    step.operand("fc", op, operand, ones)
                step.coverage = found
    found = swatsim.simulate(tmp_path / "steps", "tensordash")
    assert found.share == pytest.approx(300 / 3000)
    total = tables.per_op(found)[-1]
    assert (total["macs_held"], total["macs_seen"]) == pytest.approx((300, 3000))


def test_totals_of_a_layer_are_of_all_that_its_steps_multiply(results: dict[str, Results]) -> None:
    rows = tables.per_layer(results["little"])
    assert {row["macs_seen"] for row in rows} == {6000}
    assert sum(row["macs_held"] for row in rows) == pytest.approx(420)
    assert tables.per_op(results["little"])[-1]["macs_held"] == pytest.approx(420)
    assert all(row["macs_held"] is None for row in tables.per_layer(results["unknown"]))
    assert results["unknown"].frame.macs_seen.isna().all()


def test_results_of_an_earlier_version_say_that_it_is_not_known() -> None:
    old = read_parquet(DATA / "results_v4.parquet")
    assert old.share is None
    (words,) = remarks.of_share(old)
    assert words.endswith("is not known: an earlier version simulated it")
    assert "not known" in " ".join(of_results(old).summary)


def test_a_provenance_whose_coverage_is_none_is_refused(results: dict[str, Results]) -> None:
    one = results["little"]
    for wrong in ([], {"not_held": []}, {"seen": 3}):
        parameters = {**one.provenance["parameters"], "coverage": wrong}
        with pytest.raises(
            ResultsError, match=r"provenance\.parameters\.coverage.* must be an object"
        ):
            Results(one.rows, {**one.provenance, "parameters": parameters}).to_parquet()
    # what is in them may be anything, and is then not said
    odd = {"seen": {"forward": "x"}, "not_held": {"a": None}, "more": "b"}
    parameters = {**one.provenance["parameters"], "coverage": odd}
    assert list(remarks.of_share(Results(one.rows, {**one.provenance, "parameters": parameters})))


# ---- headlines ---------------------------------------------------------------------------------


def test_simulate_says_it_in_the_headline(traces: dict[str, Path]) -> None:
    out = said("simulate", traces["little"], "-m", "tensordash", "--all")
    (headline,) = re.findall(r"A step's layers \(.*?\) take .*?x \(.*?\)\.", out)
    assert headline.endswith(f"x ({OF_7}).")
    assert f"of all ops ({OF_7})" in out
    assert "2 steps of 2 of 8 images, 7 % of their multiplications, added up" in out
    assert (
        "The trace holds 7 % of a step's multiplications; not: attention in 3 modules 70 %, " in out
    )
    assert "Left alone in the run: norm. " in out
    assert "Parameters that got a gradient and are in no op: table.weight." in out


def test_simulate_says_a_large_share_in_a_line(traces: dict[str, Path]) -> None:
    out = said("simulate", traces["most"], "-m", "tensordash", "--all")
    assert re.search(r"of the baseline [^()]*: \d\.\d\dx\. Bound by", out)
    assert "The trace holds 97 % of a step's" in out
    assert "A whole step's figures are others" not in out
    out = said("simulate", traces["most"], "-m", "tensordash", "--op", "wgrad", "--all")
    assert "x (of the 33 % of a step's multiplications that were simulated)." not in out
    assert "x (of the 32 % of a step's multiplications that were simulated)." in out
    assert (
        "Simulated were wgrad only, 32 % of a step's multiplications; the trace holds 97 %;" in out
    )
    out = said("simulate", traces["unknown"], "-m", "tensordash", "--op", "wgrad")
    assert "the trace holds is not known: nobody counted them in the run." in out


def test_a_synthetic_trace_is_of_a_layer_table(tmp_path: Path) -> None:
    policy = swatsim.policies.SwatU(0.5)
    synthesize(LAYERS, tmp_path / "drawn", policy=policy, batch=1, seed=0)
    out = said("simulate", tmp_path / "drawn", "-m", "tensordash", "--op", "fprop")
    assert "the trace holds is not known: the trace is of a layer table." in out
    assert "not known (the trace is of a layer table)" in said("info", tmp_path / "drawn")


def test_a_page_and_its_plots_say_it(saved: dict[str, Path], results: dict[str, Results]) -> None:
    page = of_results(results["little"])
    tiles = dict(page.tiles)
    assert f"speed-up of the layers over tensordash dense, {OF_7}" in tiles
    assert any("7 % of their multiplications" in label for label in tiles)
    assert page.verdict.endswith(f" (figures {OF_7}).")
    words = " ".join(page.summary)
    assert "A whole step's figures are others." in words
    assert "not: attention in 3 modules 70 %" in words
    with unpainted():
        path, *_ = swatsim.report(saved["little"])
    text = html.unescape(path.read_text())
    assert text.count("7 % of their multiplications") == 4  # about, time, layers and their region
    for section in page.sections:
        for chart in section.charts:
            figure = chart.draw()
            shown = [axes.get_title(loc="left") for axes in figure.axes]
            assert "7 % of their" in " ".join(" ".join(shown).split()), chart.name
    plain = of_results(results["most"])
    assert "speed-up of the layers over tensordash dense" in dict(plain.tiles)
    assert "The trace holds 97 %" in " ".join(plain.summary)


def test_compare_says_each_sides_share(saved: dict[str, Path], results: dict[str, Results]) -> None:
    out = said("compare", saved["little"], saved["most"], "--label", "A", "--label", "B")
    assert "; of a step's multiplications that is 7 % (A), 97 % (B)." in out
    assert re.search(r" 4096 7 % B .* 4096 97 % ", out)
    (warning,) = swatsim.compare(results["little"], results["most"], labels=["A", "B"]).warnings
    assert warning.startswith(
        "the figures are of different shares of a step's multiplications, 7 % (A), 97 % (B): "
    )
    found = swatsim.compare(results["little"], results["unknown"], labels=["A", "B"])
    assert "7 % (A), a share that is not known (B)" in found.warnings[0]
    assert not swatsim.compare(results["most"], results["most"]).warnings


def test_an_estimate_says_of_what_its_totals_are(
    saved: dict[str, Path], traces: dict[str, Path]
) -> None:
    out = said("estimate", saved["little"], "--run-steps", 10)
    assert f"a run of 10 steps, added up, of 2 images each, {OF_7}" in out
    assert f"warning: the totals are {OF_7}: they are no step's, and no run's; not: att" in out
    assert swatsim.estimate(load(saved["little"]), 10).share == pytest.approx(0.07)
    out = said("estimate", saved["most"], "--run-steps", 10)
    assert "The trace holds 97 % of a step's multiplications; not:" in out
    assert "the totals are of the 9" not in out
    out = said("estimate", traces["little"], "--images", "-m", "tensordash")
    assert f"steps added up: 2, {OF_7}" in out
    assert estimate_images(traces["most"], "tensordash").share == pytest.approx(0.97)
    assert estimate_images(traces["unknown"], "tensordash").share is None


def test_a_sweep_says_it_of_each_point(traces: dict[str, Path], tmp_path: Path) -> None:
    machines = [{"preset": "tensordash", "grid": {"rows": [2, 4]}}]
    spec = {"traces": [traces["little"]], "machines": machines, "ops": list(OPS)}
    found = swatsim.sweep(spec, tmp_path / "out", executor=Here())
    assert [row["share"] for row in found.rows] == pytest.approx([0.07] * 2)
    best = Store(tmp_path / "out").load(found.rows[0]["point"])
    page = of_sweep(found.rows, "out", best)
    assert "7 % of their multiplications" in page.verdict
    assert OF_7 in " ".join(page.notes)


# ---- info --------------------------------------------------------------------------------------


def test_info_shows_what_is_held_and_what_is_not(traces: dict[str, Path]) -> None:
    code, out, _ = run("info", traces["little"], "--all")
    words = " ".join(out.split())
    assert code == 0
    assert (
        "7 % of the steps' multiplications are in the trace; not: attention in 3 modules 70 %"
        in words
    )
    assert "all 2.00 k 4.00 k 100 %" in words
    assert "in the trace 140 280 7 %" in words
    assert "not: attention block.0 464 930 23 %" in words
    assert "left alone in the run: norm" in words
    assert "parameters that got a gradient and are in no op: table.weight" in words
    assert "values not known" in words
    assert "of the steps' multiplications: not known" in said("info", traces["unknown"])


def test_info_is_bounded(tmp_path: Path) -> None:
    parts = tuple(Unheld(module=f"m{i}", what="mm", forward=i, backward=0) for i in range(200))
    names = tuple(f"weight{i}" for i in range(200))
    macs = Macs(forward=10**6, backward=0)
    found = Coverage(seen=macs, held=Macs(forward=0, backward=0), not_held=parts, unseen=names)
    dtypes = {"weight": "bfloat16", "act": "float32", "grad_out": "bfloat16"}
    make_trace(tmp_path / "many", (0,), layers=LAYERS, coverage=found, dtypes=dtypes)
    _, out, _ = run("info", tmp_path / "many")
    words = " ".join(out.split())
    assert len(out) < 2500
    assert "values weight bf16; act fp32; grad_out bf16" in words
    _, out, _ = run("info", tmp_path / "many", "--all")
    assert out.count("not: mm") == 200
    assert "weight199" in out
    results = swatsim.simulate(tmp_path / "many", "tensordash", ops=["fprop"])
    assert len(str(results.provenance["parameters"]["coverage"])) < 1000


# ---- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.0, "0 %"),
        (0.0004, "less than 0.1 %"),
        (0.021, "2.1 %"),
        (0.07, "7 %"),
        (0.645, "64 %"),
        (0.9499, "94.9 %"),
        (0.95, "95 %"),
        (0.9999, "99.9 %"),
        (1.0, "100 %"),
    ],
)
def test_a_share_is_never_rounded_up_to_a_bound(share: float, words: str) -> None:
    assert percent(share) == words
    span = Span(1, 1, 1, OPS, share)
    assert span.partial == (share < 0.95)
    assert bool(span.of_what) == span.partial
    assert Span.from_row(span.columns) == span


def test_tenths_of_a_percent_never_make_something_nothing() -> None:
    shown = [tenths(share) for share in (0.0, 0.0004, 0.0005, 0.381, 1.0)]
    assert shown == ["0.0 %", "<0.1 %", "0.1 %", "38.1 %", "100.0 %"]
