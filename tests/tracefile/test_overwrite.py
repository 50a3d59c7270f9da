"""Replacing a trace: the old one is whole until the first step of the new one is."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from swatsim.errors import SwatsimError, TraceError
from swatsim.policies import SwatU
from swatsim.tracefile import open_trace, step
from swatsim.tracefile.schema import MANIFEST, REPLACED, STEPS
from swatsim.tracefile.writer import TraceWriter
from swatsim.tracer.recorder import Recorder
from swatsim.tracer.session import Session
from swatsim.workload.layer import Layer

LAYER = Layer(name="fc", kind="linear", C=4, K=4)


def record(path: Path, steps: tuple[int, ...], *, wide: bool = False, **how: bool) -> str:
    """Record steps of one mask each, and return the trace's id."""
    with Recorder(path, batch_size=2, **how) as recorder:
        recorder.declare(LAYER)
        for number in steps:
            with recorder.step(number) as one:
                one.operand("fc", "fprop", "weight", np.eye(4, dtype=bool) | wide)
    return open_trace(path).id


def names(path: Path) -> set[str]:
    return {str(it.relative_to(path)) for it in path.rglob("*") if it.is_file()}


def test_a_trace_is_replaced_as_a_whole(tmp_path: Path) -> None:
    trace, fresh = tmp_path / "t", tmp_path / "fresh"
    before = record(trace, (0, 1, 2))
    with pytest.raises(TraceError, match=r"or replace it by overwrite=True \(--overwrite\)"):
        record(trace, (1,))
    assert record(trace, (1,), wide=True, overwrite=True) != before
    assert names(trace) == {MANIFEST, f"{STEPS}/1.safetensors"}
    assert open_trace(trace).id == record(fresh, (1,), wide=True, overwrite=True)


@pytest.mark.parametrize("disk", ["full", "read only"])
def test_a_run_that_fails_before_its_first_step_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    trace = tmp_path / "t"
    before, there = record(trace, (0, 1)), names(trace)

    def refuse(*_: object) -> None:
        raise OSError(28, disk)

    with pytest.raises(ZeroDivisionError), Recorder(trace, batch_size=2, overwrite=True) as run:
        run.declare(LAYER)
        with run.step(5) as one:
            one.operand("fc", "fprop", "weight", np.eye(4, dtype=bool))
            raise ZeroDivisionError
    assert (open_trace(trace).id, names(trace)) == (before, there)
    monkeypatch.setattr(step, "publish_chunks", refuse)  # the old one is aside by then
    with pytest.raises(TraceError, match=disk):
        record(trace, (5,), overwrite=True)
    assert (open_trace(trace).id, names(trace)) == (before, there)


def test_a_run_that_is_killed_between_the_two_leaves_the_old_one_aside(tmp_path: Path) -> None:
    trace = tmp_path / "t"
    before = record(trace, (0, 1))
    writer = TraceWriter(trace, overwrite=True)
    manifest = open_trace(trace).manifest
    writer.write_manifest(manifest.model_copy(update={"batch_size": 9}))
    writer._lock.release()  # as the end of a process does
    with pytest.raises(TraceError, match=f"the trace that was there is .*{REPLACED}"):
        open_trace(trace)
    assert open_trace(trace / REPLACED).id == before
    with pytest.raises(TraceError, match="exists already"):
        TraceWriter(trace)
    TraceWriter(trace, append=True).close()
    assert open_trace(trace).id == before
    assert open_trace(trace).manifest == manifest
    assert not (trace / REPLACED).exists()


def test_what_is_no_trace_is_never_replaced(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / MANIFEST).write_text('{"name": "my web page"}')
    for place in (site, tmp_path, site / MANIFEST):
        with pytest.raises(TraceError, match="exists already"):
            record(place, (0,), overwrite=True)
    assert names(tmp_path) == {f"site/{MANIFEST}"}
    with pytest.raises(SwatsimError, match="continued or replaced"):
        record(tmp_path / "new", (0,), overwrite=True, append=True)
    record(tmp_path / "new", (0,), overwrite=True)


def test_a_run_that_ends_says_what_comes_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "my run"
    with caplog.at_level(logging.INFO):
        session = Session(SwatU(0.5), path, steps=(0,))
        _, one = session.record(LAYER, 2, 2)
        assert one is not None
        one.operand("fc", "fprop", "weight", np.eye(4, dtype=bool))
        session.step()
        session.close(["fc"])
    last = caplog.records[-1]
    assert last.levelno == logging.INFO
    assert last.getMessage() == f"trace: '{path}'; next: swatsim simulate '{path}' -m tensordash"
    caplog.clear()
    with caplog.at_level(logging.INFO):
        Session(SwatU(0.5), tmp_path / "none", steps=(0,)).close([])
    assert "next:" not in caplog.text
