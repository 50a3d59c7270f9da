"""What a terminal shows at any width, and what a program reads instead: ``--json``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

import swatsim as package
from swatsim.cli import as_json, show, sweep
from swatsim.cli.grid import Grid
from swatsim.reports.costliest import costliest
from swatsim.reports.names import shortened
from swatsim.reports.tables import per_op, per_step
from swatsim.reports.verdict import verdict
from swatsim.results import Results
from swatsim.sweeps.plan import Plan
from swatsim.tracefile import Operation, OtherWork
from swatsim.workload.layer import Layer
from tests.command import refused, swatsim
from tests.pictures import unpainted
from tests.sweeps.test_sweep import Here
from tests.traces import make_trace

LONG = [f"encoder.layers.{i}.attention.self.{part}" for i in range(5) for part in ("query", "key")]
MADE = Operation(function="norm", elements=64, read=256, written=256)
NORM = OtherWork(module="norm", phase="forward", operations=(MADE,), read=256, written=256)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = tuple(Layer(name=name, kind="linear", C=8, K=8) for name in LONG)
    return make_trace(
        tmp_path_factory.mktemp("terminal") / "long", (0, 1), 1, layers, others=[NORM]
    ).path


@pytest.fixture(scope="module")
def results(trace: Path) -> Results:
    return package.simulate(trace, "tensordash", workers=1)


def at(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process write to a terminal of so many columns."""
    for variable, value in {"FORCE_COLOR": "1", "COLUMNS": str(width), "LINES": "50"}.items():
        monkeypatch.setenv(variable, value)


# ---- tables --------------------------------------------------------------------------------------

CELLS = [[name, "fprop", *(f"{i}.{j}5 ms" for j in range(9))] for i, name in enumerate(LONG)]
HEADINGS = ["layer", "op", *(f"column {j}" for j in range(9))]


@pytest.mark.parametrize("width", [30, 60, 80, 120, 200, 10_000])
@pytest.mark.parametrize("expendable", [(), tuple(HEADINGS[:3:-1])])
def test_a_table_is_never_wider_than_it_may_be_nor_is_a_number_torn(
    width: int, expendable: tuple[str, ...]
) -> None:
    lines, dropped = Grid("", HEADINGS, CELLS, 2, expendable=expendable).fitted(width)
    assert max(map(len, lines)) <= width
    assert dropped == list(expendable[: len(dropped)])
    words = {word for line in lines for word in re.split(r" {2,}", line.strip())}
    for i, heading in enumerate(HEADINGS[2:], start=2):
        kept = heading not in dropped
        assert (heading in words) is kept
        assert all((row[i] in words) is kept for row in CELLS)
    if width == 10_000:
        assert not dropped
        assert set(LONG) <= words
    elif width <= 80:
        assert bool(dropped) is bool(expendable)


def test_a_column_goes_only_if_there_is_no_room_and_in_the_order_that_was_asked_for() -> None:
    grid = Grid("", ("layer", "a", "b", "c"), [["x", "1", "2", "3"]], 1, expendable=("b", "a", "c"))
    natural = len(" layer  a  b  c")
    assert grid.fitted(natural)[1] == []
    assert grid.fitted(natural - 1)[1] == ["b"]
    assert grid.fitted(len(" layer  a  c") - 1)[1] == ["b", "a"]
    lines, dropped = grid.fitted(2)
    assert dropped == ["b", "a", "c"]
    assert max(map(len, lines)) <= 2


def test_names_have_the_room_of_columns_that_went_and_of_their_own_heading() -> None:
    heads = ("what this row is of", "ms", "of a baseline that nobody sees")
    rows = [["everything else", "1.24", "9"], ["whole step", "1.65", "9"]]
    lines, dropped = Grid("", heads, rows, 1, expendable=heads[2:]).fitted(22)
    assert dropped == [*heads[2:]]
    assert [line.split("  ")[0].strip() for line in lines[2:]] == ["everything else", "whole step"]
    assert lines[0] == " what this row …    ms"


@pytest.mark.parametrize("most", [6, 10, 14, 20, 31, 60])
def test_short_names_differ_and_keep_what_differs(most: int) -> None:
    found = shortened(LONG, most)
    assert list(found) == LONG
    assert max(map(len, found.values())) <= most
    if most >= 14:
        assert len(set(found.values())) == len(LONG)
    if most >= len(LONG[0]):
        assert found == {name: name for name in LONG}
    elif most >= 24:  # all of them are in encoder.layers
        assert found[LONG[0]] == "0.attention.self.query"


def test_wide_characters_take_two_columns() -> None:
    wide = "\N{CJK UNIFIED IDEOGRAPH-5C42}"
    assert shortened([wide * 20 + "z"], 9) == {wide * 20 + "z": f"{wide * 2}…{wide}z"}
    lines, _ = Grid("", ("layer", "ms"), [[wide * 30, "1.24"], ["fc", "0.1"]], 1).fitted(30)
    assert max(map(cell_len, lines)) <= 30
    assert lines[2].endswith("1.24")


def test_one_long_name_alone_keeps_its_ends() -> None:
    assert shortened(["a" * 20 + "z"], 9) == {"a" * 20 + "z": "aaaa…aaaz"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.00004976, "0.0000498"),
        (0.1234567, "0.123"),
        (0.19, "0.190"),
        (12.0, "12.0"),
        (123.4, "123"),
        (12345.6, "12,346"),
    ],
)
def test_three_digits_are_shown_of_any_size(value: float, words: str) -> None:
    assert show.padded(value) == words
    assert show.padded(math.nan) == "-"


# ---- simulate ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 200])
def test_simulate_says_first_what_bounds_a_step(
    width: int, trace: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(width, monkeypatch)
    code, out, _ = swatsim("simulate", trace, "-m", "tensordash")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert len(lines) <= 48
    words = " ".join(out.split())
    assert words.index(verdict(results).sentence) < words.index("Totals of a step")
    assert words.index("Totals of a step") < words.index("What costs most of a step: 10 of ")
    assert ("more column" in words) is (width < 200)
    rows = [line for line in lines if re.match(r" \S.* (fprop|dgrad|wgrad) ", line)]
    assert len({line.split()[0] for line in rows if not line.startswith(" fprop")}) > 1


def test_totals_and_costs_are_of_a_mean_step(trace: Path, results: Results) -> None:
    _, out, _ = swatsim("simulate", trace, "-m", "tensordash")
    step = per_step(per_op(results)[-1], 2)
    (whole,) = re.findall(r"^ whole step +(\S+) ", out, flags=re.M)
    assert whole == show.padded(step["time_ms"])
    rows = costliest(results)
    assert rows[-1]["share_up_to_here"] == pytest.approx(1)
    assert sum(row["time_ms"] for row in rows) == pytest.approx(step["time_ms"])
    assert sum(row["cycles"] for row in rows) == step["cycles"]
    assert sum(row["energy_pj"] for row in rows) == pytest.approx(step["energy_pj"])
    assert [row["cycles"] for row in rows] == sorted((r["cycles"] for r in rows), reverse=True)
    assert [row["layer"] for row in rows if row["op"] == "other"] == ["forward: norm"]


def test_all_shows_every_row_and_column_at_any_width(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(70, monkeypatch)
    _, out, _ = swatsim("simulate", trace, "-m", "tensordash", "--all")
    assert max(map(len, out.splitlines())) <= 70
    assert "--all" not in out
    for heading in ("baseline's energy", "with no zero", "lost most to", "compute only"):
        assert heading in out
    costs = out.partition("What costs most")[2].partition("Layers and ops;")[0]
    ops = re.findall(r"  (fprop|dgrad|wgrad|else) ", costs)
    assert len(ops) % (3 * len(LONG) + 1) == 0


def test_the_closing_line_is_the_next_command(trace: Path, tmp_path: Path) -> None:
    place = tmp_path / "two words"
    _, out, _ = swatsim("simulate", trace, "-m", "ideal", "--plots", "none", "-o", place)
    assert out.splitlines()[-1] == f"Next: swatsim report '{place}'"
    assert f"wrote {place}: provenance.json, schema.json, results.csv, results.parquet" in out
    assert "with -o FOLDER" in swatsim("simulate", trace, "-m", "ideal")[1].splitlines()[-1]


# ---- json ----------------------------------------------------------------------------------------


def numbers(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from numbers(one, key if key == "shares" else name)
    elif isinstance(value, list):
        for one in value:
            yield from numbers(one, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key


def read(*arguments: object) -> dict[str, Any]:
    """Run a verb with --json: what it prints is one object, each number of which is explained."""
    code, out, errors = swatsim(*arguments, "--json")
    assert (code, errors) == (0, "")
    found: dict[str, Any] = json.loads(out, parse_constant=pytest.fail)
    assert found["command"] == arguments[0]
    plain = {key: value for key, value in found.items() if key not in ("keys", *FREE)}
    assert sorted({*numbers(plain)} - set(found["keys"])) == []
    return found


#: What a run, a design or a trace says in its own words.
FREE = ("policy", "machines", "drams", "spec", "damaged", "format", "dtypes")


def test_json_of_results_holds_what_is_shown(trace: Path, results: Results) -> None:
    found = read("simulate", trace, "-m", "tensordash")
    assert found["verdict"]["sentence"] == verdict(results).sentence
    assert found["step"]["time_ms"] == per_step(per_op(results)[-1], 2)["time_ms"]
    assert len(found["costs"]) == 3 * len(LONG) + 1
    assert found["costs"][0]["lost_most_to"]
    assert [row["op"] for row in found["totals"]] == ["fprop", "dgrad", "wgrad", "other", "layers"]
    assert "layers" not in found
    whole = read("simulate", trace, "-m", "tensordash", "--all")
    assert len(whole["layers"]) == 3 * len(LONG)


def test_what_is_not_known_is_null(trace: Path) -> None:
    found = read("simulate", trace, "-m", "tensordash", "--set", "memory=none", "--layers-only")
    assert found["step"]["elsewhere"] is None
    assert as_json._plain([math.nan, math.inf, Path("a"), 1, True]) == [None, None, "a", 1, True]


def test_json_of_a_trace(trace: Path) -> None:
    found = read("info", trace)
    assert [row["layer"] for row in found["layers"]] == LONG
    assert [row["step"] for row in found["steps"]] == [0, 1]
    assert found["density"]["fprop weight"] == pytest.approx(0.2, abs=0.1)
    assert read("check", trace)["masks"] == found["masks"] == 2 * 6 * len(LONG)
    assert read("footprint", trace)["totals"][0]["kept"] == "inputs of layers"


def test_json_of_damage_is_printed_beside_the_refusal(tmp_path: Path) -> None:
    path = make_trace(tmp_path / "t").path
    (path / "steps/7.safetensors").write_bytes(b"")
    for verb in ("info", "check"):
        code, out, errors = swatsim(verb, path, "--json")
        assert code == 2
        assert json.loads(out)["damaged"]
        assert "step 7" in errors


def test_json_of_machines() -> None:
    every = read("machines")
    assert {it["name"] for it in every["machines"]} >= {"lane_array", "systolic"}
    assert {it["kind"] if "kind" in it else it["name"] for it in every["drams"]}
    (one,) = read("machines", "tpu-v1")["machines"]
    (preset,) = one["presets"]
    assert preset["peak_tops"] == 2 * preset["multipliers"] * preset["clock_mhz"] / 1e6
    assert {it["name"] for it in one["parameters"]} == set(preset["parameters"])


def test_json_of_a_sweep(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_cluster", lambda *named: Here())
    options = ("-m", "tensordash", "--set", "rows=2,4", "--op", "fprop", "-o", tmp_path / "out")
    code, out, errors = swatsim("sweep", trace, *options, "--json")
    assert code == 0, errors
    assert [row["rows"] for row in json.loads(out)["points"]] == [2, 4]
    assert errors.startswith("2 points, 2 to compute, 0 kept, 2 computations, some seconds on ")
    at(80, monkeypatch)
    code, out, errors = swatsim("sweep", trace, *options)
    assert max(map(len, out.splitlines())) <= 80
    assert f"Next: swatsim report {tmp_path}" in " ".join(out.split())
    assert errors == "2 points, 0 to compute, 2 kept\n"
    found = read("sweep", trace, *options, "--dry-run")
    assert (found["points"], found["compute"], found["kept"]) == (2, 0, 2)


@pytest.mark.parametrize(("lookasides", "code"), [("16", 2), ("5,16", 0)])
def test_a_sweep_of_which_no_point_is_done_is_an_error(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lookasides: str, code: int
) -> None:
    monkeypatch.setattr(sweep, "_cluster", lambda *named: Here())
    chosen = ("-m", "bit-tactical", "--set", f"lookaside={lookasides}", "--op", "fprop")
    found, out, _ = swatsim("sweep", trace, *chosen, "-o", tmp_path / "out")
    assert found == code
    assert "lookaside=16 is at odds with lanes=16" in " ".join(out.split())


def test_json_of_what_is_written_says_where_and_how_much(
    trace: Path, results: Results, tmp_path: Path
) -> None:
    results.save(tmp_path / "results")
    with unpainted():
        found = read("report", tmp_path / "results")
    assert found["page"] == found["written"][0] == str(tmp_path / "results/report/report.html")
    assert all(Path(path).is_file() for path in found["written"])
    step, tile = tmp_path / "step.json", tmp_path / "tile.json"
    drawn = ("timeline", trace, "-m", "tensordash", "-o")
    whole = read(*drawn, step)
    assert len(json.loads(step.read_text())["traceEvents"]) == whole["events"]
    assert (whole["written"], whole["step_ms"] > 0) == ([str(step)], True)
    part = read(*drawn, tile, "--layer", LONG[0], "--op", "dgrad", "--cycles", 3)
    assert (part["tile"], part["window"][0], "step_ms" in part) == (0, 0, False)
    found = read("synth", "resnet8", "--sparsity", 0.5, "--batch", 1, "-o", tmp_path / "synth")
    assert found["written"] == [str(tmp_path / "synth")]
    assert found["masks"] == read("check", tmp_path / "synth")["masks"]


def test_a_forecast_is_corrected_once_by_the_first_jobs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(sweep.time, "monotonic", lambda: now[0])
    watch = sweep._Watch(2, lambda done, total: None)
    watch._forecast = sweep.Forecast([1.0] * 20, 2)
    for done in range(1, 21):
        now[0] += 10.0
        watch.progress(done, 20)
    # the first two wait for processes to start; the next two took 20 s, and 16 are left
    assert capsys.readouterr().err == "about 2.7 minutes left, by the first 4 of 20 jobs\n"
    empty = sweep._Watch(2, lambda done, total: None)
    empty.announce(Plan([], [], []))
    assert capsys.readouterr().err == "0 points, 0 to compute, 0 kept\n"


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "verb"),
    [
        (("simulate", "x", "--machin", "y"), "simulate"),
        (("simulate", "{trace}", "-m", "tensordach"), "simulate"),
        (("simulate", "{trace}", "-m", "tensordash", "--set", "rows=-1"), "simulate"),
        (("info",), "info"),
        (("machines", "nonesuch"), "machines"),
        (("synth", "resnet5", "--sparsity", 0.9, "-o", "x"), "synth"),
        (("synth", "resnet8", "--sparsity", 9, "-o", "x"), "synth"),
        (("footprint", "resnet8", "--format", "x"), "footprint"),
        (("sweep", "{trace}", "-o", "x"), "sweep"),
        (("reproduce", "swatt"), "reproduce"),
        (("simulate", "{trace}", "-m"), "simulate"),
        (("simulate", "{trace}", "-m", "tensordash", "--step", 99), "simulate"),
        (("timeline", "{trace}", "-m", "swat", "-o", "x.txt"), "timeline"),
        (
            ("timeline", "{trace}", "-m", "swat", "-o", "x.json", "--layer", "y", "--op", "fprop"),
            "timeline",
        ),
        (("synth", "resnet8", "--sparsity", 0.9, "-o", "x", "--batch", 0), "synth"),
        (("synth", "resnet8", "--sparsity", 0.9, "-o", "x", "--act-density", 0), "synth"),
        (("estimate", "{trace}", "-m", "swat", "--run-steps", 1), "estimate"),
        (("estimate", "{trace}", "-m", "swat", "--run-steps", 9, "--strata", 0), "estimate"),
        (("estimate", "{trace}", "-m", "swat", "--run-steps", 9, "--cut", 9), "estimate"),
    ],
)
def test_a_refusal_names_the_help_of_its_own_verb(
    command: tuple[object, ...], verb: str, trace: Path
) -> None:
    line = refused(*(str(trace) if word == "{trace}" else word for word in command))
    assert line.endswith(f" (see swatsim {verb} --help)")


def test_an_unknown_option_names_the_nearest() -> None:
    assert "Did you mean '--machine'?" in refused("simulate", "x", "--machin", "y")
    assert refused("--simulat").endswith("(see swatsim --help)")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("reproduce", "swatt"), "unknown reproduction 'swatt': did you mean 'swat'?"),
        (("simulate", "x", "-m", "swat", "--plots", "al"), "unknown plots 'al': did you mean 'all"),
        (("simulate", "x", "-m", "swat", "--op", "fpro"), "unknown op 'fpro': did you mean 'fprop"),
        (("completion", "bsh"), "unknown shell 'bsh': did you mean 'bash'?"),
    ],
)
def test_an_unknown_word_names_the_nearest(command: tuple[str, ...], words: str) -> None:
    assert words in refused(*command)


def test_what_is_no_argument_does_not_lead_to_the_help(tmp_path: Path) -> None:
    assert not refused("simulate", tmp_path, "-m", "tensordash").endswith("--help)")
