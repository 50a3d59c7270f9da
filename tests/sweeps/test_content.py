"""What is remembered is known by its content: a trace may be recorded anew at the same place."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import swatsim
from swatsim.errors import SwatsimError, TraceError
from swatsim.results import read_parquet
from swatsim.sweeps import worker
from swatsim.tracefile import open_trace
from swatsim.workload.layer import Layer
from tests import traces
from tests.sweeps.test_sweep import Here

LAYERS = (Layer(name="fc", kind="linear", C=24, K=16),)


def record(path: Path, monkeypatch: pytest.MonkeyPatch, density: float) -> None:
    monkeypatch.setitem(traces.DENSITY, "weight", density)
    shutil.rmtree(path, ignore_errors=True)
    traces.make_trace(path, layers=LAYERS)


def test_a_trace_that_is_recorded_anew_is_counted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "t", tmp_path / "out"
    spec: dict[str, Any] = {"traces": [str(path)], "machines": [{"preset": "tensordash"}]}
    for density in (0.9, 0.1):
        record(path, monkeypatch, density)
        (row,) = swatsim.sweep(spec, out, executor=Here()).rows
        found = read_parquet(out / "points" / f"{row['point']}.parquet").rows
        assert found == swatsim.simulate(path, "tensordash").rows
    assert len(list((out / "points").iterdir())) == 2


def test_an_open_trace_refuses_steps_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t"
    record(path, monkeypatch, 0.9)
    trace = open_trace(path)
    first = trace.id
    record(path, monkeypatch, 0.1)
    with pytest.raises(TraceError, match="step 0 .* was replaced since the trace was opened"):
        trace.step(0)
    with pytest.raises(TraceError, match="was replaced"):
        swatsim.simulate(trace, "tensordash")
    assert open_trace(path).id != first
    record(path, monkeypatch, 0.9)
    assert trace.step(0).number == 0


def test_a_worker_with_other_code_is_refused(tmp_path: Path) -> None:
    path, here = traces.make_trace(tmp_path / "t", layers=LAYERS).path, Here()
    spec: dict[str, Any] = {"traces": [str(path)], "machines": [{"preset": "tensordash"}]}
    swatsim.sweep(spec, tmp_path / "out", executor=here)
    with pytest.raises(SwatsimError, match="the worker runs other code than the sweep"):
        worker.work(replace(here.jobs[0], sources="another"))


def test_cached_ops_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = traces.make_trace(tmp_path / "t").step(0)
    cache = worker.OpCache()
    monkeypatch.setattr(worker, "MAX_CACHED_BYTES", 10_000)
    for _ in range(2):
        for layer, op in step.ops():
            cache.read(step, layer, op)
            assert cache._bytes == sum(worker._size(one) for one in cache._ops.values()) <= 10_000
    (layer, op) = step.ops()[-1]
    assert cache.read(step, layer, op) is cache.read(step, layer, op)
