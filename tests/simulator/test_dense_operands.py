"""What a machine gains with no zero in its operands, apart from what zeros add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.reports import page_tables, tables
from swatsim.reports.zeros import sparsity
from swatsim.results import Results
from swatsim.tracefile import Trace
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer
from tests.pictures import unpainted
from tests.strategies import SOME_PRESETS
from tests.sweeps.test_sweep import Here
from tests.test_results import Ideal
from tests.traces import make_trace

#: LeNet's kind: one channel, padding, sizes that fill no line; and what else has a mapping.
LAYERS = (
    Layer(name="conv1", C=1, K=6, H=12, W=12, R=5, S=5, padding=2),
    Layer(name="depthwise", C=6, K=6, H=12, W=12, R=3, S=3, padding=1, groups=6),
    Layer(name="conv2", C=6, K=16, H=12, W=12, R=3, S=3, stride=2, padding=1),
    Layer(name="up", kind="conv_transpose", C=16, K=5, H=6, W=6, R=4, S=4, stride=2, padding=1),
    Layer(name="fc", kind="linear", C=40, K=10),
)


def record(path: Path, density: dict[str, float], steps: tuple[int, ...] = (0, 3)) -> Trace:
    rng = np.random.default_rng(5)
    with swatsim.Recorder(path, batch_size=2) as recorder:
        for layer in LAYERS:
            recorder.declare(layer)
        for number in steps:
            with recorder.step(number) as step:
                for layer in LAYERS:
                    for op in OPS:
                        for operand in OPERANDS_OF[op]:
                            mask = rng.random(layer.shape_of(operand, 2)) < density[operand]
                            step.operand(layer.name, op, operand, mask)
    return swatsim.open_trace(path)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    every = dict.fromkeys(("weight", "act", "grad_out"), 1.0)
    return record(tmp_path_factory.mktemp("dense") / "dense", every)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return record(
        tmp_path_factory.mktemp("sparse") / "sparse", {"weight": 0.2, "act": 0.5, "grad_out": 0.9}
    )


def every_row(results: Results) -> list[tables.Row]:
    found = tables.summarise(results)
    return [*found.layers, *found.ops]


@pytest.mark.parametrize("preset", SOME_PRESETS)
def test_without_a_zero_zeros_add_nothing(dense: Trace, preset: str) -> None:
    keeps = swatsim.machine(preset).config.packing is None  # who packs can't keep
    results = swatsim.simulate(dense, swatsim.machine(preset, keep_on_chip=keeps))
    for row in every_row(results):
        assert row["cycles"] == row["cycles_dense_operands"]
        assert row["cycles_compute"] == row["cycles_compute_dense_operands"]
        assert row["speed_up_zeros"] == row["speed_up_compute_zeros"] == 1
    for row in page_tables.sparsity(results):
        assert row["sparsity"] == 0
        assert row["bound"] == 1


def test_a_gain_without_a_zero_is_named_as_such(dense: Trace) -> None:
    step = tables.per_op(swatsim.simulate(dense, "tensordash"))[-1]
    assert step["speed_up_compute"] > 1.05  # padding, and lanes that lines leave free
    assert step["speed_up_compute_dense_operands"] == step["speed_up_compute"]
    assert "1.00x: the product" in page_tables.due_to_zeros(step)


@pytest.mark.parametrize("preset", ["tensordash", "swat"])
def test_zeros_and_dense_operands_multiply_to_the_speed_up(sparse: Trace, preset: str) -> None:
    """A trace of the same shapes without a zero is what the dense operands are held to."""
    machine = swatsim.machine(preset)
    for row in every_row(swatsim.simulate(sparse, machine)):
        for of in ("", "_compute"):
            parts = row[f"speed_up{of}_dense_operands"] * row[f"speed_up{of}_zeros"]
            assert parts == pytest.approx(row[f"speed_up{of}"], rel=1e-12)
        assert row["baseline"]["cycles_dense_operands"] == row["baseline"]["cycles"]
        assert row["macs_effectual"] <= row["macs_unpadded"] <= row["macs_dense"]


def by_op(results: Results, column: str, role: str = "machine") -> dict[tuple[Any, ...], Any]:
    names = ("step", "layer", "op")
    rows = [row for row in results.rows if row["role"] == role]
    return {tuple(row[name] for name in names): row[column] for row in rows}


@pytest.mark.parametrize(
    ("preset", "change"),
    [
        ("bit-tactical", {"format_weight": "csc"}),
        ("swat", {"buffer_a_kib": 1, "buffer_b_kib": 1, "buffer_out_kib": 2}),
        ("scnn", {"memory": "none"}),
    ],
)
def test_dense_operands_take_what_a_trace_without_a_zero_takes(
    dense: Trace, sparse: Trace, preset: str, change: dict[str, Any]
) -> None:
    machine = swatsim.machine(preset, **change)
    ours, full = (swatsim.simulate(trace, machine) for trace in (sparse, dense))
    for name in ("cycles", "cycles_compute"):
        assert by_op(ours, f"{name}_dense_operands") == by_op(full, name)


def test_another_baseline_has_dense_operands_of_its_own(dense: Trace, sparse: Trace) -> None:
    pair = ("swat", swatsim.machine("bit-tactical", tiles=1))
    ours, full = (swatsim.simulate(it, pair[0], baseline=pair[1]) for it in (sparse, dense))
    column = "cycles_dense_operands"
    assert by_op(ours, column, "baseline") == by_op(full, "cycles", "baseline")
    for one, other in zip(tables.per_op(ours), tables.per_op(full), strict=True):
        assert one["speed_up_dense_operands"] == other["speed_up"]


def test_a_machine_of_ones_own_is_run_without_zeros_once_a_shape(sparse: Trace) -> None:
    ran: list[str] = []

    class Counting(Ideal):
        def simulate_op(self, op: swatsim.Op) -> swatsim.Counters:
            ran.append(op.layer.name)
            return super().simulate_op(op)

    results = swatsim.simulate(sparse, Counting(), workers=1)
    ops = len(LAYERS) * len(OPS)
    assert len(ran) == 2 * ops + ops  # two steps, and once for both
    for row in every_row(results):
        assert row["cycles_compute_dense_operands"] == row["macs_unpadded"]
        share = row["macs_unpadded"] / row["macs_effectual"]
        assert row["speed_up_zeros"] == pytest.approx(share)
    assert all(
        r["speed_up_zeros"] == pytest.approx(r["bound"]) for r in page_tables.sparsity(results)
    )
    assert not sparsity(results).axes[0].collections  # on the line, none above it


def test_dense_operands_that_no_buffer_holds_are_unknown(sparse: Trace, tmp_path: Path) -> None:
    tight = {"buffer_a_kib": 1, "buffer_b_kib": 1, "buffer_out_kib": 1, "dtype": "bf16"}
    layer = Layer(name="wide", C=2, K=1, H=1, W=700, R=1, S=1)
    with swatsim.Recorder(tmp_path / "wide", batch_size=1) as recorder:
        recorder.declare(layer)
        with recorder.step(0) as step:
            step.operand("wide", "fprop", "weight", np.ones((1, 2, 1, 1), bool))
            step.operand("wide", "fprop", "act", np.eye(2, 700, dtype=bool)[None, :, None])
    machine = swatsim.machine("swat", **{**tight, "buffer_out_kib": 8})
    results = swatsim.simulate(tmp_path / "wide", machine, baseline="scnn")
    results.save(tmp_path / "out")
    again = swatsim.results.load(tmp_path / "out")
    assert again.rows == results.rows
    (row,) = tables.per_layer(again)
    assert row["cycles_dense_operands"] is None
    assert np.isnan(row["speed_up_dense_operands"])
    assert not page_tables.due_to_zeros(row)
    with unpainted():
        assert swatsim.report(tmp_path / "out")
    with pytest.raises(swatsim.SwatsimError, match="too small for one block"):
        swatsim.simulate(tmp_path / "wide", machine)  # its dense baseline has to


def test_no_point_above_its_bound_goes_without_a_word(tmp_path: Path) -> None:
    """Weights that are left at one tap meet no padding: more is spared than MACs."""
    layer = Layer(name="x", C=16, K=16, H=2, W=2, R=3, S=3, padding=1)
    weight = np.zeros((16, 16, 3, 3), bool)
    weight[:, :, 1, 1] = True
    with swatsim.Recorder(tmp_path / "t", batch_size=1) as recorder:
        recorder.declare(layer)
        with recorder.step(0) as step:
            step.operand("x", "fprop", "weight", weight)
            step.operand("x", "fprop", "act", np.ones((1, 16, 2, 2), bool))
    machine = swatsim.machine("bit-tactical", lookahead=8, lookaside=5)
    results = swatsim.simulate(tmp_path / "t", machine)
    (row,) = page_tables.sparsity(results)
    assert row["speed_up_compute_zeros"] > row["bound"]
    figure = sparsity(results)
    axes = figure.axes[0]
    title = " ".join(axes.get_title(loc="left").split())
    assert "What zeros add" in title
    assert "ringed, lie above 1 / (1 - share): zeros also spare products with padding" in title
    assert "above the line" in [text.get_text() for text in figure.legends[0].get_texts()]
    (rings,) = axes.collections
    above = [row[name] > row["bound"] for name in ("speed_up_zeros", "speed_up_compute_zeros")]
    assert len(rings.get_offsets()) == sum(above)


@pytest.mark.parametrize("preset", SOME_PRESETS)
def test_points_are_under_the_line_or_ringed(sparse: Trace, preset: str) -> None:
    results = swatsim.simulate(sparse, preset)
    rows = page_tables.sparsity(results)
    names = ("speed_up_zeros", "speed_up_compute_zeros")
    above = [row for row in rows for name in names if row[name] > row["bound"] * (1 + 1e-9)]
    rings = sparsity(results).axes[0].collections
    assert sum(len(cloud.get_offsets()) for cloud in rings) == len(above)


def test_a_sweep_shares_them(sparse: Trace, tmp_path: Path) -> None:
    grid = {"dram": ["hbm2", "ddr4-3200"]}
    spec = {"traces": [str(sparse.path)], "machines": [{"preset": "tensordash", "grid": grid}]}
    summary = swatsim.sweep(spec, tmp_path / "out", executor=Here())
    for row in summary.rows:
        alone = swatsim.simulate(sparse, swatsim.machine("tensordash", dram=row["dram"]))
        step = tables.per_op(alone)[-1]
        for name in ("speed_up_dense_operands", "speed_up_zeros"):
            assert row[name] == step[name]


def test_shipped_layers_are_not_all_dense(tmp_path: Path) -> None:
    rows = page_tables.sparsity(swatsim.simulate(make_trace(tmp_path / "small"), "tensordash"))
    assert all(0 < row["sparsity"] < 1 for row in rows)
