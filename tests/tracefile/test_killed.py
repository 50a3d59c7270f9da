"""Recording in real processes: killed, forked, out of disk, two at a time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from swatsim.errors import TraceError
from swatsim.tracefile import open_trace
from swatsim.tracer import background
from swatsim.tracer.recorder import Recorder
from swatsim.workload.layer import Layer

STEPS = 12
HEAD = """
import os, resource, signal, sys, time
import numpy as np
from swatsim.policies import SwatU
from swatsim.tracer.recorder import Recorder
from swatsim.tracer.session import Session
from swatsim.workload.layer import Layer

LAYERS = [Layer(name=f"fc{i}", kind="linear", C=256, K=256) for i in range(4)]
READS = (("fprop", "weight"), ("fprop", "act"), ("wgrad", "act"), ("wgrad", "grad_out"))

def run(session):
    rng = np.random.default_rng(session.number)
    for layer in LAYERS:
        _, step = session.record(layer, 64, 64)
        if step is not None:
            for op, operand in READS:
                shape = layer.shape_of(operand, session.samples)
                step.operand(layer.name, op, operand, rng.random(shape) < 0.3)
    session.step()

def session(**options):
    return Session(SwatU(0.8), sys.argv[1], steps=range(100), **options)
"""
TRAINING = """
recording = session(append=True)
print("ready", flush=True)
while recording.number < int(sys.argv[2]):
    run(recording)
    print(recording.number - 1, flush=True)
recording.close([])
assert recording.error is None
"""


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-c", HEAD + code, *map(str, arguments)]


def whole_steps(path: Path) -> list[int]:
    """Read every mask of a trace, and list its steps."""
    try:
        trace = open_trace(path)
    except TraceError as error:
        assert "no steps" in str(error) or "no manifest" in str(error)
        return []
    assert all(len(list(trace.step(number).check())) == 16 for number in trace.steps)
    return list(trace.steps)


def files(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def kill_after(path: Path, lines: int, seconds: float) -> list[int]:
    """Start a training, kill it some time after it printed some lines; the steps it ended."""
    command = python(TRAINING, path, STEPS)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(lines)]
        time.sleep(seconds)
        process.kill()
        seen += process.stdout.readlines()
    return [int(line) for line in seen if line.strip().isdecimal() and line.endswith("\n")]


def test_a_run_that_is_killed_at_any_moment_loses_one_step_at_most(tmp_path: Path) -> None:
    rng = random.Random(5)
    reached = set()
    for turn in range(5):
        path = tmp_path / str(turn)
        ended = kill_after(path, 1 + turn, rng.uniform(0, 0.012))
        there = whole_steps(path)
        # in order, none but the last one missing; one may be whole before it is said to have ended
        assert there == list(range(len(there)))
        assert len(ended) - 1 <= len(there) <= len(ended) + 1
        reached.add(len(there))
    # on a busy computer some are done before they are killed
    assert len(reached) > 1, "all were killed at the same moment"
    last = tmp_path / "4"
    subprocess.run(python(TRAINING, last, STEPS), check=True, capture_output=True)
    assert whole_steps(last) == list(range(STEPS))
    steps = {f"steps/{number}.safetensors" for number in range(STEPS)}
    assert files(last) == steps | {"manifest.json"}


STAGED = """
import swatsim.files, swatsim.tracefile.step
module = sys.modules[sys.argv[2]]
real = getattr(module, sys.argv[3])

def last(*args):
    if sys.argv[4] == "after":
        real(*args)
    os.kill(os.getpid(), signal.SIGKILL)

recorder = Recorder(sys.argv[1], batch_size=64, policy=SwatU(0.8).describe())
for number in range(3):
    if number == 2:
        setattr(module, sys.argv[3], last)
    with recorder.step(number) as step:
        for layer in LAYERS:
            recorder.declare(layer)
            for op, operand in READS:
                shape = layer.shape_of(operand, 64)
                step.operand(layer.name, op, operand, np.random.random(shape) < 0.3)
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("swatsim.tracefile.step", "write_all"),
        ("swatsim.tracefile.step", "publish_chunks"),
        ("swatsim.files", "write_all"),
        ("swatsim.files", "_sync_directory"),
    ],
)
def test_a_run_that_is_killed_at_a_given_moment(
    tmp_path: Path, module: str, function: str, when: str
) -> None:
    command = python(STAGED, tmp_path, module, function, when)
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    published = (function, when) == ("publish_chunks", "after") or function == "_sync_directory"
    assert whole_steps(tmp_path) == ([0, 1, 2] if published else [0, 1])
    Recorder(tmp_path, batch_size=64, append=True, policy=_policy()).close()
    assert not [name for name in files(tmp_path) if name.endswith((".tmp", ".lock"))]


def test_one_trace_is_recorded_over_many_kills(tmp_path: Path) -> None:
    rng = random.Random(6)
    for _ in range(3):
        before = whole_steps(tmp_path)
        kill_after(tmp_path, 2 + len(before), rng.uniform(0, 0.01))
        after = whole_steps(tmp_path)
        assert after[: len(before)] == before
    subprocess.run(python(TRAINING, tmp_path, STEPS), check=True, capture_output=True)
    assert whole_steps(tmp_path) == list(range(STEPS))
    assert not [name for name in files(tmp_path) if name.endswith((".tmp", ".lock"))]


def test_the_second_of_two_runs_is_refused_and_a_kill_lets_the_next_one_in(tmp_path: Path) -> None:
    waits = 'recording = session(); run(recording); print("ready", flush=True); time.sleep(60)'
    with subprocess.Popen(python(waits, tmp_path), stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        second = subprocess.run(
            python(TRAINING, tmp_path, 3), check=False, capture_output=True, text=True
        )
        assert second.returncode == 1
        assert f"TraceError: another run is writing {tmp_path}: choose" in second.stderr
        first.kill()
    assert whole_steps(tmp_path) in ([], [0])
    assert (tmp_path / ".lock").exists()
    subprocess.run(python(TRAINING, tmp_path, 3), check=True, capture_output=True)
    assert whole_steps(tmp_path) == [0, 1, 2]
    assert not (tmp_path / ".lock").exists()


FULL_DISK = """
recording = session()
run(recording)
recording.record(LAYERS[0], 64, 64)  # begun when step 0 is whole
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))  # of any file; Python ignores SIGXFSZ
recording.step()
for _ in range(5):
    run(recording)
recording.close([])
print(recording.number, recording.error)
"""


def test_a_disk_that_takes_no_more_ends_the_recording_and_not_the_run(tmp_path: Path) -> None:
    done = subprocess.run(python(FULL_DISK, tmp_path), check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"7 can't write {tmp_path}/steps/2.safetensors: File too large;")
    assert done.stderr.count("step 2 is not recorded, nor is any later one") == 1
    assert whole_steps(tmp_path) == [0]
    assert files(tmp_path) == {"manifest.json", "steps/0.safetensors"}


UNCLOSED = """
recording = session()
run(recording)
run(recording)
recording.record(LAYERS[0], 64, 64)[1].operand("fc0", "fprop", "weight", np.eye(256) > 0)
"""


@pytest.mark.parametrize("end", ["", "raise SystemExit", "del recording"])
def test_a_program_that_closes_nothing_loses_no_step_that_it_ended(
    tmp_path: Path, end: str
) -> None:
    subprocess.run(python(UNCLOSED + end, tmp_path), check=True)
    assert whole_steps(tmp_path) == [0, 1]
    assert files(tmp_path) - {".lock"} == {
        *("manifest.json", "steps/0.safetensors", "steps/1.safetensors")
    }


FORKED = """
import gc
recording = session()
run(recording)
_, step = recording.record(LAYERS[0], 64, 64)
if sys.argv[2] == "begun":
    step.operand("fc0", "fprop", "weight", np.eye(256) > 0)
elif sys.argv[2] == "ended":
    step.operand("fc0", "fprop", "weight", np.eye(256) > 0)
    recording.step()
ended = recording.number
child = os.fork()
if child == 0:
    # goes on as if it were the training, and ends as programs do: hooks, collector and all
    if step is not None and sys.argv[2] != "ended":
        step.operand("fc0", "fprop", "act", np.ones((64, 256), bool))
        recording.step()
    for _ in range(3):
        run(recording)
    if sys.argv[3] == "close":
        recording.close([])
    del recording, step
    gc.collect()
    print("child", flush=True)
    if sys.argv[3] == "sleep":
        time.sleep(60)
    raise SystemExit
if sys.argv[3] == "sleep":
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
assert os.waitpid(child, 0)[1] == 0
try:
    session()
except Exception as error:
    assert "another run is writing" in str(error), error
else:
    raise AssertionError("the child released the lock")
if recording.number == 1:
    for name, mask in (("act", np.ones((64, 256), bool)),):
        step.operand("fc0", "wgrad", name, mask)
    recording.step()
recording.close([])
"""


@pytest.mark.parametrize("moment", ["empty", "begun", "ended"])
@pytest.mark.parametrize("way", ["exit", "close"])
def test_a_forked_child_writes_nothing_and_takes_no_lock(
    tmp_path: Path, moment: str, way: str
) -> None:
    command = python(FORKED, tmp_path, moment, way)
    subprocess.run(command, check=True, timeout=30, stdout=subprocess.DEVNULL)
    trace = open_trace(tmp_path)
    assert trace.steps == (0, 1)
    masks = {"empty": 1, "begun": 2, "ended": 1}[moment]
    assert [len(list(trace.step(number).check())) for number in trace.steps] == [16, masks]
    assert files(tmp_path) == {"manifest.json", "steps/0.safetensors", "steps/1.safetensors"}


def test_a_child_that_outlives_its_parent_holds_no_lock(tmp_path: Path) -> None:
    command = python(FORKED, tmp_path, "begun", "sleep")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        printed = {parent.stdout.readline().strip() for _ in range(2)}
        parent.wait(30)
        (child,) = (int(line) for line in printed if line.isdecimal())
        os.kill(child, 0)  # it is there
        try:
            Recorder(tmp_path, batch_size=64, append=True, policy=_policy()).close()
        finally:
            os.kill(child, signal.SIGKILL)
    assert whole_steps(tmp_path) == [0]
    assert files(tmp_path) == {"manifest.json", "steps/0.safetensors"}


def _policy() -> dict[str, object]:
    from swatsim.policies import SwatU

    return SwatU(0.8).describe()


def test_a_step_larger_than_the_queue_is_recorded_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "QUEUE_BYTES", 40_000)
    layers = [Layer(name=f"l{i}", kind="linear", C=256, K=256) for i in range(40)]
    large = Layer(name="large", kind="linear", C=1024, K=1024)
    rng = np.random.default_rng(1)
    masks = {layer.name: rng.random((layer.K, layer.C)) < 0.5 for layer in [*layers, large]}
    with Recorder(tmp_path / "t", batch_size=1) as recorder:
        for number, used in enumerate((layers, [*layers, large])):
            with recorder.step(number) as step:
                for layer in used:
                    recorder.declare(layer)
                    reused = masks[layer.name].copy()
                    step.operand(layer.name, "fprop", "weight", reused)
                    reused[:] = False  # it is the caller's again
            assert step.background is not None
            most = step.background.most_bytes
            # of 320 kB, 40 kB wait; a single mask that is larger than that goes alone
            assert 8192 <= most <= 40_000 if number == 0 else most == 131_072
    trace = open_trace(tmp_path / "t")
    for name, mask in masks.items():
        np.testing.assert_array_equal(trace.step(1).mask(name, "fprop", "weight"), mask)


def test_a_step_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    layer = Layer(name="fc", kind="linear", C=64, K=64)
    with Recorder(tmp_path, batch_size=1) as recorder:
        recorder.declare(layer)
        with pytest.raises(ZeroDivisionError), recorder.step(0) as step:
            step.operand("fc", "fprop", "weight", np.eye(64, dtype=bool))
            raise ZeroDivisionError
        assert not [name for name in files(tmp_path) if "steps" in name]
        with recorder.step(0) as step:
            step.operand("fc", "fprop", "weight", np.eye(64, dtype=bool))
    assert open_trace(tmp_path).steps == (0,)


def test_a_recorder_goes_on_with_a_trace(tmp_path: Path) -> None:
    layer = Layer(name="fc", kind="linear", C=64, K=64)
    for number in (0, 1):
        with Recorder(tmp_path, batch_size=1, append=True) as recorder:
            recorder.declare(layer)
            for step_number in range(number + 1):
                with recorder.step(step_number) as step:
                    mask = np.random.default_rng(number).random((64, 64)) < 0.5
                    step.operand("fc", "fprop", "weight", mask)
    trace = open_trace(tmp_path)
    assert trace.steps == (0, 1)
    first = trace.step(0).mask("fc", "fprop", "weight")
    np.testing.assert_array_equal(first, np.random.default_rng(0).random((64, 64)) < 0.5)
    with pytest.raises(TraceError, match=r"its samples is null, this run's is \[0\]"):
        Recorder(tmp_path, batch_size=2, samples=[0], append=True)


def test_closing_twice_does_nothing_and_a_closed_recorder_is_refused(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, batch_size=1)
    recorder.close()
    recorder.close()
    with pytest.raises(TraceError, match="its writer is closed"):
        recorder.begin(0)
