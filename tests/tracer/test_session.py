"""What a session refuses, skips and says in the log; without any framework."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swatsim.errors import RecordingError, TraceError
from swatsim.policies import SwatU
from swatsim.tracefile import open_trace
from swatsim.tracer.session import Session
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer

FC = Layer(name="fc", kind="linear", C=4, K=3)


def run(session: Session, batch: int = 5, layer: Layer = FC) -> None:
    """One training step of one layer."""
    layer, step = session.record(layer, batch)
    if step is not None:
        for op in OPS:
            for operand in OPERANDS_OF[op]:
                shape = layer.shape_of(operand, session.samples)
                step.operand(layer.name, op, operand, np.ones(shape, bool))
    session.step()


def test_only_the_wanted_steps_are_recorded(tmp_path: Path) -> None:
    for name, steps in {"a": (1, 3), "b": range(1, 4, 2), "c": lambda n: n in (1, 3)}.items():
        session = Session(SwatU(0.8), tmp_path / name, steps=steps)
        for _ in range(5):
            run(session)
        assert open_trace(tmp_path / name).steps == (1, 3)


@pytest.mark.parametrize(("images", "samples"), [(2, (0, 1)), (None, (0, 1, 2, 3, 4))])
def test_the_manifest(tmp_path: Path, images: int | None, samples: tuple[int, ...]) -> None:
    parameters = {"model": "M"}
    run(Session(SwatU(0.8), tmp_path, steps=(0,), images=images, parameters=parameters))
    manifest = open_trace(tmp_path).manifest
    assert manifest.samples == samples
    assert manifest.batch_size == 5
    assert manifest.layers == (FC,)
    assert manifest.policy == SwatU(0.8).describe()
    assert manifest.provenance["parameters"] == {"model": "M", "steps": [0], "images": images}


@pytest.mark.parametrize("steps", [5, -1, (-1,), (0.5,), "123", (True,), None])
def test_steps_that_are_refused(tmp_path: Path, steps: Any) -> None:
    with pytest.raises(RecordingError, match="steps=.*such as"):
        Session(SwatU(0.8), tmp_path, steps=steps)


@pytest.mark.parametrize("images", [0, -3, 2.0, "8", True])
def test_images_that_are_refused(tmp_path: Path, images: Any) -> None:
    with pytest.raises(RecordingError, match="images=.*at least 1"):
        Session(SwatU(0.8), tmp_path, steps=(0,), images=images)


def test_what_is_no_policy_is_refused(tmp_path: Path) -> None:
    class Silent:
        def density(self, site: object) -> None: ...

        def describe(self) -> dict[str, Any]:
            return {"threshold": object()}

    with pytest.raises(RecordingError, match="must have the methods density and describe"):
        Session(0.8, tmp_path, steps=(0,))  # type: ignore[arg-type]
    with pytest.raises(RecordingError, match="must give a dict of JSON"):
        Session(Silent(), tmp_path, steps=(0,))


def test_a_path_that_is_taken_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(TraceError, match="never written over"):
        Session(SwatU(0.8), tmp_path, steps=(0,))


def test_a_path_that_is_taken_meanwhile_ends_the_recording(tmp_path: Path) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0, 1))
    (tmp_path / "precious").touch()
    run(session)
    run(session)
    assert "never written over" in str(session.error)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_smaller_batch_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=range(4), images=4)
    for batch in (3, 4, 2, 9):
        run(session, batch)
    trace = open_trace(tmp_path)
    assert trace.steps == (1, 3)
    assert trace.step(3).batch_size == 9
    assert [record.getMessage() for record in caplog.records] == [
        "step 0 is not recorded: its batch of 3 has less than 4 samples",
        "step 2 is not recorded: its batch of 2 has less than 4 samples",
    ]


def test_the_first_batch_decides_how_many_all_are(tmp_path: Path) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=range(3))
    for batch in (4, 3, 6):
        run(session, batch)
    assert open_trace(tmp_path).steps == (0, 2)


def test_a_full_disk_ends_the_recording_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    session = Session(SwatU(0.8), tmp_path, steps=range(9))
    run(session)
    monkeypatch.setattr("swatsim.tracefile.writer.publish", full)
    run(session)
    monkeypatch.undo()
    run(session)
    session.close(["fc"])
    assert isinstance(session.error, TraceError)
    assert "No space left" in str(session.error)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert open_trace(tmp_path).steps == (0,)
    assert session.number == 3


def test_what_close_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = Session(SwatU(0.8), tmp_path / "a", steps=(7, 9))
    run(session)
    session.close(["fc"])
    assert "nothing is recorded: steps=[7, 9], and the run had 1 steps" in caplog.text

    session = Session(SwatU(0.8), tmp_path / "b", steps=(0, 1))
    run(session)
    session.record(FC, 5)
    session.close(["fc", "head"])
    assert "step 1 is not recorded: step() did not end it" in caplog.text
    assert "never ran: head" in caplog.text
    assert open_trace(tmp_path / "b").steps == (0,)


def test_a_step_without_layers_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Session(SwatU(0.8), tmp_path, steps=(0,)).step()
    assert "step 0 is not recorded: no layer ran" in caplog.text


def test_inputs_that_are_refused(tmp_path: Path) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0,))
    session.record(FC, 5)
    other = FC.model_copy(update={"name": "rows"})
    with pytest.raises(RecordingError, match="'rows' ran on 35 samples in a step whose batch is 5"):
        session.record(other, 35)
    session.step()
    with pytest.raises(RecordingError, match="one shape a layer"):
        session.record(Layer(name="fc", kind="linear", C=8, K=3), 5)


def test_a_layer_that_runs_again_is_one_more_layer(tmp_path: Path) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0, 1), images=3)
    for runs in ((5, 5, 4, 2), (5,)):
        for batch in runs:
            layer, step = session.record(FC, batch)
            if step is not None:
                for op in OPS:
                    for operand in OPERANDS_OF[op]:
                        step.operand(
                            layer.name, op, operand, np.ones(layer.shape_of(operand, 3), bool)
                        )
        session.step()
    session.close(["fc"])
    trace = open_trace(tmp_path)
    assert [layer.name for layer in trace.layers] == ["fc", "fc@2", "fc@3"]  # the last has 2 images
    assert [len(trace.step(number).ops()) for number in trace.steps] == [9, 3]


def test_without_torch_the_way_out_is_named() -> None:
    code = "import sys; sys.modules['torch'] = None; import swatsim.tracer.pytorch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RecordingError" in done.stderr
    assert "pip install 'swatsim[torch]'" in done.stderr
