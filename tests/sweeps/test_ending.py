"""A sweep ends when it is told to, takes its processes along, and says how."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

import swatsim
from swatsim.errors import ConfigError, ResultsError
from swatsim.signals import undisturbed
from swatsim.sweeps import dispatch
from swatsim.sweeps.cluster import Cluster
from swatsim.sweeps.pool import Pool
from swatsim.workload.layer import Layer
from tests.sweeps.test_sweep import Here, children, command, command_of
from tests.traces import make_trace, wait_until

#: Far more than it takes; a command that hangs is killed then, and the test fails.
PATIENCE = 30
#: More points than can be done while the test looks on.
SIZES = [1, 2, 3, 4, 5, 6, 7, 8]
#: Of a machine in closed form: no kernels of one are loaded.
MANY = {"preset": "scale-sim-ws", "grid": {"rows": SIZES, "columns": SIZES}}
LAYERS = (Layer(name="fc", kind="linear", C=24, K=16),)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    trace = make_trace(tmp_path_factory.mktemp("ending") / "t", layers=LAYERS)
    return {"traces": [str(trace.path)], "machines": [MANY]}


def workers_of(process: subprocess.Popen[str]) -> set[int]:
    return {one for one in children(process.pid) if "spawn_main" in command_of(one)}


def to_all(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)


def to_one(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def twice(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)


def terminate(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("stop", "code", "word", "first_point"),
    [
        (to_all, 130, "interrupted", True),
        (to_one, 130, "interrupted", False),
        (terminate, 143, "terminated", False),
    ],
)
def test_a_sweep_ends_at_once_when_it_is_told_to(
    spec: dict[str, Any],
    tmp_path: Path,
    stop: Callable[[subprocess.Popen[str]], None],
    code: int,
    word: str,
    first_point: bool,
) -> None:
    process = subprocess.Popen(
        command(spec, tmp_path), start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    points = tmp_path / "out" / "points"
    wait_until(lambda: workers_of(process))
    if first_point:
        wait_until(lambda: list(points.glob("*.parquet")))
    workers = workers_of(process)
    stop(process)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert errors.splitlines()[1:] == [f"swatsim: error: {word}"]  # below the plan
    wait_until(lambda: not any("spawn_main" in command_of(one) for one in workers))


def test_a_second_ctrl_c_is_one_line_too(spec: dict[str, Any], tmp_path: Path) -> None:
    process = subprocess.Popen(command(spec, tmp_path), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: workers_of(process))
    twice(process)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_an_error_in_its_middle_ends_a_sweep(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("swatsim.sweeps.store.publish", full)
    with pytest.raises(ResultsError, match="No space left on device; points that are finished"):
        swatsim.sweep(spec, tmp_path / "out", workers=1)
    wait_until(lambda: not any("spawn_main" in command_of(one) for one in children(os.getpid())))


def test_other_verbs_end_at_once(spec: dict[str, Any]) -> None:
    simulate = [sys.executable, "-c", SLOW, "simulate", spec["traces"][0], "-m", "tensordash"]
    process = subprocess.Popen(simulate, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    to_one(process)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors == "swatsim: error: interrupted\n"


def test_an_interrupt_that_is_lost_ends_a_command_all_the_same(spec: dict[str, Any]) -> None:
    info = [sys.executable, "-c", LOST, "info", spec["traces"][0]]
    process = subprocess.Popen(info, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    to_one(process)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors == "swatsim: error: interrupted\n"


#: A command that swallows every exception.
LOST = """
import time, click
from swatsim.cli import main
from swatsim.cli.main import cli

@cli.command("info")
@click.argument("trace")
def info(trace):
    print("begun", flush=True)
    while True:
        try:
            time.sleep(1)
        except BaseException:
            pass

main()
"""
#: A command line whose machine never ends an op.
SLOW = """
import threading
from swatsim.cli import main
from swatsim.simulator import run

def rows(self, *job):
    print("begun", flush=True)
    threading.Event().wait()

run.Run.rows = rows
main()
"""


def test_a_pool_that_is_left_does_not_wait_for_what_runs() -> None:
    with pytest.raises(KeyboardInterrupt), Pool(1) as some:
        future = some.submit(time.sleep, 1000)
        wait_until(future.running)
        raise KeyboardInterrupt
    with Pool(1) as some:
        assert some.submit(abs, -3).result() == 3


class Cancels(Here):
    """An executor that has lost its scheduler, as Dask's does."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(CancelledError())
        return future


class Silent(Cluster):
    """A cluster whose scheduler went while nobody looked."""

    def __init__(self) -> None:
        class Client:
            scheduler = type("Scheduler", (), {"identity": None})

            def sync(self, *args: Any, **kwargs: Any) -> None:
                raise TimeoutError

        self._client, self._address = Client(), "tcp://there:1"

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        return Future()


def test_a_scheduler_that_is_gone_is_an_error(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="it cancelled its jobs: is its scheduler gone"):
        swatsim.sweep(spec, tmp_path / "out", executor=Cancels())
    assert not list((tmp_path / "out").rglob("*.json")), "no point failed: none was tried"
    monkeypatch.setattr(dispatch, "QUIET_SECONDS", 0.01)
    with pytest.raises(ConfigError, match="scheduler at tcp://there:1 did not answer for 30 s"):
        swatsim.sweep(spec, tmp_path / "out", executor=Silent())


def test_processes_of_a_pool_start_with_ctrl_c_blocked() -> None:
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    started = False
    with pytest.raises(KeyboardInterrupt), undisturbed():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        os.kill(os.getpid(), signal.SIGINT)
        started = True  # what came meanwhile comes afterwards
    assert started
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
