"""``swatsim timeline`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swatsim.reports import labels
from tests.cli.test_cli import small_files_only
from tests.command import refused, swatsim
from tests.simulator.test_timeline import validate
from tests.traces import make_trace

WGRAD = ("--layer", "block.conv", "--op", "wgrad")


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trace(tmp_path_factory.mktemp("cli") / "small-trace").path


@pytest.mark.parametrize("machine", ["tensordash", "scnn"])
def test_a_timeline_is_written(trace: Path, tmp_path: Path, machine: str) -> None:
    target = tmp_path / "new" / "t.json"
    chosen = ("-m", machine, "--step", 7, "--tile", 3, "--from", 1, "--cycles", 2)
    code, out, errors = swatsim("timeline", trace, *WGRAD, *chosen, "-o", target)
    assert code == 0, errors
    made = json.loads(target.read_text())
    validate(made["traceEvents"])
    about = made["otherData"]
    assert (about["step"], about["tile"], about["window"]) == (7, 3, [1, min(3, about["cycles"])])
    assert f"wrote {target}: {len(made['traceEvents'])} events, cycles 1 to " in out
    assert [path.name for path in target.parent.iterdir()] == ["t.json"]


def test_a_whole_step_is_written_and_replaced_but_nothing_else(trace: Path, tmp_path: Path) -> None:
    target = tmp_path / "step.json"
    chosen = (
        "timeline",
        trace,
        "-m",
        "tensordash",
        "--step",
        7,
        "--blocks",
        2,
        "-o",
        target,
        "--tiles",
        3,
    )
    for _ in range(2):
        code, out, errors = swatsim(*chosen)
        assert code == 0, errors
    made = json.loads(target.read_text())
    validate(made["traceEvents"])
    about = made["otherData"]
    time = f"({labels.shown('time_ms', about['time_ms'])})"
    assert f"{len(made['traceEvents'])} events, step 7 of {about['cycles']} cycles {time}" in out
    assert about["tiles_drawn"] == "3 of 16 tiles, evenly spread"
    assert out.endswith("Next: open it at https://ui.perfetto.dev\n")
    target.write_text('{"scripts": {}}')
    assert "it is a file that is no timeline of this version" in refused(*chosen)
    assert target.read_text() == '{"scripts": {}}'
    assert swatsim(*chosen, "--overwrite")[0] == 0
    again = json.loads(target.read_text())  # what it is of has the time at which it was made
    assert again["traceEvents"] == made["traceEvents"]


def test_parameters_can_be_set(trace: Path, tmp_path: Path) -> None:
    settings = ("-m", "tensordash", "--set", "rows=2")
    code, _, errors = swatsim("timeline", trace, *WGRAD, *settings, "-o", tmp_path / "t.json")
    assert code == 0, errors
    made = json.loads((tmp_path / "t.json").read_text())
    assert made["otherData"]["machine"] == "tensordash[rows=2]"
    names = {it["args"]["name"] for it in made["traceEvents"] if it["name"] == "thread_name"}
    assert {"row 0 lane 15", "row 1 lane 0"} <= names
    assert "row 2" not in names


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--layer", "block.con"), "did you mean 'block.conv'"),
        (("--op", "wgrat"), "did you mean 'wgrad'?"),
        (("--step", 3), "has no step 3: recorded are 0, 7"),
        (("--tile", 99_999), "tile=99999 is not allowed"),
        (("--from", 99_999), "from=99999 is past the end: the last cycle of this tile is "),
        (("--cycles", 0), "cycles=0 is not allowed"),
        (("--set", "rows"), "expected PARAMETER=VALUE"),
        (("-m", "tensordach"), "did you mean 'tensordash'"),
    ],
)
def test_bad_choices_are_refused(
    trace: Path, tmp_path: Path, wrong: tuple[object, ...], message: str
) -> None:
    target = tmp_path / "t.json"
    target.write_text("precious")
    chosen = ("timeline", trace, *WGRAD, "-m", "tensordash", "-o", target, "--overwrite")
    assert message in refused(*chosen, *wrong)
    assert target.read_text() == "precious"


def test_where_it_can_not_be_written(trace: Path, tmp_path: Path) -> None:
    chosen = ("timeline", trace, *WGRAD, "-m", "tensordash", "-o")
    (tmp_path / "file").write_text("precious")
    assert "can't write to" in refused(*chosen, tmp_path / "file" / "t.json")
    assert "can't write to" in refused(*chosen, tmp_path)
    assert "a trace is there" in refused(*chosen, trace / "t.json")
    assert "can't write to" in refused(*chosen, tmp_path / "file", before=small_files_only)
    assert (tmp_path / "file").read_text() == "precious"


def test_files_of_other_kinds_are_not_overwritten(trace: Path, tmp_path: Path) -> None:
    for name in ("results.parquet", "sweep.json", "contents.json", "t"):
        (tmp_path / name).write_text("mine")
        chosen = ("--layer", "block.conv", "--op", "wgrad", "-m", "tensordash")
        line = refused("timeline", trace, *chosen, "-o", tmp_path / name)
        assert "a timeline is a .json file" in line
        assert (tmp_path / name).read_text() == "mine"
