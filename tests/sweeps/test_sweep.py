"""A sweep with real processes: shared work, failures, kill -9, Dask."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import swatsim
from swatsim.errors import ConfigError, ResultsError, TraceError
from swatsim.results import read_parquet
from swatsim.sweeps import run
from swatsim.sweeps.worker import Job
from tests.traces import make_trace

MACHINES = [
    {
        "preset": "tensordash",
        "grid": {"rows": [1, 4], "buffer_b_kib": [64, 1024], "dram": ["hbm2", "ddr4-3200"]},
    },
    {"preset": "swat", "grid": {"banks": [16, 32]}},
]

#: What whole commands simulate: a machine in closed form, so that they load no kernels of one.
LIGHT = [{"preset": "scale-sim-ws", "grid": {"rows": [4, 8, 16], "columns": [4, 8]}}]
POINTS = 6


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trace(tmp_path_factory.mktemp("sweep") / "small").path


@pytest.fixture
def spec(trace: Path) -> dict[str, Any]:
    return {"traces": [str(trace)], "machines": MACHINES}


@pytest.fixture
def light(trace: Path) -> dict[str, Any]:
    return {"traces": [str(trace)], "machines": LIGHT}


@pytest.fixture(scope="module")
def finished(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A sweep's folder, for tests to copy, and its rows."""
    out = tmp_path_factory.mktemp("finished") / "out"
    spec = {"traces": [str(trace)], "machines": MACHINES}
    return out, swatsim.sweep(spec, out, executor=Here()).rows


def copied(finished: tuple[Path, list[Any]], out: Path) -> list[Any]:
    """Put a copy of a finished sweep where a test may damage it; its rows."""
    shutil.copytree(finished[0], out)
    return finished[1]


class Here(Executor):
    """Runs a job when it is submitted, and remembers it."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.jobs += fn.jobs
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  (as an executor does)
            future.set_exception(error)
        return future


def points(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.stem: read_parquet(path).rows for path in (folder / "points").iterdir()}


def test_points_are_what_simulate_gives(
    spec: dict[str, Any], finished: tuple[Path, list[Any]], trace: Path, tmp_path: Path
) -> None:
    copied(finished, tmp_path / "out")
    summary = swatsim.sweep(spec, tmp_path / "out", executor=Here())
    assert [row["status"] for row in summary.rows] == ["done"] * 10
    assert not summary.failed
    for row in summary.rows:
        alone = swatsim.simulate(trace, row["machine"])
        kept = read_parquet(tmp_path / "out" / "points" / f"{row['point']}.parquet")
        assert kept.rows == alone.rows
        ours, theirs = (found.provenance["parameters"] for found in (kept, alone))
        assert {name: ours[name] for name in theirs} == theirs
        total = sum(r["cycles"] for r in alone.rows if r["role"] == "machine")
        assert row["cycles"] == total / 2  # a step's: two are recorded
    frame = summary.frame
    assert set(frame.banks.dropna()) == {16, 32}
    assert (frame.time_ms > 0).all()
    index = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert len(index["points"]) == 10


def test_what_points_share_is_computed_once(spec: dict[str, Any], tmp_path: Path) -> None:
    here = Here()
    swatsim.sweep(spec, tmp_path / "out", executor=here)
    # two rows of tensordash, each on four memories, and two machines of swat; 2 steps of 3 ops
    assert len(here.jobs) == (2 + 2) * 2 * 3
    assert sorted({len(job.machines) for job in here.jobs}) == [1, 4]


def test_finished_points_are_not_done_again(
    spec: dict[str, Any], finished: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    first = copied(finished, tmp_path / "out")
    here = Here()
    again = swatsim.sweep(spec, tmp_path / "out", executor=here)
    assert here.jobs == []
    assert again.rows == first
    victim = tmp_path / "out" / "points" / f"{first[0]['point']}.parquet"
    victim.write_bytes(victim.read_bytes()[:-100])  # half-written ones are never believed
    assert swatsim.sweep(spec, tmp_path / "out", executor=here).rows == first
    assert len(here.jobs) == 2 * 3
    assert run.look(spec, tmp_path / "out").words().startswith("10 points, 0 to compute, 10 kept")


def test_a_point_that_fails_is_recorded_and_the_rest_done(trace: Path, tmp_path: Path) -> None:
    grid = {"buffer_b_kib": [1, 1024], "block_rows": [12], "lookaside": [5, 16]}
    spec = {
        "traces": [str(trace)],
        "machines": [{"preset": "bit-tactical", "set": {"format_weight": "dense"}, "grid": grid}],
    }
    summary = swatsim.sweep(spec, tmp_path / "out", executor=Here())
    status = {row["machine"].split("[")[1]: row["status"] for row in summary.rows}
    assert sorted(status.values()) == ["done", "failed", "failed", "failed"]
    errors = {row["error"] for row in summary.failed}
    assert any("set buffer_b_kib to at least" in error for error in errors)
    assert any("lookaside=16 is at odds with lanes=16" in error for error in errors)
    kept = [json.loads(path.read_text()) for path in (tmp_path / "out" / "failed").iterdir()]
    assert {one["error"] for one in kept} == errors


def test_presets_that_count_alike_keep_their_own_memory(trace: Path, tmp_path: Path) -> None:
    bare = {"scheduled": "none", "lookahead": 0, "lookaside": 0, "map_order": "as_written"}
    machines = [{"preset": "dadiannao"}, {"preset": "bit-tactical", "set": bare}]
    here = Here()
    spec = {"traces": [str(trace)], "machines": machines}
    first, second = swatsim.sweep(spec, tmp_path / "out", executor=here).rows
    assert len(here.jobs) == 2 * 3  # computed once
    assert first["cycles_compute"] == second["cycles_compute"]
    for row in (first, second):
        alone = swatsim.simulate(trace, row["machine"]).rows
        assert read_parquet(tmp_path / "out" / "points" / f"{row['point']}.parquet").rows == alone


def test_a_damaged_trace_does_not_stop_the_others(trace: Path, tmp_path: Path) -> None:
    for name, file in (("one", "manifest.json"), ("two", "steps/7.safetensors")):
        shutil.copytree(trace, tmp_path / name)
        path = tmp_path / name / file
        path.write_bytes(path.read_bytes()[:50])
    names = [str(trace), str(tmp_path / "one"), str(tmp_path / "two")]
    spec = {"traces": names, "machines": [{"preset": "swat"}]}
    rows = swatsim.sweep(spec, tmp_path / "out", executor=Here()).rows
    assert [row["status"] for row in rows] == ["done", "failed", "failed"]
    with pytest.raises(TraceError):
        swatsim.sweep({**spec, "traces": names[1:]}, tmp_path / "none", executor=Here())


def test_files_that_are_damaged_or_left_over_heal(
    spec: dict[str, Any], finished: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = copied(finished, out)
    stale, bad = (first[i]["point"] for i in (0, 1))
    (out / "failed").mkdir()
    (out / "failed" / f"{stale}.json").write_text('{"error": "old"}')
    damaged = out / "points" / f"{bad}.parquet"
    content = bytearray(damaged.read_bytes())
    content[4:2000] = bytes(1996)
    damaged.write_bytes(content)
    half = out / "points" / f".{bad}.parquet.17.0123abcd.tmp"
    half.write_bytes(b"half")
    here = Here()
    assert swatsim.sweep(spec, out, executor=here).rows == first
    assert {one.step for one in here.jobs} == {0, 7}, "a point that is damaged is done again"
    assert not half.exists()
    assert not (out / "points" / ".lock").exists()


def test_a_finished_point_is_believed_by_its_content(
    spec: dict[str, Any], finished: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = copied(finished, out)
    paths = [out / "points" / f"{row['point']}.parquet" for row in first]
    shutil.copy(paths[1], paths[0])  # whole, and another point's
    flipped = bytearray(paths[2].read_bytes())
    flipped[4:2000] = bytes(1996)  # far from the footer
    paths[2].write_bytes(flipped)
    look = run.look(spec, out).words()
    assert look.startswith("10 points, 2 to compute, 8 kept")
    assert swatsim.sweep(spec, out, executor=Here()).rows == first


def test_what_was_noted_of_points_is_a_cache(
    spec: dict[str, Any], finished: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = copied(finished, out)
    notes = out / "numbers.jsonl"
    lines = notes.read_text().split("\n\n")
    for text in (
        "",
        "\n\n".join(lines[3:]),
        notes.read_text().replace('"cycles": ', '"cycles": 9'),
    ):
        notes.write_text(text)
        here = Here()
        assert swatsim.sweep(spec, out, executor=here).rows == first
        assert not here.jobs


def test_an_executor_that_breaks_is_one_line(spec: dict[str, Any], tmp_path: Path) -> None:
    class Broken(Here):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(BrokenExecutor("gone"))
            return future

    with pytest.raises(ConfigError, match="the executor broke"):
        swatsim.sweep(spec, tmp_path / "out", executor=Broken())


def test_no_worker_outlives_a_sweep(light: dict[str, Any], tmp_path: Path) -> None:
    process = subprocess.Popen(command(light, tmp_path), stderr=subprocess.PIPE, text=True)
    workers: set[int] = set()
    deadline = time.monotonic() + 60
    while not workers and time.monotonic() < deadline:
        workers = {one for one in children(process.pid) if "spawn_main" in command_of(one)}
        time.sleep(0.01)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any("spawn_main" in command_of(one) for one in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers
    assert not any("spawn_main" in command_of(one) for one in workers)


def test_a_trace_that_is_not_there_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    spec = {"traces": [str(tmp_path / "none")], "machines": [{"preset": "swat"}]}
    with pytest.raises(TraceError):
        swatsim.sweep(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="can't write to"):
        swatsim.sweep(spec, tmp_path / "file")


def command(spec: dict[str, Any], folder: Path, *more: str) -> list[str]:
    text = f"traces = {json.dumps(spec['traces'])}\n"
    for one in spec["machines"]:
        text += f'[[machines]]\npreset = "{one["preset"]}"\n[machines.grid]\n'
        text += "".join(f"{name} = {json.dumps(values)}\n" for name, values in one["grid"].items())
    (folder / "spec.toml").write_text(text)
    sweep = [sys.executable, "-m", "swatsim", "sweep", str(folder / "spec.toml")]
    return [*sweep, "-o", str(folder / "out"), "--workers", "1", *more]


def test_kill_9_and_resume_equal_an_undisturbed_run(light: dict[str, Any], tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(light, tmp_path), start_new_session=True, stderr=-3, stdout=-3
    )
    kept = tmp_path / "out" / "points"
    deadline = time.monotonic() + 120
    while not (kept.is_dir() and any(kept.glob("*.parquet"))) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in kept.glob("*.parquet")}
    assert 0 < len(before) < POINTS
    done = subprocess.run(command(light, tmp_path), capture_output=True, text=True, check=True)
    assert f"{len(before)} kept" in done.stderr
    assert "leaked" not in done.stderr
    after = {path.name: path.stat().st_mtime_ns for path in kept.glob("*.parquet")}
    assert len(after) == POINTS
    assert {name: after[name] for name in before} == before
    swatsim.sweep(light, tmp_path / "undisturbed", executor=Here())
    assert points(tmp_path / "out") == points(tmp_path / "undisturbed")


def test_a_worker_that_dies_is_replaced(light: dict[str, Any], tmp_path: Path) -> None:
    process = subprocess.Popen(command(light, tmp_path), stderr=subprocess.PIPE, text=True)
    killed, deadline = False, time.monotonic() + 120
    while not killed and time.monotonic() < deadline and process.poll() is None:
        for child in children(process.pid):
            if "spawn_main" in command_of(child):
                os.kill(child, signal.SIGKILL)
                killed = True
        time.sleep(0.01)
    assert killed
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "a worker died" in errors
    swatsim.sweep(light, tmp_path / "undisturbed", executor=Here())
    assert points(tmp_path / "out") == points(tmp_path / "undisturbed")


def test_two_sweeps_on_one_folder_at_once_give_what_one_does(
    light: dict[str, Any], tmp_path: Path
) -> None:
    started = [
        subprocess.Popen(command(light, tmp_path), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    swatsim.sweep(light, tmp_path / "undisturbed", executor=Here())
    assert points(tmp_path / "out") == points(tmp_path / "undisturbed")


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers, as processes of their own."""
    where = tmp_path / "scheduler.json"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--scheduler-file", str(where)]
    started = [subprocess.Popen([*dask, "--port", "0", "--no-dashboard"], **quiet)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(where)]
    worker += ["--no-nanny", "--nthreads", "1", "--no-dashboard"]
    started += [subprocess.Popen(worker, cwd=tmp_path, **quiet) for _ in range(2)]
    try:
        deadline = time.monotonic() + 60
        while not where.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield json.loads(where.read_text())["address"], started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_dask_cluster_loses_a_worker_and_finishes(
    light: dict[str, Any], tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, workers = cluster
    with ThreadPoolExecutor(1) as thread:
        sweep = command(light, tmp_path, "--dask", address)
        running = thread.submit(subprocess.run, sweep, capture_output=True, text=True, check=False)
        kept, deadline = tmp_path / "out" / "points", time.monotonic() + 100
        while not (kept.is_dir() and any(kept.iterdir())) and time.monotonic() < deadline:
            time.sleep(0.01)
        workers[0].kill()
        done = running.result()
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "points").glob("*.parquet"))) == POINTS
    swatsim.sweep(light, tmp_path / "undisturbed", executor=Here())
    assert points(tmp_path / "out") == points(tmp_path / "undisturbed")


def test_a_scheduler_that_is_not_there_is_refused(light: dict[str, Any], tmp_path: Path) -> None:
    sweep = command(light, tmp_path, "--dask", "tcp://127.0.0.1:1")
    done = subprocess.run(sweep, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no Dask scheduler at 'tcp://127.0.0.1:1'" in done.stderr
    assert "Traceback" not in done.stderr
