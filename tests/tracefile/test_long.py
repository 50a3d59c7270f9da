"""What long traces take: work is counted, not seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

import swatsim
from swatsim import validation
from swatsim.policies import SwatU
from swatsim.table import Rows
from swatsim.tracefile import Step, open_trace
from swatsim.tracefile.schema import MaskRecord
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import Layer

LAYERS = [Layer(name=f"fc{i}", kind="linear", C=4, K=4) for i in range(12)]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    synthesize(LAYERS, tmp_path / "trace", policy=SwatU(0.5), batch=2, seed=1)
    return tmp_path / "trace"


def test_the_kinds_of_a_records_fields_are_found_out_once(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_trace(trace).step(0)
    looked: list[object] = []
    monkeypatch.setattr(validation, "_kinds", looked.append)
    assert len(open_trace(trace).step(0).records) > len(MaskRecord.model_fields)
    assert not looked


def test_an_op_that_keeps_its_gradient_on_chip_does_not_list_all_ops_of_its_step(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[int] = []
    ops = Step.ops
    monkeypatch.setattr(Step, "ops", lambda step: listed.append(step.number) or ops(step))
    swatsim.simulate(trace, swatsim.machine("scale-sim-ws", keep_on_chip=True), workers=1)
    assert 0 < len(listed) < len(LAYERS)


def test_results_are_columns_when_they_were_simulated_and_when_they_are_read(
    trace: Path, tmp_path: Path
) -> None:
    simulated = swatsim.simulate(trace, "scale-sim-ws", workers=1)
    simulated.save(tmp_path / "results")
    read = swatsim.load_results(tmp_path / "results")
    assert isinstance(simulated.rows, Rows)
    assert isinstance(read.rows, Rows)
    assert read.rows == simulated.rows
