"""Sweeps of whole steps: the vector unit is varied, and what is wanted of an output is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.results import read_parquet
from swatsim.sweeps.worker import OpCache
from swatsim.tracefile import open_trace
from swatsim.tracer.recorder import Recorder
from swatsim.workload.layer import Layer
from tests.simulator.test_other import CHAIN, NORM, SGD, TOPK, trace_of
from tests.sweeps.test_sweep import Here

FC = Layer(name="fc", kind="linear", C=8, K=4)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return trace_of(tmp_path / "trace", [NORM, CHAIN, SGD, TOPK]).path


def test_the_vector_unit_is_varied_and_layers_are_run_once(trace: Path, tmp_path: Path) -> None:
    grid = {"vector_lanes": [1, 64], "fusion": ["none", "elementwise"]}
    machines = [{"preset": "tensordash", "grid": grid}]
    spec = {"traces": [str(trace)], "machines": machines, "steps": [7]}
    here = Here()
    summary = swatsim.sweep(spec, tmp_path / "out", executor=here)
    assert len(here.jobs) == 3 + 1, "three ops and the rest, for all points"
    for row in summary.rows:
        alone = swatsim.simulate(trace, row["machine"], steps=[7])
        kept = read_parquet(tmp_path / "out" / "points" / f"{row['point']}.parquet")
        assert kept.rows == alone.rows
        step = swatsim.per_op(alone).loc["step"]
        for name in ("speed_up", "speed_up_layers", "elsewhere"):
            assert row[name] == pytest.approx(step[name])
    assert len({row["speed_up_layers"] for row in summary.rows}) == 1
    shares = {(row["vector_lanes"], row["fusion"]): row["elsewhere"] for row in summary.rows}
    assert shares[64, "elementwise"] < shares[64, "none"] < shares[1, "none"]
    assert shares[1, "elementwise"] == shares[1, "none"], "one lane is slower than any DRAM"
    again = Here()
    swatsim.sweep(spec, tmp_path / "out", executor=again)
    assert not again.jobs


def test_layers_only_and_dense_outputs_are_other_points(trace: Path, tmp_path: Path) -> None:
    spec: dict[str, Any] = {"traces": [str(trace)], "machines": [{"preset": "swat"}]}
    keys = set()
    for chosen in ({}, {"layers_only": True}, {"dense_outputs": True}):
        summary = swatsim.sweep({**spec, **chosen}, tmp_path / "out", executor=Here())
        (row,) = summary.rows
        keys.add(row["point"])
        alone = swatsim.simulate(trace, "swat", **chosen)
        assert summary.results(row["point"]).rows == alone.rows
    assert len(keys) == 3


def test_a_kept_op_is_known_by_what_is_wanted_of_its_output(tmp_path: Path) -> None:
    """Two traces of the same operands: what is read of one must not stand for the other."""
    cache, wanted = OpCache(), []
    for name, mask in (("none", None), ("half", np.eye(4, 8, dtype=bool))):
        with Recorder(tmp_path / name, batch_size=2) as recorder:
            recorder.declare(FC)
            with recorder.step(0) as step:
                for operand, shape in (("act", (2, 8)), ("grad_out", (2, 4))):
                    step.operand("fc", "wgrad", operand, np.ones(shape, dtype=bool))  # type: ignore[arg-type]
                if mask is not None:
                    step.output("fc", "wgrad", mask)
        step_read = open_trace(tmp_path / name).step(0)
        wanted.append(cache.read(step_read, FC, "wgrad").outputs_wanted)
    assert wanted == [32, 4]
