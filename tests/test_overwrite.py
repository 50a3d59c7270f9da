"""What is there already: a command makes it again, or only a run can; each side has its option."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import swatsim
from swatsim.errors import ResultsError, TraceError
from swatsim.policies import SwatU
from swatsim.results import Results
from swatsim.tracefile import Trace, open_trace
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import Layer
from tests.command import swatsim as command
from tests.pictures import unpainted
from tests.sweeps.test_sweep import Here
from tests.traces import make_trace

LAYER = Layer(name="fc", kind="linear", C=8, K=4)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return make_trace(tmp_path_factory.mktemp("overwrite") / "t", (0,))


@pytest.fixture(scope="module")
def results(trace: Trace) -> Results:
    return swatsim.simulate(trace, "ideal")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(it): it.read_bytes() for it in folder.rglob("*") if it.is_file()}


def test_results_and_pages_are_replaced_unless_one_says_no(
    results: Results, trace: Trace, tmp_path: Path
) -> None:
    results.save(tmp_path, overwrite=False)
    before = contents(tmp_path)
    with pytest.raises(ResultsError, match="results.parquet is there already; .* overwrite=True"):
        results.save(tmp_path, overwrite=False)
    assert contents(tmp_path) == before
    swatsim.simulate(trace, "ideal", ops=["fprop"]).save(tmp_path)
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path) != before
    with unpainted():
        page, *_ = swatsim.report(results, tmp_path / "page", overwrite=False)
        page.write_text("mine")
        with pytest.raises(ResultsError, match="report.html is there already"):
            swatsim.report(results, tmp_path / "page", overwrite=False)
        assert page.read_text() == "mine"
        swatsim.report(results, tmp_path / "page")
        assert page.read_text() != "mine"
        page.write_text("mine")
        with pytest.raises(ResultsError, match="report.html is there already"):
            swatsim.compare(results).save(page.parent, overwrite=False)
        assert page.read_text() == "mine"


def test_it_is_true_or_false(results: Results, tmp_path: Path) -> None:
    for wrong in (1, "no", None):
        with pytest.raises(ResultsError, match=r"save: overwrite=.* must be True or False"):
            results.save(tmp_path, overwrite=wrong)  # type: ignore[arg-type]
        with pytest.raises(ResultsError, match=r"report: overwrite=.* must be True or False"):
            swatsim.report(results, tmp_path, overwrite=wrong)  # type: ignore[arg-type]
    assert not contents(tmp_path)


def test_a_sweep_goes_on_unless_one_wants_it_anew(trace: Trace, tmp_path: Path) -> None:
    spec = {"traces": [str(trace.path)], "machines": [{"preset": "ideal"}]}
    jobs = []
    for overwrite in (False, False, True):
        here = Here()
        found = swatsim.sweep(spec, tmp_path, executor=here, overwrite=overwrite)
        jobs.append(len(here.jobs))
        assert [row["status"] for row in found.rows] == ["done"]
    assert jobs == [3, 0, 3]


def test_a_synthetic_trace_is_replaced_if_one_says_so(tmp_path: Path) -> None:
    drawn = {"policy": SwatU(0.5), "batch": 2}
    first = synthesize([LAYER], tmp_path / "t", seed=1, **drawn)
    with pytest.raises(TraceError, match="exists already"):
        synthesize([LAYER], tmp_path / "t", seed=2, **drawn)
    assert open_trace(tmp_path / "t").id == first.id
    second = synthesize([LAYER], tmp_path / "t", seed=2, overwrite=True, **drawn)
    assert second.id != first.id


def test_commands_end_with_the_next_one(results: Results, trace: Trace, tmp_path: Path) -> None:
    place = tmp_path / "my trace"
    named = shlex.quote(str(place))
    simulate = f"Next: swatsim simulate {named} -m tensordash\n"
    for option in ((), ("--overwrite",)):
        done = command("synth", "resnet8", "--sparsity", 0.5, "--batch", 1, *option, "-o", place)
        assert done[0] == 0, done
        assert done[1].endswith(simulate)
    assert command("check", place)[1].endswith(f"Next: swatsim info {named}\n")
    assert command("footprint", place)[1].endswith(simulate)
    dense = command("footprint", "resnet8", "--sparsity", 0.9)[1]
    assert dense.endswith("Next: swatsim synth resnet8 --sparsity 0.9 -o runs/resnet8\n")
    results.save(tmp_path / "results")
    with unpainted():
        out = command("report", tmp_path / "results")[1]
    assert out.endswith("Next: open it in a browser\n")
