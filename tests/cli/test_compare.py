"""``swatsim compare`` as a user meets it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import swatsim
from swatsim.cli import show
from swatsim.workload.layer import Layer
from tests.command import refused
from tests.command import swatsim as run
from tests.pictures import unpainted
from tests.sweeps.test_sweep import LIGHT, Here
from tests.traces import make_trace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two machines' results of one trace, and a sweep of six machines on it."""
    folder = tmp_path_factory.mktemp("compared")
    trace = make_trace(folder / "small", (0,)).path
    for letter, machine in (("a", "scale-sim-os"), ("b", "scale-sim-ws")):
        swatsim.simulate(trace, machine).save(folder / letter)
    spec = {"traces": [str(trace)], "machines": LIGHT}
    swatsim.sweep(spec, folder / "sweep", executor=Here())
    return folder


def said(*arguments: object) -> str:
    code, out, errors = run("compare", *arguments)
    assert code == 0, errors
    return out


def test_the_verdict_comes_first_then_the_table_then_what_to_do_next(folder: Path) -> None:
    found = swatsim.compare(folder / "a", folder / "b")
    lines = said(folder / "a", folder / "b").splitlines()
    assert lines[: len(found.sentences)] == [f"{one}." for one in found.sentences]
    assert lines[-1] == f"A page with a picture: swatsim compare {folder}/a {folder}/b -o FOLDER"
    ranked = sorted(found.rows, key=lambda row: row["time_ms"])
    shown = [line.split() for line in lines if re.match(r" scale-sim-.s ", line)]
    assert [cells[0] for cells in shown] == [row["label"] for row in ranked]
    assert [cells[2] for cells in shown] == [f"{row['speed_up']:.2f}x" for row in ranked]
    assert not any("layer1" in line or " fprop " in line for line in lines)


def test_all_of_two_networks_is_all_that_can_be_compared(folder: Path, tmp_path: Path) -> None:
    other = make_trace(tmp_path / "other", (0,), layers=(Layer(name="x", C=4, K=4, kind="linear"),))
    swatsim.simulate(other, "scale-sim-os", workers=1).save(tmp_path / "c")
    both = folder / "a", tmp_path / "c"
    code, out, errors = run("compare", *both, "--all", "--json")
    assert (code, "layers" in json.loads(out)) == (0, False)
    assert errors.count("no layers are shown: ") == errors.count("no layer and op in common") == 1
    assert "no layer and op in common" in refused("compare", *both, "--layers")


def test_layers_of_two_are_side_by_side(folder: Path) -> None:
    out = said(folder / "a", folder / "b", "--layers")
    heads = ("ms A", "ms B", "B faster than A", "own speed-up A", "energy B", "DRAM A", "cycles B")
    assert all(head in out for head in heads)
    row = next(
        line for line in out.splitlines() if line.startswith(" block.conv") and "fprop" in line
    )
    found = swatsim.compare(folder / "a", folder / "b").layers()
    ours = [one for one in found if (one["layer"], one["op"]) == ("block.conv", "fprop")]
    assert row.split()[4] == f"{ours[0]['time_ms'] / ours[1]['time_ms']:.2f}x"
    assert re.search(r"all layers +all ops ", out)
    assert "A: scale-sim-os; B: scale-sim-ws" in out
    assert "A: " not in said(folder / "a", folder / "b")


def test_a_baseline_labels_and_a_sweep(folder: Path) -> None:
    labels = ("--label", "grid", "--label", "mine")
    out = said(folder / "sweep", folder / "a", *labels, "--baseline", "mine")
    assert "Common baseline: scale-sim-os on small (one of them), " in out
    assert len(re.findall(r"^ grid: scale-sim-ws\[", out, flags=re.M)) == 6
    assert re.search(r"^ mine +\S+ +1\.00x", out, flags=re.M)
    line = refused("compare", folder / "a", folder / "b", "--baseline", "scale-sim-osx")
    assert "did you mean 'scale-sim-os'?" in line
    assert line.endswith(" (see swatsim compare --help)")
    line = refused("compare", folder / "a", folder / "b", "--label", "x")
    assert "1 labels for 2 results" in line
    assert line.endswith(" (see swatsim compare --help)")


def test_many_results_show_how_far_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    shown = run("compare", folder / "sweep", folder / "a", folder / "b")[2]
    assert "8/8 results" in re.sub(r"\x1b\[[\d;?]*\w", "", shown)
    told = list[tuple[int, int]]()
    swatsim.compare(folder / "a", folder / "b", progress=lambda *it: told.append(it))
    assert told == [(1, 2), (2, 2)]


def test_many_rows_are_cut_unless_all_are_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swatsim.cli.compare.SHOWN", 4)
    assert "4 of 6 (--all shows them)" in said(folder / "sweep")
    whole = said(folder / "sweep", "--all")
    assert (
        len(re.findall(r"^ scale-sim-ws\[", whole.partition("Common baseline")[0], flags=re.M)) == 6
    )
    assert " fprop " in whole


def test_it_fits_a_narrow_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(show._Console, "is_terminal", True)
    lines = said(folder / "sweep", "--layers").splitlines()
    assert max(map(len, lines)) <= 80
    assert any("more columns: --all" in line for line in lines)


def test_without_a_clock_all_is_in_cycles_and_no_column_is_empty(
    folder: Path, tmp_path: Path
) -> None:
    parts = ("simulate_op", "simulate_dense", "describe")
    for name in ("scale-sim-os", "scale-sim-ws"):
        own = SimpleNamespace(
            name=name, **{part: getattr(swatsim.machine(name), part) for part in parts}
        )
        swatsim.simulate(folder / "small", own, workers=1).save(tmp_path / name)
    out = said(tmp_path / "scale-sim-os", tmp_path / "scale-sim-ws", "--layers")
    heads = [line for line in out.splitlines() if " speed-up" in line and "  " in line]
    assert [head.split()[0] for head in heads] == ["cycles", "layer"]
    assert "cycles A" in heads[1]
    assert not re.search(r" (ms|mJ|energy|W)\b", " ".join(heads))
    assert "energies" not in out


def test_json_is_one_object_and_nothing_else(folder: Path) -> None:
    found: dict[str, Any] = json.loads(said(folder / "a", folder / "b", "--json"))
    assert [row["label"] for row in found["rows"]] == ["scale-sim-os", "scale-sim-ws"]
    assert found["sentences"][0].startswith("Fastest: ")
    assert found["baseline"]["label"] == "scale-sim-os dense"
    assert "layers" not in found
    assert json.loads(said(folder / "a", "--json", "--layers"))["layers"][0]["label"]


def test_a_page_is_written_beside_its_numbers(folder: Path, tmp_path: Path) -> None:
    with unpainted():
        out = said(folder / "a", folder / "b", "-o", tmp_path / "page")
    assert f"wrote {tmp_path}/page/report.html and " in out
    assert {"comparison.csv", "times.png"} <= {path.name for path in (tmp_path / "page").iterdir()}
    with unpainted():
        assert "a trace is there" in refused("compare", folder / "a", "-o", folder / "small")


def test_what_is_no_results_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    assert "no results in" in refused("compare", folder / "a", tmp_path)
    assert "no results in" in refused("compare", folder / "small")
    sweep = folder / "sweep"
    for verb in ("compare", "report"):
        assert f"name the sweep's folder, {sweep}; " in refused(verb, sweep / "points")
    assert "it is a sweep's folder" in refused("estimate", sweep, "--run-steps", 9)
    cut = tmp_path / "cut/points"
    cut.mkdir(parents=True)
    assert "sweep.json can't be used: No such file or directory; " in refused("report", cut.parent)
