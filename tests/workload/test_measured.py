"""What was measured, beside the model: by hand."""

from __future__ import annotations

from dataclasses import replace

from swatsim.workload.footprint import PARAMETER, Footprint, Row
from swatsim.workload.measured import Beside, compare, of_batch


def row(layer: str, tensor: str, size: int, source: str = "", shares: str = "") -> Row:
    return Row(layer, tensor, tensor, size // 4, 1.0, "dense", "fp32", size, source, shares)


MODEL = Footprint(
    (
        row("conv", "act", 40, "input"),
        row("conv", "weight", 80, shares=PARAMETER),
        row("fc@2", "act", 12, "relu"),
        row("relu", "output", 12, "relu", "fc@2 act"),
        row("block.relu_1", "output", 20, "block.relu_1"),
        row("block.max_pool2d", "input", 8, "x"),
        row("drop", "dropout", 4),
        row("frozen", "weight", 16),
    )
)


def test_a_module_has_what_its_runs_its_later_calls_and_its_functions_keep() -> None:
    measured = {"conv": 40, "fc": 12, "relu": 12, "block.relu": 20, "block": 8, "drop": 16, "n": 3}
    found = {it.module: (it.measured, it.modelled) for it in compare(measured, MODEL)}
    assert found == {
        "conv": (40, 40),
        "fc": (12, 12),
        "relu": (12, 12),
        "block.relu": (20, 20),
        "block": (8, 8),
        "drop": (16, 4),
        "frozen": (0, 16),
        "n": (3, 0),
    }


def test_a_tensor_that_a_module_has_twice_counts_once() -> None:
    model = Footprint((row("a", "input", 8, "x"), row("a", "output", 8, "x", "a input")))
    assert compare({"a": 8}, model) == [Beside("a", 8, 8)]


def test_every_difference_has_a_reason() -> None:
    model = Footprint((row("a", "act", 8), row("b", "dropout", 2), row("c", "act", 8)))
    found = compare({"a": 9, "b": 8, "d": 1, "c": 7}, model)
    reasons = {it.module: it.why for it in found}
    assert len(set(reasons.values())) == 4
    assert "on a CPU" in reasons["b"]
    assert "not in the model" in reasons["d"]


def test_a_batch_from_some_samples() -> None:
    act, weight = row("a", "act", 8), replace(row("a", "weight", 8), fixed=2)
    table = replace(row("a", "table", 20), fixed=3)
    whole = of_batch(Footprint((act, weight, table)), samples=2, batch=6)
    assert [(it.bytes, it.elements) for it in whole.rows] == [(24, 6), (8, 2), (36, 9)]


def test_a_layer_s_own_batch_from_some_of_its_samples() -> None:
    rows = (row("a", "act", 8), row("b", "act", 8))
    whole = of_batch(Footprint(rows), samples=2, batch=6, own={"b": (1, 1)})
    assert [it.bytes for it in whole.rows] == [24, 8]
