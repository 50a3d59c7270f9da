"""The reader reads what the naive one reads, which knows the format's page alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swatsim.tracefile import Coverage, Macs, Trace, Unheld, open_trace
from swatsim.tracer.recorder import Recorder
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer
from tests.naive.trace import DEFAULTS, read
from tests.test_house import ROOT
from tests.traces import as_format_1, make_trace

OLD = ROOT / "tests/data/format_1/resnet8-fashion-mnist-swat-u-80"
DTYPES = ("float32", "bfloat16", "float8_e4m3fn", None)


def some_layer(rng: np.random.Generator, name: str) -> Layer:
    """One of any kind, in a shape of its own."""
    draw: Any = lambda low, high: int(rng.integers(low, high))  # noqa: E731
    kind: Any = str(rng.choice(["linear", "conv", "conv_transpose"]))
    if kind == "linear":
        return Layer(name=name, kind=kind, C=draw(1, 9), K=draw(1, 9))
    groups, sizes = draw(1, 3), {letter: draw(1, 4) for letter in "RS"}
    stride, dilation = (draw(1, 4), draw(1, 4)), (draw(1, 3), 1)
    padding = ((draw(0, 2), draw(0, 2)), (0, 0))
    if kind == "conv_transpose":
        sizes, padding = {"R": 3, "S": 2}, ((1, 0), (0, draw(0, 2)))
    sizes |= {letter: draw(5, 9) for letter in "HW"}
    many = {"C": groups * draw(1, 4), "K": groups * draw(1, 4), "groups": groups}
    return Layer(
        name=name, kind=kind, **many, **sizes, stride=stride, dilation=dilation, padding=padding
    )


def some_coverage(rng: np.random.Generator) -> Coverage | None:
    held, rest = (rng.integers(0, 2**40, 2).tolist() for _ in range(2))
    if rng.random() < 0.3:
        return None
    return Coverage(
        seen=Macs(forward=held[0] + rest[0], backward=held[1] + rest[1]),
        held=Macs(forward=held[0], backward=held[1]),
        not_held=(Unheld(module="a\u00e4", what="bmm", forward=rest[0], backward=rest[1]),),
        unseen=("w",) * int(rng.integers(0, 2)),
    )


def record(path: Path, seed: int) -> Trace:
    """Record some steps of which everything differs."""
    rng = np.random.default_rng(seed)
    samples = None if rng.random() < 0.5 else range(2)
    with Recorder(path, batch_size=4, samples=samples, policy={"s": 0.5}) as recorder:
        for number in range(3):
            batch = int(rng.integers(1, 7))
            with recorder.step(number, batch) as step:
                for i in rng.permutation(3)[: int(rng.integers(1, 4))]:
                    layer = some_layer(rng, f"l{i}")
                    own = batch if rng.random() < 0.6 else int(rng.integers(1, 5))
                    step.declare(layer, own, int(rng.integers(1, own + 1)))
                    record_masks(step, layer, rng)
                step.coverage = some_coverage(rng)
                if rng.random() < 0.5:
                    step.notes["loss"] = 0.25
    return open_trace(path)


def record_masks(step: Any, layer: Layer, rng: np.random.Generator) -> None:
    (own,) = (it for it in step._layers.values() if it.layer == layer)
    for op in OPS:
        for operand in OPERANDS_OF[op]:
            density = rng.choice([0.1, 0.6, 1.0])
            mask = rng.random(layer.shape_of(operand, own.samples)) < density
            dtype = DTYPES[int(rng.integers(len(DTYPES)))]
            step.operand(layer.name, op, operand, mask, dtype)


def plain(layer: Layer) -> dict[str, Any]:
    dumped: dict[str, Any] = {**DEFAULTS, **json.loads(layer.model_dump_json())}
    return dumped


def check_alike(trace: Trace) -> None:
    theirs = read(trace.path)
    assert trace.manifest.schema_version == theirs.version
    assert trace.id == (theirs.id or trace.id)
    assert [plain(layer) for layer in trace.layers] == theirs.manifest["layers"]
    assert trace.steps == tuple(theirs.steps)
    for number, their in theirs.steps.items():
        step = trace.step(number)
        assert (step.batch_size, step.notes) == (their.batch_size, their.notes)
        names = [layer.name for layer in step.layers]
        counts = [(step.batch_of(name), step.samples_of(name)) for name in names]
        assert list(map(plain, step.layers)) == [layer for layer, _, _ in their.layers]
        assert counts == [(batch, samples) for _, batch, samples in their.layers]
        coverage = step.coverage and json.loads(step.coverage.model_dump_json())
        assert coverage == their.coverage
        assert {record.key: record.dtype for record in step.records} == their.dtypes
        for key, mask in their.masks.items():
            np.testing.assert_array_equal(step.mask(*key), mask)


@pytest.mark.parametrize("seed", range(12))
def test_the_reader_reads_what_its_twin_reads(tmp_path: Path, seed: int) -> None:
    check_alike(record(tmp_path / "t", seed))


def test_the_reader_reads_what_its_twin_reads_of_format_1(tmp_path: Path) -> None:
    check_alike(as_format_1(make_trace(tmp_path / "t").path))
    check_alike(open_trace(OLD))


def test_a_trace_of_format_1_is_what_it_was() -> None:
    trace = open_trace(OLD)
    assert (trace.manifest.schema_version, trace.id) == (1, "93c40ff4becfce29")
    step = trace.step(trace.steps[0])
    assert (step.layers, step.coverage) == (trace.layers, None)
    assert {record.dtype for record in step.records} == {None}
    assert {(step.batch_of(it.name), step.samples_of(it.name)) for it in step.layers} == {(128, 8)}
