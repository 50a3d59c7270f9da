"""A kernel that one process compiles no other does: it waits, whatever becomes of the first one."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from numba.core.compiler_lock import global_compiler_lock

import swatsim
from swatsim.compiled import is_known
from swatsim.compiled.once import held

TRACE = Path(swatsim.__file__).parents[1] / "traces/resnet8-fashion-mnist-swat-u-80"

#: Simulates once it is told to, with nothing cached, and names what Numba compiles.
PROGRAM = """
import json, sys
from numba.core import event

class Names(event.Listener):
    def on_start(self, it):
        names.append(it.data["dispatcher"].py_func.__qualname__)
    def on_end(self, it):
        pass

names = []
event.register("numba:compile", Names())
import swatsim, swatsim.compiled
print("ready", flush=True)
sys.stdin.readline()
found = swatsim.simulate(sys.argv[1], "tensordash", steps=[0], ops=["wgrad"], store=False)
print(json.dumps([names, [row["cycles"] for row in found.rows]]))
"""
#: Holds a file's lock until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from swatsim.compiled.once import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def started(program: str, *arguments: object, **variables: str) -> subprocess.Popen[str]:
    """Start a process, and wait for its first line."""
    pipe = subprocess.PIPE
    words, own = map(str, arguments), {**os.environ, **variables}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdin=pipe, stdout=pipe, text=True, env=own
    )
    assert process.stdout is not None
    assert process.stdout.readline() in ("ready\n", "held\n")
    return process


def is_free(path: Path) -> bool:
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


@pytest.mark.skipif(not is_known(), reason="inner functions are kernels then, of several others")
def test_processes_that_start_together_compile_each_kernel_once(tmp_path: Path) -> None:
    both = [started(PROGRAM, TRACE, SWATSIM_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    for process in both:
        assert process.stdin is not None
        print(file=process.stdin, flush=True)
    (names, cycles), (others, same) = (json.loads(it.communicate()[0]) for it in both)
    assert Counter([*names, *others])["schedule"] == 1
    assert set(Counter([*names, *others]).values()) == {1}
    assert cycles == same
    assert {path.suffix for path in tmp_path.rglob("*.*")} == {".kernel"}


def test_a_process_that_is_killed_holds_nothing_any_more(tmp_path: Path) -> None:
    path = tmp_path / "one.kernel"
    with started(HOLDER, path) as process:
        assert not is_free(path)
        process.kill()
    with held(path):
        assert not is_free(path)
    assert is_free(path)


def test_what_can_not_be_compiled_is_held_no_more(tmp_path: Path) -> None:
    path = tmp_path / "one.kernel"
    with pytest.raises(ValueError, match="no type"), held(path):
        raise ValueError("no type")
    assert list(tmp_path.iterdir()) == []
    assert is_free(path)


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "none")])
def test_where_nothing_can_be_locked_each_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    compiled = []
    with held(tmp_path / "one.kernel"), held(tmp_path / "one.kernel"):
        compiled.append(1)
    assert compiled
    assert list(tmp_path.iterdir()) == []


def test_nor_does_anyone_wait_where_nothing_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited = list[float]()
    monkeypatch.setattr("time.sleep", waited.append)
    with held(Path("/proc/none/one.kernel")):
        assert not waited


def test_who_compiles_what_calls_it_waits_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, longest, acquire = tmp_path / "one.kernel", list[float](), FileLock.acquire

    def note(lock: FileLock, *arguments: Any, timeout: float, **named: Any) -> Any:
        longest.append(timeout)
        return acquire(lock, *arguments, timeout=0, **named)

    monkeypatch.setattr(FileLock, "acquire", note)

    def other() -> None:
        with held(path):
            pass

    with held(tmp_path / "outer.kernel"), global_compiler_lock, held(path):
        thread = threading.Thread(target=other)  # does not hold Numba's lock
        thread.start()
        thread.join()
    assert longest[1] == 0
    assert longest[0] == longest[2] > 0
