"""What tables, pages, estimates and the command line make of a step with everything else."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest

import swatsim
from swatsim.columns import Role
from swatsim.outputs import PLOT_FILES
from swatsim.reports import gpu_time, page_tables, tables
from swatsim.results import Results
from swatsim.workload.layer import Layer
from tests.command import swatsim as command
from tests.pictures import unpainted
from tests.simulator.test_other import CHAIN, NORM, SGD, TOPK, trace_of
from tests.traces import make_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trace_of(tmp_path_factory.mktemp("whole") / "t", [NORM, CHAIN, SGD, TOPK]).path


@pytest.fixture(scope="module")
def results(trace: Path) -> Results:
    return swatsim.simulate(trace, "a100")


def test_tables_of_layers_are_those_of_layers_alone(results: Results) -> None:
    alone = results.layers_only()
    for table in (tables.per_layer, page_tables.sparsity):
        assert table(results) == table(alone)
    assert str(page_tables.layers(results)) == str(page_tables.layers(alone)), "nan is no equal"
    for table in (page_tables.operand_bytes, page_tables.reductions):
        assert table(results) == table(alone)
    for table in (tables.by_step, page_tables.over_steps):
        assert [row for row in table(results) if row["op"] != "step"] == table(alone)
    assert gpu_time.estimate(results) == gpu_time.estimate(alone)
    whole, layers = (tables.summarise(it) for it in (results, alone))
    same = ("speed_up", "cycles", "energy_pj", "of_ideal", "steps", "macs_dense")
    assert [whole.of_layers[name] for name in same] == [layers.ops[-1][name] for name in same]


def test_the_parts_of_a_step_add_up(results: Results) -> None:
    summary = tables.summarise(results)
    *parts, step = summary.ops
    for name in ("cycles", "lane_cycles", "dram_bytes", "energy_pj", "lane_cycles_vector"):
        assert step[name] == pytest.approx(sum(part[name] for part in parts))
        theirs = [part["baseline"][name] for part in parts]
        assert step["baseline"][name] == pytest.approx(sum(theirs))
    rows = summary.all_of(Role.MACHINE)
    assert step["cycles"] == sum(row["cycles"] for row in rows)
    policy = summary.phases[-1]
    assert (policy["phase"], policy["baseline"]["cycles"]) == ("policy", 0)
    assert policy["cycles"] > 0
    assert 0 < step["of_ideal"] <= 1
    assert summary.of_layers["of_ideal"] < step["of_ideal"], "what else there is, it takes too"
    assert step["dtype"] == summary.of_layers["dtype"]
    head = page_tables.headline(results)
    assert head["speed_up_layers"] == summary.of_layers["speed_up"]
    assert head["elsewhere"] == step["elsewhere"]


def test_an_estimate_of_a_run_is_of_whole_steps(results: Results) -> None:
    found = swatsim.estimate(results, run_steps=10)
    step = tables.per_op(results)[-1]
    assert found.ours["cycles"].value == pytest.approx(5 * step["cycles"])
    assert found.ratios["speed_up"].value == pytest.approx(step["speed_up"])


def test_a_page_and_all_plots_are_put_together(
    trace: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = swatsim.simulate(trace, "scnn", steps=[0])
    with caplog.at_level(logging.WARNING), unpainted():
        page = swatsim.report(found, tmp_path)[0]
    assert not caplog.records
    assert {f"{name}" for name in PLOT_FILES} <= {path.name for path in tmp_path.iterdir()}
    with (tmp_path / "layers.csv").open(newline="") as file:
        assert {row["layer"] for row in csv.DictReader(file)} == {"conv", "fc"}
    assert f"{page_tables.headline(found)['speed_up']:.2f}x" in page.read_text()


def test_the_command_line_shows_phases_a_whole_step_and_its_layers_alone(trace: Path) -> None:
    whole, only = (
        command("simulate", trace, "-m", "swat", "--all", *more)
        for more in ((), ("--layers-only",))
    )
    assert (whole[0], only[0]) == (0, 0), whole[2] + only[2]
    for word in ("native_layer_norm", "policy: what the method itself costs", "whole step"):
        assert word in whole[1]
        assert word not in only[1]
    assert "its layers alone" in whole[1]
    assert "of the baseline's time is elsewhere" in " ".join(whole[1].split())
    assert "is in none of them: layers only were asked for" in " ".join(only[1].split())
    assert command("simulate", trace, "-m", "swat", "--dense-outputs")[0] == 0


def test_a_product_of_two_activations_has_no_weights(tmp_path: Path) -> None:
    """Of two samples and two heads 6 x 4 times 4 x 5: the second factor has 4 x 5, four times."""
    scores = Layer(kind="matmul", name="scores", C=2 * 4, K=2 * 5, H=6, groups=2)
    trace = make_trace(tmp_path / "t", (0,), layers=(scores,))
    read = page_tables.operand_bytes(swatsim.simulate(trace, "tensordash"))
    assert [(row["tensor"], row["elements"]) for row in read] == [("act", 96), ("right", 80)]
    code, out, errors = command("simulate", trace.path, "-m", "tensordash", "--all")
    assert code == 0, errors
    assert "2x(6x4 @ 4x5)" in out
