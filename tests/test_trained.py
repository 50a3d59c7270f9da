"""Scripts that train what traces/ holds, and what is said of its masks."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import swatsim
from swatsim.tracefile import Trace, open_trace
from tests.command import written
from tests.scripts import load

ROOT = Path(__file__).parents[1]
MASKS, TIMES, PAGES = map(load, ("trained_masks", "trained_times", "pages"))


def train(script: str, out: Path, *options: str) -> str:
    """Run a script of traces/ here; return what it printed."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    path = ROOT / "traces" / script
    with (
        written() as (printed, _),
        patch.object(sys, "argv", [str(path), "--out", str(out), *options]),
        patch.object(sys, "path", [str(path.parent), *sys.path]),
    ):
        runpy.run_path(str(path), run_name="__main__")
    return printed.getvalue()


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, dict[str, Any]]:
    out = tmp_path_factory.mktemp("resnet20")
    few = ("--data", "made", "--limit", "128", "--epochs", "3", "--images", "1")
    printed = train("train_resnet20.py", out, "--method", "2to4", *few)
    path = out / "resnet20-fashion-mnist-2to4"
    assert f"trace: {path}" in printed
    return open_trace(path), json.loads((out / f"{path.name}.json").read_text())


def test_resnet20_is_recorded_at_the_end_of_each_epoch(
    resnet: tuple[Trace, dict[str, Any]],
) -> None:
    trace, said = resnet
    assert trace.steps == (0, 1, 2) == tuple(said["recorded_steps"])
    assert len(said["test_accuracy_percent"]) == 3
    weights = [layer for layer in trace.layers if layer.kind == "conv" and layer.R == 3]
    assert len(weights) == 19  # and the linear layer, without the two shortcuts
    mask = trace.step(2).mask("stages.4.conv2", "fprop", "weight")
    assert mask.reshape(len(mask), -1, 4, 9).sum(2).max() == 2


def test_the_beginning_of_a_run_is_the_whole_runs(
    resnet: tuple[Trace, dict[str, Any]], tmp_path: Path
) -> None:
    trace, said = resnet
    few = ("--data", "made", "--limit", "128", "--epochs", "3", "--images", "1")
    train("train_resnet20.py", tmp_path, "--method", "2to4", *few, "--stop-after", "2")
    path = tmp_path / "resnet20-fashion-mnist-2to4"
    begun = json.loads((tmp_path / f"{path.name}.json").read_text())
    assert begun["test_accuracy_percent"] == said["test_accuracy_percent"][:2]
    for it in open_trace(path).step(1).records:
        assert trace.step(1).record(*it.key).digest == it.digest


def test_a_gpt_is_recorded_attention_included(tmp_path: Path) -> None:
    few = ("--steps", "20", "--width", "16")
    printed = train("train_char_gpt.py", tmp_path, "--method", "relu2", *few)
    trace = open_trace(tmp_path / "gpt-characters-relu2")
    said = json.loads((tmp_path / "gpt-characters-relu2.json").read_text())
    assert printed.count("test loss") == len(said["test_loss_nats"]) == 5
    assert said["test_loss_nats"][-1] < said["test_loss_nats"][0]
    step = trace.step(trace.steps[-1])
    assert step.coverage is not None
    assert step.coverage.share == 1
    assert sum(layer.multiplies_activations for layer in trace.layers) == 8
    assert step.mask("blocks.0.down", "fprop", "act").mean() < 0.9


def test_a_twin_with_the_same_masks_is_the_trace(
    resnet: tuple[Trace, dict[str, Any]], tmp_path: Path
) -> None:
    trace, _ = resnet
    same = MASKS.twin(trace, 2, tmp_path / "same", MASKS.as_it_is)
    both = [swatsim.simulate(it, "tensordash", steps=[2], layers_only=True) for it in (trace, same)]
    counters = ["layer", "op", "role", "cycles", "macs_effectual", "lane_cycles_dram"]
    assert both[0].frame[counters].equals(both[1].frame[counters])


def test_a_shuffled_twin_is_as_dense(resnet: tuple[Trace, dict[str, Any]], tmp_path: Path) -> None:
    trace, _ = resnet
    step = trace.step(2)
    random = MASKS.twin(trace, 2, tmp_path / "random").step(2)
    for it in step.records:
        assert random.record(*it.key).ones == it.ones
    key = ("stages.4.conv2", "wgrad", "act")
    assert not np.array_equal(random.mask(*key), step.mask(*key))
    weights = [random.mask("stages.4.conv2", op, "weight") for op in ("fprop", "dgrad")]
    assert np.array_equal(*weights)


def test_what_the_page_says_of_learning_and_time_is_what_was_kept() -> None:
    of = {"trained-epochs": MASKS.RESNET, "trained-losses": MASKS.GPT}
    for name, network in of.items():
        assert {run.label for run in network.runs} == {MASKS.METHODS[it] for it in network.methods}
        head, *_ = block = PAGES.block(name)
        assert block == list(MASKS.scores(network, head.split("|")[1].strip()))
    times = TIMES.load()
    for name, network in {"trained-times": TIMES.RESNET, "trained-gpt-times": TIMES.GPT}.items():
        own = [time for time in times if time.network == network.title]
        assert PAGES.block(name) == list(TIMES.lines(own))
        assert {time.steps for time in own} == {run.steps for run in network.runs}
    assert PAGES.block("trained") == [TIMES.sentence(times)]
