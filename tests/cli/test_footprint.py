"""``swatsim footprint`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from swatsim.tracer.recorder import Recorder
from swatsim.workload import footprint
from swatsim.workload.layer import OPERANDS_OF, Layer
from swatsim.workload.networks import NETWORKS, network
from tests.command import refused, swatsim
from tests.traces import LAYERS, make_trace

SHIPPED = Path(__file__).parents[2] / "traces" / "resnet8-fashion-mnist-swat-u-80"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trace(tmp_path_factory.mktemp("footprint") / "small-trace").path


def cells(out: str) -> dict[str, list[str]]:
    """Tell the cells of each row behind the first two spaces that part cells."""
    rows = (line.strip().split("  ") for line in out.splitlines() if line.strip())
    return {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}


def test_a_network_prints_each_tensor_and_totals() -> None:
    code, out, _ = swatsim("footprint", "resnet50", "--sparsity", 0.8, "--batch", 2, "--all")
    assert code == 0
    rows = cells(out)
    table = network("resnet50")
    assert {layer.name for layer in table.layers} | {it.name for it in table.saved} <= set(rows)
    assert rows["activations: both"][-1] == "-38.6 %"
    assert rows["inputs of batch norms"][-1] == "+0.0 %"
    assert rows["weights"][-1] == "-80.0 %"
    assert rows["everything but parameters, each tensor once"][-1].startswith("+")
    assert "samples: 2" in out
    assert table.citation in out


def test_the_largest_tensors_are_shown_unless_all_are_asked_for() -> None:
    _, out, _ = swatsim("footprint", "resnet8")
    _, every, _ = swatsim("footprint", "resnet8", "--all")
    tensors = out.partition("\nNext: ")[0].partition("The 10 largest of ")[2].splitlines()[3:]
    assert len(tensors) == 10
    found = json.loads(swatsim("footprint", "resnet8", "--json")[1])
    assert f"All {len(found['tensors'])} tensors" in every
    largest = max(found["tensors"], key=lambda row: 0 if row["shares"] else row["bytes"])
    assert tensors[0].split()[:2] == [largest["layer"], largest["tensor"]]
    assert found["totals"][-1]["bytes"] == sum(
        row["bytes"] for row in found["tensors"] if not row["shares"]
    )


def test_dense_training_changes_nothing_and_shows_what_is_shared() -> None:
    code, out, _ = swatsim("footprint", "resnet8", "--dtype", "bf16", "--all")
    assert code == 0
    changes = [line.split()[-2] for line in out.splitlines() if line.endswith(" %")]
    assert changes == ["+0.0"] * 5
    assert cells(out)["stages.0.relu"][-1] == "stages.0.conv2 act"


def test_a_trace_is_counted_as_in_python() -> None:
    from swatsim.tracefile import open_trace

    step = open_trace(SHIPPED).step(2339)
    found = footprint.of_masks(step.kept(), network=network("resnet8"), format="csr")
    options = ("--network", "resnet8", "--format", "csr", "--relu-bits")
    code, out, _ = swatsim("footprint", SHIPPED, *options)
    assert code == 0
    stored = cells(out)["activations: both"][1]
    assert stored == f"{found.activations / 2**20:.1f} MiB"
    assert "step 2339; samples: 8" in out


def test_a_trace_alone_has_no_batch_norms(trace: Path) -> None:
    code, out, _ = swatsim("footprint", trace, "--step", 0)
    assert code == 0
    assert {layer.name for layer in LAYERS} <= set(cells(out))
    assert "everything" not in out
    assert "step 0" in out


def test_of_attention_only_parameters_are_weights() -> None:
    code, out, _ = swatsim("footprint", "vit-b-16")
    assert code == 0
    weights = sum(it.weights for it in network("vit-b-16").layers if it.kind != "matmul")
    assert cells(out)["weights"][0] == f"{4 * weights / 2**20:.1f} MiB"


def test_what_is_not_allowed_is_refused(trace: Path) -> None:
    shown = swatsim("footprint", "--help")[1]
    assert all(name in shown for name in NETWORKS)
    line = refused("footprint", "resnet51")
    assert "did you mean 'resnet50'" in line
    assert all(name in line for name in NETWORKS)
    assert "unknown format" in refused("footprint", "resnet8", "--format", "cs")
    assert "unknown value type" in refused("footprint", "resnet8", "--dtype", "fp8")
    assert "batch=0" in refused("footprint", "resnet8", "--batch", 0)
    assert "sparsity=1.5" in refused("footprint", "resnet8", "--sparsity", 1.5)
    assert "can't obey 2:4" in refused("footprint", "resnet8", "--sparsity", 0.4, "--format", "2:4")
    assert "does not obey 1:8" in refused("footprint", trace, "--format", "1:8")
    assert "--step 1 is not allowed" in refused("footprint", "resnet8", "--step", 1)
    assert "--batch 4 is not allowed" in refused("footprint", trace, "--batch", 4)
    assert "has no step 3" in refused("footprint", trace, "--step", 3)
    assert "layer 'stem' of the masks" in refused("footprint", trace, "--network", "resnet8")
    assert "unknown network" in refused("footprint", trace, "--network", "resnet")


def test_what_autograd_kept_is_shown_beside_the_model(tmp_path: Path) -> None:
    layer = Layer(name="fc", kind="linear", C=4, K=3)
    with Recorder(tmp_path / "t", batch_size=6, samples=range(2)) as recorder:
        recorder.declare(layer)
        with recorder.step(0) as step:
            for op, operands in OPERANDS_OF.items():
                for operand in operands:
                    step.operand("fc", op, operand, np.ones(layer.shape_of(operand, 2), bool))
            step.notes["kept"] = {"modules": {"fc": 96, "head": 5}, "total": 101}
    code, out, _ = swatsim("footprint", tmp_path / "t")
    assert code == 0
    assert "batch of 6" in out
    found = cells(out.partition("Kept by autograd")[2].partition("tensors")[0])
    assert found["fc"][:2] == ["96 B", "96 B"]
    assert found["head"][:2] == ["5 B", "0 B"]
    assert found["all, each tensor once"] == ["101 B", "96 B"]


def test_each_tensor_has_the_type_that_the_run_had(tmp_path: Path) -> None:
    types = {"weight": "int8", "act": "bfloat16", "grad_out": "float32"}
    amp = make_trace(tmp_path / "amp", dtypes=types).path
    own, forced = ([*swatsim("footprint", amp, *it)] for it in ((), ("--dtype", "fp64")))
    of_tensors = [line.split() for line in own[1].splitlines() if " values " in line]
    assert {(row[1], row[-3] if row[-1] == "B" else row[-2]) for row in of_tensors} == {
        ("act", "bf16"),
        ("weight", "int8"),
    }
    dense = {name: cells(out)["weights"][0] for name, (_, out, _) in (("own", own), ("64", forced))}
    assert dense == {"own": "1.6 KiB", "64": "13.1 KiB"}
    assert "fp16" in swatsim("footprint", "--help")[1]
