"""The command line as a user meets it: exit codes, one-line errors, and whole processes."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from swatsim.cli import lazy, show
from swatsim.cli.main import EXAMPLES, VERBS, cli
from swatsim.columns import COLUMNS
from swatsim.outputs import CHOICES, PLOTS
from swatsim.policies import POLICIES
from swatsim.simulator.energy.table import shipped as tables
from swatsim.simulator.machines import MACHINES, find_preset, machine, presets
from swatsim.simulator.memory.dram import shipped as drams
from swatsim.tracefile import Trace
from swatsim.tracer.recorder import Recorder
from swatsim.workload.layer import OPS, Layer
from swatsim.workload.networks import NETWORKS
from swatsim.workload.storage import FORMATS
from swatsim.workload.value_types import DTYPES
from tests.command import process, refusal, refused, swatsim
from tests.tracefile.test_hostile import without_digests
from tests.traces import LAYERS, as_format_1, make_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trace(tmp_path_factory.mktemp("cli") / "small-trace").path


@pytest.fixture(scope="module")
def simulated(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    output = tmp_path_factory.mktemp("out") / "results"
    code, out, errors = swatsim("simulate", trace, "-m", "tensordash", "-o", output, "--all")
    assert code == 0, errors
    return out, output


def test_help_lists_every_verb_with_what_it_does() -> None:
    code, out, _ = process("--help")
    assert code == 0
    shown = " ".join(out.partition("Commands:")[2].partition("Begin with")[0].split())
    assert shown == " ".join(f"{verb} {words}" for verb, words in sorted(VERBS.items()))


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_help_begins_with_what_the_list_says(verb: str) -> None:
    with cli.make_context("swatsim", [verb]) as context:
        found = cli.get_command(context, verb)
    assert found is not None
    assert found.name == verb
    assert found.get_short_help_str(100) == VERBS[verb]
    done = CliRunner().invoke(cli, [verb, "--help"])
    assert done.exit_code == 0
    assert "{known}" not in done.output
    assert done.output.endswith(f"Example:\n    {EXAMPLES[verb]}\n")
    words = re.sub(r"\s+", "", done.output)  # a name may be broken at its hyphen
    assert [name for name in MENTIONED.get(verb, ()) if name not in words] == []


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "completion"])
def test_an_example_is_a_command_that_the_verb_takes(verb: str) -> None:
    _, name, *words = shlex.split(EXAMPLES[verb])
    with cli.make_context("swatsim", [verb]) as context:
        found = cli.get_command(context, verb)
    assert found is not None
    assert name == verb
    with found.make_context(verb, words, parent=context) as own:
        assert not own.args or verb == "reproduce"


PRESETS = [name for name, _, _ in presets()]
#: What a verb's help has to list.
MENTIONED = {
    "simulate": [*PRESETS, *tables(), *OPS, *CHOICES, *(plot.shows for plot in PLOTS.values())],
    "estimate": PRESETS,
    "timeline": [*PRESETS, *OPS],
    "footprint": [*DTYPES, *FORMATS],
    "synth": [*NETWORKS, *POLICIES],
    "sweep": PRESETS,
}


def test_every_module_that_is_a_verb_is_listed() -> None:
    paths = Path(lazy.__file__).parent.glob("*.py")
    begins = re.compile(r"\n@click\.(command|group)\(")
    assert {it.stem for it in paths if begins.search(it.read_text())} - {"main"} == set(VERBS)


def test_info_shows_layers_steps_densities_and_sizes(trace: Path) -> None:
    code, out, _ = swatsim("info", trace, "--all")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["block.conv"][1:9] == ["conv", "8", "16", "12x12", "3x3", "2", "1", "1.15"]
    assert rows["stem"][-4:-2] == ["-", "-"]  # no dgrad
    assert rows["0"][1:3] == ["8", "22"]
    assert "KiB" in rows["7"]
    assert "random" in out


def test_check_verifies_every_mask(trace: Path) -> None:
    code, out, _ = swatsim("check", trace)
    assert code == 0
    assert "2 steps, 44 masks" in out


def test_machines_lists_machines_and_presets_a_line_each() -> None:
    code, out, _ = swatsim("machines")
    assert code == 0
    lines = out.splitlines()
    for mechanism in MACHINES:
        assert f"{mechanism.name}: {mechanism.summary}" in lines
    for name, preset, _ in presets():  # whole: a pipe has no width
        assert f"  {name}: {preset.citation}" in lines
    for kind in drams():
        assert f"dram={kind}: " in out


@pytest.mark.parametrize("name", [mechanism.name for mechanism in MACHINES])
def test_machines_of_a_machine_has_each_parameter_and_what_presets_make_of_it(name: str) -> None:
    code, out, _ = swatsim("machines", name)
    assert code == 0
    mechanism = next(it for it in MACHINES if it.name == name)
    assert f"\n  timeline: {mechanism.tile or 'none'}\n" in out
    config = mechanism.config_type
    for preset, published in config.presets.items():
        assert f"{preset}: {published.citation}" in out
        assert f"memory: {published.memory}" in out
        for figure in published.published:  # on the paper's own workloads: ours is beside none
            assert f"published: {figure.value:g}{figure.unit} {figure.what}" in out
    for parameter, field in config.model_fields.items():
        assert re.search(rf"^  {parameter}: .+ \(.+\)$", out, flags=re.M)
        assert f"      {field.description}" in out


@pytest.mark.parametrize("name", [name for name, _, _ in presets()])
def test_machines_of_a_preset_has_values_that_set_takes(name: str) -> None:
    code, out, _ = swatsim("machines", name)
    assert code == 0
    preset, mechanism = find_preset(name)
    if name != mechanism.name:
        found = dict(re.findall(r"^  (\w+): (\S+) \(", out, flags=re.M))
        assert found.keys() == mechanism.config_type.model_fields.keys()
        assert machine(name, **found).config == machine(name, **preset.parameters).config


@pytest.mark.parametrize("name", [[], ["systolic"], ["tpu-v1"]])
def test_machines_fit_a_terminal_of_80_columns(
    name: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {"FORCE_COLOR": "1", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(variable, value)
    code, out, _ = swatsim("machines", *name)
    assert code == 0
    assert 70 < max(map(len, out.splitlines())) <= 80
    presets_shown = [line for line in out.splitlines() if line.startswith("  tpu-v1: ")]
    assert len(presets_shown) == 1
    assert presets_shown[0].endswith("\N{HORIZONTAL ELLIPSIS}") == (not name)


def test_machines_refuses_a_name_that_is_none() -> None:
    line = refused("machines", "tensor-core")
    assert "unknown machine or preset 'tensor-core': did you mean 'tensor_core'?" in line


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.2819, "28.2 %"), (0.00034, "<0.1 %"), (0.0, "0.0 %"), (float("nan"), "-")],
)
def test_a_small_share_is_not_shown_as_none(value: float, words: str) -> None:
    assert show.percent(value) == words


def test_simulate_prints_a_row_for_each_layer_and_op(simulated: tuple[str, Path]) -> None:
    out, _ = simulated
    table = out.partition("Layers and ops;")[2]
    for layer in LAYERS:
        ops = re.findall(rf"^ {re.escape(layer.name)} +(\w+) ", table, flags=re.M)
        assert ops == ["fprop", *(["dgrad"] if layer.name != "stem" else []), "wgrad"]
    totals = table.partition("Totals over all layers;")[2]
    assert re.findall(r"^ (fprop|dgrad|wgrad|all ops) ", totals, flags=re.M) == [
        "fprop",
        "dgrad",
        "wgrad",
        "all ops",
    ]


def test_simulate_writes_results_with_their_schema(simulated: tuple[str, Path]) -> None:
    _, folder = simulated
    table = pq.read_table(folder / "results.parquet")
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    schema = json.loads((folder / "schema.json").read_text())
    names = [column.name for column in COLUMNS]
    assert table.column_names == names == list(rows[0])
    assert [column["name"] for column in schema["columns"]] == names
    assert all(column["unit"] and column["meaning"] for column in schema["columns"])
    assert table.schema.field("cycles_compute").metadata[b"unit"] == b"cycles"
    assert len(rows) == table.num_rows == 3 * 2 * 11  # roles x steps x ops
    assert [int(row["cycles_compute"]) for row in rows] == table["cycles_compute"].to_pylist()
    made = json.loads((folder / "provenance.json").read_text())
    assert made["parameters"]["machine"]["parameters"]["lookahead"] == 2
    assert made["packages"]["numpy"]


def test_simulate_draws_plots(simulated: tuple[str, Path]) -> None:
    assert {path.name for path in simulated[1].glob("*.png")} == {"speed_up.png", "pe_cycles.png"}
    for name in ("speed_up.png", "pe_cycles.png"):
        assert (simulated[1] / name).read_bytes().startswith(b"\x89PNG")


def test_parameters_steps_and_baseline_can_be_chosen(trace: Path) -> None:
    chosen = ["-m", "tensordash", "--set", "scheduler=most_candidates", "--set", "lookahead=4"]
    code, out, _ = swatsim("simulate", trace, *chosen, "--step", 7, "--baseline", "dadiannao")
    assert code == 0
    assert "tensordash[lookahead=4,scheduler=most_candidates] against dadiannao" in out
    assert "1 step of 2 of 8 images" in " ".join(out.split())  # a title is as wide as its table
    assert re.search(r"Of the [\d.]+x of all ops, [\d.]+x would be there with no zero", out)


# ---- bad input ---------------------------------------------------------------------------------


def test_unknown_names_are_refused_with_the_nearest(trace: Path) -> None:
    simulate = ("simulate", trace)
    assert "did you mean 'tensordash'" in refused(*simulate, "-m", "tensordach")
    assert "did you mean 'lookahead'" in refused(*simulate, "-m", "tensordash", "-s", "lokahead=2")
    assert "unknown machine" in refused(*simulate, "-m", "tensordash", "--baseline", "x")
    assert "unknown verb 'simulat': did you mean 'simulate'?" in refused("simulat", trace)
    assert "No such option" in refused("--simulat")
    assert "No such option" in refused(*simulate, "--machin", "x")
    assert "Missing option" in refused(*simulate)
    assert "Missing argument" in refusal(*process("info"))


def test_values_out_of_range_or_at_odds_are_refused(trace: Path) -> None:
    simulate = ("simulate", trace, "-m", "tensordash")
    assert "rows=" in refused(*simulate, "--set", "rows=-1")
    assert "scheduler='levels'" in refused(*simulate, "--set", "lookahead=4")
    assert "expected PARAMETER=VALUE" in refused(*simulate, "--set", "rows")
    assert "given twice" in refused(*simulate, "--set", "rows=1", "--set", "rows=2")
    assert "has no step 3: recorded are 0, 7" in refused(*simulate, "--step", 3)


def test_missing_and_foreign_traces_are_refused(tmp_path: Path) -> None:
    for verb in (("info",), ("check",), ("simulate", "-m", "tensordash")):
        assert "does not exist" in refused(*verb, tmp_path / "nowhere")
        assert "is not a trace" in refused(*verb, tmp_path)


def test_a_damaged_step_is_named_and_results_there_stay(
    tmp_path: Path, simulated: tuple[str, Path]
) -> None:
    trace = make_trace(tmp_path / "t").path
    target = trace / "steps/7.safetensors"
    content = bytearray(target.read_bytes())
    content[-3] ^= 1
    target.write_bytes(content)
    assert "1 of 2 steps are damaged (7): step 7" in refused("check", trace)
    before = {path: path.read_bytes() for path in simulated[1].iterdir()}
    assert "step 7" in refused("simulate", trace, "-m", "tensordash", "-o", simulated[1])
    assert before == {path: path.read_bytes() for path in simulated[1].iterdir()}


def small_files_only() -> None:
    """Let no file grow beyond 4 KiB: writing fails as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_no_room_for_results_leaves_what_was_there(
    trace: Path, simulated: tuple[str, Path]
) -> None:
    before = {path: path.read_bytes() for path in simulated[1].iterdir()}
    command = ("simulate", trace, "-m", "dadiannao", "-o", simulated[1])
    assert "can't write to" in refused(*command, before=small_files_only)
    assert before == {path: path.read_bytes() for path in simulated[1].iterdir()}


def test_an_output_that_is_a_file_is_refused_before_simulating(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    assert "can't write to" in refused(
        "simulate", trace, "-m", "dadiannao", "-o", tmp_path / "file"
    )
    assert "can't write to" in refused(
        "simulate", trace, "-m", "dadiannao", "-o", tmp_path / "file/x"
    )
    assert (tmp_path / "file").read_text() == "precious"


def test_the_trace_is_no_place_for_results(trace: Path) -> None:
    for place in (trace, trace / "new" / "deeper"):
        assert "a trace is there" in refused("simulate", trace, "-m", "dadiannao", "-o", place)
    assert {path.name for path in trace.iterdir()} == {"manifest.json", "steps"}


def test_a_reader_that_goes_away_is_no_error_and_loses_nothing(trace: Path, tmp_path: Path) -> None:
    for verb in (f"info {trace}", f"simulate {trace} -m dadiannao -o {tmp_path / 'results'}"):
        command = f"set -o pipefail; {sys.executable} -m swatsim {verb} | head -n 1"
        # a plotting backend that does not exist is no matter either
        environment = {**os.environ, "MPLBACKEND": "nonsense"}
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr
    assert (tmp_path / "results" / "results.csv").is_file()
    assert (tmp_path / "results" / "speed_up.png").is_file()


def test_no_verb_shows_the_help() -> None:
    code, _, errors = swatsim()
    assert code == 2
    assert "Commands:" in errors.splitlines()


def test_a_damaged_step_does_not_block_the_others(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t").path
    (trace / "steps/7.safetensors").write_bytes(b"")
    code, out, _ = swatsim("simulate", trace, "-m", "dadiannao", "--step", 0)
    assert code == 0
    assert "1 step of 2 of 8 images" in out
    code, out, errors = swatsim("info", trace)
    assert code == 2
    assert "layers   4" in out
    assert "step 7" in errors


def test_a_step_named_twice_counts_once(trace: Path, tmp_path: Path) -> None:
    simulate = ("simulate", trace, "-m", "dadiannao", "--plots", "none", "--step", 7)
    assert swatsim(*simulate)[1] == swatsim(*simulate, "--step", 7)[1]


def test_plots_of_other_results_do_not_stay(
    trace: Path, simulated: tuple[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(simulated[1], tmp_path, dirs_exist_ok=True)
    assert (tmp_path / "speed_up.png").is_file()
    swatsim("simulate", trace, "-m", "dadiannao", "-o", tmp_path, "--plots", "none")
    assert not (tmp_path / "speed_up.png").is_file()


def test_another_energy_table_and_everything(trace: Path, tmp_path: Path) -> None:
    chosen = ("-m", "swat", "--plots", "none", "--energy", "7nm", "-o", tmp_path / "out", "--all")
    code, out, errors = swatsim("simulate", trace, *chosen)
    assert code == 0, errors
    for title in ("Where the PE-cycles went", "DRAM traffic", "Energy in all"):
        assert title in out
    made = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert made["parameters"]["energy"]["name"] == "7nm"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--set", "buffer_a_kib=0"], "buffer_a_kib='0' is not allowed"),
        (["--set", "dram_mb_per_s=0"], "must be 'auto', or greater than or equal to 1"),
        (["--energy", "0nm"], "unknown energy table '0nm'"),
        (["--energy", "none.toml"], "can't read the energy table none.toml"),
        (["--set", "format_weight=1:4"], "does not obey 1:4"),
        (["--set", "buffer_b_kib=1", "--set", "block_rows=12"], "set buffer_b_kib to at least "),
    ],
)
def test_memory_and_energy_that_can_not_be_are_refused(
    trace: Path, tmp_path: Path, wrong: list[str], message: str
) -> None:
    line = refused("simulate", trace, "-m", "tensordash", *wrong, "-o", tmp_path / "out")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_directory_in_the_place_of_a_file_leaves_all_as_it_was(
    trace: Path, tmp_path: Path
) -> None:
    (tmp_path / "speed_up.png").mkdir()
    assert "can't write to" in refused("simulate", trace, "-m", "dadiannao", "-o", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["speed_up.png"]


@pytest.mark.parametrize(
    "notes",
    [
        {"policy": "swat-u", "not_modelled": ["gru"], "kept": 5},
        {"policy": {"drift": 3}, "not_modelled": {"gru": 3}, "kept": {"modules": {"fc": 96}}},
        {"policy": {"drift": {"fc/weight": {}}}, "kept": {"modules": 3, "total": "all"}},
    ],
)
def test_notes_of_another_form_are_left_alone(notes: dict[str, Any], tmp_path: Path) -> None:
    with Recorder(tmp_path / "t", batch_size=2) as recorder:
        recorder.declare(Layer(name="fc", kind="linear", C=4, K=3))
        with recorder.step(0) as step:
            step.operand("fc", "fprop", "weight", np.eye(3, 4, dtype=bool))
            step.notes.update(notes)
    for verb in ("info", "footprint"):
        code, out, errors = swatsim(verb, tmp_path / "t")
        assert (code, errors) == (0, "")
        assert not [word for word in ("Drift", "not modelled", "Kept") if word in out]


def test_info_shows_what_a_run_noted(tmp_path: Path) -> None:
    layer = Layer(name="fc", kind="linear", C=4, K=3)
    drift = {"asked": 0.2, "last": 0.25, "least": 0.19, "most": 0.31}
    with Recorder(tmp_path / "t", batch_size=2) as recorder:
        recorder.declare(layer)
        for number in (3, 4):
            with recorder.step(number) as step:
                step.operand("fc", "fprop", "weight", np.eye(3, 4, dtype=bool))
                step.notes["policy"] = {"drift": {"fc/weight": drift}} if number == 4 else {}
                step.notes["not_modelled"] = {
                    "block.attn": ["attention products"],
                    "gru": ["recurrence"],
                }
                step.notes["not_recorded"] = {"head": "too large"}
    code, out, _ = swatsim("info", tmp_path / "t", "--all")
    assert code == 0
    line = next(line for line in out.splitlines() if "fc/weight" in line)
    assert line.split() == ["4", "fc/weight", "0.200", "0.250", "0.190", "0.310"]
    assert "not modelled: attention products in block.attn" in out
    assert out.count("not modelled") == 2
    assert out.count("left out of the trace: head (too large)") == 1


def test_a_closed_standard_output_loses_nothing(trace: Path, tmp_path: Path) -> None:
    simulate = f"simulate {trace} -m dadiannao --plots none -o {tmp_path / 'results'}"
    for verb in (f"info {trace} >&-", f"{simulate} <&- >&- 2>&-"):
        command = f"{sys.executable} -m swatsim {verb}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert pq.read_table(tmp_path / "results/results.parquet").num_rows == 3 * 2 * 11


def test_info_of_a_long_trace_is_short_and_reads_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = [Layer(name=f"fc{i}", kind="linear", C=4, K=3) for i in range(30)]
    with Recorder(tmp_path / "t", batch_size=2) as recorder:
        for layer in layers:
            recorder.declare(layer)
        for number in range(50):
            with recorder.step(number) as step:
                step.operand(f"fc{number % 30}", "fprop", "weight", np.eye(3, 4, dtype=bool))
                step.notes["not_modelled"] = {f"module{number}": ["gru"]}
    opened: list[int] = []
    real = Trace.step
    monkeypatch.setattr(Trace, "step", lambda *call: opened.append(call[1]) or real(*call))
    cli(["info", str(tmp_path / "t")], standalone_mode=False)
    out = capsys.readouterr().out
    assert opened == list(range(50))
    assert len(out.splitlines()) < 30
    for line in (
        "steps    50, from 0 to 49",
        "layers   30",
        "masks    50 of 600 elements",
        ".. and 47 more modules (--all shows them)",
    ):
        assert line in out
    cli(["info", str(tmp_path / "t"), "--all"], standalone_mode=False)
    out = capsys.readouterr().out
    assert "more" not in out
    assert "fc29" in out
    for number in range(30):
        (tmp_path / f"t/steps/{number}.safetensors").write_bytes(b"")
    for verb in ("info", "check"):
        line = refused(verb, tmp_path / "t")
        assert "30 of 50 steps are damaged" in line
        assert len(line) < 1200


def test_check_says_which_steps_have_no_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = make_trace(tmp_path / "t", steps=(0, 7)).path
    for version in (2, 1):
        cli(["check", str(trace)], standalone_mode=False)
        said = capsys.readouterr().out
        assert f"{trace}: format {version}, 2 steps" in said
        assert "without a digest" not in said
        as_format_1(trace)
    without_digests(trace)
    cli(["check", str(trace)], standalone_mode=False)
    said = capsys.readouterr().out
    assert "without a digest of the layers: 2 of 2 steps and manifest.json" in said
