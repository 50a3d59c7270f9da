"""``swatsim estimate`` as a user meets it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import swatsim as api
from swatsim.reports.run_words import headline
from swatsim.reports.verdict import verdict
from tests.command import refused, swatsim
from tests.traces import make_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trace(tmp_path_factory.mktemp("estimate") / "small", steps=(0, 3, 6, 9)).path


@pytest.fixture(scope="module")
def results(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("estimated") / "results"
    api.simulate(trace, "tensordash", workers=1).save(folder)
    return folder


def test_a_run_is_estimated_from_results(results: Path) -> None:
    code, out, errors = swatsim("estimate", results, "--run-steps", 10)
    assert code == 0, errors
    found = api.estimate(api.load_results(results), run_steps=10)
    first, second, *_ = out.splitlines()
    assert first == f"{headline(found)}."
    assert first.startswith("A run of 10 steps of 2 images, layers alone, takes 0.0")
    assert second == f"{verdict(found.results).sentence}."
    row = re.search(r"^ speed-up  +(\S+)x +\S+ % +(\S+)x +(\S+)x +- ", out, flags=re.M)
    assert row is not None
    speed_up = found.ratios["speed_up"]
    expected = [f"{value:.2f}" for value in (speed_up.value, speed_up.low, speed_up.high)]
    assert list(row.groups()) == expected
    assert re.search(r"^ sparse, \d+ % of the products left  0\.\.9  +100 %  +4 ", out, flags=re.M)
    assert "Assumed: steps scatter by chance about a level that goes from each" in out
    assert re.search(r"^ baseline's compute cycles .* alike +alike +alike ", out, flags=re.M)
    assert "alike: all recorded steps are the same in this" in out
    assert "warning: of the batch of 8 the results hold 2" in out
    assert out.splitlines()[-1] == f"Next: swatsim report {results}"
    assert swatsim("estimate", results, "--run-steps", 10, "--strata", 1)[0] == 0


def test_a_run_is_estimated_from_a_trace(trace: Path) -> None:
    command = ("estimate", trace, "-m", "tensordash", "--set", "tiles=2", "--run-steps", 10)
    code, out, errors = swatsim(*command, "--cut", 5)
    assert code == 0, errors
    found = api.estimate_run(trace, api.machine("tensordash", tiles=2), 10, cuts=[5])
    assert out.startswith(f"{headline(found)}.\n{verdict(found.results).sentence}.\n")
    assert "A run of 10 steps of 8 images, layers alone, takes " in out
    assert re.findall(r"% of the products left +(\d+\.\.\d+) +50 % +2 ", out) == ["0..4", "5..9"]
    assert "Whole batches, of 2 recorded images of each: these, over and over, make up" in out
    assert "of the batch of 8" not in out
    assert out.splitlines()[-1] == f"Next: swatsim simulate {trace} -m tensordash"
    code, out, _ = swatsim(*command, "--json")
    told = json.loads(out)
    assert (code, told["command"], told["images_of_step"]) == (0, "estimate", 8)
    time = next(row for row in told["totals"] if (row["of"], row["unit"]) == ("machine", "ms"))
    assert time["per_image"] == pytest.approx(time["value"] / 80)
    assert time["low"] < time["value"] < time["high"]
    assert {"low", "high", "per_step", "products", "speed_up"} <= told["keys"].keys()
    assert told["phases"][0]["density"]["weight"] == pytest.approx(0.2, abs=0.03)


def test_images_of_a_batch_as_json(trace: Path) -> None:
    code, out, _ = swatsim("estimate", trace, "--images", "-m", "scale-sim-os", "--json")
    assert code == 0
    assert json.loads(out)["totals"][-1]["op"] == "step"


def test_one_step_has_no_interval(trace: Path, tmp_path: Path) -> None:
    api.simulate(trace, "tensordash", steps=[3], workers=1).save(tmp_path)
    code, out, _ = swatsim("estimate", tmp_path, "--run-steps", 10)
    assert code == 0
    assert re.search(r"^ cycles .* unknown +unknown +unknown ", out, flags=re.M)
    assert "warning: only step 3 was recorded" in out


def test_a_batch_is_estimated_from_a_trace(trace: Path) -> None:
    chosen = ("--images", "-m", "tensordash", "--set", "tiles=2", "--step", 3)
    code, out, errors = swatsim("estimate", trace, *chosen)
    assert code == 0, errors
    assert "tensordash[tiles=2] against tensordash[tiles=2] dense: whole batches of 8" in out
    assert re.search(r"^ fc +fprop +as a batch +\d+ +exact", out, flags=re.M)
    assert re.search(r"^ stem +wgrad +as a batch +\d+ +unknown", out, flags=re.M)
    assert re.search(r"^ block\.conv +dgrad +by image +\d+ ", out, flags=re.M)
    assert re.findall(r"^ (fprop|dgrad|wgrad|all ops) ", out, flags=re.M)[-1] == "all ops"
    assert "Assumed: the recorded images of each step behave as a random sample" in out
    assert "the intervals leave out how that varies" in out
    code, out, _ = swatsim("estimate", trace, "--images", "-m", "scale-sim-os", "--step", 3)
    assert code == 0
    assert not re.search("unknown|leave out how that varies", out)
    assert "to fill it, and would take as long with any others." in out


def test_what_can_not_be_estimated_is_refused_in_one_line(
    trace: Path, results: Path, tmp_path: Path
) -> None:
    for arguments, message in (
        ((results,), "neither --run-steps nor --images is given"),
        ((results, "--run-steps", 9), "must be a whole number of at least 10, since step 9"),
        ((results, "--run-steps", 10, "--strata", 5), "must be a whole number from 1 to 4"),
        ((results, "--run-steps", 10, "--strata", -1), "strata=-1 is not allowed"),
        (
            (results, "--run-steps", 10, "--strata", 10**30),
            "strata=1000000000000000000000000000000 is not",
        ),
        ((results, "--run-steps", 2**63), "and below 2**63"),
        ((results, "--run-steps", "many"), "'many' is not a valid integer"),
        ((results, "--run-steps", 10, "-m", "scnn"), "is not a trace: it has no manifest.json"),
        ((results, "--run-steps", 10, "--step", 3), "--step is not allowed: an estimate from"),
        ((results, "--run-steps", 10, "--cut", 4, "--cut", 5), "no step of the phase 4..4 was"),
        ((results, "--run-steps", 10, "--cut", 10), "must be a step from 1 to 9, the first one"),
        ((trace, "--run-steps", 10), "is a trace, and no machine is given: add -m MACHINE"),
        ((trace, "-m", "scnn"), "--run-steps is missing"),
        ((trace, "-m", "scnn", "--run-steps", 9), "must be a whole number of at least 10"),
        ((trace, "--images"), "--images needs --machine NAME"),
        ((trace, "--images", "-m", "scnn", "--run-steps", 10), "--run-steps is not allowed"),
        ((trace, "--images", "-m", "scnn", "--step", 4), "has no step 4"),
        ((results, "--images", "-m", "scnn"), "is not a trace"),
        ((tmp_path / "none", "--run-steps", 10), "no results in"),
    ):
        assert message in refused("estimate", *arguments)


def test_results_without_a_baseline_are_refused(results: Path, tmp_path: Path) -> None:
    loaded = api.load_results(results)
    rows = [row for row in loaded.rows if row["role"] == "machine"]
    api.Results(rows, loaded.provenance).save(tmp_path)
    line = refused("estimate", tmp_path, "--run-steps", 10)
    assert "no rows of role 'baseline', only 'machine'" in line
