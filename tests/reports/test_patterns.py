"""What a report says of n:m: which operands ran compressed, and which share of groups obeys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import swatsim
from swatsim.cli.main import run as cli
from swatsim.reports.patterns import COLUMNS, in_words, patterns
from swatsim.tracefile import Trace
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer
from tests.pictures import unpainted

LAYERS = (
    Layer(name="obeys", kind="linear", C=64, K=16),
    Layer(name="misses", kind="linear", C=64, K=16),
    Layer(name="up", kind="conv_transpose", C=4, K=4, H=2, W=2, R=2, S=2, stride=2),
)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """Weights that obey 2:4 along C but for 3 groups of 100, in two steps."""
    path = tmp_path_factory.mktemp("patterns") / "t"
    obeying = np.tile(np.array([1, 0, 0, 1], bool), (16, 16))
    missing = obeying.copy()
    missing[:, :4] = True
    masks = {"obeys": obeying, "misses": missing, "up": np.ones((4, 4, 2, 2), bool)}
    rng = np.random.default_rng(1)
    with swatsim.Recorder(path, batch_size=4) as recorder:
        for layer in LAYERS:
            recorder.declare(layer)
        for number in (0, 5):
            with recorder.step(number) as step:
                for layer in LAYERS:
                    for op in OPS:
                        for it in OPERANDS_OF[op]:
                            mask = rng.random(layer.shape_of(it, 4)) < 0.99
                            step.operand(
                                layer.name, op, it, masks[layer.name] if it == "weight" else mask
                            )
    return swatsim.open_trace(path)


def test_shares_are_of_all_groups_and_steps(trace: Trace) -> None:
    results = swatsim.simulate(trace, "a100")
    rows = patterns(results)
    assert [(row["op"], row["operand"]) for row in rows] == [
        (op, it) for op in OPS for it in OPERANDS_OF[op]
    ]
    weight = rows[0]
    # in each step 16 groups of each of 16 filters; of `up`, for 4 taps, 1 of each of 4 channels
    assert weight["ops"] == 6
    assert weight["compressed"] == 2
    assert weight["groups"] == 2 * (256 + 256 + 4 * 4)
    assert weight["obeying"] == 2 * (256 + 240)
    assert weight["obeying_share"] == weight["obeying"] / weight["groups"]
    fprop = [row for row in results.rows if (row["op"], row["role"]) == ("fprop", "machine")]
    macs = sum(row["macs_dense"] for row in fprop)
    assert weight["macs_share"] == 2 * 4 * 64 * 16 / macs
    assert set(COLUMNS) <= set(weight)
    words = in_words(results)
    assert words.startswith("2:4: one operand is compressed in 2 of 18 ops, with ")
    assert words.endswith("in an op that then has fewer products")
    few = swatsim.simulate(trace, swatsim.machine("a100", sparse_operands="act"))
    assert {row["operand"] for row in patterns(few)} == {"act"}


def test_a_machine_without_a_pattern_is_not_asked(trace: Trace) -> None:
    for machine in ("tensordash", swatsim.machine("a100", pattern="none")):
        results = swatsim.simulate(trace, machine)
        assert patterns(results) == []
        assert in_words(results) == ""


def test_wgrad_of_a_transposed_layer_names_its_own_operands(trace: Trace) -> None:
    machine = swatsim.machine("a100", sparse_operands="grad_out")
    rows = swatsim.simulate(trace, machine, ops=["wgrad"]).rows
    mine = [row for row in rows if row["layer"] == "up" and row["role"] == "machine"]
    assert all(row["pattern_groups_a"] and not row["pattern_groups_b"] for row in mine)
    assert [
        row["operand"] for row in patterns(swatsim.simulate(trace, machine, ops=["wgrad"]))
    ] == ["grad_out"]


def test_pages_and_the_command_line_say_it(
    trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli(["simulate", str(trace.path), "--machine", "a100", "-o", str(out), "--all"]) == 0
    said = capsys.readouterr().out
    assert "Groups of 2:4 along what an op sums" in said
    assert "2 of 6 ops" in said
    assert "2:4: one operand is compressed in 2 of 18 ops" in said
    with unpainted():
        page = swatsim.report(out)[0]
    assert "What obeys 2:4" in page.read_text()
    assert (page.parent / "patterns.csv").read_text().startswith("op,operand,ops,compressed")
    assert cli(["simulate", str(trace.path), "--machine", "tensordash", "--all"]) == 0
    assert "along what an op sums" not in capsys.readouterr().out
