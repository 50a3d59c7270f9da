"""The examples, and the shipped trace's script, do and record what their pages say."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from swatsim.cli.main import cli  # noqa: E402
from swatsim.tracefile import Trace, open_trace  # noqa: E402
from tests.command import written  # noqa: E402

ROOT = Path(__file__).parents[1]


def run(example: str, out: Path, *options: str) -> tuple[str, Trace]:
    """Run an example here: to load torch in a process of its own takes longer than to train."""
    script = ROOT / f"{example}.py"
    torch.set_num_threads(1)
    with (
        written() as (printed, logged),
        patch.object(sys, "argv", [str(script), "--out", str(out), *options]),
    ):
        runpy.run_path(str(script), run_name="__main__")
    return looked_at(printed.getvalue(), logged.getvalue(), out)


def run_apart(example: str, out: Path, *options: str) -> tuple[str, Trace]:
    """Run an example as a reader does."""
    command = [sys.executable, "-W", "error", f"{example}.py", "--out", str(out), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return looked_at(done.stdout, done.stderr, out)


def looked_at(printed: str, logged: str, out: Path) -> tuple[str, Trace]:
    """Check what an example logged; return what it printed, and its trace, all masks of it read."""
    lines = logged.splitlines()
    assert all(line.startswith("INFO:swatsim.") for line in lines), logged
    trace = open_trace(out)
    assert sum("recorded: " in line for line in lines) == len(trace.steps)
    for number in trace.steps:
        assert len(list(trace.step(number).check())) == len(trace.step(number).records)
    assert f"trace: {out}" in printed
    return printed, trace


def losses(printed: str) -> tuple[float, float]:
    """Read the loss before and after training."""
    found = re.search(r"^loss ([\d.]+) -> ([\d.]+),", printed, flags=re.M)
    assert found is not None, printed
    return float(found[1]), float(found[2])


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    printed, trace = run_apart("examples/own_loop", tmp_path / "own", "--steps", "60")
    before, after = losses(printed)
    assert after < before / 4
    assert trace.manifest.policy == {"name": "observed"}
    assert [layer.name for layer in trace.layers] == ["0", "3", "7", "0@2", "3@2", "7@2"]
    assert trace.steps == (0, 30, 59)
    for name in ("3", "3@2"):
        masks = [trace.step(n).mask(name, "dgrad", "weight") for n in trace.steps]
        assert masks[0].all()
        assert masks[2].mean() == pytest.approx(0.2, abs=1e-3)
        assert not (masks[2] & ~masks[1]).any()  # what was pruned stays so


def test_rigl_restarted_makes_the_same_masks(tmp_path: Path) -> None:
    options = ("--steps", "120", "--every", "30")
    printed, whole = run("examples/rigl_mlp", tmp_path / "whole", *options)
    before, after = losses(printed)
    assert after < before / 2
    assert whole.steps == (0, 30, 31, 32, 60, 61, 62, 119)
    left = {n: whole.step(n).record("0", "fprop", "weight").ones for n in whole.steps}
    assert left[31] < left[30] == left[32] == left[119]
    again, restarted = run("examples/rigl_mlp", tmp_path / "parts", *options, "--restart")
    assert f"restarted from {tmp_path / 'parts.pt'} at step 60" in again
    assert losses(again) == (before, after)
    assert restarted.id == whole.id
    assert len(restarted.manifest.provenance["appended"]) == 1


@pytest.mark.parametrize("name", ["sr-ste", "transposable"])
def test_a_transformer_with_two_of_four_weights(name: str, tmp_path: Path) -> None:
    options = ("--steps", "60", *(["--transposable"] if name == "transposable" else []))
    printed, trace = run("examples/transformer_2to4", tmp_path / "trace", *options)
    before, after = losses(printed)
    assert after < 0.8 * before
    assert trace.manifest.policy["name"] == name
    assert "2 along C, " in printed
    assert ("2 along C, 2 along K" in printed) == (name == "transposable")
    layers = [layer for layer in trace.layers if not layer.multiplies_activations]
    assert len(layers) == 13  # six of an encoder layer, and the head
    for number in trace.steps:
        for layer in layers:
            mask = trace.step(number).mask(layer.name, "fprop", "weight")
            groups = mask.reshape(layer.K, -1, 4).sum(-1)
            assert groups.max() == 2
            if name == "transposable":
                assert mask.reshape(layer.K // 4, 4, -1).sum(1).max() == 2
    if name == "sr-ste":
        simulate_as_told(printed, tmp_path / "results")


def simulate_as_told(printed: str, results: Path) -> None:
    """Run the command that an example prints last, on a small machine."""
    words = shlex.split(printed.splitlines()[-1].removeprefix("next:"))
    assert words[:2] == ["swatsim", "simulate"]
    small = ("--set", "rows=4", "--set", "tiles=1", "--plots", "none", "-o", str(results))
    done = CliRunner().invoke(cli, [*words[1:], *small])
    assert done.exit_code == 0, done.output
    assert (results / "results.parquet").is_file()


def test_resnet8_on_few_made_images(tmp_path: Path) -> None:
    few = ("--data", "made", "--limit", "1024", "--epochs", "3", "--threads", "1")
    printed, trace = run("traces/record_resnet8", tmp_path / "resnet8", *few)
    found = [float(number) for number in re.findall(r"^epoch \d: ([\d.]+) %", printed, flags=re.M)]
    assert len(found) == 6
    assert found[2] > found[0] + 25  # sparse
    assert found[5] > found[3] + 15  # dense
    assert trace.steps == (0, 1, 12, 13, 22, 23)
    assert trace.step(23).mask("stages.1.conv1", "fprop", "weight").mean() == pytest.approx(
        0.2, abs=1e-3
    )
    assert '"data": "made"' in (tmp_path / "resnet8.json").read_text()
