"""What a session refuses, skips and says in the log; without any framework."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swatsim.errors import RecordingError, TraceError
from swatsim.policies import SwatU
from swatsim.tracefile import Coverage, Macs, Unheld, codec, open_trace
from swatsim.tracefile.notes import not_recorded
from swatsim.tracer.session import Session
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer
from tests.traces import wait_until

FC = Layer(name="fc", kind="linear", C=4, K=3)


def run(
    session: Session,
    batch: int = 5,
    layer: Layer = FC,
    density: float = 1.0,
    notes: dict[str, Any] | None = None,
) -> None:
    """One training step of one layer."""
    session.see_batch(batch)
    ran(session, layer, batch, density)
    session.step(notes)


def ran(session: Session, layer: Layer = FC, batch: int = 5, density: float = 1.0) -> Layer | None:
    """One run of a layer, recorded if it is to be: return it as it is called then."""
    rng = np.random.default_rng(session.number)
    kept = min(session.samples, batch) or batch
    layer, step = session.record(layer, batch, kept)
    if step is None:
        return None
    for op in OPS:
        for operand in OPERANDS_OF[op]:
            shape = layer.shape_of(operand, kept)
            step.operand(layer.name, op, operand, rng.random(shape) < density, "float32")
    return layer


def test_only_the_wanted_steps_are_recorded(tmp_path: Path) -> None:
    for name, steps in {"a": (1, 3), "b": range(1, 4, 2), "c": lambda n: n in (1, 3)}.items():
        session = Session(SwatU(0.8), tmp_path / name, steps=steps)
        for _ in range(5):
            run(session)
        session.close(["fc"])
        assert open_trace(tmp_path / name).steps == (1, 3)


@pytest.mark.parametrize(("images", "samples"), [(2, (0, 1)), (None, None), (9, tuple(range(9)))])
def test_the_manifest(tmp_path: Path, images: int | None, samples: tuple[int, ...] | None) -> None:
    parameters = {"model": "M"}
    session = Session(SwatU(0.8), tmp_path, steps=(0,), images=images, parameters=parameters)
    run(session)
    session.close(["fc"])
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
    with pytest.raises(TraceError, match="not written over"):
        Session(SwatU(0.8), tmp_path, steps=(0,))


def test_a_path_that_another_run_writes_is_refused_at_once(tmp_path: Path) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0, 1))
    for append in (False, True):
        with pytest.raises(TraceError, match="another run is writing .*choose another path, or"):
            Session(SwatU(0.8), tmp_path, steps=(0, 1), append=append)
    run(session)
    run(session)
    with pytest.raises(TraceError, match="another run is writing"):
        Session(SwatU(0.8), tmp_path, steps=(0, 1))
    session.close(["fc"])
    assert open_trace(tmp_path).steps == (0, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "steps"}


def test_steps_of_any_batch_and_shape_are_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=range(8), images=4)
    lengths, batches = (7, 9, 7, 1, 12, 9, 3, 7), (6, 6, 4, 9, 2, 6, 6, 1)
    shapes = [FC if n == 1 else Layer(name="fc", C=4, K=3, H=n) for n in lengths]
    for layer, batch in zip(shapes, batches, strict=True):
        run(session, batch, layer)
    session.close(["fc"])
    trace = open_trace(tmp_path)
    steps = [trace.step(number) for number in trace.steps]
    assert [step.layers for step in steps] == [(layer,) for layer in shapes]
    assert [step.batch_size for step in steps] == list(batches)
    assert [step.batch_of("fc") for step in steps] == list(batches)
    assert [step.samples_of("fc") for step in steps] == [4, 4, 4, 4, 2, 4, 4, 1]
    assert trace.layers == (shapes[0],)
    assert all(len(list(step.check())) == 6 for step in steps)
    assert {record.dtype for step in steps for record in step.records} == {"float32"}
    assert not caplog.records


def test_without_images_each_batch_is_whole(tmp_path: Path) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=range(3))
    for batch in (4, 3, 6):
        run(session, batch)
    session.close(["fc"])
    trace = open_trace(tmp_path)
    assert [trace.step(number).samples_of("fc") for number in trace.steps] == [4, 3, 6]


def test_a_layer_has_a_batch_of_its_own_and_the_first_forward_pass_gives_the_step_s(
    tmp_path: Path,
) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0,), images=2)
    assert (session.samples, session.batch) == (0, None)
    session.see_batch(8)
    session.see_batch(3)  # accumulation
    assert (session.samples, session.batch) == (2, 8)
    rows = Layer(name="expert", C=4, K=3, H=11)
    for layer, batch in ((rows, 1), (FC, 8), (FC, 3), (FC, 0)):
        ran(session, layer, batch)
    session.step()
    session.close([])
    step = open_trace(tmp_path).step(0)
    assert step.batch_size == 8
    there = {
        layer.name: (step.batch_of(layer.name), step.samples_of(layer.name))
        for layer in step.layers
    }
    assert there == {"expert": (1, 1), "fc": (8, 2), "fc@2": (3, 2)}


COVERAGE = Coverage(
    seen=Macs(forward=9, backward=18),
    held=Macs(forward=6, backward=12),
    not_held=(Unheld(module="attn", what="bmm", forward=3, backward=6),),
    left_alone=("head",),
)


def test_a_step_has_its_coverage(tmp_path: Path) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0, 1))
    for coverage in (COVERAGE, None):
        ran(session)
        session.step({}, coverage)
    session.close(["fc"])
    trace = open_trace(tmp_path)
    assert [trace.step(number).coverage for number in trace.steps] == [COVERAGE, None]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def broken(*_: object, **__: object) -> None:
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("place", ["publish_chunks", "write_all", "dump_header", "MaskRecord"])
@pytest.mark.parametrize(("fail", "said"), [(full, "No space left"), (broken, "a bug")])
def test_what_fails_in_the_background_ends_the_recording_only(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
    fail: Callable[..., None],
    said: str,
) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=range(9))
    run(session, density=0.5)
    wait_until(lambda: (tmp_path / "steps" / "0.safetensors").exists())
    monkeypatch.setattr(f"swatsim.tracefile.step.{place}", fail)
    run(session, density=0.5)
    wait_until(lambda: session.error)
    monkeypatch.undo()
    monkeypatch.setattr(codec, "pack", None)  # no later mask is packed
    run(session, density=0.5)
    session.close(["fc"])
    assert isinstance(session.error, TraceError)
    assert said in str(session.error)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "step 1 is not recorded, nor is any later one" in caplog.text
    assert session.number == 3
    assert os.listdir(tmp_path / "steps") == ["0.safetensors"]
    assert list(open_trace(tmp_path).step(0).check())


@pytest.mark.parametrize("queue", [3, 2**20])
def test_a_system_without_another_thread_ends_the_recording_only(
    queue: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name == "swatsim-step":
            raise RuntimeError("can't start new thread")
        start(thread)

    def train() -> None:
        run(session, density=0.5)
        run(session, density=0.5)
        session.close(["fc"])

    monkeypatch.setattr("swatsim.tracer.background.QUEUE_BYTES", queue)
    session = Session(SwatU(0.8), tmp_path, steps=range(9))
    monkeypatch.setattr(threading.Thread, "start", refused)
    training = threading.Thread(target=train, daemon=True)
    training.start()
    training.join(20)
    assert not training.is_alive(), "it waits for a thread that there is not"
    assert "steps/0.safetensors: RuntimeError: can't start new thread" in str(session.error)


def test_a_mask_that_comes_when_its_step_has_ended_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, goes_on = codec.compress, threading.Event()

    def slow(packed: codec.Bytes) -> codec.Bytes:
        goes_on.wait(20)
        return real(packed)

    monkeypatch.setattr(codec, "compress", slow)
    session = Session(SwatU(0.8), tmp_path, steps=(0, 1))
    _, record = session.record(FC, 5, 5)
    assert record is not None
    record.operand("fc", "wgrad", "act", np.eye(5, 4, dtype=bool))
    session.step()
    record.operand("fc", "wgrad", "grad_out", np.eye(5, 3, dtype=bool))  # step 0 is being written
    goes_on.set()
    run(session)
    session.close(["fc"])
    assert session.error is None
    trace = open_trace(tmp_path)
    assert trace.steps == (0, 1)
    assert [it.key for it in trace.step(0).check()] == [("fc", "wgrad", "act")]


def test_a_question_that_fails_leaves_no_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        Session(SwatU(0.8), tmp_path, steps=lambda number: 1 // number > 0)
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fails_while_the_training_waits_lets_it_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()

    def slow(*_: object) -> None:
        goes_on.wait(20)
        full()

    monkeypatch.setattr("swatsim.tracer.background.QUEUE_BYTES", 3)
    monkeypatch.setattr("swatsim.tracefile.step.write_all", slow)
    session = Session(SwatU(0.8), tmp_path, steps=range(9))
    timer = threading.Timer(0.1, goes_on.set)
    timer.start()
    run(session, density=0.5)
    timer.join()
    session.close(["fc"])
    assert "No space left" in str(session.error)
    assert os.listdir(tmp_path / "steps") == []


def test_ending_a_step_waits_for_no_disk_and_beginning_one_waits_for_the_step_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, goes_on = codec.compress, threading.Event()

    def slow(packed: codec.Bytes) -> codec.Bytes:
        goes_on.wait(20)
        return real(packed)

    monkeypatch.setattr(codec, "compress", slow)
    monkeypatch.setattr("swatsim.tracer.background.QUEUE_BYTES", 1)
    session = Session(SwatU(0.8), tmp_path, steps=(0, 2))
    _, record = session.record(FC, 5, 5)
    assert record is not None
    record.operand("fc", "wgrad", "act", np.eye(5, 4, dtype=bool))
    session.step()  # though nothing can be written
    run(session)  # is not recorded: nothing to wait for
    assert not (tmp_path / "steps" / "0.safetensors").exists()
    threading.Timer(0.1, goes_on.set).start()
    assert session.record(FC, 5, 5)[1] is not None
    assert open_trace(tmp_path).steps == (0,)
    session.close(["fc"])


def test_notes_of_a_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0, 1, 2))
    run(session, notes={"loss": 0.25})
    run(session)
    run(session, notes={"loss": object()})
    session.close(["fc"])
    trace = open_trace(tmp_path)
    assert [trace.step(number).notes for number in trace.steps] == [{"loss": 0.25}, {}, {}]
    assert "step 2 is recorded without its notes: notes=" in caplog.text


# ---- going on with a trace ----------------------------------------------------------------------


def trained(path: Path, steps: int, **options: Any) -> Session:
    """A run of some steps, all of them recorded, closed."""
    options = {"policy": SwatU(0.8), "batch": 5, "layer": FC, "append": True, **options}
    batch, layer = options.pop("batch"), options.pop("layer")
    session = Session(path=path, steps=range(100), **options)
    try:
        for _ in range(steps):
            run(session, batch, layer)
    finally:
        session.close([layer.name])
    return session


def test_a_trace_goes_on_where_a_checkpoint_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tmp_path, 4)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "steps").iterdir()}
    caplog.set_level(logging.INFO)
    session = trained(tmp_path, 4, start=2, layer=FC)
    assert session.number == 6
    assert "step 3 is in the trace already: it is not recorded again" in caplog.text
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    head = Layer(name="head", kind="linear", C=4, K=2)
    trained(tmp_path, 1, start=6, layer=head)
    trace = open_trace(tmp_path)
    assert trace.steps == (0, 1, 2, 3, 4, 5, 6)
    assert trace.layers == (FC, head)
    assert all(list(trace.step(number).check()) for number in trace.steps)
    provenance = trace.manifest.provenance
    assert len(provenance["appended"]) == 2
    assert {"time", "command", "parameters"} <= set(provenance["appended"][1])
    assert "appended" not in provenance["appended"][1]


def test_a_run_that_records_nothing_new_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tmp_path, 2)
    manifest = (tmp_path / "manifest.json").read_bytes()
    trained(tmp_path, 2)
    assert (tmp_path / "manifest.json").read_bytes() == manifest
    assert caplog.records == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"policy": SwatU(0.9)}, "its policy is .*0.8.*, this run's is .*0.9.*: record as"),
        ({"images": 2}, r"its samples is null, this run's is \[0, 1\]"),
    ],
)
def test_a_trace_of_another_run_is_not_continued(
    tmp_path: Path, options: dict[str, Any], complaint: str
) -> None:
    trained(tmp_path, 2)
    with pytest.raises(TraceError, match=complaint):
        trained(tmp_path, 1, start=2, **options)
    assert open_trace(tmp_path).steps == (0, 1)
    assert trained(tmp_path, 1, start=2).error is None


def test_a_run_of_another_batch_and_other_shapes_goes_on(tmp_path: Path) -> None:
    trained(tmp_path, 1)
    trained(tmp_path, 2, start=1, batch=7, layer=FC.model_copy(update={"K": 9}))
    trace = open_trace(tmp_path)
    assert [trace.step(number).batch_size for number in trace.steps] == [5, 7, 7]
    assert [trace.step(number).layers[0].K for number in trace.steps] == [3, 9, 9]
    assert (trace.layers, trace.manifest.batch_size) == ((FC,), 5)


def test_a_damaged_manifest_is_not_continued_and_not_written_over(tmp_path: Path) -> None:
    trained(tmp_path, 1)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(TraceError, match="is not JSON of a manifest"):
        trained(tmp_path, 1)
    (tmp_path / "steps" / "0.safetensors").unlink()
    with pytest.raises(TraceError, match="is not JSON of a manifest"):
        trained(tmp_path, 1)
    assert (tmp_path / "manifest.json").read_text() == "{"
    assert not (tmp_path / ".lock").exists()


def test_what_is_no_trace_yet_is_begun(tmp_path: Path) -> None:
    for name in ("new", "empty", "stepless"):
        if name != "new":
            (tmp_path / name).mkdir()
        if name == "stepless":
            trained(tmp_path / name, 1, policy=SwatU(0.5))
            (tmp_path / name / "steps" / "0.safetensors").unlink()
        trained(tmp_path / name, 1)
        trace = open_trace(tmp_path / name)
        assert trace.manifest.policy == SwatU(0.8).describe()
        assert "appended" not in trace.manifest.provenance


@pytest.mark.parametrize("start", [-1, 0.5, "3", True, None])
def test_starts_that_are_refused(tmp_path: Path, start: Any) -> None:
    with pytest.raises(RecordingError, match="start=.* must be the number of this run's first"):
        Session(SwatU(0.8), tmp_path / "t", steps=(0,), start=start)
    assert not (tmp_path / "t").exists()


def test_what_close_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = Session(SwatU(0.8), tmp_path / "a", steps=(7, 9))
    run(session)
    session.close(["fc"])
    assert "nothing is recorded: steps=[7, 9], and the run had 1 steps" in caplog.text

    session = Session(SwatU(0.8), tmp_path / "c", steps=(7, 9), start=20)
    run(session)
    session.close(["fc"])
    assert "and the run had 1 steps, counted from 20" in caplog.text

    session = Session(SwatU(0.8), tmp_path / "b", steps=(0, 1))
    run(session)
    assert session.record(FC, 5, 5)[1] is not None
    session.close(["fc", "head"])
    assert "step 1 is not recorded: step() did not end it" in caplog.text
    assert "never ran: head" in caplog.text
    assert open_trace(tmp_path / "b").steps == (0,)


def test_a_step_without_layers_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Session(SwatU(0.8), tmp_path, steps=(0,)).step()
    assert "step 0 is not recorded: no layer ran" in caplog.text


def test_a_layer_that_runs_again_is_one_more_layer(tmp_path: Path) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0, 1), images=3)
    for runs in ((5, 5, 4, 2), (5,)):
        for batch in runs:
            ran(session, batch=batch)
        session.step()
    session.close(["fc"])
    trace = open_trace(tmp_path)
    assert [layer.name for layer in trace.layers] == ["fc", "fc@2", "fc@3", "fc@4"]
    assert [len(trace.step(number).ops()) for number in trace.steps] == [12, 3]
    assert trace.step(0).samples_of("fc@4") == 2


def test_a_module_s_name_may_be_that_of_a_second_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0,))
    other = FC.model_copy(update={"name": "fc@2"})
    names = [ran(session, layer) for layer in (FC, FC, other, FC, other)]
    session.step()
    session.close(["fc", "fc@2"])
    called = ["fc", "fc@2", "fc@2@2", "fc@3", "fc@2@3"]
    assert [layer and layer.name for layer in names] == called
    assert len(open_trace(tmp_path).step(0).ops()) == 15
    assert not caplog.records


def test_a_recurrence_is_recorded_whole(tmp_path: Path) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0,))
    session.see_batch(2)
    for _ in range(300):
        ran(session, batch=2)
    session.step()
    session.close(["fc"])
    assert len(open_trace(tmp_path).step(0).ops()) == 900


def test_without_torch_the_way_out_is_named() -> None:
    code = "import sys; sys.modules['torch'] = None; import swatsim.tracer.pytorch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RecordingError" in done.stderr
    assert "pip install 'swatsim[torch]'" in done.stderr


def test_a_step_that_never_ends_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0, 2))
    for _ in range(300):
        session.see_batch(5)
        layer, step = session.record(FC, 5, 5)
        if step is not None:
            step.operand(layer.name, "fprop", "weight", np.eye(3, 4, dtype=bool))
    assert caplog.text.count("its model ran 257 times; is step() missing?") == 1
    assert not list((tmp_path / "steps").glob(".*"))
    session.step()
    for _ in range(300):  # a step that is not recorded may be as long as it likes
        session.see_batch(5)
        session.record(FC, 5, 5)
    session.step()
    run(session)
    session.close(["fc"])
    assert open_trace(tmp_path).steps == (2,)
    assert len(caplog.records) == 1


def test_a_class_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"policy=SwatU is a class.*such as SwatU\(0.8\)"):
        Session(SwatU, tmp_path, steps=(0,))  # type: ignore[arg-type]


def test_layers_that_a_trace_can_not_hold_are_left_out_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    large = Layer(name="large", kind="linear", C=2**20, K=1)
    long = Layer(name="x" * 1000, kind="linear", C=4, K=3)
    session = Session(SwatU(0.8), tmp_path, steps=range(3))
    for _ in range(3):
        ran(session, long)
        assert session.record(large, 2**12, 2**12) == (large, None)
        assert session.record(FC, 5, 6)[1] is None
        ran(session, long)  # its second run has a name that is too long
        session.step()
    session.close(["large", "fc", long.name])
    trace = open_trace(tmp_path)
    assert session.error is None
    assert [trace.step(number).layers for number in trace.steps] == [(long,)] * 3
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(
        "step 0 is recorded without 'large' (layer 'large': its act mask of 4096"
    )
    assert "'fc' (layer 'fc': samples=6 can't be in a batch of 5), 'xx" in line
    assert "at most 1000 characters" in line
    for number in trace.steps:
        assert set(not_recorded(trace.step(number).notes)) == {"large", "fc", long.name}


def test_a_step_of_which_nothing_can_be_held_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0, 1))
    session.see_batch(5)
    session.record(FC, 2**40, 2)
    session.step()
    run(session)
    session.close(["fc"])
    assert open_trace(tmp_path).steps == (1,)
    assert "step 0 is not recorded: it has no masks" in caplog.text
    assert "batch=1099511627776 is not allowed" in caplog.text


def wrong(*_: object, **__: object) -> bool:
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("place", ["declare", "begin", "end", "steps", "hook"])
def test_whatever_goes_wrong_ends_the_recording_only(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    def steps(number: int) -> bool:
        return wrong() if place == "steps" and number == 1 else True

    session = Session(SwatU(0.8), tmp_path, steps=steps)
    run(session)
    if place == "declare":
        monkeypatch.setattr("swatsim.tracer.step_record.StepRecord.declare", wrong)
    if place in ("begin", "end"):
        monkeypatch.setattr(f"swatsim.tracer.recorder.Recorder.{place}", wrong)
    if place == "hook":
        ran(session)
        with session.guarded():
            wrong()
    run(session)
    run(session)
    session.close(["fc"])
    assert session.number == 3
    assert not session.wanted
    assert isinstance(session.error, RecordingError)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("step 1 is not recorded, nor is any later one: ZeroDivisionError: a bug")
    assert "(test_session.py, line" in line
    assert open_trace(tmp_path).steps == (0,)
    assert not list((tmp_path / "steps").glob(".*"))


def test_threads_record_one_step_together(tmp_path: Path) -> None:
    session = Session(SwatU(0.8), tmp_path, steps=(0,))

    def train() -> None:
        for _ in range(20):
            ran(session)

    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.step()
    session.close(["fc"])
    assert len(open_trace(tmp_path).step(0).ops()) == 240


def test_what_a_run_states_of_itself_is_checked_when_it_is_stated(tmp_path: Path) -> None:
    class Odd:
        def __init__(self, said: Any) -> None:
            self.said = said

        def density(self, site: object) -> None: ...

        def describe(self) -> Any:
            return self.said

    for said in ({"x": 1j}, {"x": 10**5000}, 5, "ab", {"x": {1, 2}}):
        with pytest.raises(RecordingError, match="must give a dict of JSON"):
            Session(Odd(said), tmp_path, steps=(0,))
        with pytest.raises(RecordingError, match="parameters=.* must be a dict of JSON"):
            Session(SwatU(0.8), tmp_path, steps=(0,), parameters=said)
    session = Session(
        Odd({"s": np.float32(0.5)}), tmp_path, steps=(np.int64(0),), images=np.int8(2)
    )
    run(session)
    session.close(["fc"])
    manifest = open_trace(tmp_path).manifest
    assert (manifest.policy, manifest.samples) == ({"s": 0.5}, (0, 1))
